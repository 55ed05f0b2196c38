//! Checkpoints of a run. What resumes must be saved as a checkpoint that resumes.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use burn::tensor::Device;
use burn_alq::train::Run;
use burn_alq_fuzz::net::{Net, run};
use burn_alq_fuzz::{bounded, container};
use libfuzzer_sys::fuzz_target;

static START: LazyLock<Run<Net>> = LazyLock::new(run);

/// In memory, where the system has a folder for that.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    folder.join(format!("burn-alq-fuzz-{}.bpk", std::process::id()))
});

fn resume(bytes: &[u8]) -> Option<Run<Net>> {
    std::fs::write(&*FILE, bytes).expect("a writable folder");
    let run = START.clone();
    let device = Device::flex().autodiff();
    bounded(bytes.len(), move || run.resume(&*FILE, &device).ok())
}

fuzz_target!(|bytes: &[u8]| {
    resume(bytes);
    let Some(bytes) = container::checkpoint(bytes) else {
        return;
    };
    let Some(mut run) = resume(&bytes) else {
        return;
    };
    if run.save(&*FILE).is_ok() {
        let written = std::fs::read(&*FILE).expect("just written");
        resume(&written).expect("what was written");
    }
});
