//! Whether a file is whole, and what it takes to load and run it.

use multibit::file::PackedFile;
use multibit::runtime::{Plan, PlanError};
use serde::Serialize;

use crate::file::File;
use crate::text::{Lines, coding};

/// What was found in a file.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// The file.
    pub file: String,
    /// Its bytes.
    pub file_bytes: usize,
    /// Whether a reader takes it, and what it says of its layers fits.
    pub whole: bool,
    /// `plain` or `deflate`; none if the directory is not whole.
    pub coding: Option<&'static str>,
    /// Container and directory, then every weight and tensor in the order of the file.
    pub parts: Vec<Part>,
    /// Weights and tensors behind one that does not say where it ends.
    pub unseen: usize,
    /// Bytes behind the last part.
    pub rest: usize,
    /// Bytes that what is deflated takes in memory; the rest is read where it lies.
    pub inflated_bytes: Option<usize>,
    /// Bytes of all weights and tensors as a program holds them that does without the file.
    pub decoded_bytes: Option<usize>,
    /// How it runs, if it is whole.
    pub chain: Option<Chain>,
}

/// A part of a file.
#[derive(Debug, Serialize)]
pub struct Part {
    /// The path of a weight or a tensor, or what it is.
    pub name: String,
    /// What is wrong with it; none if it is whole.
    pub error: Option<String>,
}

/// Whether the chain of a file runs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Chain {
    /// In so many bytes beside the file, for so many scores.
    Runs {
        /// Bytes of the buffer.
        bytes: usize,
        /// Scores of a sample.
        scores: usize,
    },
    /// It has none, or none that says what goes in; that is no fault.
    Absent(String),
    /// It has one that does not fit.
    Unfit(String),
}

impl Verdict {
    /// Looks at every part of a file.
    pub fn of(file: &File) -> Self {
        let mut verdict = Self {
            file: file.name().to_string(),
            file_bytes: file.bytes().len(),
            whole: false,
            coding: None,
            parts: Vec::new(),
            unseen: 0,
            rest: 0,
            inflated_bytes: None,
            decoded_bytes: None,
            chain: None,
        };
        let mut part = |name: &str, error: Option<String>| {
            let name = name.to_string();
            verdict.parts.push(Part { name, error });
        };
        match PackedFile::check(file.bytes()) {
            Ok(check) => {
                part("container and directory", None);
                for (path, read) in &check.entries {
                    part(path, read.as_ref().err().map(ToString::to_string));
                }
                verdict.coding = Some(coding(check.coding));
                verdict.unseen = check.unseen;
                verdict.rest = check.rest;
            }
            Err(error) => {
                let said = match error.foreign(file.bytes(), file.bytes().len() as u64) {
                    Some(found) => format!("not a packed model: this is {found}"),
                    None => error.to_string(),
                };
                part("container and directory", Some(said));
            }
        }
        if let Ok(packed) = PackedFile::read(file.bytes()) {
            let chain = Chain::of(&packed);
            verdict.whole = !matches!(chain, Chain::Unfit(_));
            verdict.inflated_bytes = Some(packed.inflated_bytes());
            let weights = packed.weights().iter();
            let weights: usize = weights.map(|weight| weight.decode().memory_bytes()).sum();
            let tensors = packed.tensors().iter();
            let tensors: usize = tensors.map(|tensor| tensor.bytes().len()).sum();
            verdict.decoded_bytes = Some(weights + tensors);
            verdict.chain = Some(chain);
        }
        verdict
    }

    /// A line a part, what is left over, and what it takes to load.
    pub fn to_text(&self) -> String {
        let mut text = Lines::default();
        for Part { name, error } in &self.parts {
            match error {
                None => text.line(format_args!("whole    {name}")),
                Some(error) => text.line(format_args!("damaged  {name}: {error}")),
            }
        }
        if self.unseen > 0 {
            text.line(format_args!(
                "unknown  {} more, whose places are not known",
                self.unseen
            ));
        }
        if self.rest > 0 {
            text.line(format_args!(
                "damaged  {} bytes are of no tensor",
                self.rest
            ));
        }
        match &self.chain {
            Some(Chain::Runs { bytes, scores }) => text.line(format_args!(
                "whole    chain: runs in {bytes} bytes beside the file, gives {scores} scores"
            )),
            Some(Chain::Absent(reason)) => text.line(format_args!("none     chain: {reason}")),
            Some(Chain::Unfit(reason)) => text.line(format_args!("damaged  chain: {reason}")),
            None => {}
        }
        let (file, bytes) = (&self.file, self.file_bytes);
        if let (true, Some(coding)) = (self.whole, self.coding) {
            let inflated = self.inflated_bytes.unwrap_or_default();
            let decoded = self.decoded_bytes.unwrap_or_default();
            text.line(format_args!(
                "{file} is whole: {bytes} bytes, {coding}; to load, the file's bytes and {inflated} of \
                 what is deflated, or {decoded} without the file"
            ));
        } else {
            text.line(format_args!(
                "{file} is not whole: {bytes} bytes; get it again, or write it anew with the program \
                 that made it"
            ));
        }
        text.0
    }
}

impl Chain {
    fn of(file: &PackedFile<'_>) -> Self {
        match Plan::new(file) {
            Ok(plan) => Self::Runs {
                bytes: plan.bytes(),
                scores: plan.scores(),
            },
            Err(error @ (PlanError::NoChain | PlanError::NoInput)) => {
                Self::Absent(error.to_string())
            }
            Err(error) => Self::Unfit(error.to_string()),
        }
    }
}
