//! The file in the fewest bytes, and files of both codings that lie.

use burn::tensor::quantization::QuantScheme;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_alq::file::PackModelError;
use burn_alq::file::{Coding, FileError, ReadError};
use burn_alq::{CoordinateType, PackedModel};
use burn_pack::{Bytes, Reader, Writer};
use ciborium::Value;
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec;
use multibit::{Grouping, PackedWeight};

use crate::file::{halved, load, packed, sparse};
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
pub fn assert_same(a: &PackedModel, b: &PackedModel, what: &str) {
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

/// Three significant bits of an f16 are its upper byte: the other one costs next to nothing.
#[test]
fn floats_of_few_bits_take_less() {
    let mut model = packed();
    let values: Vec<f32> = (0..600).map(|i| (i as f32 * 0.731).sin()).collect();
    model
        .tensors
        .push(("bias".into(), TensorData::new(values, [600])));
    let rounded = |model: PackedModel| model.with_float_type(CoordinateType::F16).unwrap();
    let few = rounded(model.clone().with_float_bits(3).unwrap());
    assert_same(&load(&compact(&few)).unwrap(), &few, "few bits");
    for ((path, before), (_, after)) in model.tensors.iter().zip(&few.tensors) {
        for (before, after) in before.iter::<f32>().zip(after.iter::<f32>()) {
            // Half of the last of 3 significant bits.
            let error = (before - after).abs();
            assert!(error <= 0.125 * before.abs(), "{path}: {before}, {after}");
        }
    }
    // A quarter of the two bytes at least.
    let saved = compact(&rounded(model)).len() - compact(&few).len();
    assert!(saved >= 300, "{saved}");
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

pub fn container(name: &str, body: Vec<u8>) -> Vec<u8> {
    let shape = [body.len()];
    let body = Bytes::from_bytes_vec(body);
    let tensor = burn_pack::Tensor::new(name.into(), DType::U8, shape, None, body);
    Writer::new(vec![tensor]).into_bytes().unwrap().to_vec()
}

/// A file of a directory that has `plain` bytes once inflated, with a right checksum.
fn wrapped(directory: &[u8], plain: usize, coding: Coding, data: &[u8]) -> Vec<u8> {
    let mut body = [[0; 4], [1, 0, coding as u8, 0]].concat();
    body.extend((directory.len() as u64).to_le_bytes());
    body.extend((plain as u64).to_le_bytes());
    body.extend(directory);
    let end = body.len();
    body.resize(end.next_multiple_of(boundary(coding)), 0);
    body.extend(data);
    let covered = match coding {
        Coding::Plain => end,
        Coding::Deflate => body.len(),
    };
    let checksum = crc32(&body[4..covered]);
    body[..4].copy_from_slice(&checksum.to_le_bytes());
    container("burn-alq", body)
}

fn boundary(coding: Coding) -> usize {
    match coding {
        Coding::Plain => 64,
        Coding::Deflate => 1,
    }
}

/// Directory and data of a model's file.
fn parts(model: &PackedModel, coding: Coding) -> (Value, Vec<u8>) {
    let file = Bytes::from_bytes_vec(model.to_bytes_with(coding).unwrap());
    let body = Reader::from_bytes(file).unwrap();
    let body = body.tensor_data("burn-alq").unwrap();
    let length = |at| u64::from_le_bytes(body[at..at + 8].try_into().unwrap()) as usize;
    let (stored, plain) = (length(8), length(16));
    let mut directory = body[24..24 + stored].to_vec();
    if stored < plain {
        directory = decompress_to_vec(&directory).unwrap();
    }
    let data = body[(24 + stored).next_multiple_of(boundary(coding))..].to_vec();
    (ciborium::from_reader(&directory[..]).unwrap(), data)
}

/// The file with another directory, which is plain, and other data.
fn with(model: &PackedModel, coding: Coding, lie: impl Fn(&mut Value, &mut Vec<u8>)) -> Vec<u8> {
    let (mut directory, mut data) = parts(model, coding);
    lie(&mut directory, &mut data);
    let mut bytes = Vec::new();
    ciborium::into_writer(&directory, &mut bytes).unwrap();
    wrapped(&bytes, bytes.len(), coding, &data)
}

/// The place of a key's value in a map; made where it was not.
fn at(map: &mut Value, key: u64) -> &mut Value {
    let map = map.as_map_mut().unwrap();
    let number = |key: &Value| u64::try_from(key.as_integer().unwrap()).unwrap();
    let place = map
        .iter()
        .take_while(|(other, _)| number(other) < key)
        .count();
    if map.get(place).is_none_or(|(other, _)| number(other) != key) {
        map.insert(place, (key.into(), Value::Null));
    }
    &mut map[place].1
}

/// A field of an entry of a list.
fn field(directory: &mut Value, list: u64, entry: usize, key: u64) -> &mut Value {
    at(&mut at(directory, list).as_array_mut().unwrap()[entry], key)
}

const WEIGHTS: u64 = 0;
const TENSORS: u64 = 1;

/// What the error says, and a change of directory and data.
type Lie = (&'static str, Box<dyn Fn(&mut Value, &mut Vec<u8>)>);

/// A lie that is another value of a field.
fn other(says: &'static str, list: u64, entry: usize, key: u64, value: impl Into<Value>) -> Lie {
    let value = value.into();
    (
        says,
        Box::new(move |directory, _| *field(directory, list, entry, key) = value.clone()),
    )
}

fn numbers<const N: usize>(numbers: [u64; N]) -> Value {
    Value::Array(numbers.map(Value::from).to_vec())
}

fn lies_of_any_coding() -> Vec<Lie> {
    vec![
        (
            "an unknown key of the directory",
            Box::new(|d, _| *at(d, 8) = 1.into()),
        ),
        (
            "a misplaced key",
            Box::new(|d, _| {
                let map = d.as_map_mut().unwrap();
                map.push(map[0].clone());
            }),
        ),
        (
            "no list of weights",
            Box::new(|d, _| {
                d.as_map_mut().unwrap().remove(0);
            }),
        ),
        ("of no tensor", Box::new(|_, data| data.push(0))),
        (
            "ends in it",
            Box::new(|_, data| data.truncate(data.len() - 1)),
        ),
        other("an unknown key of a weight", WEIGHTS, 0, 7, 1),
        other("a code that stands for nothing", WEIGHTS, 0, 8, 3),
        other("conv.weight: wrong checksum", WEIGHTS, 0, 2, 1),
        other("twice", TENSORS, 1, 0, "conv.bias"),
        other("twice", TENSORS, 1, 0, "conv.weight"),
        other("a code that stands for nothing", TENSORS, 0, 7, 17),
        other(
            "conv.bias: does not fit the address space",
            TENSORS,
            0,
            1,
            numbers([u64::MAX, 8]),
        ),
        (
            "a tensor that lacks a key",
            Box::new(|d, _| {
                let entry = &mut at(d, TENSORS).as_array_mut().unwrap()[0];
                entry.as_map_mut().unwrap().remove(1);
            }),
        ),
        // Groupings that do not fit.
        other("conv.weight: ", WEIGHTS, 0, 4, 5),
        other("conv.weight: ", WEIGHTS, 0, 3, numbers([0, 1, 2, 2])),
        other("conv.weight: ", WEIGHTS, 0, 1, numbers([u64::MAX, 1, 3, 3])),
    ]
}

fn lies_of_plain_files() -> Vec<Lie> {
    vec![
        other(
            "ends in it",
            WEIGHTS,
            0,
            1,
            numbers([4_611_686_018_427_387, 1, 3, 3]),
        ),
        other("conv.weight: ", WEIGHTS, 0, 5, 900),
        other("conv.weight: ", WEIGHTS, 0, 6, 7),
        other(
            "deflated in a plain file",
            WEIGHTS,
            0,
            9,
            numbers([1, 2, 3]),
        ),
        other("deflated in a plain file", TENSORS, 0, 9, 5),
        other(
            "no tensor of f32 is stored in f16 by this coding",
            TENSORS,
            0,
            8,
            1,
        ),
        (
            "the padding before it is not 0",
            Box::new(|_, data| data[63] = 1),
        ),
    ]
}

fn lies_of_deflated_files() -> Vec<Lie> {
    // `odd` ends with a tensor of zeros; its third weight deflates in all sections.
    let last = odd().tensors.len() - 1;
    vec![
        other("ends in it", WEIGHTS, 2, 9, numbers([u64::MAX, 1, 1])),
        other("sparse.weight: ", WEIGHTS, 2, 9, numbers([1, 2, 3])),
        other("sparse.weight: ", WEIGHTS, 2, 9, numbers([0, 0, 0])),
        other(
            "do not hold",
            WEIGHTS,
            2,
            1,
            numbers([4_000_000_000_000, 4]),
        ),
        other("do not hold 4", WEIGHTS, 2, 5, 1),
        other("no tensor of", TENSORS, last, 7, 5),
        other("do not hold", TENSORS, last, 1, numbers([1_000_000_000])),
        other("ends in it", TENSORS, 0, 9, u64::MAX),
        other("only Coding::Plain", TENSORS, 0, 7, 16),
    ]
}

#[test]
fn a_file_that_lies_is_refused() {
    let model = odd();
    for (coding, lies) in [
        (Coding::Plain, lies_of_plain_files()),
        (Coding::Deflate, lies_of_deflated_files()),
    ] {
        let unchanged = load(&with(&model, coding, |_, _| {})).unwrap();
        assert_same(&unchanged, &model, "a plain directory is one too");
        for (says, lie) in lies.into_iter().chain(lies_of_any_coding()) {
            let error = load(&with(&model, coding, lie)).unwrap_err().to_string();
            let named = error.contains(says) && error.contains("model.bpk");
            assert!(named, "{coding:?}, {says}: {error}");
        }
    }
    // The version counts before all else.
    let body = |version: u16| [&[0; 4], &version.to_le_bytes()[..], &[0xff; 18]].concat();
    for version in [0, 2, u16::MAX] {
        let error = load(&container("burn-alq", body(version))).unwrap_err();
        let newer = ReadError::Version { found: version };
        assert!(
            matches!(&error, FileError::Read { source, .. } if *source == newer),
            "{error}"
        );
    }
    let error = load(&container("burn-alq", body(1))).unwrap_err();
    assert!(
        error.to_string().contains("a code that stands for nothing"),
        "{error}"
    );
    for body in [&[][..], &[0; 23], &[0; 24], &[1; 40], &body(1)] {
        let error = load(&container("burn-alq", body.to_vec())).unwrap_err();
        assert!(error.to_string().contains("model.bpk"), "{error}");
    }
}

/// Also where a length in it is a lie, and where it is written in another form.
#[test]
fn a_directory_that_is_none_is_refused() {
    let (directory, data) = parts(&packed(), Coding::Plain);
    let mut bytes = Vec::new();
    ciborium::into_writer(&directory, &mut bytes).unwrap();
    let refused = |bytes: &[u8], plain, says: &str| {
        let error = load(&wrapped(bytes, plain, Coding::Plain, &data)).unwrap_err();
        assert!(error.to_string().contains(says), "{says}: {error}");
    };
    // A list of 2^64 - 1 entries, a text of as many bytes.
    let huge = b"\xa2\0\x9b\xff\xff\xff\xff\xff\xff\xff\xff";
    let text = b"\xa2\0\x81\xa7\0\x7b\xff\xff\xff\xff\xff\xff\xff\xff";
    for bytes in [&b""[..], b"\xa0", b"\x80", b"{}", b"\xa1\0\0", huge, text] {
        refused(bytes, bytes.len(), "damaged directory");
    }
    refused(
        &[&bytes[..], &[0]].concat(),
        bytes.len() + 1,
        "bytes behind the end",
    );
    let open_ended = [&[0xbf], &bytes[1..], &[0xff]].concat();
    refused(&open_ended, open_ended.len(), "without a definite length");
    let deflated = compress_to_vec(&bytes, 10);
    refused(&deflated, bytes.len(), "deflated in a plain file");
    let error = load(&wrapped(&deflated, 1 << 40, Coding::Deflate, &data)).unwrap_err();
    assert!(error.to_string().contains("do not hold"), "{error}");
}

/// A wrong number with a right checksum.
#[test]
fn a_coordinate_that_is_none_is_refused() {
    let model = packed();
    let weight = &model.weights[0].1;
    let mut coordinates = weight.encode_coordinates();
    coordinates[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let sections = [coordinates, weight.encode_bases(), weight.encode_widths()];
    let lie = with(&model, Coding::Plain, |directory, data| {
        data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        *field(directory, WEIGHTS, 0, 2) = crc32(&sections.concat()).into();
    });
    let error = load(&lie).unwrap_err();
    assert!(
        matches!(
            &error,
            FileError::Read { source: ReadError::Entry { path, .. }, .. } if path == "conv.weight"
        ),
        "{error}"
    );
}

/// Only Burn understands the bytes of a tensor that it has quantized: they are kept as they are.
#[test]
fn a_tensor_quantized_by_burn_is_stored_plain() {
    let dtype = DType::QFloat(QuantScheme::default());
    let tensor = TensorData::from_bytes_vec((0..12).collect(), [8], dtype);
    let mut model = packed();
    model.tensors.push(("quantized".into(), tensor));
    assert_same(&load(&model.to_bytes().unwrap()).unwrap(), &model, "plain");
    let error = model.to_bytes_with(Coding::Deflate).unwrap_err();
    let text = "quantized: is quantized by Burn; only Coding::Plain stores it";
    assert!(error.to_string().contains(text), "{error}");
    let last = model.tensors.len() - 1;
    for (key, value) in [(1, numbers([9])), (9, 12.into())] {
        let lie = with(&model, Coding::Plain, |directory, _| {
            *field(directory, TENSORS, last, key) = value.clone();
        });
        let error = load(&lie).unwrap_err();
        assert!(error.to_string().contains("quantized"), "{error}");
    }
}
