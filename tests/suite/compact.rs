//! The file in the fewest bytes, version 3.

use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_alq::file::{Coding, FileError};
use burn_alq::pack::PackModelError;
use burn_alq::{CoordinateType, PackedModel};
use burn_pack::{Bytes, Reader, Writer};
use miniz_oxide::inflate::decompress_to_vec;
use multibit::{Grouping, PackedWeight};
use serde_json::{Value, json};

use crate::file::{crc32, halved, load, packed, sparse};
use crate::model::Net;

fn compact(model: &PackedModel) -> Vec<u8> {
    model.to_bytes_with(Coding::Deflate).unwrap()
}

/// Every kind of number that a tensor may hold, and what is hard to keep.
pub fn odd() -> PackedModel {
    let mut odd = sparse();
    let codes: Vec<u8> = (0..=255).collect();
    let coordinates: Vec<f32> = (1..=8).map(|i| 0.01 * i as f32).collect();
    let grouping = Grouping::new(vec![1, 0], 256).unwrap();
    let wide = PackedWeight::pack(&[256, 1], grouping, 8, &codes, &coordinates, &[8]);
    odd.weights
        .push(("wide.weight".into(), wide.unwrap().into()));
    let hard = [
        f32::NAN,
        -0.0,
        f32::INFINITY,
        1e30,
        f32::MIN_POSITIVE,
        1.0 / 3.0,
    ];
    for (name, tensor) in [
        ("hard", TensorData::from(hard)),
        (
            "halves",
            TensorData::from([0.5_f32, -0.0, f32::NEG_INFINITY, 65504.0]),
        ),
        (
            "far",
            TensorData::from([1e38_f32, -2.0, 0.0].map(|x| CoordinateType::Bf16.nearest(x))),
        ),
        ("double", TensorData::from([1.0 / 3.0_f64])),
        ("counts", TensorData::from([i64::MIN, 7])),
        ("flags", TensorData::from([true, false])),
        ("nothing", TensorData::new(Vec::<f32>::new(), [0, 3])),
        ("zeros", TensorData::zeros::<f32, _>([20, 10])),
    ] {
        odd.tensors.push((name.into(), tensor));
    }
    odd.config.insert("text".into(), "\"quoted\", µ".into());
    odd
}

/// Equal to the last bit, NaN included.
fn assert_same(a: &PackedModel, b: &PackedModel, what: &str) {
    assert!(a.weights == b.weights && a.config == b.config, "{what}");
    assert_eq!(a.tensors.len(), b.tensors.len(), "{what}");
    for ((path, a), (other, b)) in a.tensors.iter().zip(&b.tensors) {
        assert_eq!(
            (path, a.shape(), a.dtype()),
            (other, b.shape(), b.dtype()),
            "{what}"
        );
        assert!(a.as_bytes() == b.as_bytes(), "{what}: {path}");
    }
}

#[test]
fn every_model_comes_back_bit_for_bit_in_fewer_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.bpk");
    let mut bare = packed();
    bare.tensors.clear();
    bare.config.clear();
    for (name, model) in [
        ("packed", packed()),
        ("halved", halved()),
        ("sparse", sparse()),
        ("odd", odd()),
        ("bare", bare),
    ] {
        model.save_with(&file, Coding::Deflate).unwrap();
        let bytes = std::fs::read(&file).unwrap();
        let loaded = PackedModel::load(&file).unwrap();
        assert_same(&loaded, &model, name);
        assert!(
            compact(&loaded) == bytes,
            "{name} is written again as it was"
        );
        assert!(bytes.len() < model.to_bytes().unwrap().len(), "{name}");
    }
}

/// What is not a section or a tensor: the container's 256 bytes before its one tensor, and the
/// directory.
#[test]
fn little_is_added_to_the_sections() {
    let model = packed();
    let weights = model.weights.iter();
    let weights: usize = weights.map(|(_, w)| w.encoded_bytes().total()).sum();
    let tensors = model.tensors.iter();
    let tensors: usize = tensors.map(|(_, tensor)| tensor.as_bytes().len()).sum();
    let bytes = compact(&model).len();
    assert!(
        bytes <= weights + tensors + 256 + 250,
        "{bytes}, {weights}, {tensors}"
    );
}

