//! What differs between two files.

use std::collections::BTreeMap;

use multibit::PackedWeight;
use multibit::file::{FileTensor, FileWeight, PackedFile, describe};
use multibit::report::table;
use serde::Serialize;

use crate::file::{Error, File, room};
use crate::text::{Lines, shown};

/// What differs between a first and a second file.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// What the files say of the model and its use, where they differ: what it is, first, second.
    pub about: Vec<[String; 3]>,
    /// Weights, then other tensors, in the order of the first file; those of the second alone at the end.
    pub entries: Vec<Entry>,
}

/// A weight or a tensor of either file.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// The path.
    pub path: String,
    /// What became of it.
    pub change: Change,
}

/// What became of a weight or a tensor.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The same, bit for bit.
    None,
    /// Only in the first file, or multi-bit only there.
    First,
    /// Only in the second file, or multi-bit only there.
    Second,
    /// Of two shapes.
    Shape([Vec<usize>; 2]),
    /// A weight of other bits or values.
    Weight(WeightChange),
    /// A tensor of other numbers.
    Tensor(TensorChange),
}

/// How a weight differs.
#[derive(Debug, PartialEq, Serialize)]
pub struct WeightChange {
    /// The groupings, types of coordinates and arithmetics, where they differ.
    pub kind: Vec<[String; 2]>,
    /// Average bitwidths.
    pub average_bits: [f64; 2],
    /// Groups of two bitwidths; none if the groupings differ.
    pub widths: Option<usize>,
    /// Signs that differ, in groups of one bitwidth; none if the groupings differ.
    pub signs: Option<usize>,
    /// Coordinates that differ, in groups of one bitwidth; none if the groupings differ.
    pub coordinates: Option<usize>,
    /// `‖a − b‖ / ‖a‖` of the dense weights `a` and `b`.
    pub relative: f64,
    /// The largest difference of two weights.
    pub largest: f32,
}

/// How a tensor differs.
#[derive(Debug, PartialEq, Serialize)]
pub struct TensorChange {
    /// The types of the numbers.
    pub numbers: [&'static str; 2],
    /// `‖a − b‖ / ‖a‖`, where both hold floats of at most 32 bits.
    pub relative: Option<f64>,
    /// The largest difference of two numbers, where both hold such floats.
    pub largest: Option<f32>,
}

/// Sums of differences.
#[derive(Default)]
struct Distance {
    difference: f64,
    first: f64,
    largest: f32,
}

impl Distance {
    fn add(&mut self, first: f32, second: f32) {
        let difference = f64::from(first) - f64::from(second);
        self.difference += difference * difference;
        self.first += f64::from(first) * f64::from(first);
        self.largest = self.largest.max((first - second).abs());
    }

    fn of(first: &[f32], second: &[f32]) -> Self {
        let mut distance = Self::default();
        for (&first, &second) in first.iter().zip(second) {
            distance.add(first, second);
        }
        distance
    }

    fn relative(&self) -> f64 {
        match self.difference == 0.0 {
            true => 0.0,
            false => (self.difference / self.first).sqrt(),
        }
    }
}

impl Difference {
    /// Compares two files.
    ///
    /// # Errors
    /// If one is no packed file, damaged or of a newer version; if a weight is grouped in two ways and
    /// too large to be made dense.
    pub fn of(first: &File, second: &File) -> Result<Self, Error> {
        let [a, b] = [first.packed()?, second.packed()?];
        let mut entries = Vec::new();
        let others = b.weights().iter().map(|weight| (weight.path(), weight));
        let mut others: BTreeMap<_, _> = others.collect();
        for weight in a.weights() {
            let change = match others.remove(weight.path()) {
                Some(other) => weight_change(weight, other, second)?,
                None => Change::First,
            };
            entries.push(Entry::new(weight.path(), change));
        }
        let weights = b.weights().iter().map(FileWeight::path);
        let new = weights.filter(|path| others.contains_key(path));
        let mut new: Vec<&str> = new.collect();
        let others = b.tensors().iter().map(|tensor| (tensor.path(), tensor));
        let mut others: BTreeMap<_, _> = others.collect();
        for tensor in a.tensors() {
            let change = match others.remove(tensor.path()) {
                Some(other) => tensor_change(tensor, other),
                None => Change::First,
            };
            entries.push(Entry::new(tensor.path(), change));
        }
        let tensors = b.tensors().iter().map(FileTensor::path);
        new.extend(tensors.filter(|path| others.contains_key(path)));
        let new = new.into_iter();
        entries.extend(new.map(|path| Entry::new(path, Change::Second)));
        let about = about(&a).into_iter().zip(about(&b));
        let about = about.filter(|((_, first), (_, second))| first != second);
        Ok(Self {
            about: about
                .map(|((what, first), (_, second))| [what.to_string(), first, second])
                .collect(),
            entries,
        })
    }

