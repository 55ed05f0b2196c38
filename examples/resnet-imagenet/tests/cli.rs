//! The program as a user meets it: on good input, on bad input, resumed.

use std::fs;

use example_testing::{Program, TRAINING, holds, result};
use image::{Rgb, RgbImage};

const WEIGHTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/resnet18.safetensors"
);

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
    let weights = WEIGHTS;
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

/// Makes images without labels, some in a folder below.
fn unlabelled(resnet: &Program) -> String {
    let folder = resnet.at("images");
    fs::create_dir_all(format!("{folder}/more/below")).unwrap();
    for number in 0..32u32 {
        let image = RgbImage::from_fn(40 + number % 3, 36, |x, y| {
            Rgb([x * 5 + number * 40, y * 7 + number * 20, (x ^ y) * number].map(|v| v as u8))
        });
        let name = match number {
            0..20 => format!("{number}.JPG"),
            20..25 => format!("more/{number}.png"),
            _ => format!("more/below/{number}.jpeg"),
        };
        image.save(format!("{folder}/{name}")).unwrap();
    }
    fs::write(format!("{folder}/labels.csv"), "none").unwrap();
    folder
}

/// The arguments of a conversion of the fixture's weights into `model.bpk`.
fn quantize(resnet: &Program, images: &str, more: &[&str]) -> Vec<String> {
    let out = resnet.at("model.bpk");
    let network = ["--width", "0.0625", "--classes", "10", "--image-size", "32"];
    let args = [
        &[
            "quantize", "--from", WEIGHTS, "--images", images, "--out", &out,
        ],
        &network[..],
        more,
    ];
    args.concat().into_iter().map(String::from).collect()
}

#[test]
fn pretrained_weights_are_converted_with_images_without_labels() {
    let resnet = Program::new(env!("CARGO_BIN_EXE_resnet-imagenet"));
    let images = unlabelled(&resnet);
    let quantized = |more: &[&str]| resnet.succeeds(&quantize(&resnet, &images, more));

    let text = quantized(&["--bits", "8", "--data-free"]);
    holds(
        &text,
        "data: images, 24 images to calibrate with, 8 to compare on",
    );
    holds(&text, "layer4.1.conv2.weight");
    // Random weights of eight bits: scores differ by less than a hundredth of their deviation.
    assert!(result(&text, "kl=") < 1e-4, "{text}");
    assert_eq!(result(&text, "agreement="), 100.0, "{text}");
    let bytes = fs::metadata(resnet.at("model.bpk")).unwrap().len() as f64;
    assert_eq!(result(&text, "file_bytes="), bytes);

    let blind = quantized(&["--bits", "2", "--data-free"]);
    let seeing = quantized(&["--bits", "2"]);
    let [blind, found] = [&blind, &seeing].map(|text| result(text, "kl="));
    assert!(found < blind, "{found} with images, {blind} without");
    assert_eq!(result(&seeing, "paper_bits="), 2.0, "{seeing}");

    let checkpoints = resnet.at("checkpoints");
    let small = [
        "--coordinates",
        "f16",
        "--biases",
        "f16",
        "--deflate",
        "--group-size",
        "16",
    ];
    let more = [
        "--bits",
        "4",
        "--budget",
        "3.5",
        "--epochs",
        "1",
        "--samples",
        "20",
    ];
    let more = [
        &small[..],
        &more,
        &["--arithmetic", "int8", "--checkpoints", &checkpoints],
    ]
    .concat();
    let text = quantized(&more);
    holds(&text, "20 images to calibrate with, 12 to compare on");
    holds(&text, "epoch 1: error ");
    assert!(result(&text, "effective_bits=") <= 3.5, "{text}");
    assert!(result(&text, "file_bytes=") < bytes / 2.0, "{text}");
    assert!(!resnet.exists("checkpoints"), "the model is safe");

    // The file says what it is of, and runs like any other.
    let model = resnet.at("model.bpk");
    let inspected = resnet.succeeds(&["inspect", "--model", &model]);
    for part in [
        "width: 0.0625",
        "classes: 10",
        "data: images",
        "groupwise(16)",
    ] {
        holds(&inspected, part);
    }
    let data = resnet.at("data");
    image_folder(&data);
    let eval = [
        "eval",
        "--model",
        &model,
        "--data-dir",
        &data,
        "--image-size",
        "32",
    ];
    holds(&resnet.succeeds(&eval), "on 8 test images");
}

