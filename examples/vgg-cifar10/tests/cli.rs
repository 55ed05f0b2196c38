//! The program as a user meets it: on good input, on bad input, killed and resumed.

use std::fs;

use example_testing::{Program, TRAINING, holds, mnist, result};
use image::{Rgb, RgbImage};

fn vgg() -> Program {
    let vgg = Program::new(env!("CARGO_BIN_EXE_vgg-cifar10"));
    vgg.with(&["--preset", "quick", "--width", "0.0625"])
}

/// One training from start to end, then a killed one that reaches the same file.
#[test]
fn made_up_images_are_learned_and_resumed_to_the_same_bytes() {
    let vgg = vgg();
    let parts = ["width: 0.0625", "convs.5.weight", "subchannelwise(16)"];
    let text = vgg.learns(&["--control"], 50.0, &parts);
    // With batch norm's statistics of the float network, not of the quantized one.
    assert!(result(&text, "float_acc=") > 80.0, "{text}");
    assert!(result(&text, "paper_bits=") <= 0.66, "{text}");
    // The float network went on as long.
    assert!(result(&text, "control_acc=") > 80.0, "{text}");
    holds(&text, "| float accuracy, trained on as long");

    // The float network again, without labels.
    let [float, packed, out] =
        ["whole/float.bpk", "whole/model.bpk", "model.bpk"].map(|name| vgg.at(name));
    let quantize = |from: &str| {
        let args = [
            "quantize",
            "--fake-data",
            "--width",
            "0.0625",
            "--bits",
            "2",
        ];
        let args = [
            &args[..],
            &["--samples", "128", "--from", from, "--out", &out],
        ]
        .concat();
        args.into_iter().map(String::from).collect::<Vec<_>>()
    };
    vgg.refuses(&quantize(&packed), "of these flags: this is a packed model");
    assert!(!vgg.exists("model.bpk"), "nothing is left behind");
    let text = vgg.succeeds(&quantize(&float));
    // Far from the tenth of chance; few channels lose much.
    assert!(result(&text, "agreement=") > 60.0, "{text}");
    vgg.succeeds(&["eval", "--fake-data", "--model", &out]);

    vgg.resumes_to_the_same_bytes(&["--fake-data"]);
}

#[test]
fn activations_of_two_bits_travel_in_the_file() {
    vgg().learns(&["--act-bits", "2"], 0.0, &["act_bits: 2"]);
}

#[test]
fn flags_stand_under_their_headings() {
    let training = format!("--preset {TRAINING}");
    let train = [
        ("Data", "--data-dir --data-format --fake-data --limit"),
        ("Network", "--width --act-bits"),
        ("Training", &training),
        ("Target", "--target-bits --target-bytes"),
    ];
    vgg().has_flags("train", &train);
}

/// Makes a folder of CIFAR-10's format with `count` images in each file.
fn cifar(folder: &str, count: usize) {
    fs::create_dir(folder).unwrap();
    let names = (1..=5).map(|number| format!("data_batch_{number}.bin"));
    for name in names.chain(["test_batch.bin".to_string()]) {
        let mut bytes = Vec::new();
        for image in 0..count {
            bytes.push((image % 10) as u8);
            bytes.extend((0..3072).map(|at| (at * (image % 10 + 1)) as u8));
        }
        fs::write(format!("{folder}/{name}"), bytes).unwrap();
    }
}