    /// Whether both are the same model, said to be used in the same way.
    pub fn is_none(&self) -> bool {
        let same = |entry: &Entry| entry.change == Change::None;
        self.about.is_empty() && self.entries.iter().all(same)
    }

    /// Lines for what is said of the model, and a table of what has changed.
    pub fn to_text(&self) -> String {
        let mut text = Lines::default();
        for [what, first, second] in &self.about {
            text.line(format_args!("{what}: {first} -> {second}"));
        }
        let head = [
            "path",
            "bits",
            "groups of other bits",
            "signs",
            "coordinates",
            "difference",
            "largest",
        ];
        let mut rows = vec![head.map(String::from)];
        let mut same = 0;
        for Entry { path, change } in &self.entries {
            match change {
                Change::None => same += 1,
                Change::First => text.line(format_args!("{path}: only in the first file")),
                Change::Second => text.line(format_args!("{path}: only in the second file")),
                Change::Shape([first, second]) => {
                    text.line(format_args!("{path}: shape {first:?} -> {second:?}"));
                }
                Change::Weight(change) => {
                    for [first, second] in &change.kind {
                        text.line(format_args!("{path}: {first} -> {second}"));
                    }
                    let count = |count: Option<usize>| count.map_or("-".into(), |n| n.to_string());
                    let [first, second] = change.average_bits;
                    rows.push([
                        shown(path),
                        format!("{first:.3} -> {second:.3}"),
                        count(change.widths),
                        count(change.signs),
                        count(change.coordinates),
                        format!("{:.3e}", change.relative),
                        format!("{:.3e}", change.largest),
                    ]);
                }
                Change::Tensor(change) => {
                    let [first, second] = change.numbers;
                    let dash = String::from("-");
                    rows.push([
                        shown(path),
                        format!("{first} -> {second}"),
                        dash.clone(),
                        dash.clone(),
                        dash.clone(),
                        change.relative.map_or(dash.clone(), |x| format!("{x:.3e}")),
                        change.largest.map_or(dash, |x| format!("{x:.3e}")),
                    ]);
                }
            }
        }
        if rows.len() > 1 {
            text.0.push_str(&table(&rows));
        }
        let all = self.entries.len();
        text.line(format_args!(
            "{same} of {all} weights and tensors are the same"
        ));
        text.0
    }
}

impl Entry {
    fn new(path: &str, change: Change) -> Self {
        let path = path.to_string();
        Self { path, change }
    }
}

/// What a file says of its model and its use.
fn about(file: &PackedFile<'_>) -> [(&'static str, String); 6] {
    let about = file.about();
    let steps = about.chain.iter();
    let steps: Vec<_> = steps.map(|step| file.by_path(step)).collect();
    let config: BTreeMap<_, _> = file.config().collect();
    let tied: BTreeMap<_, _> = file.tied().collect();
    [
        ("name", format!("{:?}", about.name)),
        ("config", format!("{config:?}")),
        ("tied", format!("{tied:?}")),
        ("input", format!("{:?}", about.input)),
        ("labels", format!("{:?}", about.labels)),
        ("chain", format!("{:?}", describe(&steps))),
    ]
}

