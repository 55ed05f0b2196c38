//! The program on this machine, and as `cargo xtask web --flex` has built it.

use std::path::Path;
use std::process::Command;

use example_testing::mnist::test_images;
use web_flex::Model;

const MODEL: &str = "tests/golden/lenet5/model.bpk";

/// A file of the repository.
fn read(file: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn files_of_this_network_run_and_others_are_refused() {
    let file = read(MODEL);
    let mut model = Model::new(file.clone()).unwrap();
    let image = &test_images()[..28 * 28];
    let scores = model.scores(image).unwrap();
    let best = (0..10).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    assert_eq!(best, Some(7), "MNIST's first test image: {scores:?}");
    assert_eq!(model.scores(&image[1..]).unwrap_err(), "783 bytes, not 784");
    let refused = |file: Vec<u8>| Model::new(file).err().expect("a sentence");
    assert!(refused(file[..file.len() / 2].to_vec()).starts_with("the file: "));
    let other = read("crates/multibit/tests/golden/every_step_deflate.bpk");
    assert!(refused(other).contains("conv1"));
}

/// The built program under node, against this machine's.
#[test]
#[ignore = "needs node and the built program: cargo xtask web --flex --test"]
fn scores_are_those_of_the_host() {
    let program = std::env::var_os("BURN_ALQ_WEB");
    let program = program.expect("BURN_ALQ_WEB; cargo xtask web --flex --test sets it");
    let images = test_images();
    let mut model = Model::new(read(MODEL)).unwrap();
    let mut scores = Vec::new();
    for image in images.chunks(28 * 28) {
        let found = model.scores(image).unwrap();
        scores.extend(found.iter().flat_map(|score| score.to_le_bytes()));
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("images"), images).unwrap();
    std::fs::write(at("scores"), scores).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut node = Command::new("node");
    node.arg(root.join("tests/program.mjs")).arg(program);
    node.arg(root.join("../..").join(MODEL));
    let status = node.args([at("images"), at("scores")]).status();
    assert!(
        status
            .expect("node; Debian's package nodejs has it")
            .success()
    );
}
