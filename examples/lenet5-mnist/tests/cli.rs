//! The program as a user meets it: on good input, on bad input, stopped and resumed.

mod page;
#[path = "../../common/tests/program/mod.rs"]
mod program;
mod squares;

use std::fs;
use std::path::Path;

use program::{kill_in_the_middle, program, refuses, result, run, succeeds};
use squares::{data_folder, gzip, idx, images, train};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lenet5-mnist");

/// Activations of two bits: trained, packed with their levels, evaluated bitwise from the file.
#[test]
fn activations_of_two_bits_travel_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    data_folder(&data);
    let data = data.to_str().unwrap();
    let out = folder.path().join("out").to_str().unwrap().to_string();
    let output = run(&train(data, &out, &["--act-bits", "2"]));
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let result = text.lines().last().unwrap();
    let accuracy = |key: &str| -> f64 {
        let fields = result.split(' ').find_map(|field| field.strip_prefix(key));
        fields.unwrap().parse().unwrap()
    };
    // Ten kinds of squares are easily told apart; a tenth is chance.
    let packed = accuracy("packed_acc=");
    assert!(packed > 50.0, "{result}");

    let model = format!("{out}/model.bpk");
    let output = run(&["eval", "--data-dir", data, "--model", &model]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("accuracy {packed:.2} %")), "{text}");
    let shards = ["--act-bits", "2", "--shards", "2"];
    let other = folder.path().join("other").to_str().unwrap().to_string();
    refuses(
        &train(data, &other, &shards),
        "--shards: multi-bit activations need one shard",
    );
}

/// One training from start to end, then killed and interrupted ones that reach the same file.
#[test]
fn a_run_trains_packs_reports_and_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    // A name that a page must escape.
    let data = folder.path().join("<squares> & \"noise\"");
    fs::create_dir(&data).unwrap();
    data_folder(&data);
    let data = data.to_str().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();

    let (whole, json) = (at("whole"), at("copy.json"));
    let output = run(&train(data, &whole, &["--json", &json]));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let result = text.lines().last().unwrap();
    assert!(result.starts_with("result: paper_bits=0."), "{result}");
    for field in [
        "effective_bits=",
        "file_bytes=",
        "float_acc=",
        "packed_acc=",
        "seconds=",
    ] {
        assert!(result.contains(field), "{field} in {result}");
    }
    assert!(
        text.contains("| predictions changed by packing |"),
        "{text}"
    );
    let model = format!("{whole}/model.bpk");
    let expected = fs::read(&model).unwrap();
    assert_eq!(
        fs::read(format!("{whole}/report.json")).unwrap(),
        fs::read(&json).unwrap()
    );
    assert!(
        fs::read_to_string(format!("{whole}/report.md"))
            .unwrap()
            .contains("conv1.weight")
    );
    page::check(&whole);
    a_page_is_made_again(&whole);

    let eval = run(&["eval", "--model", &model, "--data-dir", data]);
    assert!(String::from_utf8_lossy(&eval.stdout).contains("on 60 test images"));
    let inspect = run(&["inspect", "--model", &model]);
    let text = String::from_utf8_lossy(&inspect.stdout);
    assert!(
        text.contains("fc1.weight") && text.contains("subchannelwise(2)"),
        "{text}"
    );
    let inspect = run(&["inspect", "--model", &model, "--json"]);
    assert!(serde_json::from_slice::<serde_json::Value>(&inspect.stdout).is_ok());

    let killed = at("killed");
    let arguments = train(data, &killed, &["--checkpoint-seconds", "0"]);
    kill_in_the_middle(&arguments, &killed);
    let resumed = run(&train(
        data,
        &killed,
        &["--checkpoint-seconds", "0", "--resume"],
    ));
    assert!(
        resumed.status.success(),
        "{}",
        String::from_utf8_lossy(&resumed.stderr)
    );
    assert!(
        fs::read(format!("{killed}/model.bpk")).unwrap() == expected,
        "killed and resumed"
    );
    page::check(&killed);
    let [once, twice] = [&whole, &killed].map(|folder| page::json(folder)["history"].take());
    assert_eq!(once, twice, "the curves of a killed and resumed run");
    let [once, twice] = [&whole, &killed].map(|folder| page::html(folder));
    assert!(
        page::curves(&once) == page::curves(&twice),
        "their pictures"
    );

    refuses(&train(data, &whole, &[]), "exists already");
    refuses(
        &train(data, &whole, &["--resume", "--seed", "2"]),
        "belongs to another run",
    );
    refuses(
        &[
            "eval",
            "--model",
            &format!("{killed}/checkpoint.bpk"),
            "--data-dir",
            data,
        ],
        "not a packed model",
    );
}

