//! The program as a user meets it: on good input, on bad input, resumed.

#[path = "../../common/tests/program/mod.rs"]
mod program;

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};

use program::{refuses, result, succeeds};

const PROGRAM: &str = env!("CARGO_BIN_EXE_resnet-imagenet");

fn train<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["train", "--preset", "quick", "--width", "0.0625"];
    args.extend(["--out", out]);
    args.extend(more);
    args
}

/// 30 training and 4 test images of each of two colours, as JPEG and as PNG.
fn image_folder(folder: &Path) {
    for (split, count) in [("train", 30), ("val", 4)] {
        for (class, colour) in [("blue", [20, 30, 200]), ("red", [200, 30, 20])] {
            let folder = folder.join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for number in 0..count {
                let shade = |x: u32, y: u32| ((x * 7 + y * 3 + number * 11) % 50) as u8;
                let image = RgbImage::from_fn(40 + number % 3, 36, |x, y| {
                    Rgb(colour.map(|value: u8| value + shade(x, y)))
                });
                let ending = if number % 2 == 0 { "JPEG" } else { "png" };
                image
                    .save(folder.join(format!("{number}.{ending}")))
                    .unwrap();
            }
        }
    }
}

#[test]
fn made_up_images_are_learned_packed_and_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let out = at("out");
    let text = succeeds(&train(&out, &["--fake-data", "--act-bits", "2"]));
    let packed = result(&text, "packed_acc=");
    // A tenth is chance.
    assert!(packed > 40.0, "{text}");
    assert!(text.contains("| packed top-5"), "{text}");
    let model = format!("{out}/model.bpk");
    let text = succeeds(&["eval", "--fake-data", "--model", &model]);
    assert!(
        text.contains(&format!("accuracy {packed:.2} % (top-5 ")),
        "{text}"
    );
    let text = succeeds(&["inspect", "--model", &model]);
    for part in [
        "depth: 18",
        "act_bits: 2",
        "layer4.1.conv2.weight",
        "pixelwise",
        "subchannelwise(2)",
        "channelwise",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    refuses(&train(&out, &["--fake-data"]), "exists already");
    refuses(
        &train(
            &out,
            &["--fake-data", "--act-bits", "2", "--resume", "--seed", "2"],
        ),
        "belongs to another run",
    );
}

#[test]
fn image_folders_train_from_pretrained_weights_and_corrupt_images_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let data = at("data");
    image_folder(Path::new(&data));
    let weights = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/resnet18.safetensors"
    );
    let start = ["--data-dir", &data, "--image-size", "32", "--classes", "10"];
    // Batches that are small enough for some dozens of steps.
    let more = ["--pretrained", weights, "--batch-size", "6"];
    let pretrained = [&start[..], &more].concat();

    let out = at("out");
    let text = succeeds(&train(&out, &pretrained));
    assert!(text.contains("float training: 0 epochs"), "{text}");
    assert!(result(&text, "packed_acc=") > 60.0, "{text}");

    // The same for a classes' folder that was emptied, and for a broken image.
    let broken = Path::new(&data).join("train/red/2.JPEG");
    let bytes = fs::read(&broken).unwrap();
    fs::write(&broken, &bytes[..40]).unwrap();
    refuses(&train(&at("broken"), &pretrained), "2.JPEG: corrupt image");
    let skip = [&pretrained[..], &["--skip-corrupt"]].concat();
    let text = succeeds(&train(&at("skip"), &skip));
    assert!(
        text.contains("skipped 1 corrupt images") && text.contains("2.JPEG"),
        "{text}"
    );

    let model = format!("{out}/model.bpk");
    let size = ["--image-size", "32"];
    let eval = [&["eval", "--model", &model, "--data-dir", &data], &size[..]].concat();
    assert!(succeeds(&eval).contains("on 8 test images"));
    fs::create_dir(Path::new(&data).join("train/green")).unwrap();
    refuses(
        &train(&at("empty"), &start),
        "green: a class without images",
    );
    let few = ["--data-dir", &data, "--image-size", "32", "--classes", "2"];
    refuses(
        &train(&at("few"), &few),
        "3 classes, but the network has 2 outputs",
    );
    for name in ["empty", "few"] {
        assert!(!Path::new(&at(name)).exists(), "{name} is left behind");
    }
}

#[test]
fn bad_flags_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").to_str().unwrap().to_string();
    let refuses = |more: &[&str], expected: &str| refuses(&train(&out, more), expected);
    refuses(&[], "--data-dir");
    refuses(&["--data-dir", "no/such"], "no/such/train");
    refuses(&["--fake-data", "--act-bits", "0"], "1 to 4 bits");
    refuses(&["--fake-data", "--width", "0.0"], "--width");
    refuses(&["--fake-data", "--depth", "50"], "--depth");
    refuses(&["--fake-data", "--depth", "20"], "18 and 34");
    refuses(&["--fake-data", "--classes", "5"], "has 10 classes");
    refuses(
        &["--fake-data", "--target-bits", "7"],
        "not below the start",
    );
    refuses(&["--fake-data", "--limit", "20"], "too few");
    refuses(&["--fake-data", "--device", "toaster"], "toaster");
    refuses(&["--fake-data", "--pretrained", "no.pth"], "no.pth");
    assert!(!Path::new(&out).exists(), "nothing is left behind");
}
