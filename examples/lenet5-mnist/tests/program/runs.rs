//! Good input, bad input, runs that are stopped and resumed.

use std::fs;

use example_testing::mnist::{folder, gzip, idx, images};
use example_testing::{Program, holds, result};

use super::{lenet, lenet_on, page};

/// Activations of two bits: trained, packed with their levels, evaluated bitwise from the file.
#[test]
fn activations_of_two_bits_travel_in_the_file() {
    let lenet = lenet();
    let text = lenet.trains("out", &["--act-bits", "2"]);
    // Ten kinds of squares are easily told apart; a tenth is chance.
    let packed = result(&text, "packed_acc=");
    assert!(packed > 50.0, "{text}");

    let [model, data] = ["out/model.bpk", "data"].map(|name| lenet.at(name));
    let text = lenet.succeeds(&["eval", "--data-dir", &data, "--model", &model]);
    holds(&text, &format!("accuracy {packed:.2} %"));
    lenet.refuses_to_train(
        "other",
        &["--act-bits", "2", "--shards", "2"],
        "--shards: multi-bit activations need one shard",
    );
}

/// One training from start to end, then killed and interrupted ones that reach the same file.
#[test]
fn a_run_trains_packs_reports_and_resumes_to_the_same_bytes() {
    // A name that a page must escape.
    let name = "<squares> & \"noise\"";
    let lenet = lenet_on(name);
    let json = lenet.at("copy.json");
    let text = lenet.trains("whole", &["--json", &json]);
    let result = text.lines().last().unwrap();
    assert!(result.starts_with("result: paper_bits=0."), "{result}");
    for field in [
        "effective_bits=",
        "file_bytes=",
        "float_acc=",
        "packed_acc=",
        "seconds=",
    ] {
        holds(result, field);
    }
    holds(&text, "| predictions changed by packing |");
    assert_eq!(lenet.read("whole/report.json"), lenet.read("copy.json"));
    holds(&lenet.text("whole/report.md"), "conv1.weight");
    page::check(&lenet, "whole");
    a_page_is_made_again(&lenet);

    let [model, data] = ["whole/model.bpk", name].map(|name| lenet.at(name));
    let text = lenet.succeeds(&["eval", "--model", &model, "--data-dir", &data]);
    holds(&text, "on 60 test images");
    let inspect = ["inspect", "--model", &model, "--json"];
    let text = lenet.succeeds(&inspect[..3]);
    holds(&text, "fc1.weight");
    holds(&text, "subchannelwise(2)");
    let text = lenet.succeeds(&inspect);
    assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());

    lenet.resumes_to_the_same_bytes(&[]);
    page::check(&lenet, "killed");
    let [once, twice] = ["whole", "killed"].map(|out| page::report(&lenet, out)["history"].take());
    assert_eq!(once, twice, "the curves of a killed and resumed run");
    let [once, twice] = ["whole", "killed"].map(|out| lenet.text(&format!("{out}/report.html")));
    assert!(
        page::curves(&once) == page::curves(&twice),
        "their pictures"
    );

    lenet.refuses_to_train("whole", &[], "exists already");
    let checkpoint = lenet.at("killed/checkpoint.bpk");
    lenet.refuses(
        &["eval", "--model", &checkpoint, "--data-dir", &data],
        "not a packed model",
    );
}