/// `report` draws the same page from the JSON alone; it refuses what it cannot read.
fn a_page_is_made_again(folder: &str) {
    let (page, report) = (page::html(folder), page::json(folder));
    fs::remove_file(format!("{folder}/report.html")).unwrap();
    assert!(run(&["report", "--run", folder]).status.success());
    assert!(page::html(folder) == page, "made again");

    let pngs = format!("{folder}/png");
    let arguments = ["report", "--run", folder, "--png", &pngs];
    if cfg!(feature = "png") {
        assert!(run(&arguments).status.success());
        for figure in ["loss", "map-conv2", "bytes"] {
            let png = fs::read(format!("{pngs}/{figure}.png")).unwrap();
            assert!(png.starts_with(b"\x89PNG"), "{figure}");
        }
    } else {
        refuses(&arguments, "--features png");
    }

    let other = format!("{folder}/other");
    fs::create_dir(&other).unwrap();
    let arguments = ["report", "--run", &other];
    refuses(&arguments, "report.json");
    let mut newer = report.clone();
    newer["version"] = 2.into();
    let mut older = report;
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
        refuses(&arguments, expected);
    }
    assert!(
        !Path::new(&other).join("report.html").exists(),
        "nothing is drawn"
    );
}

/// Every lever at once: what a run must remember of them, it remembers.
#[test]
fn levers_resume_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    data_folder(&data);
    let data = data.to_str().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let mut levers = vec!["--distill", "0.5", "--distill-temperature", "2"];
    levers.extend(["--prune-epochs", "2", "--recovery-steps", "1"]);
    levers.extend(["--recovery", "basis", "--prune-pace", "loss"]);
    levers.extend(["--coordinates", "f16", "--deflate"]);

    let [plain, whole, killed] = ["plain", "whole", "killed"].map(at);
    succeeds(&train(data, &plain, &[]));
    let text = succeeds(&train(data, &whole, &levers));
    // Ten kinds of squares are easily told apart; a tenth is chance.
    assert!(result(&text, "packed_acc=") > 50.0, "{text}");
    let model = |out: &str| fs::read(format!("{out}/model.bpk")).unwrap();
    assert!(model(&whole) != model(&plain), "the levers do something");

    let mut killed_args = levers.clone();
    killed_args.extend(["--checkpoint-seconds", "0"]);
    kill_in_the_middle(&train(data, &killed, &killed_args), &killed);
    killed_args.push("--resume");
    succeeds(&train(data, &killed, &killed_args));
    assert!(model(&killed) == model(&whole), "killed and resumed");

    let others = ["--resume", "--distill", "0.4"];
    refuses(&train(data, &whole, &others), "belongs to another run");
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
        refuses(&train(data, &at("refused"), flags), expected);
    }
    assert!(
        !Path::new(&at("refused")).exists(),
        "nothing is left behind"
    );
}