fn weight_change(a: &FileWeight<'_>, b: &FileWeight<'_>, second: &File) -> Result<Change, Error> {
    if a.shape() != b.shape() {
        return Ok(Change::Shape([a, b].map(|weight| weight.shape().to_vec())));
    }
    let kind = |weight: &FileWeight<'_>| {
        let arithmetic = weight.arithmetic().map(|kind| format!("{kind} arithmetic"));
        [
            weight.grouping().describe(weight.shape()),
            format!("coordinates of {}", weight.coordinate_type()),
            arithmetic.unwrap_or("arithmetic of the program's choice".into()),
        ]
    };
    let kinds = kind(a).into_iter().zip(kind(b));
    let kinds = kinds.filter(|(first, second)| first != second);
    let groups = |weight: &FileWeight<'_>| weight.grouping().groups(weight.shape());
    let mut change = WeightChange {
        kind: kinds.map(|(first, second)| [first, second]).collect(),
        average_bits: [a, b].map(|weight| weight.rows() as f64 / groups(weight) as f64),
        widths: None,
        signs: None,
        coordinates: None,
        relative: 0.0,
        largest: 0.0,
    };
    let distance = if a.grouping() == b.grouping() {
        grouped(a, b, &mut change)
    } else {
        let dense = |weight: &FileWeight<'_>| {
            let count = groups(weight).saturating_mul(weight.grouping().len());
            // Few bytes may be a large weight without a bit: is there room for it, and for its order?
            room::<[f32; 4]>(count, second.name(), weight.path())?;
            Ok::<_, Error>(PackedWeight::unpack(&weight.decode()))
        };
        Distance::of(&dense(a)?, &dense(b)?)
    };
    change.relative = distance.relative();
    change.largest = distance.largest;
    let counts = [change.widths, change.signs, change.coordinates];
    let same = change.kind.is_empty() && counts == [Some(0); 3];
    Ok(match same {
        true => Change::None,
        false => Change::Weight(change),
    })
}

/// Compares weights of one grouping, group by group.
fn grouped(a: &FileWeight<'_>, b: &FileWeight<'_>, change: &mut WeightChange) -> Distance {
    let len = a.grouping().len();
    let groups = a.grouping().groups(a.shape());
    let mut distance = Distance::default();
    let [mut widths, mut signs, mut coordinates] = [0; 3];
    let mut rows = [0; 2];
    for group in 0..groups {
        let [first, second] = [a.width(group), b.width(group)];
        if first == second {
            for basis in 0..first {
                let (row, other) = (rows[0] + basis, rows[1] + basis);
                let [x, y] = [a.coordinate(row), b.coordinate(other)];
                coordinates += usize::from(x.to_bits() != y.to_bits());
                for word in 0..len.div_ceil(32) {
                    let differs = a.word(row, word) ^ b.word(other, word);
                    signs += differs.count_ones() as usize;
                }
            }
        } else {
            widths += 1;
        }
        // A group without a bit may be larger than any memory, and differs from its like in nothing.
        if first + second > 0 {
            for place in 0..len {
                let [x, y] =
                    [(a, rows[0], first), (b, rows[1], second)].map(|(weight, row, width)| {
                        (row..row + width).fold(0.0, |sum, row| match weight.bit(row, place) {
                            0 => sum + weight.coordinate(row),
                            _ => sum - weight.coordinate(row),
                        })
                    });
                distance.add(x, y);
            }
        }
        rows = [rows[0] + first, rows[1] + second];
    }
    change.widths = Some(widths);
    change.signs = Some(signs);
    change.coordinates = Some(coordinates);
    distance
}

fn tensor_change(a: &FileTensor<'_>, b: &FileTensor<'_>) -> Change {
    if a.shape() != b.shape() {
        return Change::Shape([a, b].map(|tensor| tensor.shape().to_vec()));
    }
    let numbers = [a, b].map(|tensor| tensor.number_type().name());
    let types = [a, b].map(|tensor| (tensor.number_type(), tensor.stored_type()));
    if types[0] == types[1] && a.bytes() == b.bytes() {
        return Change::None;
    }
    let floats = |tensor: &FileTensor<'_>| Some(tensor.float_type()?.decode(tensor.bytes()));
    let floats = floats(a).zip(floats(b));
    let distance = floats.map(|(a, b)| Distance::of(&a, &b));
    // Stored in two bytes or four, they are the same numbers.
    if numbers[0] == numbers[1] && distance.as_ref().is_some_and(|d| d.difference == 0.0) {
        return Change::None;
    }
    Change::Tensor(TensorChange {
        numbers,
        relative: distance.as_ref().map(Distance::relative),
        largest: distance.as_ref().map(|distance| distance.largest),
    })
}
