//! The file: what comes back, and what is refused.

use std::path::Path;

use burn::module::Param;
use burn::nn::LinearConfig;
use burn::tensor::{Device, Tensor};
use burn_alq::file::{Coding, FORMAT_VERSION, FileError};
use burn_alq::pack::PackModelError;
use burn_alq::{CoordinateType, PackedModel};
use burn_pack::{Bytes, Reader, Scalar, Writer};

use multibit::{Grouping, PackError, PackedWeight};

use crate::compact::odd;
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

pub fn packed() -> PackedModel {
    let device = Device::flex();
    let mut packed = PackedModel::pack(&quantizer().apply(Net::new(&device)).unwrap()).unwrap();
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
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains(r#""version":4"#) && text.contains(r#""coordinate_type":"f16""#));
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

/// A file of version 2 with deflated sections; they are not written any more.
fn deflated() -> Vec<u8> {
    frozen("file_v2/deflate.bpk")
}

/// A file in `golden/`.
fn frozen(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    std::fs::read(folder.join(name)).unwrap()
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

#[test]
fn a_deflated_file_that_lies_is_refused() {
    let bytes = deflated();
    let directory = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
    let changed = |field: &str, value: serde_json::Value| {
        with_directory_of(&bytes, |text| {
            let mut directory = directory(text);
            let entry = &mut directory["weights"][2];
            assert_eq!(entry["path"], "sparse.weight");
            assert!(entry["stored"].is_array(), "{entry}");
            entry[field] = value.clone();
            directory.to_string()
        })
    };
    assert!(load(&changed("path", "sparse.weight".into())).is_ok());
    // A layer of 4·10¹² weights without any width: 50 GB from a few bytes.
    let bomb = load(&changed(
        "shape",
        serde_json::json!([1_000_000_000_000_u64, 4]),
    ));
    let error = bomb.unwrap_err();
    assert!(error.to_string().contains("do not hold"), "{error}");
    for stored in [[0, 0, 0], [1, 2, 3], [u64::MAX, 1, 1]] {
        let error = load(&changed("stored", serde_json::json!(stored))).unwrap_err();
        assert!(matches!(error, FileError::Tensor { .. }), "{error}");
    }
    let early = with_directory_of(&bytes, |text| {
        text.replacen(r#""version":2"#, r#""version":1"#, 1)
    });
    let error = load(&early).unwrap_err();
    assert!(matches!(error, FileError::Directory { .. }), "{error}");
}

/// Files of every version that was ever written load. Never write them anew.
#[test]
fn frozen_files_load_forever() {
    for (name, model) in [
        ("file_v1/packed", packed()),
        ("file_v2/f16", halved()),
        ("file_v2/deflate", sparse()),
        ("file_v4/packed", packed()),
        ("file_v4/f16", halved()),
    ] {
        let bytes = frozen(&format!("{name}.bpk"));
        assert_eq!(load(&bytes).unwrap(), model, "{name}");
        let written_so = name.starts_with("file_v4");
        assert_eq!(model.to_bytes().unwrap() == bytes, written_so, "{name}");
    }
}

/// The page on the format says enough: a reader that was written from it finds the same model.
#[test]
fn a_second_reader_agrees() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut samples: Vec<Vec<u8>> = Vec::new();
    for version in 1..=FORMAT_VERSION {
        for file in std::fs::read_dir(golden.join(format!("file_v{version}"))).unwrap() {
            samples.push(std::fs::read(file.unwrap().path()).unwrap());
        }
    }
    assert!(samples.len() >= 6, "files of every version");
    for model in [packed(), halved(), sparse(), odd()] {
        for coding in [Coding::Plain, Coding::Deflate] {
            samples.push(model.to_bytes_with(coding).unwrap());
        }
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
            let dtype = serde_json::to_string(&tensor.dtype()).unwrap();
            assert_eq!(
                (&theirs.path, &theirs.shape[..], &theirs.dtype),
                (path, &tensor.shape()[..], &dtype)
            );
            assert!(theirs.bytes == tensor.as_bytes(), "{path}");
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = deflated();
    for len in 0..bytes.len() {
        let error = load(&bytes[..len]).expect_err("a file that is too short");
        assert!(error.to_string().contains("model.bpk"), "{error}");
    }
}

/// Any byte may have any other value: it is noticed, or it means the same.
#[test]
fn a_damaged_file_is_refused_or_means_the_same() {
    for (model, coding) in [
        (packed(), Coding::Plain),
        (sparse(), Coding::Plain),
        (sparse(), Coding::Deflate),
    ] {
        let bytes = model.to_bytes_with(coding).unwrap();
        let sections = model.weights.iter();
        let stored: usize = sections.map(|(_, w)| w.encoded_bytes().total()).sum();
        let mut refused = 0;
        for place in 0..bytes.len() {
            // Beyond the metadata a byte stands for itself, and a checksum covers it or nothing does.
            let masks = if place < 2048 { 1..=255 } else { 1..=1 };
            for mask in masks {
                let mut damaged = bytes.clone();
                damaged[place] ^= mask;
                match load(&damaged) {
                    Err(_) => refused += 1,
                    Ok(loaded) => assert_eq!(loaded, model, "byte {place} ^ {mask}"),
                }
            }
        }
        assert!(refused > stored / 2, "{refused} of {}", bytes.len());
    }
}

/// Bytes of valid files, changed as a fuzzer would: an error or a model, and never more memory or
/// time than the file is worth. What loads is written and read as itself.
#[test]
fn mutated_files_never_break_the_reader() {
    let mut random = Random::new(11);
    let samples: Vec<Vec<u8>> = [packed(), halved(), sparse(), odd()]
        .iter()
        .flat_map(|model| [Coding::Plain, Coding::Deflate].map(|c| model.to_bytes_with(c).unwrap()))
        .chain([
            deflated(),
            frozen("file_v1/packed.bpk"),
            frozen("file_v2/f16.bpk"),
        ])
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

/// The file again, with its directory changed and its checksum made right.
fn with_directory(change: impl Fn(&str) -> String) -> Vec<u8> {
    with_directory_of(&packed().to_bytes().unwrap(), change)
}

fn with_directory_of(bytes: &[u8], change: impl Fn(&str) -> String) -> Vec<u8> {
    let bytes = Bytes::from_bytes_vec(bytes.to_vec());
    let reader = Reader::from_bytes(bytes).unwrap();
    let directory = change(&reader.metadata()["burn-alq.directory"]);
    let checksum = Scalar::from(crc32(directory.as_bytes()));
    let writer = Writer::new(reader.into_tensors().unwrap());
    let writer = writer.with_scalar("burn-alq.directory.crc32", checksum);
    writer
        .with_metadata("burn-alq.directory", &directory)
        .into_bytes()
        .unwrap()
        .to_vec()
}

/// CRC-32 of IEEE 802.3, bit by bit, as `FORMAT.md` names it.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}

#[test]
fn a_directory_that_lies_is_refused() {
    assert!(load(&with_directory(str::to_string)).is_ok(), "unchanged");
    let replace = |from: &'static str, to: &'static str| {
        with_directory(move |text| {
            assert!(text.contains(from), "{from} in {text}");
            text.replacen(from, to, 1)
        })
    };
    let error = load(&replace(r#""version":4"#, r#""version":5"#)).unwrap_err();
    assert!(
        matches!(error, FileError::Version { found: 5, .. }),
        "{error}"
    );
    let error = load(&replace(r#""version":4"#, r#""version":0"#)).unwrap_err();
    assert!(matches!(error, FileError::Version { .. }), "{error}");
    let error = load(&replace(r#""version":4"#, r#""version":3"#)).unwrap_err();
    assert!(error.to_string().contains("laid out otherwise"), "{error}");
    for (from, to) in [
        (r#""shape":[8],"#, ""),
        (r#""shape":[8],"#, r#""shape":[2,4],"#),
        (r#""dtype":"F32""#, r#""dtype":"I32""#),
        (r#""dtype":"F32","#, ""),
    ] {
        let error = load(&replace(from, to)).unwrap_err();
        assert!(
            error.to_string().contains("another type or shape"),
            "{error}"
        );
    }
    let early = with_directory_of(&frozen("file_v1/packed.bpk"), |text| {
        text.replacen(r#""crc32":"#, r#""coordinate_type":"f16","crc32":"#, 1)
    });
    let error = load(&early).unwrap_err();
    let text = "conv.weight has what version 1 does not";
    assert!(error.to_string().contains(text), "{error}");
    let error = load(&replace(r#""format":"burn-alq""#, r#""format":"other""#)).unwrap_err();
    assert!(matches!(error, FileError::NotPacked { .. }), "{error}");
    let error = load(&replace(r#""weights":"#, r#""weight":"#)).unwrap_err();
    assert!(matches!(error, FileError::Directory { .. }), "{error}");
    let error = load(&replace(r#""coordinates":"#, r#""coordinates":9"#)).unwrap_err();
    assert!(matches!(error, FileError::Tensor { .. }), "{error}");
    let error = load(&replace(r#""width_bits":2"#, r#""width_bits":7"#)).unwrap_err();
    assert!(
        matches!(error, FileError::Tensor { .. } | FileError::Weight { .. }),
        "{error}"
    );
    let error = load(&replace(r#""len":9"#, r#""len":5"#)).unwrap_err();
    assert!(matches!(error, FileError::Grouping { .. }), "{error}");
    let error = load(&replace(r#""axes":[0,1,2,3]"#, r#""axes":[0,1,2,2]"#)).unwrap_err();
    assert!(matches!(error, FileError::Grouping { .. }), "{error}");
    let huge = r#""shape":[18446744073709551615,1,3,3]"#;
    let error = load(&replace(r#""shape":[8,1,3,3]"#, huge)).unwrap_err();
    assert!(matches!(error, FileError::Grouping { .. }), "{error}");
    let many = r#""shape":[4611686018427387,1,3,3]"#;
    let error = load(&replace(r#""shape":[8,1,3,3]"#, many)).unwrap_err();
    assert!(matches!(error, FileError::Tensor { .. }), "{error}");
    let error = load(&replace(r#""path":"fc.weight""#, r#""path":"fc.wait""#)).unwrap_err();
    assert!(
        matches!(&error, FileError::Tensor { path, .. } if path == "fc.wait"),
        "{error}"
    );
    let error = load(&replace(r#""crc32":"#, r#""crc32":1"#)).unwrap_err();
    assert!(
        matches!(
            error,
            FileError::Checksum { .. } | FileError::Directory { .. }
        ),
        "{error}"
    );
}

#[test]
fn other_files_are_refused() {
    let empty = Writer::new(Vec::new()).into_bytes().unwrap();
    let error = load(&empty).unwrap_err();
    assert!(matches!(error, FileError::NotPacked { .. }), "{error}");
    let error = load(b"not a container at all").unwrap_err();
    assert!(matches!(error, FileError::Container { .. }), "{error}");
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
    let mut net = quantizer().apply(Net::new(&device)).unwrap();
    let bias = Tensor::from_floats([f32::MIN_POSITIVE, -0.0, 1e30, f32::INFINITY], &device);
    net.fc.bias = Some(Param::from_tensor(bias.clone()));
    let bytes = PackedModel::pack(&net).unwrap().to_bytes().unwrap();
    let loaded = load(&bytes).unwrap().apply(Net::new(&device)).unwrap();
    assert_eq!(loaded.fc.bias.unwrap().val().into_data(), bias.into_data());
}
