//! The program as a user meets it: on good input, on bad input, killed and resumed.

#[path = "../../common/tests/program/mod.rs"]
mod program;

use std::fs;
use std::path::Path;

use program::{kill_in_the_middle, refuses, result, succeeds};

const PROGRAM: &str = env!("CARGO_BIN_EXE_vgg-cifar10");

fn train<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["train", "--preset", "quick", "--width", "0.0625"];
    args.extend(["--out", out]);
    args.extend(more);
    args
}

/// One training from start to end, then a killed one that reaches the same file.
#[test]
fn made_up_images_are_learned_and_resumed_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let whole = at("whole");
    let text = succeeds(&train(&whole, &["--fake-data"]));
    let packed = result(&text, "packed_acc=");
    // A tenth is chance.
    assert!(packed > 50.0, "{text}");
    // With batch norm's statistics of the float network, not of the quantized one.
    assert!(result(&text, "float_acc=") > 80.0, "{text}");
    assert!(result(&text, "paper_bits=") <= 0.66, "{text}");
    let model = format!("{whole}/model.bpk");
    let text = succeeds(&["eval", "--fake-data", "--model", &model]);
    assert!(
        text.contains(&format!("accuracy {packed:.2} % (top-5 ")),
        "{text}"
    );
    let text = succeeds(&["inspect", "--model", &model]);
    for part in ["width: 0.0625", "convs.5.weight", "subchannelwise(16)"] {
        assert!(text.contains(part), "{part} in {text}");
    }

    let killed = at("killed");
    let args = train(&killed, &["--fake-data", "--checkpoint-seconds", "0"]);
    kill_in_the_middle(&args, &killed);
    succeeds(&train(&killed, &["--fake-data", "--resume"]));
    assert!(
        fs::read(format!("{killed}/model.bpk")).unwrap() == fs::read(&model).unwrap(),
        "killed and resumed"
    );
    refuses(&train(&whole, &["--fake-data"]), "exists already");
    refuses(
        &train(&whole, &["--fake-data", "--resume", "--seed", "2"]),
        "belongs to another run",
    );
}

#[test]
fn activations_of_two_bits_travel_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").to_str().unwrap().to_string();
    let text = succeeds(&train(&out, &["--fake-data", "--act-bits", "2"]));
    let packed = result(&text, "packed_acc=");
    let model = format!("{out}/model.bpk");
    let text = succeeds(&["eval", "--fake-data", "--model", &model]);
    assert!(text.contains(&format!("accuracy {packed:.2} %")), "{text}");
}

/// Files of CIFAR-10's format with `count` images each.
fn cifar(folder: &Path, count: usize) {
    fs::create_dir_all(folder).unwrap();
    let names = (1..=5).map(|number| format!("data_batch_{number}.bin"));
    for name in names.chain(["test_batch.bin".to_string()]) {
        let mut bytes = Vec::new();
        for image in 0..count {
            bytes.push((image % 10) as u8);
            bytes.extend((0..3072).map(|at| (at * (image % 10 + 1)) as u8));
        }
        fs::write(folder.join(name), bytes).unwrap();
    }
}

/// Files of Fashion-MNIST's format.
fn idx(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for (name, count) in [("train", 100u32), ("t10k", 20)] {
        let header = |fields: &[u32]| -> Vec<u8> {
            fields
                .iter()
                .flat_map(|field| field.to_be_bytes())
                .collect()
        };
        let mut images = header(&[2051, count, 28, 28]);
        images.extend((0..count * 784).map(|at| (at / 784 % 10 * 20) as u8));
        let mut labels = header(&[2049, count]);
        labels.extend((0..count).map(|image| (image % 10) as u8));
        fs::write(folder.join(format!("{name}-images-idx3-ubyte")), images).unwrap();
        fs::write(folder.join(format!("{name}-labels-idx1-ubyte")), labels).unwrap();
    }
}

#[test]
fn folders_are_read_and_bad_ones_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (good, mnist) = (at("good"), at("mnist"));
    cifar(Path::new(&good), 20);
    idx(Path::new(&mnist));
    let short = ["--epoch-batches", "1"];
    let data = ["--data-dir", &good];
    let text = succeeds(&train(&at("cifar"), &[&data[..], &short].concat()));
    assert!(text.contains("CIFAR-10 (90/10/20 images)"), "{text}");
    let data = ["--data-dir", &mnist, "--data-format", "mnist"];
    let text = succeeds(&train(&at("fashion"), &[&data[..], &short].concat()));
    assert!(text.contains("mnist (90/10/20 images)"), "{text}");

    let out = at("out");
    refuses(&train(&out, &[]), "--data-dir");
    refuses(&train(&out, &["--data-dir", "no/such"]), "no/such is not");
    refuses(&train(&out, &["--data-dir", &mnist]), "data_batch_1.bin");
    let data = ["--data-dir", good.as_str(), "--data-format", "mnist"];
    refuses(&train(&out, &data), "train-images-idx3-ubyte");
    refuses(
        &train(&out, &["--fake-data", "--act-bits", "0"]),
        "1 to 4 bits",
    );
    refuses(&train(&out, &["--fake-data", "--limit", "20"]), "too few");
    refuses(
        &train(&out, &["--fake-data", "--target-bits", "7"]),
        "not below the start",
    );
    let file = Path::new(&good).join("data_batch_3.bin");
    let bytes = fs::read(&file).unwrap();
    let data = ["--data-dir", good.as_str()];
    fs::write(&file, &bytes[..1000]).unwrap();
    refuses(&train(&out, &data), "data_batch_3.bin: 1000 bytes");
    let mut label = bytes.clone();
    label[3073] = 11;
    fs::write(&file, label).unwrap();
    refuses(&train(&out, &data), "label 1 is 11");
    fs::remove_file(&file).unwrap();
    refuses(&train(&out, &data), "data_batch_3.bin");
    assert!(!Path::new(&out).exists(), "nothing is left behind");
}
