//! What a file holds.

use std::collections::BTreeMap;

use multibit::file::{Input, Order, describe};
use multibit::report::ModelReport;
use serde::Serialize;

use crate::file::{Error, File, sizes};
use crate::text::{Lines, coding, shown};

/// All that a file says of its model.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// Bytes of the file.
    pub file_bytes: usize,
    /// How it holds the model: `plain` or `deflate`.
    pub coding: &'static str,
    /// A name, for people; empty if there is none.
    pub name: String,
    /// Free text of the program that wrote it.
    pub config: BTreeMap<String, String>,
    /// Further paths of parameters that stand in several places, and their first.
    pub tied: BTreeMap<String, String>,
    /// What goes in, if the file says so.
    pub input: Option<InputReport>,
    /// Names of the outputs.
    pub labels: Vec<String>,
    /// The layers, in words; none if the file does not say.
    pub chain: Vec<String>,
    /// Arithmetics by the path of the weight, where the file says them.
    pub arithmetic: BTreeMap<String, String>,
    /// Bits and bytes of the weights.
    #[serde(flatten)]
    pub model: ModelReport,
    /// All other tensors.
    pub tensors: Vec<TensorReport>,
}

/// What one sample is, and how raw values become it.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the fields of `multibit::file::Input`")]
pub struct InputReport {
    pub shape: Vec<usize>,
    pub divisor: f32,
    pub mean: Vec<f32>,
    pub deviation: Vec<f32>,
    pub order: &'static str,
}

/// A tensor that is not multi-bit.
#[derive(Debug, Serialize)]
pub struct TensorReport {
    /// The path of the parameter.
    pub path: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The type of its numbers.
    pub numbers: &'static str,
    /// Bytes of it in the file.
    pub stored_bytes: usize,
}

impl InputReport {
    fn new(input: &Input) -> Self {
        Self {
            shape: input.shape.clone(),
            divisor: input.divisor,
            mean: input.mean.clone(),
            deviation: input.deviation.clone(),
            order: match input.order {
                Order::ChannelsFirst => "channels first",
                Order::ChannelsLast => "channels last",
            },
        }
    }
}

impl Inspection {
    /// Reads a file.
    ///
    /// # Errors
    /// If it is no packed file, damaged or of a newer version.
    pub fn of(file: &File) -> Result<Self, Error> {
        let packed = file.packed()?;
        let about = packed.about();
        let chain: Vec<_> = about
            .chain
            .iter()
            .map(|step| packed.by_path(step))
            .collect();
        let texts = |(key, value): (&str, &str)| (key.to_string(), value.to_string());
        let arithmetic = packed.weights().iter().filter_map(|weight| {
            let arithmetic = weight.arithmetic()?;
            Some((weight.path().to_string(), arithmetic.to_string()))
        });
        let tensors = packed.tensors().iter().map(|tensor| TensorReport {
            path: tensor.path().to_string(),
            shape: tensor.shape().to_vec(),
            numbers: tensor.number_type().name(),
            stored_bytes: tensor.stored_bytes(),
        });
        Ok(Self {
            file_bytes: file.bytes().len(),
            coding: coding(packed.coding()),
            name: about.name.to_string(),
            config: packed.config().map(texts).collect(),
            tied: packed.tied().map(texts).collect(),
            input: about.input.as_ref().map(InputReport::new),
            labels: about.labels.iter().map(ToString::to_string).collect(),
            chain: describe(&chain),
            arithmetic: arithmetic.collect(),
            model: sizes(&packed),
            tensors: tensors.collect(),
        })
    }

    /// All of it as lines and tables.
    pub fn to_text(&self) -> String {
        let mut text = Lines::default();
        for (key, value) in &self.config {
            text.line(format_args!("{key}: {value}"));
        }
        if !self.name.is_empty() {
            text.line(format_args!("name: {}", self.name));
        }
        if let Some(input) = &self.input {
            text.line(format_args!(
                "input: {:?}, (raw / {} - {:?}) / {:?}, {}",
                input.shape, input.divisor, input.mean, input.deviation, input.order
            ));
        }
        if !self.labels.is_empty() {
            text.line(format_args!("labels: {}", self.labels.join(", ")));
        }
        if !self.chain.is_empty() {
            text.line(format_args!(""));
            text.line(format_args!("layers:"));
            for (number, step) in (1..).zip(&self.chain) {
                text.line(format_args!("{number:4} {step}"));
            }
        }
        text.0.push('\n');
        text.0.push_str(&layers(&self.model).to_markdown());
        text.0.push('\n');
        for tensor in &self.tensors {
            let TensorReport {
                path,
                shape,
                numbers,
                ..
            } = tensor;
            text.line(format_args!("{path}: {shape:?} {numbers}"));
        }
        for (path, arithmetic) in &self.arithmetic {
            text.line(format_args!("{path}: in {arithmetic} arithmetic"));
        }
        for (path, first) in &self.tied {
            text.line(format_args!("{path}: the same as {first}"));
        }
        let model = &self.model;
        text.0.push('\n');
        text.line(format_args!(
            "{:.4} bits per weight by the paper, {:.4} effective; {} bytes of weights, {} of \
             others; {} in the file, {}",
            model.paper_bits,
            model.effective_bits,
            model.weight_bytes(),
            model.other_bytes,
            self.file_bytes,
            self.coding
        ));
        text.0
    }
}

/// The report with paths that a terminal may show.
fn layers(model: &ModelReport) -> ModelReport {
    let mut model = model.clone();
    for layer in &mut model.layers {
        layer.path = shown(&layer.path);
    }
    model
}
