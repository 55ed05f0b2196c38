//! The program as a user meets it: on good input, on bad input, resumed.

use std::fs;

use example_testing::{Program, holds, result};
use image::{Rgb, RgbImage};

fn resnet() -> Program {
    let resnet = Program::new(env!("CARGO_BIN_EXE_resnet-imagenet"));
    resnet.with(&["--preset", "quick", "--width", "0.0625"])
}

/// Makes a folder with 30 training and 4 test images of each of two colours, as JPEG and as PNG.
fn image_folder(folder: &str) {
    for (split, count) in [("train", 30), ("val", 4)] {
        for (class, colour) in [("blue", [20, 30, 200]), ("red", [200, 30, 20])] {
            let folder = format!("{folder}/{split}/{class}");
            fs::create_dir_all(&folder).unwrap();
            for number in 0..count {
                let shade = |x: u32, y: u32| ((x * 7 + y * 3 + number * 11) % 50) as u8;
                let image = RgbImage::from_fn(40 + number % 3, 36, |x, y| {
                    Rgb(colour.map(|value: u8| value + shade(x, y)))
                });
                let ending = if number % 2 == 0 { "JPEG" } else { "png" };
                image.save(format!("{folder}/{number}.{ending}")).unwrap();
            }
        }
    }
}

#[test]
fn made_up_images_are_learned_packed_and_evaluated() {
    let parts = [
        "depth: 18",
        "act_bits: 2",
        "layer4.1.conv2.weight",
        "pixelwise",
        "subchannelwise(2)",
        "channelwise",
    ];
    let text = resnet().learns(&["--act-bits", "2"], 40.0, &parts);
    holds(&text, "| packed top-5");
}

#[test]
fn image_folders_train_from_pretrained_weights_and_corrupt_images_are_named() {
    let resnet = resnet();
    let data = resnet.at("data");
    image_folder(&data);
    let weights = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/resnet18.safetensors"
    );
    let start = ["--data-dir", &data, "--image-size", "32", "--classes", "10"];
    // Batches that are small enough for some dozens of steps.
    let more = ["--pretrained", weights, "--batch-size", "6"];
    let pretrained = [&start[..], &more].concat();

    let text = resnet.trains("out", &pretrained);
    holds(&text, "float training: 0 epochs");
    assert!(result(&text, "packed_acc=") > 60.0, "{text}");

    // The same for a classes' folder that was emptied, and for a broken image.
    let broken = resnet.at("data/train/red/2.JPEG");
    let jpeg = fs::read(&broken).unwrap();
    fs::write(&broken, &jpeg[..40]).unwrap();
    resnet.refuses_to_train("broken", &pretrained, "2.JPEG: corrupt image");
    let text = resnet.trains("skip", &[&pretrained[..], &["--skip-corrupt"]].concat());
    holds(&text, "skipped 1 corrupt images");
    holds(&text, "2.JPEG");

    let model = resnet.at("out/model.bpk");
    let eval = [&["eval", "--model", &model], &start[..4]].concat();
    holds(&resnet.succeeds(&eval), "on 8 test images");
    fs::create_dir(resnet.at("data/train/green")).unwrap();
    resnet.refuses_to_train("empty", &start, "green: a class without images");
    let few = [&start[..4], &["--classes", "2"]].concat();
    let expected = "3 classes, but the network has 2 outputs";
    resnet.refuses_to_train("few", &few, expected);
    for name in ["empty", "few"] {
        assert!(!resnet.exists(name), "{name} is left behind");
    }

    // Other weights are another start; the same in another place are not.
    let moved = resnet.at("moved.safetensors");
    let mut bytes = fs::read(weights).unwrap();
    fs::write(&moved, &bytes).unwrap();
    fs::remove_dir(resnet.at("data/train/green")).unwrap();
    fs::write(&broken, jpeg).unwrap();
    let mut resumed = [&pretrained[..], &["--resume"]].concat();
    resumed[7] = &moved;
    resnet.trains("out", &resumed);
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&moved, bytes).unwrap();
    resnet.refuses_to_train("out", &resumed, "--pretrained: a file with checksum");

    // To evaluate, the test images are enough.
    fs::remove_dir_all(resnet.at("data/train")).unwrap();
    holds(&resnet.succeeds(&eval), "on 8 test images");
    // With all classes there, and no other ones: their places are the labels.
    fs::remove_dir_all(resnet.at("data/val/blue")).unwrap();
    resnet.refuses(&eval, "val: the model was trained on other classes");
}

#[test]
fn flags_stand_under_their_headings() {
    let found = resnet().headings(&["train", "--help"]);
    let flags = |heading: &str| {
        let found = found.iter().find(|(name, _)| name == heading);
        found.map(|(_, flags)| flags.join(" ")).unwrap_or_default()
    };
    let data = "--data-dir --fake-data --limit --image-size --skip-corrupt";
    assert_eq!(flags("Data"), data);
    assert_eq!(flags("Network"), "--depth --width --classes --act-bits");
    let training = "--preset --pretrained --seed --float --batch-size --epoch-batches";
    assert_eq!(flags("Training"), training);
}

#[test]
fn bad_flags_are_refused_by_name() {
    let resnet = resnet();
    let program = Program::new(env!("CARGO_BIN_EXE_resnet-imagenet"));
    for (flags, expected) in [
        (&[][..], "--data-dir"),
        (&["--data-dir", "no/such"], "no/such/train"),
        (&["--fake-data", "--act-bits", "0"], "1 to 4 bits"),
        (&["--fake-data", "--depth", "50"], "--depth"),
        (&["--fake-data", "--depth", "20"], "18 and 34"),
        (&["--fake-data", "--classes", "5"], "has 10 classes"),
        (
            &["--fake-data", "--target-bits", "7"],
            "not below the start",
        ),
        (&["--fake-data", "--limit", "20"], "too few"),
        (&["--fake-data", "--device", "toaster"], "toaster"),
        (&["--fake-data", "--pretrained", "no.pth"], "no.pth"),
    ] {
        resnet.refuses_to_train("out", flags, expected);
    }
    program.refuses_to_train("out", &["--fake-data", "--width", "0.0"], "--width");
    for program in [resnet, program] {
        assert!(!program.exists("out"), "nothing is left behind");
    }
}
