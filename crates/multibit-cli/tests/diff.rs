//! What differs, and nothing else.

mod support;

use multibit::Grouping;
use multibit::file::Coding;
use multibit_cli::{Change, Difference, File, TensorChange, WeightChange};
use support::{Parts, every_step};

fn difference(first: Vec<u8>, second: Vec<u8>) -> Difference {
    let [first, second] = [first, second].map(|bytes| File::new("a file", bytes));
    Difference::of(&first, &second).unwrap()
}

/// The one change between two models.
fn only(second: &Parts) -> (String, Change) {
    let mut difference = difference(Parts::new().file(), second.file());
    assert!(!difference.is_none() && difference.about.is_empty());
    difference
        .entries
        .retain(|entry| entry.change != Change::None);
    assert_eq!(difference.entries.len(), 1, "{difference:?}");
    let entry = difference.entries.remove(0);
    (entry.path, entry.change)
}

fn weight(second: &Parts) -> (String, WeightChange) {
    match only(second) {
        (path, Change::Weight(change)) => (path, change),
        other => panic!("{other:?}"),
    }
}

/// The relative and the largest difference of two weights, by their dense forms.
fn dense(index: usize, second: &Parts) -> (f64, f32) {
    let [a, b] = [&Parts::new(), second].map(|parts| parts.weights[index].1.unpack());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = a.iter().zip(&b).map(|(a, b)| square(a - b)).sum();
    let norm: f64 = a.iter().map(|&a| square(a)).sum();
    let largest = a.iter().zip(&b).map(|(a, b)| (a - b).abs());
    ((difference / norm).sqrt(), largest.fold(0.0, f32::max))
}

fn assert_distance(found: &WeightChange, index: usize, second: &Parts) {
    let (relative, largest) = dense(index, second);
    assert!(
        (found.relative - relative).abs() <= 1e-6 * relative,
        "{found:?}"
    );
    assert_eq!(found.largest, largest);
    assert!(relative > 0.0);
}

#[test]
fn files_of_two_codings_are_one_model() {
    let [plain, deflate] = [Coding::Plain, Coding::Deflate].map(every_step);
    let [plain, deflate] = [plain, deflate].map(|path| std::fs::read(path).unwrap());
    let difference = difference(plain, deflate);
    assert!(difference.is_none(), "{difference:?}");
    assert!(difference.entries.len() > 4);
}

#[test]
fn a_sign_a_coordinate_a_bit() {
    for index in 0..Parts::new().weights.len() {
        let mut parts = Parts::new();
        let len = parts.weights[index].1.grouping().len();
        let group = parts.weights[index]
            .1
            .widths()
            .iter()
            .position(|&width| width > 0);
        let group = group.unwrap();
        parts.change(index, |codes, _, _| codes[group * len] ^= 1);
        let (path, change) = weight(&parts);
        assert_eq!(path, parts.weights[index].0);
        let counts = [change.widths, change.signs, change.coordinates];
        assert_eq!(counts, [Some(0), Some(1), Some(0)]);
        assert_distance(&change, index, &parts);

        let mut parts = Parts::new();
        parts.change(index, |_, coordinates, _| coordinates[8 * group] *= 1.5);
        let (_, change) = weight(&parts);
        let counts = [change.widths, change.signs, change.coordinates];
        assert_eq!(counts, [Some(0), Some(0), Some(1)]);
        assert_distance(&change, index, &parts);

        // A basis more: what follows is compared with what it was.
        let mut parts = Parts::new();
        parts.change(index, |_, coordinates, widths| {
            coordinates[8 * group + usize::from(widths[group])] = 0.5;
            widths[group] += 1;
        });
        let (_, change) = weight(&parts);
        let counts = [change.widths, change.signs, change.coordinates];
        assert_eq!(counts, [Some(1), Some(0), Some(0)]);
        assert!(change.average_bits[0] < change.average_bits[1]);
        assert_distance(&change, index, &parts);
    }
}

/// The same values in other groups: no difference but the grouping.
#[test]
fn another_grouping() {
    let mut parts = Parts::new();
    let linear = parts.weights.len() - 1;
    let whole = &parts.weights[linear].1;
    let shape = whole.shape().to_vec();
    assert_eq!(shape, [3, 4]);
    let (codes, coordinates, widths) = whole.to_training_form(8);
    // Each run of three is cut into three of one.
    let thrice = |values: &[f32]| -> Vec<f32> {
        values
            .chunks(8)
            .flat_map(|slots| [slots; 3].concat())
            .collect()
    };
    let widths: Vec<u8> = widths.iter().flat_map(|&width| [width; 3]).collect();
    let grouping = Grouping::subchannelwise(&shape, 3).unwrap();
    let slots = thrice(&coordinates);
    let packed = multibit::PackedWeight::pack(&shape, grouping, 8, &codes, &slots, &widths);
    parts.weights[linear].1 = packed.unwrap();
    let (_, change) = weight(&parts);
    assert_eq!(change.widths, None);
    assert_eq!((change.relative, change.largest), (0.0, 0.0));
    assert!(
        change.kind[0][1].contains("subchannelwise(3)"),
        "{change:?}"
    );
}

#[test]
fn tensors_and_what_is_said() {
    let mut parts = Parts::new();
    let first = parts.tensors[0].2[0];
    parts.tensors[0].2[0] += 2.0;
    let (path, change) = only(&parts);
    assert_eq!(path, parts.tensors[0].0);
    let Change::Tensor(TensorChange {
        numbers,
        relative,
        largest,
    }) = change
    else {
        panic!("{change:?}");
    };
    assert_eq!(numbers, ["f32"; 2]);
    assert_eq!(largest, Some((first + 2.0 - first).abs()));
    assert!(relative.unwrap() > 0.0);

    let mut parts = Parts::new();
    parts.about.name = "another".into();
    parts.about.labels[1] = "bee".into();
    let difference = difference(Parts::new().file(), parts.file());
    let what: Vec<&str> = difference
        .about
        .iter()
        .map(|[what, ..]| what.as_str())
        .collect();
    assert_eq!(what, ["name", "labels"]);
    assert!(!difference.is_none());
    let text = difference.to_text();
    assert!(
        text.starts_with("name: \"a model\" -> \"another\"\n"),
        "{text}"
    );
}

/// Weights of one of the files, and of another shape.
#[test]
fn what_one_file_lacks() {
    let mut parts = Parts::new();
    parts.about.chain.clear();
    let whole = parts.file();
    let (path, ..) = parts.weights.pop().unwrap();
    let changed = |first: &[u8], second: &[u8]| -> Vec<(String, Change)> {
        let entries = difference(first.to_vec(), second.to_vec())
            .entries
            .into_iter();
        let changed = entries.filter(|entry| entry.change != Change::None);
        changed.map(|entry| (entry.path, entry.change)).collect()
    };
    let fewer = parts.file();
    assert_eq!(changed(&whole, &fewer), [(path.clone(), Change::First)]);
    assert_eq!(changed(&fewer, &whole), [(path, Change::Second)]);
    let mut parts = Parts::new();
    parts.about.chain.clear();
    let last = parts.weights.len() - 1;
    parts.weights[last].1 = parts.weights[0].1.clone();
    let shapes = [vec![3, 4], vec![3, 2, 3, 3]];
    let path = parts.weights[last].0.clone();
    assert_eq!(
        changed(&whole, &parts.file()),
        [(path, Change::Shape(shapes))]
    );
}
