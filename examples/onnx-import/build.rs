//! Generates the models' code and weights from ONNX.

use burn_onnx::{LoadStrategy, ModelGen};

fn main() {
    ModelGen::new()
        .input("models/cnn.onnx")
        .input("models/attention.onnx")
        .input("models/recurrent.onnx")
        .out_dir("model/")
        // The others write a path of this machine into the code.
        .load_strategy(LoadStrategy::Bytes)
        .run_from_script();
}