#[test]
fn bad_images_and_weights_are_refused_by_name_before_anything_is_written() {
    let resnet = Program::new(env!("CARGO_BIN_EXE_resnet-imagenet"));
    let images = unlabelled(&resnet);
    fs::write(resnet.at("model.bpk"), "kept").unwrap();
    let refuses = |images: &str, more: &[&str], expected: &str| {
        resnet.refuses(&quantize(&resnet, images, more), expected);
    };
    let empty = resnet.at("empty");
    fs::create_dir_all(format!("{empty}/folder.png")).unwrap();
    refuses(&empty, &[], "empty: no images (.jpg, .jpeg, .png) in it");
    refuses(&resnet.at("absent"), &[], "absent: No such file");
    refuses(&format!("{images}/0.JPG"), &[], "0.JPG: Not a directory");
    fs::copy(format!("{images}/0.JPG"), format!("{empty}/0.jpg")).unwrap();
    refuses(&empty, &[], "empty: two images are the least");

    let broken = format!("{images}/more/20.png");
    let png = fs::read(&broken).unwrap();
    fs::write(&broken, &png[..60]).unwrap();
    refuses(&images, &[], "20.png: corrupt image");
    let skip = quantize(&resnet, &images, &["--skip-corrupt"]);
    let text = resnet.succeeds(&skip);
    holds(&text, "skipped 1 corrupt images");
    assert!(
        text.lines().last().unwrap().starts_with("result: "),
        "{text}"
    );
    fs::write(&broken, png).unwrap();
    fs::write(resnet.at("model.bpk"), "kept").unwrap();

    let other = |file: &str| {
        let mut args = quantize(&resnet, &images, &[]);
        args[2] = file.into();
        args
    };
    let fixture = |name: &str| WEIGHTS.replace("resnet18.safetensors", name);
    for (file, expected) in [
        (
            fixture("missing.pth"),
            "missing.pth: there is no tensor layer2.0.downsample.0.weight",
        ),
        (
            fixture("case.json"),
            "case.json: neither .pth nor .safetensors",
        ),
        (resnet.at("absent.pth"), "--from "),
        (
            resnet.at("model.bpk"),
            "model.bpk: not a float ResNet of these flags",
        ),
    ] {
        resnet.refuses(&other(&file), expected);
    }
    let mut wide = quantize(&resnet, &images, &[]);
    let width = wide.iter().position(|word| word == "0.0625").unwrap();
    wide[width] = "0.125".into();
    resnet.refuses(&wide, "check --depth, --width");
    let mut more = quantize(&resnet, &images, &[]);
    let classes = more.iter().position(|word| word == "--classes").unwrap();
    more.drain(classes..classes + 2);
    resnet.refuses(
        &more,
        "has shape [32, 10] where this network has [32, 1000]",
    );
    refuses(&images, &["--data-free", "--epochs", "1"], "--data-free");
    refuses(&images, &["--bits", "1", "--budget", "1"], "cannot be kept");
    refuses(&images, &["--fake-data"], "--fake-data");
    refuses(&images, &["--samples", "0"], "--samples");
    assert_eq!(resnet.text("model.bpk"), "kept");
    let mut nowhere = quantize(&resnet, &images, &[]);
    nowhere[6] = resnet.at("no/model.bpk");
    resnet.refuses(&nowhere, "no/model.bpk: ");
}

#[test]
fn flags_stand_under_their_headings() {
    let resnet = resnet();
    let quantize = [
        ("Options", "--from --out --device --help"),
        (
            "Data",
            "--images --fake-data --image-size --skip-corrupt --samples",
        ),
        ("Network", "--depth --width --classes"),
        (
            "Calibration",
            "--data-free --budget --one-pass --epochs --learning-rate --seed --checkpoints",
        ),
        (
            "Bits",
            "--bits --group-size --arithmetic --product --coordinates --biases --bias-bits --deflate",
        ),
    ];
    resnet.has_flags("quantize", &quantize);
    let training = format!("--preset --pretrained {TRAINING}");
    let train = [
        (
            "Data",
            "--data-dir --fake-data --limit --image-size --skip-corrupt",
        ),
        ("Network", "--depth --width --classes --act-bits"),
        ("Training", &training),
    ];
    resnet.has_flags("train", &train);
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