/// Biases in two bytes: in memory what the file holds, and the levels of activations untouched.
#[test]
fn rounded_biases_take_two_bytes() {
    let mut model = odd();
    model
        .tensors
        .retain(|(path, _)| !["hard", "far"].contains(&path.as_str()));
    let state = TensorData::from([2.0_f32, 0.1, 0.3, 0.7, 0.0, 0.0]);
    model.tensors.push(("act.state".into(), state.clone()));
    for (float_type, error) in [(CoordinateType::F16, 5e-4), (CoordinateType::Bf16, 4e-3)] {
        let rounded = model.clone().with_float_type(float_type).unwrap();
        let loaded = load(&compact(&rounded)).unwrap();
        assert_same(&loaded, &rounded, "rounded");
        let mut changed = 0;
        for ((path, before), (_, after)) in model.tensors.iter().zip(&rounded.tensors) {
            if before.dtype() != DType::F32 || path == "act.state" {
                assert!(before.as_bytes() == after.as_bytes(), "{path}");
                continue;
            }
            for (before, after) in before.iter::<f32>().zip(after.iter::<f32>()) {
                // Half of the last of 11 and of 8 significant bits.
                assert!(
                    (before - after).abs() <= error * before.abs() || before == after,
                    "{path}"
                );
                assert!(float_type.holds(after));
                changed += usize::from(before != after);
            }
        }
        assert!(changed > 0, "biases are not such numbers by chance");
        // The net's two biases.
        let biases = 12;
        assert!(compact(&rounded).len() + biases <= compact(&model).len());
    }
    model
        .tensors
        .push(("var".into(), TensorData::from([1.0_f32, 1e6])));
    let error = model.with_float_type(CoordinateType::F16).unwrap_err();
    assert_eq!(
        error.to_string(),
        "var holds 1000000, which is beyond the range of f16"
    );
    assert!(matches!(error, PackModelError::Range { .. }));
}

/// Never write it anew.
#[test]
fn a_frozen_file_loads_forever() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/file_v3/odd.bpk");
    assert_same(&PackedModel::load(file).unwrap(), &odd(), "frozen");
}

#[test]
fn a_file_cut_or_damaged_anywhere_is_refused_or_means_the_same() {
    let model = sparse();
    let bytes = compact(&model);
    for len in 0..bytes.len() {
        let error = load(&bytes[..len]).expect_err("a file that is too short");
        assert!(error.to_string().contains("model.bpk"), "{error}");
    }
    let mut refused = 0;
    for place in 0..bytes.len() {
        for mask in [0x01, 0x10, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[place] ^= mask;
            match load(&damaged) {
                Err(_) => refused += 1,
                Ok(loaded) => assert_eq!(loaded, model, "byte {place}"),
            }
        }
    }
    // All but the container's padding.
    assert!(
        refused >= 4 * (bytes.len() - 256),
        "{refused} of {}",
        bytes.len()
    );
}

/// The file with another directory and other data, and a right checksum.
fn with(model: &PackedModel, change: impl FnOnce(&mut Value, &mut Vec<u8>)) -> Vec<u8> {
    let reader = Reader::from_bytes(Bytes::from_bytes_vec(compact(model))).unwrap();
    let body = reader.tensor_data("burn-alq").unwrap();
    let stored = u32::from_le_bytes(body[4..8].try_into().unwrap()) as usize;
    let (directory, data) = body[12..].split_at(stored);
    let mut directory = serde_json::from_slice(&decompress_to_vec(directory).unwrap()).unwrap();
    let mut data = data.to_vec();
    change(&mut directory, &mut data);
    wrapped(directory.to_string().as_bytes(), &data)
}

