//! Packed files to read, whole and changed, and the program that reads them.
// Every test binary uses its own part of this module.
#![allow(dead_code)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use multibit::PackedWeight;
use multibit::cpu::Arithmetic;
use multibit::file::{About, Coding, Contents, NumberType, Numbers, PackedFile, container};

/// LeNet5 with its chain, deflated.
pub fn lenet() -> PathBuf {
    root().join("tests/golden/lenet5/model.bpk")
}

/// Every kind of step, in few bytes.
pub fn every_step(coding: Coding) -> PathBuf {
    let name = match coding {
        Coding::Plain => "every_step_plain.bpk",
        Coding::Deflate => "every_step_deflate.bpk",
    };
    root().join("crates/multibit/tests/golden").join(name)
}

/// A model without a chain.
pub fn without_chain() -> PathBuf {
    root().join("tests/golden/file_v1/packed_plain.bpk")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where the data of a file starts whose container has one tensor.
pub const BODY: usize = 256;

/// A file's content, to be changed and written again.
pub struct Parts {
    pub weights: Vec<(String, PackedWeight, Option<Arithmetic>)>,
    pub tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    pub about: About<'static>,
}

impl Parts {
    /// Those of [`every_step`].
    pub fn new() -> Self {
        let bytes = std::fs::read(every_step(Coding::Plain)).unwrap();
        let file = PackedFile::read(&bytes).unwrap();
        let weights = file.weights().iter();
        let tensors = file.tensors().iter();
        Self {
            weights: weights
                .map(|weight| (weight.path().into(), weight.decode(), weight.arithmetic()))
                .collect(),
            tensors: tensors
                .map(|tensor| {
                    let numbers = tensor.float_type().unwrap().decode(tensor.bytes());
                    (tensor.path().into(), tensor.shape().into(), numbers)
                })
                .collect(),
            about: file.about().clone().into_owned(),
        }
    }

    /// The bytes of a plain file.
    pub fn file(&self) -> Vec<u8> {
        let weights = self.weights.iter();
        let tensors = self.tensors.iter();
        let contents = Contents {
            weights: weights
                .map(|(path, weight, arithmetic)| (path.as_str(), weight, *arithmetic))
                .collect(),
            tensors: tensors
                .map(|(path, shape, numbers)| Numbers {
                    path,
                    shape,
                    number_type: NumberType::F32,
                    bytes: numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
                })
                .collect(),
            config: vec![("key", "value")],
            about: self.about.clone(),
            ..Contents::default()
        };
        container(&contents.body(Coding::Plain).unwrap())
    }

    /// Changes the training form of a weight: codes, coordinates and widths.
    pub fn change(&mut self, index: usize, change: impl FnOnce(&mut [u8], &mut [f32], &mut [u8])) {
        let weight = &mut self.weights[index].1;
        let (mut codes, mut coordinates, mut widths) = weight.to_training_form(8);
        change(&mut codes, &mut coordinates, &mut widths);
        let grouping = weight.grouping().clone();
        let packed = PackedWeight::pack(weight.shape(), grouping, 8, &codes, &coordinates, &widths);
        *weight = packed.unwrap();
    }
}

/// The program.
pub fn command(args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_multibit"));
    command.args(args).stdin(Stdio::null());
    command
}

/// What the program prints, which is what `code` says.
pub fn prints(args: &[impl AsRef<OsStr>], code: i32) -> String {
    let output = command(args).output().unwrap();
    let error = error(&output);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(error.is_empty(), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The program has no answer, and says why: the parts of its error.
pub fn refuses(args: &[impl AsRef<OsStr>], parts: &[&str]) {
    let output = command(args).output().unwrap();
    let error = error(&output);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(output.stdout.is_empty());
    for part in parts {
        assert!(error.contains(part), "no {part:?} in {error:?}");
    }
}

pub fn error(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
