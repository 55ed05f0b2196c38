//! The program as a user meets it.

mod before;
mod frontier;
mod hazards;
mod output;
mod page;
mod resumed;
mod runs;

use example_testing::{Program, mnist};

/// The program with data in a folder of its own, for short trainings.
fn lenet() -> Program {
    lenet_on("data")
}

/// The same with another name for the data.
fn lenet_on(data: &str) -> Program {
    let lenet = Program::new(env!("CARGO_BIN_EXE_lenet5-mnist"));
    let data = lenet.at(data);
    mnist::folder(&data);
    lenet.with(&[
        "--data-dir",
        &data,
        "--preset",
        "quick",
        "--batch-size",
        "50",
    ])
}