#[test]
fn folders_are_read_and_bad_ones_are_refused_by_name() {
    let vgg = vgg();
    let [good, digits] = ["good", "mnist"].map(|name| vgg.at(name));
    cifar(&good, 20);
    mnist::folder(&digits);
    let good = ["--data-dir", &good];
    let digits = ["--data-dir", &digits, "--data-format", "mnist"];
    let short = ["--epoch-batches", "1"];
    let text = vgg.trains("cifar", &[&good[..], &short].concat());
    holds(&text, "CIFAR-10 (90/10/20 images)");
    let text = vgg.trains("fashion", &[&digits[..], &short].concat());
    holds(&text, "mnist (216/24/60 images)");
    // To evaluate, the test images are enough.
    let model = vgg.at("cifar/model.bpk");
    let test = vgg.at("test");
    fs::create_dir(&test).unwrap();
    fs::copy(vgg.at("good/test_batch.bin"), vgg.at("test/test_batch.bin")).unwrap();
    let eval = ["eval", "--model", &model, "--data-dir"];
    let expected = vgg.succeeds(&[&eval[..], &[good[1]]].concat());
    holds(&expected, "on 20 test images");
    assert_eq!(vgg.succeeds(&[&eval[..], &[&test]].concat()), expected);

    let refuses = |flags: &[&str], expected: &str| vgg.refuses_to_train("out", flags, expected);
    refuses(&[], "--data-dir");
    refuses(&["--data-dir", "no/such"], "no/such is not");
    refuses(&digits[..2], "data_batch_1.bin");
    let format = [&good[..], &digits[2..]].concat();
    refuses(&format, "train-images-idx3-ubyte");
    refuses(&["--fake-data", "--act-bits", "0"], "1 to 4 bits");
    refuses(&["--fake-data", "--limit", "20"], "too few");
    let high = ["--fake-data", "--target-bits", "7"];
    refuses(&high, "not below the start");
    let file = vgg.at("good/data_batch_3.bin");
    let mut bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..1000]).unwrap();
    refuses(&good, "data_batch_3.bin: 1000 bytes");
    bytes[3073] = 11;
    fs::write(&file, bytes).unwrap();
    refuses(&good, "label 1 is 11");
    fs::remove_file(&file).unwrap();
    refuses(&good, "data_batch_3.bin");
    assert!(!vgg.exists("out"), "nothing is left behind");
}

/// Makes a folder of two classes in files, `count` of each in every split.
fn files(folder: &str, count: u8) {
    for split in ["train", "test"] {
        for (class, color) in [("blue", [0, 0, 255]), ("red", [255, 0, 0])] {
            let folder = format!("{folder}/{split}/{class}");
            fs::create_dir_all(&folder).unwrap();
            for number in 0..count {
                let mut image = RgbImage::from_pixel(32, 32, Rgb(color));
                image.put_pixel(number.into(), 0, Rgb([255; 3]));
                image.save(format!("{folder}/{number}.png")).unwrap();
            }
        }
    }
}

#[test]
fn files_in_folders_of_their_classes_are_learned() {
    let vgg = vgg();
    let data = vgg.at("data");
    files(&data, 31);
    let flags = ["--data-dir", &data, "--data-format", "images"];
    // Enough steps to tell the colours apart.
    let text = vgg.trains("out", &[&flags[..], &["--batch-size", "8"]].concat());
    holds(&text, "data (56/6/62 images)");
    assert!(result(&text, "packed_acc=") > 80.0, "{text}");
    fs::remove_dir_all(vgg.at("data/train")).unwrap();
    let model = vgg.at("out/model.bpk");
    let eval = [&["eval", "--model", &model], &flags[..]].concat();
    holds(&vgg.succeeds(&eval), "on 62 test images");
    let refuses = |expected: &str| vgg.refuses_to_train("other", &flags, expected);
    refuses("data/train: ");
    files(&data, 31);
    let odd = vgg.at("data/train/red/3.png");
    RgbImage::new(31, 32).save(&odd).unwrap();
    refuses("3.png: 31x32 pixels, not 32x32");
    fs::write(&odd, "no image").unwrap();
    refuses("3.png: corrupt image");
    assert!(!vgg.exists("other"), "nothing is left behind");
}

#[test]
fn a_training_is_cut_to_the_time_that_there_is() {
    let vgg = vgg();
    let flags = |minutes| ["--fake-data", "--minutes", minutes];
    // A hundredth of a millisecond and less.
    let short = "the shortest training of this preset takes";
    vgg.refuses_to_train("out", &flags("0.00001"), short);
    assert!(!vgg.exists("out"), "nothing is left behind");
    vgg.refuses_to_train("out", &flags("0"), "--minutes");
    let both = [&flags("9")[..], &["--float-epochs", "2"]].concat();
    vgg.refuses_to_train("out", &both, "--float-epochs");
    // As long as it takes: the whole preset.
    let text = vgg.trains("out", &flags("600"));
    holds(&text, "100.0 % of the preset's epochs");
    holds(&text, "float training: 3 epochs");
    holds(&text, "| this run");
    let resumed = [&flags("600")[..], &["--resume"]].concat();
    holds(&vgg.trains("out", &resumed), "finished before");
    let resumed = [&flags("500")[..], &["--resume"]].concat();
    vgg.refuses_to_train("out", &resumed, "--minutes: 600 → 500");
    fs::remove_file(vgg.at("out/minutes.json")).unwrap();
    let resumed = [&flags("600")[..], &["--resume"]].concat();
    vgg.refuses_to_train("out", &resumed, "the run has no --minutes");
}