/// `report` draws the same page from the JSON alone; it refuses what it cannot read.
fn a_page_is_made_again(lenet: &Program) {
    let (whole, other) = (lenet.at("whole"), lenet.at("whole/other"));
    let page = lenet.text("whole/report.html");
    fs::remove_file(format!("{whole}/report.html")).unwrap();
    lenet.succeeds(&["report", "--run", &whole]);
    assert!(lenet.text("whole/report.html") == page, "made again");

    let arguments = ["report", "--run", &whole, "--png", &lenet.at("png")];
    if cfg!(feature = "png") {
        lenet.succeeds(&arguments);
        for figure in ["loss", "map-conv2", "bytes"] {
            let png = lenet.read(&format!("png/{figure}.png"));
            assert!(png.starts_with(b"\x89PNG"), "{figure}");
        }
    } else {
        lenet.refuses(&arguments, "--features png");
    }

    fs::create_dir(&other).unwrap();
    let arguments = ["report", "--run", &other];
    lenet.refuses(&arguments, "report.json");
    let mut older = page::report(lenet, "whole");
    let mut newer = older.clone();
    newer["version"] = 2.into();
    older.as_object_mut().unwrap().remove("version");
    for (json, expected) in [
        (
            newer.to_string(),
            "another version: this program reads version 1, found 2",
        ),
        (
            older.to_string(),
            "another version: this program reads version 1, found none",
        ),
        (page, "not a report"),
    ] {
        fs::write(format!("{other}/report.json"), json).unwrap();
        lenet.refuses(&arguments, expected);
    }
    assert!(!lenet.exists("whole/other/report.html"), "nothing is drawn");
}

/// Every lever at once: what a run must remember of them, it remembers.
#[test]
fn levers_resume_to_the_same_bytes() {
    let lenet = lenet();
    let mut levers = vec!["--distill", "0.5", "--distill-temperature", "2"];
    levers.extend(["--prune-epochs", "2", "--recovery-steps", "1"]);
    levers.extend(["--recovery", "basis", "--prune-pace", "loss"]);
    levers.extend(["--coordinates", "f16", "--deflate"]);

    lenet.trains("plain", &[]);
    let text = lenet.trains("whole", &levers);
    // Ten kinds of squares are easily told apart; a tenth is chance.
    assert!(result(&text, "packed_acc=") > 50.0, "{text}");
    let model = |out: &str| lenet.read(&format!("{out}/model.bpk"));
    assert!(model("whole") != model("plain"), "the levers do something");

    lenet.resumes_to_the_same_bytes(&levers);

    let others = ["--resume", "--distill", "0.4"];
    lenet.refuses_to_train("whole", &others, "belongs to another run");
    for (flags, expected) in [
        (
            &["--distill", "1.5"][..],
            "weight of a distillation must not be 1.5",
        ),
        (&["--distill-temperature", "2"], "--distill <WEIGHT>"),
        (&["--recovery", "basis"], "--recovery-steps <N>"),
        (
            &["--recovery-steps", "1", "--recovery", "no"],
            "coordinate, basis",
        ),
        (&["--prune-pace", "slow"], "constant, cubic, loss"),
        (&["--coordinates", "f8"], "f32, f16, bf16"),
    ] {
        lenet.refuses_to_train("refused", flags, expected);
    }
    assert!(!lenet.exists("refused"), "nothing is left behind");
}