/// A body around a plain directory.
fn wrapped(directory: &[u8], data: &[u8]) -> Vec<u8> {
    let length = (directory.len() as u32).to_le_bytes();
    let rest = [&length[..], &length, directory, data].concat();
    container([&crc32(&rest).to_le_bytes()[..], &rest].concat())
}

fn container(body: Vec<u8>) -> Vec<u8> {
    let shape = [body.len()];
    let body = Bytes::from_bytes_vec(body);
    let tensor = burn_pack::Tensor::new("burn-alq".into(), DType::U8, shape, None, body);
    Writer::new(vec![tensor]).into_bytes().unwrap().to_vec()
}

/// A change of the directory and the data.
type Lie = Box<dyn Fn(&mut Value, &mut Vec<u8>)>;

#[test]
fn a_file_that_lies_is_refused() {
    let model = odd();
    assert!(
        load(&with(&model, |_, _| {})).is_ok(),
        "a plain directory is one too"
    );
    let weight = |directory: &mut Value, field: &str, value: Value| {
        assert_eq!(directory["weights"][2]["path"], "sparse.weight");
        directory["weights"][2][field] = value;
    };
    let lies: [(&str, Lie); 13] = [
        ("version 5", Box::new(|d, _| d["version"] = json!(5))),
        (
            "laid out otherwise",
            Box::new(|d, _| d["version"] = json!(2)),
        ),
        ("unknown field", Box::new(|d, _| d["more"] = json!(1))),
        ("of no tensor", Box::new(|_, data| data.push(0))),
        (
            "ends in it",
            Box::new(|_, data| data.truncate(data.len() - 1)),
        ),
        (
            "twice",
            Box::new(|d, _| d["tensors"][1]["path"] = json!("conv.bias")),
        ),
        (
            "ends in it",
            Box::new(move |d, _| weight(d, "stored", json!([u64::MAX, 1, 1]))),
        ),
        (
            "do not hold",
            Box::new(move |d, _| weight(d, "shape", json!([4_000_000_000_000_u64, 4]))),
        ),
        (
            "do not hold 4",
            Box::new(move |d, _| weight(d, "coordinates", json!(1))),
        ),
        (
            "address space",
            Box::new(|d, _| {
                d["tensors"][0]["shape"] = json!([u64::MAX, 8]);
                d["tensors"][0]["stored"] = json!(5);
            }),
        ),
        (
            "no tensor of",
            Box::new(|d, _| {
                let tensor = d["tensors"].as_array_mut().unwrap().last_mut().unwrap();
                tensor["dtype"] = json!("I64");
            }),
        ),
        (
            "do not hold",
            Box::new(|d, _| {
                let tensor = d["tensors"].as_array_mut().unwrap().last_mut().unwrap();
                tensor["shape"] = json!([1_000_000_000]);
            }),
        ),
        (
            "ends in it",
            Box::new(|d, _| d["tensors"][0]["stored"] = json!(u64::MAX)),
        ),
    ];
    for (expected, lie) in lies {
        let error = load(&with(&model, lie)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(expected) && text.contains("model.bpk"),
            "{expected}: {text}"
        );
    }
    for body in [&[][..], &[0; 11], &[0; 12], &[1; 40]] {
        assert!(load(&container(body.to_vec())).is_err(), "{body:?}");
    }
    for directory in ["", "{}", "[]", r#"{"version":3}"#, r#"{"version":-3}"#] {
        let error = load(&wrapped(directory.as_bytes(), &[])).unwrap_err();
        assert!(matches!(error, FileError::Directory { .. }), "{error}");
    }
}

/// The model runs from the file.
#[test]
fn a_compact_file_gives_the_same_scores() {
    let device = Device::flex();
    let images = Tensor::<4>::ones([3, 1, 6, 6], &device);
    let model = packed();
    let [a, b] = [model.clone(), load(&compact(&model)).unwrap()].map(|packed| {
        let net = packed.apply(Net::new(&device)).unwrap();
        net.forward(images.clone()).into_data()
    });
    assert!(a.as_bytes() == b.as_bytes());
}
