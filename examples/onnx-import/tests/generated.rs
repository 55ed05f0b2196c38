//! burn-onnx generates what the project's own suite runs, and the program runs on it.

use std::path::Path;
use std::process::Command;

use burn_store::{BurnpackStore, ModuleStore, bridge};

/// Weights of a file by name; ids of parameters are drawn anew each time.
fn weights(file: &Path) -> Vec<(String, Vec<u8>)> {
    let mut store = BurnpackStore::from_file(file);
    let tensors = store.get_all_tensors().unwrap().iter();
    tensors
        .map(|(name, tensor)| {
            let data = bridge::to_data(tensor).unwrap();
            (name.clone(), data.as_bytes().to_vec())
        })
        .collect()
}

#[test]
fn the_suite_runs_what_is_generated() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/onnx");
    let generated = Path::new(env!("OUT_DIR")).join("model");
    let code = |folder: &Path, name: &str| std::fs::read(folder.join(name)).unwrap();
    for name in ["cnn", "attention", "recurrent"] {
        let [rs, bpk] = ["rs", "bpk"].map(|kind| format!("{name}.{kind}"));
        assert!(
            code(&generated, &rs) == code(&golden, &rs)
                && weights(&generated.join(&bpk)) == weights(&golden.join(&bpk)),
            "tests/golden/onnx has another {name}; copy {rs} and {bpk} there from {}",
            generated.display()
        );
    }
}

#[test]
fn the_program_runs() {
    let program = env!("CARGO_BIN_EXE_onnx-import");
    let output = Command::new(program).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
