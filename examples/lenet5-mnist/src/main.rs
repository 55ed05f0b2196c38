//! LeNet5 on MNIST: a float network becomes a multi-bit network below one bit per weight.

use std::process::ExitCode;

use lenet5_mnist::LeNet5;

// Training allocates and frees the same large tensors at every step; the system allocator hands
// them back to the kernel each time, which costs a third of the step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    example_common::main::<LeNet5>()
}
