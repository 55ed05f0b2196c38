//! The file: what comes back, and what is refused.

use std::path::{Path, PathBuf};

use burn::module::Param;
use burn::nn::LinearConfig;
use burn::tensor::{BoolStore, DType, Device, Tensor};
use burn_alq::file::PackModelError;
use burn_alq::file::{Coding, FileError};
use burn_alq::{CoordinateType, PackedModel};
use burn_pack::Writer;
use multibit::{Grouping, PackError, PackedWeight, fit};

use crate::compact::{assert_same, container, odd};
use crate::model::{Net, quantizer};
use crate::reader;
use crate::support::Random;

/// A model with coordinates in f16.
pub fn halved() -> PackedModel {
    let mut halved = packed();
    for (_, weight) in &mut halved.weights {
        let (codes, mut coordinates, widths) = weight.to_training_form(3);
        for coordinate in &mut coordinates {
            *coordinate = CoordinateType::F16.round(*coordinate);
        }
        let (shape, grouping) = (weight.shape().to_vec(), weight.grouping().clone());
        let rounded = PackedWeight::pack(&shape, grouping, 3, &codes, &coordinates, &widths);
        *weight = rounded.unwrap().into();
    }
    halved.with_coordinate_type(CoordinateType::F16).unwrap()
}

/// A model whose weights are sketched greedily: the same bits forever, as the frozen files have them.
pub fn packed() -> PackedModel {
    let net = Net::new(&Device::flex());
    let floats = [
        net.conv.weight.val().into_data(),
        net.fc.weight.val().into_data(),
    ];
    let mut packed = PackedModel::pack(&quantizer().quantize(net).unwrap().0).unwrap();
    let names: Vec<&str> = packed.weights.iter().map(|(path, _)| &path[..]).collect();
    assert_eq!(names, ["conv.weight", "fc.weight"]);
    for ((_, weight), float) in packed.weights.iter_mut().zip(floats) {
        let (shape, grouping) = (weight.shape().to_vec(), weight.grouping().clone());
        let mut grouped = vec![0.0; float.num_elements()];
        grouping.gather(&shape, float.as_slice().unwrap(), &mut grouped);
        let sketch = fit::greedy(&grouped, grouping.len(), 3).unwrap();
        let (codes, coordinates, widths) = (sketch.codes, sketch.coordinates, sketch.widths);
        let greedy = PackedWeight::pack(&shape, grouping, 3, &codes, &coordinates, &widths);
        *weight = greedy.unwrap().into();
    }
    packed.config.insert("made by".into(), "a test".into());
    packed
}

pub fn load(bytes: &[u8]) -> Result<PackedModel, FileError> {
    PackedModel::from_bytes(bytes.to_vec(), "model.bpk")
}

#[test]
fn a_file_holds_the_model_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.bpk");
    let packed = packed();
    packed.save(&file).unwrap();
    let loaded = PackedModel::load(&file).unwrap();
    assert_eq!(loaded, packed);
    assert_eq!(loaded.to_bytes().unwrap(), std::fs::read(&file).unwrap());

    let device = Device::flex();
    let images = Tensor::<4>::ones([3, 1, 6, 6], &device);
    let [a, b] = [packed, loaded].map(|packed| {
        let net = packed.apply(Net::new(&device)).unwrap();
        net.forward(images.clone())
            .into_data()
            .try_into_vec::<f32>()
            .unwrap()
    });
    assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()));
}

/// Coordinates in two bytes: the same values from the file, and fewer bytes in it.
#[test]
fn halves_come_back_bit_for_bit() {
    let halved = halved();
    let bytes = halved.to_bytes().unwrap();
    let loaded = load(&bytes).unwrap();
    assert_eq!(loaded, halved);
    assert_eq!(loaded.to_bytes().unwrap(), bytes);
    for ((_, half), (_, full)) in halved.weights.iter().zip(&packed().weights) {
        let (half, full) = (half.encoded_bytes(), full.encoded_bytes());
        assert_eq!(2 * half.coordinates, full.coordinates);
        assert_eq!((half.bases, half.widths), (full.bases, full.widths));
    }
    // Without rounding in training, nothing is rounded in silence.
    let error = packed()
        .with_coordinate_type(CoordinateType::F16)
        .unwrap_err();
    let inexact = |source: &PackError| matches!(source, PackError::Inexact { .. });
    assert!(
        matches!(&error, PackModelError::Weight { path, source } if path == "conv.weight" && inexact(source)),
        "{error}"
    );
}

