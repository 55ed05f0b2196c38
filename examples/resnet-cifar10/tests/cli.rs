//! The program as a user meets it.

use example_testing::{Program, holds, result};

fn resnet() -> Program {
    let resnet = Program::new(env!("CARGO_BIN_EXE_resnet-cifar10"));
    resnet.with(&["--preset", "quick", "--width", "0.5"])
}

#[test]
fn made_up_images_are_learned_and_resumed_to_the_same_bytes() {
    let resnet = resnet();
    let parts = [
        "depth: 20",
        "layer3.0.downsample.0.weight",
        "groupwise(144)",
    ];
    let text = resnet.learns(&[], 50.0, &parts);
    assert!(result(&text, "paper_bits=") <= 2.0, "{text}");
    resnet.resumes_to_the_same_bytes(&["--fake-data", "--control"]);
}

#[test]
fn what_there_is_not_is_named() {
    let resnet = resnet();
    let refuses = |flags: &[&str], expected: &str| resnet.refuses_to_train("out", flags, expected);
    refuses(&["--fake-data", "--depth", "18"], "20, 32, 44, 56");
    refuses(&[], "--data-dir");
    assert!(!resnet.exists("out"), "nothing is left behind");
    let text = resnet.succeeds(&["train", "--help"]);
    holds(&text, "--control");
}
