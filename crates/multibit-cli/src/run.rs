//! Inputs through the chain of a file.

use multibit::cpu::Isa;
use multibit::file::{Input, PackedFile};
use multibit::runtime::{Plan, Prepared};
use serde::Serialize;

use crate::file::{Error, File, room};

/// What the bytes of inputs are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Raw bytes, that become values as the file says.
    #[default]
    U8,
    /// Values in f32, little-endian, in the order of the sample's shape.
    F32,
}

impl Format {
    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::F32 => "f32",
        }
    }

    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F32 => 4,
        }
    }
}

/// The samples in some bytes, one after the other, as values. `source` names the bytes in errors.
///
/// # Errors
/// If they are not whole samples, none, or hold a number that is not finite.
pub fn samples(
    bytes: &[u8],
    format: Format,
    input: &Input,
    [source, file]: [&str; 2],
) -> Result<Vec<Vec<f32>>, Error> {
    let expected = input.len().saturating_mul(format.bytes());
    if bytes.is_empty() || !bytes.len().is_multiple_of(expected) {
        return Err(Error::Input {
            input: source.to_string(),
            found: bytes.len(),
            file: file.to_string(),
            shape: input.shape.clone(),
            format: format.name(),
            expected,
        });
    }
    let mut samples = Vec::with_capacity(bytes.len() / expected);
    for (number, sample) in bytes.chunks_exact(expected).enumerate() {
        let values: Vec<f32> = match format {
            Format::U8 => {
                let raw = |place: usize| f32::from(sample[place]);
                (0..input.len())
                    .map(|place| input.value(place, raw))
                    .collect()
            }
            Format::F32 => {
                let (values, _) = sample.as_chunks();
                values.iter().copied().map(f32::from_le_bytes).collect()
            }
        };
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::NotFinite {
                input: source.to_string(),
                index: number * input.len() + place,
                value: values[place],
            });
        }
        samples.push(values);
    }
    Ok(samples)
}

/// A file's chain, ready to run.
pub struct Model<'f, 'a> {
    name: &'f str,
    plan: Plan<'f, 'a>,
    kernels: Option<Prepared>,
    buffer: Vec<u32>,
    scores: Vec<f32>,
}

/// A score and its place among all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranked {
    /// The output.
    pub output: usize,
    /// Its label; none if the file has none.
    pub label: Option<String>,
    /// Its score.
    pub score: f32,
}

impl<'f, 'a> Model<'f, 'a> {
    /// Plans the chain of a packed file: in place, to the same bits on every machine, or by the kernels
    /// of an instruction set.
    ///
    /// # Errors
    /// If it has no chain or one that does not fit, or takes more memory than there is.
    pub fn new(
        file: &'f File,
        packed: &'f PackedFile<'a>,
        isa: Option<Isa>,
    ) -> Result<Self, Error> {
        let name = file.name();
        let plan = Plan::new(packed).map_err(|source| Error::Plan {
            file: name.to_string(),
            source,
        })?;
        let mut buffer = room(plan.words(), name, "a run")?;
        buffer.resize(plan.words(), 0);
        let mut scores = room(plan.scores(), name, "its scores")?;
        scores.resize(plan.scores(), 0.0);
        Ok(Self {
            kernels: isa.map(|isa| Prepared::new(&plan, isa)),
            buffer,
            scores,
            name,
            plan,
        })
    }

    /// What a sample is.
    pub fn input(&self) -> &'f Input {
        self.plan.input()
    }

    /// The scores of a sample.
    ///
    /// # Errors
    /// If it has another length.
    pub fn scores(&mut self, sample: &[f32]) -> Result<&[f32], Error> {
        let run = match &self.kernels {
            Some(kernels) => kernels.run(sample, 1, &mut self.scores),
            None => self.plan.run(sample, &mut self.buffer, &mut self.scores),
        };
        let file = || self.name.to_string();
        run.map_err(|source| Error::Run {
            file: file(),
            source,
        })?;
        Ok(&self.scores)
    }

    /// The best of some scores, at most so many; what is not a number comes last.
    pub fn best(&self, scores: &[f32], top: usize) -> Vec<Ranked> {
        let labels = &self.plan.file().about().labels;
        let mut outputs: Vec<usize> = (0..scores.len()).collect();
        outputs.sort_by(|&a, &b| {
            let [a, b] = [scores[a], scores[b]];
            a.is_nan().cmp(&b.is_nan()).then(b.total_cmp(&a))
        });
        let best = outputs.into_iter().take(top).map(|output| Ranked {
            output,
            label: labels.get(output).map(ToString::to_string),
            score: scores[output],
        });
        best.collect()
    }
}