/// With a weight whose groups are mostly empty, as after much pruning.
pub fn sparse() -> PackedModel {
    let (groups, len) = (400, 10);
    let widths: Vec<u8> = (0..groups).map(|group| u8::from(group % 7 == 0)).collect();
    let coordinates: Vec<f32> = widths.iter().map(|&width| 0.5 * f32::from(width)).collect();
    let codes = vec![0; groups * len];
    let grouping = Grouping::new(vec![1, 0], len).unwrap();
    let weight = PackedWeight::pack(&[1000, 4], grouping, 1, &codes, &coordinates, &widths);
    let mut sparse = halved();
    sparse
        .weights
        .push(("sparse.weight".into(), weight.unwrap().into()));
    sparse
}

const CODINGS: [(Coding, &str); 2] = [(Coding::Plain, "plain"), (Coding::Deflate, "deflate")];

/// Each model in each coding, as it was first written. Never write them anew.
#[test]
fn frozen_files_load_forever() {
    for (name, model) in models() {
        for (coding, suffix) in CODINGS {
            let name = format!("{name}_{suffix}.bpk");
            let bytes = std::fs::read(golden().join(&name)).unwrap();
            assert_same(&load(&bytes).unwrap(), &model, &name);
            // What DEFLATE makes of the same bytes is its encoder's to choose.
            let written = model.to_bytes_with(coding).unwrap();
            assert!(written == bytes || coding == Coding::Deflate, "{name}");
        }
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/file_v1")
}

fn models() -> [(&'static str, PackedModel); 4] {
    [
        ("packed", packed()),
        ("f16", halved()),
        ("sparse", sparse()),
        ("odd", odd()),
    ]
}

/// The page on the format says enough: a reader that was written from it finds the same model.
#[test]
fn a_second_reader_agrees() {
    let frozen = std::fs::read_dir(golden()).unwrap();
    let frozen = frozen.map(|file| std::fs::read(file.unwrap().path()).unwrap());
    let mut samples: Vec<Vec<u8>> = frozen.collect();
    assert!(samples.len() >= 8, "every model in every coding");
    for (_, model) in models() {
        samples.extend(CODINGS.map(|(coding, _)| model.to_bytes_with(coding).unwrap()));
    }
    for bytes in samples {
        let ours = load(&bytes).unwrap();
        let theirs = reader::read(&bytes).unwrap();
        assert_eq!(theirs.config, ours.config);
        assert_eq!(theirs.weights.len(), ours.weights.len());
        for (theirs, (path, weight)) in theirs.weights.iter().zip(&ours.weights) {
            assert_eq!((&theirs.path, &theirs.shape[..]), (path, weight.shape()));
            assert_eq!(theirs.widths, weight.widths(), "{path}");
            let equal = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
            assert!(
                theirs.values.iter().zip(&weight.unpack()).all(equal),
                "{path}"
            );
        }
        assert_eq!(theirs.tensors.len(), ours.tensors.len());
        for (theirs, (path, tensor)) in theirs.tensors.iter().zip(&ours.tensors) {
            let dtype = match tensor.dtype() {
                DType::F32 => 0,
                DType::F64 => 1,
                DType::I64 => 5,
                DType::Bool(BoolStore::Native) => 13,
                other => panic!("{other:?} in none of the models"),
            };
            assert_eq!(
                (&theirs.path, &theirs.shape[..], theirs.dtype),
                (path, &tensor.shape()[..], dtype)
            );
            assert!(theirs.bytes == tensor.as_bytes(), "{path}");
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for (coding, _) in CODINGS {
        let bytes = sparse().to_bytes_with(coding).unwrap();
        for len in 0..bytes.len() {
            let error = load(&bytes[..len]).expect_err("a file that is too short");
            assert!(error.to_string().contains("model.bpk"), "{error}");
        }
    }
}

/// Any byte may have any other value: it is noticed, or it is the container's and means the same.
#[test]
fn a_damaged_file_is_refused_or_means_the_same() {
    for (model, (coding, _)) in [
        (packed(), CODINGS[0]),
        (sparse(), CODINGS[0]),
        (sparse(), CODINGS[1]),
    ] {
        let bytes = model.to_bytes_with(coding).unwrap();
        for place in 0..bytes.len() {
            // Behind the directory a byte stands for itself, and a checksum covers it.
            let masks = if place < 2048 { 1..=255 } else { 1..=1 };
            for mask in masks {
                let mut damaged = bytes.clone();
                damaged[place] ^= mask;
                if let Ok(loaded) = load(&damaged) {
                    assert_eq!(loaded, model, "byte {place} ^ {mask}");
                    assert!(place < 256, "byte {place} is covered by no checksum");
                }
            }
        }
    }
}

/// Bytes of valid files, changed as a fuzzer would: an error or a model, and never more memory or
/// time than the file is worth. What loads is written and read as itself.
#[test]
fn mutated_files_never_break_the_reader() {
    let mut random = Random::new(11);
    let samples: Vec<Vec<u8>> = models()
        .iter()
        .flat_map(|(_, model)| CODINGS.map(|(coding, _)| model.to_bytes_with(coding).unwrap()))
        .collect();
    let mut below = |count: usize| (random.uniform() * count as f64) as usize;
    let mut loaded = 0;
    for round in 0..4000 {
        let mut bytes = samples[round % samples.len()].clone();
        for _ in 0..=below(3) {
            let place = below(bytes.len());
            match below(5) {
                0 => bytes[place] ^= 1 << below(8),
                1 => bytes[place] = [0, 1, 0x7f, 0x80, 0xff][below(5)],
                2 => bytes.truncate(place),
                3 => {
                    let (from, count) = (below(bytes.len()), below(40));
                    let part: Vec<u8> = bytes[from..].iter().copied().take(count).collect();
                    bytes.splice(place..place, part);
                }
                _ => {
                    let end = (place + below(40)).min(bytes.len());
                    bytes.drain(place..end);
                }
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
        if let Ok(model) = load(&bytes) {
            loaded += 1;
            let again = model.to_bytes().unwrap();
            assert!(load(&again).unwrap().to_bytes().unwrap() == again);
        }
    }
    assert!(loaded > 0, "a change of padding is none");
}

#[test]
fn other_files_are_refused() {
    let empty = Writer::new(Vec::new()).into_bytes().unwrap();
    let error = load(&empty).unwrap_err();
    assert!(matches!(error, FileError::NotPacked { .. }), "{error}");
    let other = container("another", packed().to_bytes().unwrap());
    let error = load(&other).unwrap_err();
    assert!(matches!(error, FileError::NotPacked { .. }), "{error}");
    let safetensors = b"\x08\0\0\0\0\0\0\0{\"w\":{}}";
    for (bytes, expected) in [
        (&b"not a container at all"[..], "a text file"),
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (safetensors, "a safetensors file"),
        (b"\xff\xfe\0\x01garbage", "[ff, fe, 00, 01]"),
        (&packed().to_bytes().unwrap()[..2], "the first 2 bytes of"),
    ] {
        let error = load(bytes).unwrap_err();
        assert!(matches!(error, FileError::NotPacked { .. }), "{error}");
        let text = error.to_string();
        let named = text.contains("is not a packed model: this is") && text.contains(expected);
        assert!(named, "{text}");
    }
    let error = PackedModel::load("no/such/file.bpk").unwrap_err();
    assert!(
        matches!(error, FileError::Io { .. }) && error.to_string().contains("no/such/file.bpk")
    );
}

#[test]
fn a_failed_write_keeps_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let error = packed()
        .save(folder.path().join("no/such/folder/model.bpk"))
        .unwrap_err();
    assert!(matches!(error, FileError::Container { .. }), "{error}");
    // A full device: nothing is left behind, and the error names the file.
    if Path::new("/dev/full").exists() {
        assert!(packed().save("/dev/full/model.bpk").is_err());
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_module_of_another_shape_is_refused() {
    let device = Device::flex();
    let packed = packed();
    let mut net = Net::new(&device);
    net.fc = LinearConfig::new(100, 4).init(&device);
    let error = packed.apply(net).unwrap_err();
    assert!(
        matches!(&error, PackModelError::Shape { path, .. } if path == "fc.weight"),
        "{error}"
    );
    let mut net = Net::new(&device);
    net.fc.bias = None;
    let error = packed.apply(net).unwrap_err();
    assert!(
        matches!(&error, PackModelError::Unused { path } if path == "fc.bias"),
        "{error}"
    );
    let mut less = packed.clone();
    less.tensors.retain(|(path, _)| path != "conv.bias");
    let error = less.apply(Net::new(&device)).unwrap_err();
    assert!(
        matches!(&error, PackModelError::Missing { path } if path == "conv.bias"),
        "{error}"
    );
    let error = PackedModel::pack(&Net::new(&device)).unwrap_err();
    assert_eq!(error, PackModelError::NoWeights);
}

/// Biases of any value survive, NaN included: packing judges the weights only.
#[test]
fn other_tensors_are_stored_as_they_are() {
    let device = Device::flex();
    let mut net = quantizer().quantize(Net::new(&device)).unwrap().0;
    let bias = Tensor::from_floats([f32::MIN_POSITIVE, -0.0, 1e30, f32::INFINITY], &device);
    net.fc.bias = Some(Param::from_tensor(bias.clone()));
    let bytes = PackedModel::pack(&net).unwrap().to_bytes().unwrap();
    let loaded = load(&bytes).unwrap().apply(Net::new(&device)).unwrap();
    assert_eq!(loaded.fc.bias.unwrap().val().into_data(), bias.into_data());
}
