//! The page as `cargo xtask web` has built it: its program under node, and all of it in a browser.

use std::path::{Path, PathBuf};
use std::process::Command;

use example_testing::mnist::test_images;
use multibit::file::PackedFile;
use multibit::runtime::Plan;

/// The folder that was built.
fn built() -> PathBuf {
    let folder = std::env::var_os("BURN_ALQ_WEB");
    folder
        .expect("BURN_ALQ_WEB; cargo xtask web --test sets it")
        .into()
}

fn read(file: &Path) -> Vec<u8> {
    std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Runs a script of this folder on the built one.
fn node(script: &str, more: &[&Path]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut command = Command::new("node");
    command.arg(folder.join(script)).arg(built()).args(more);
    let status = command.status();
    let status = status.expect("node; Debian's package nodejs has it");
    assert!(status.success(), "{script} failed");
}

#[test]
#[ignore = "needs node and the built page: cargo xtask web --test"]
fn scores_are_those_of_the_host() {
    let model = read(&built().join("model.bpk"));
    let file = PackedFile::read(&model).expect("the page's model");
    let plan = Plan::new(&file).expect("a chain");
    let (mut buffer, mut scores) = (vec![0; plan.words()], vec![0.0; plan.scores()]);
    let images = test_images();
    let mut expected = Vec::new();
    for image in images.chunks(plan.input().len()) {
        let run = plan.run_raw(image, &mut buffer, &mut scores);
        run.expect("buffers of the plan's sizes");
        expected.extend(scores.iter().flat_map(|score| score.to_le_bytes()));
    }
    assert_eq!(expected.len(), 2_000 * 10 * 4);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (raw, scores) = (folder.join("images"), folder.join("scores"));
    std::fs::write(&raw, images).expect("the test's folder");
    std::fs::write(&scores, expected).expect("the test's folder");
    node("program.mjs", &[&raw, &scores]);
}

#[test]
#[ignore = "needs node, Chromium and the built page: cargo xtask web --test"]
fn the_page_recognizes_digits() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let other = root.join("crates/multibit/tests/golden/every_step_deflate.bpk");
    let bare = root.join("tests/golden/file_v1/packed_deflate.bpk");
    node("browser.mjs", &[&other, &bare]);
}
