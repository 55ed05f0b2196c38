//! Reading the golden vectors; `golden/README.md` describes the files.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Group;

/// A golden file.
///
/// # Panics
/// If it is missing or no JSON.
pub fn load(name: &str) -> Value {
    let file = path(name);
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Where a golden file lies.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name)
}

/// The cases of a file to test against: without weight decay, and not those of the reference that
/// have a corrected twin. (One without a twin never met the reference's faults.)
///
/// # Panics
/// If there are none.
pub fn cases(file: &Value) -> Vec<&Value> {
    let cases = file["cases"].as_array().expect("a list of cases");
    let corrected = |label: &Value| {
        let mut twins = cases.iter().filter(|case| case["label"] == *label);
        twins.any(|twin| twin["variant"] == "corrected")
    };
    let sound: Vec<&Value> = cases
        .iter()
        .filter(|case| case["variant"] != "reference" || !corrected(&case["label"]))
        .filter(|case| case["weight_decay"].as_f64().unwrap_or(0.0) == 0.0)
        .collect();
    assert!(!sound.is_empty(), "no cases");
    sound
}

/// Numbers of a flat list or of a tensor `{shape, data}`.
///
/// # Panics
/// If it is neither.
pub fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().or_else(|| value["data"].as_array());
    let list = list.unwrap_or_else(|| panic!("no numbers in {value}"));
    list.iter().map(|x| x.as_f64().expect("a number")).collect()
}

/// A count.
///
/// # Panics
/// If it is none.
pub fn count(value: &Value) -> usize {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("no count in {value}")) as usize
}

/// How a golden weight is cut: `[groups]` of `len` with `slots` each.
#[derive(Debug, Clone)]
pub struct Layout {
    /// All groups of all channels.
    pub groups: usize,
    /// Slots of a group, live or not.
    pub slots: usize,
    /// Weights of a group.
    pub len: usize,
    pixels: Option<usize>,
}

impl Layout {
    /// From the shapes of `B` and of the weight, and the name of the structure.
    ///
    /// # Panics
    /// If they are no shapes.
    pub fn new(bases: &Value, shape: &Value, structure: &Value) -> Self {
        let bases: Vec<usize> = bases
            .as_array()
            .expect("a shape")
            .iter()
            .map(count)
            .collect();
        let shape: Vec<usize> = shape
            .as_array()
            .expect("a shape")
            .iter()
            .map(count)
            .collect();
        let pixelwise = structure == "pixelwise";
        Self {
            groups: bases[0] * bases[1],
            slots: bases[2],
            len: bases[3],
            pixels: pixelwise.then(|| shape[2] * shape[3]),
        }
    }

    /// Weights in their golden layout, cut into groups.
    pub fn groups(&self, weight: &[f64]) -> Vec<Vec<f64>> {
        let Some(pixels) = self.pixels else {
            return weight.chunks_exact(self.len).map(<[f64]>::to_vec).collect();
        };
        // [out, in, pixels] → [out, pixels, in]
        let channels = weight.chunks_exact(self.len * pixels);
        channels
            .flat_map(|channel| {
                (0..pixels).map(move |pixel| {
                    (0..self.len)
                        .map(|input| channel[input * pixels + pixel])
                        .collect()
                })
            })
            .collect()
    }

    /// Per-slot values, cut into groups, live slots only.
    pub fn live(&self, values: &[f64], mask: &[f64]) -> Vec<Vec<f64>> {
        let groups = values
            .chunks_exact(self.slots)
            .zip(mask.chunks_exact(self.slots));
        groups
            .map(|(values, mask)| {
                let live = values.iter().zip(mask).filter(|(_, mask)| **mask != 0.0);
                live.map(|(value, _)| *value).collect()
            })
            .collect()
    }

    /// Live bases of every group.
    pub fn bases(&self, bases: &[f64], mask: &[f64]) -> Vec<Vec<Vec<f64>>> {
        let groups = bases
            .chunks_exact(self.slots * self.len)
            .zip(mask.chunks_exact(self.slots));
        groups
            .map(|(bases, mask)| {
                let live = bases
                    .chunks_exact(self.len)
                    .zip(mask)
                    .filter(|(_, mask)| **mask != 0.0);
                live.map(|(basis, _)| basis.to_vec()).collect()
            })
            .collect()
    }

    /// Groups without moments from `B`, `alpha` and `mask`.
    pub fn state(&self, bases: &[f64], alpha: &[f64], mask: &[f64]) -> Vec<Group> {
        let bases = self
            .bases(bases, mask)
            .into_iter()
            .zip(self.live(alpha, mask));
        bases
            .map(|(bases, alpha)| Group::new(self.len, bases, alpha))
            .collect()
    }
}