#[test]
fn bad_data_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let out = out.to_str().unwrap();
    let (pixels, labels) = images(60);
    let good_images = idx(2051, &[60, 28, 28], &pixels);
    let good_labels = idx(2049, &[60], &labels);
    let mut zip = gzip(&good_images);
    zip[40] ^= 0xff;
    let mut bad_label = good_labels.clone();
    bad_label[20] = 10;
    // (what replaces the training images, what replaces the labels, what is said)
    let cases: [(Vec<u8>, Vec<u8>, &str); 11] = [
        (
            good_images[..1000].to_vec(),
            good_labels.clone(),
            "promises 47040 bytes",
        ),
        (
            good_images[..7].to_vec(),
            good_labels.clone(),
            "too few for the header",
        ),
        (Vec::new(), good_labels.clone(), "too few for the header"),
        (
            gzip(&good_images)[..500].to_vec(),
            good_labels.clone(),
            "damaged gzip",
        ),
        (zip, good_labels.clone(), "damaged gzip"),
        (
            good_labels.clone(),
            good_labels.clone(),
            "expected IDX images (magic number 2051), found IDX labels",
        ),
        (
            idx(2051, &[60, 32, 32], &[0; 60 * 32 * 32]),
            good_labels.clone(),
            "32x32",
        ),
        (
            idx(2051, &[u32::MAX; 3], &[0; 50]),
            good_labels.clone(),
            "promises 18446744073709551615",
        ),
        (
            good_images.clone(),
            idx(2049, &[59], &labels[..59]),
            "60 images, but 59 labels",
        ),
        (good_images.clone(), bad_label, "label 12 is 10"),
        (
            [good_images.clone(), vec![0]].concat(),
            good_labels.clone(),
            "more than 47040",
        ),
    ];
    for (index, (images, labels, expected)) in cases.into_iter().enumerate() {
        let data = folder.path().join(format!("data{index}"));
        fs::create_dir(&data).unwrap();
        data_folder(&data);
        for name in ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"] {
            fs::remove_file(data.join(name)).unwrap();
        }
        fs::write(data.join("train-images-idx3-ubyte"), images).unwrap();
        fs::write(data.join("train-labels-idx1-ubyte"), labels).unwrap();
        refuses(&train(data.to_str().unwrap(), out, &[]), expected);
    }
    let empty = folder.path().to_str().unwrap();
    refuses(&train(empty, out, &[]), "train-images-idx3-ubyte");
    refuses(
        &train("no/such/folder", out, &[]),
        "no/such/folder is not a folder",
    );
    assert!(!Path::new(out).exists(), "nothing is left behind");
}

#[test]
fn bad_flags_and_models_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    data_folder(&data);
    let data = data.to_str().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();

    refuses(
        &train(data, &at("high"), &["--target-bits", "7"]),
        "not below the start",
    );
    refuses(
        &train(data, &at("zero"), &["--target-bits", "0"]),
        "cannot be reached",
    );
    refuses(
        &train(data, &at("nan"), &["--target-bits", "nan"]),
        "target_bits",
    );
    refuses(
        &train(data, &at("tiny"), &["--target-bytes", "3"]),
        "cannot be reached",
    );
    refuses(&train(data, &at("none"), &["--resume"]), "no run to resume");
    refuses(&train(data, "/dev/null/out", &[]), "/dev/null/out");
    refuses(
        &["train", "--out", &at("download"), "--download"],
        "--features download",
    );
    refuses(
        &["eval", "--model", &at("no.bpk"), "--data-dir", data],
        "no.bpk",
    );
    fs::write(at("bad.bpk"), b"something else").unwrap();
    refuses(&["inspect", "--model", &at("bad.bpk")], "bad.bpk");
    for name in ["high", "zero", "nan", "tiny", "none", "download"] {
        assert!(!Path::new(&at(name)).exists(), "{name} is left behind");
    }
}

#[test]
fn devices_that_are_not_there_are_refused_by_name() {
    let eval = |device| ["eval", "--model", "no.bpk", "--device", device];
    let expected = "--device tpu: no such device; there are: flex";
    refuses(&eval("tpu"), expected);
    #[cfg(not(feature = "cuda"))]
    refuses(&eval("cuda"), "build it with --features cuda");
    refuses(&eval("flex"), "no.bpk");
    assert!(succeeds(&["eval", "--help"]).contains("of: flex"));

    let said = |variables: &[(&str, &str)], args: &[&str]| {
        let output = program(args)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert!(!output.status.success());
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!error.contains("panicked"), "{error}");
        error
    };
    let error = said(&[("BURN_DEVICE", "tpu")], &["eval", "--model", "no.bpk"]);
    assert!(error.contains("BURN_DEVICE tpu: no such device"), "{error}");
    // A machine without drivers of Vulkan and OpenGL.
    if cfg!(feature = "wgpu") {
        let variables =
            ["VK_ICD_FILENAMES", "__EGL_VENDOR_LIBRARY_FILENAMES"].map(|name| (name, "/dev/null"));
        let error = said(&variables, &eval("wgpu"));
        assert!(error.contains("mesa-vulkan-drivers"), "{error}");
    }
}