#[test]
fn bad_data_is_refused_by_name() {
    let lenet = lenet();
    let (pixels, labels) = images(60);
    let good_images = idx(2051, &[60, 28, 28], &pixels);
    let good_labels = idx(2049, &[60], &labels);
    let mut zip = gzip(&good_images);
    zip[40] ^= 0xff;
    let mut bad_label = good_labels.clone();
    bad_label[20] = 10;
    // What replaces the training images, and what is said.
    let bad_images: [(Vec<u8>, &str); 9] = [
        (good_images[..1000].to_vec(), "promises 47040 bytes"),
        (good_images[..7].to_vec(), "too few for the header"),
        (Vec::new(), "too few for the header"),
        (gzip(&good_images)[..500].to_vec(), "damaged gzip"),
        (zip, "damaged gzip"),
        (
            good_labels.clone(),
            "expected IDX images (magic number 2051), found IDX labels",
        ),
        (idx(2051, &[60, 32, 32], &[0; 60 * 32 * 32]), "32x32"),
        (
            idx(2051, &[u32::MAX; 3], &[0; 50]),
            "promises 18446744073709551615",
        ),
        ([good_images.clone(), vec![0]].concat(), "more than 47040"),
    ];
    // What replaces the labels.
    let bad_labels = [
        (idx(2049, &[59], &labels[..59]), "60 images, but 59 labels"),
        (bad_label, "label 12 is 10"),
    ];
    let bad_images = bad_images.map(|(images, said)| ([images, good_labels.clone()], said));
    let bad_labels = bad_labels.map(|(labels, said)| ([good_images.clone(), labels], said));
    let out = lenet.at("out");
    let refuses = |data: &str, expected: &str| {
        lenet.refuses(&["train", "--data-dir", data, "--out", &out], expected);
    };
    for (index, (files, expected)) in bad_images.into_iter().chain(bad_labels).enumerate() {
        let data = lenet.at(&format!("data{index}"));
        folder(&data);
        for (name, bytes) in ["images-idx3", "labels-idx1"].into_iter().zip(files) {
            let file = format!("{data}/train-{name}-ubyte");
            fs::remove_file(format!("{file}.gz")).unwrap();
            fs::write(file, bytes).unwrap();
        }
        refuses(&data, expected);
    }
    refuses(&lenet.at(""), "train-images-idx3-ubyte");
    refuses("no/such/folder", "no/such/folder is not a folder");
    assert!(!lenet.exists("out"), "nothing is left behind");
}

#[test]
fn bad_flags_and_models_are_refused_by_name() {
    let lenet = lenet();
    for (out, flags, expected) in [
        ("high", &["--target-bits", "7"][..], "not below the start"),
        ("zero", &["--target-bits", "0"], "not a number above 0"),
        ("few", &["--target-bits", "0.00001"], "cannot be reached"),
        ("tiny", &["--target-bytes", "3"], "cannot be reached"),
        ("none", &["--resume"], "no run to resume"),
    ] {
        lenet.refuses_to_train(out, flags, expected);
        assert!(!lenet.exists(out), "{out} is left behind");
    }
    lenet.refuses_to_train("/dev/null/out", &[], "/dev/null/out");
    let [download, data] = ["download", "data"].map(|name| lenet.at(name));
    lenet.refuses(
        &["train", "--out", &download, "--download"],
        "--features download",
    );
    assert!(!lenet.exists("download"), "it is left behind");
    let [absent, bad] = ["no.bpk", "bad.bpk"].map(|name| lenet.at(name));
    lenet.refuses(&["eval", "--model", &absent, "--data-dir", &data], "no.bpk");
    fs::write(&bad, b"something else").unwrap();
    lenet.refuses(&["inspect", "--model", &bad], "bad.bpk");
}

#[test]
fn devices_that_are_not_there_are_refused_by_name() {
    let lenet = lenet();
    let eval = |device| ["eval", "--model", "no.bpk", "--device", device];
    let expected = "--device tpu: no such device; there are: flex";
    lenet.refuses(&eval("tpu"), expected);
    #[cfg(not(feature = "cuda"))]
    lenet.refuses(&eval("cuda"), "build it with --features cuda");
    lenet.refuses(&eval("flex"), "no.bpk");
    holds(&lenet.succeeds(&["eval", "--help"]), "of: flex");

    let said = |variables: &[(&str, &str)], args: &[&str]| {
        let mut command = lenet.command(args);
        let output = command.envs(variables.iter().copied()).output().unwrap();
        assert!(!output.status.success());
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!error.contains("panicked"), "{error}");
        error
    };
    let error = said(&[("BURN_DEVICE", "tpu")], &["eval", "--model", "no.bpk"]);
    holds(&error, "BURN_DEVICE tpu: no such device");
    // A machine without drivers of Vulkan and OpenGL.
    if cfg!(feature = "wgpu") {
        let variables =
            ["VK_ICD_FILENAMES", "__EGL_VENDOR_LIBRARY_FILENAMES"].map(|name| (name, "/dev/null"));
        let error = said(&variables, &eval("wgpu"));
        holds(&error, "mesa-vulkan-drivers");
    }
}
