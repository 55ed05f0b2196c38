//! Models that are not in memory as a whole: converted from file to file, and read in parts.

mod large;
mod refused;

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Device, FloatDType};
use burn_alq::file::{Coding, FileError, ModelFile};
use burn_alq::quantize::{FloatFile, Outcome};
use burn_alq::{
    AsBurnLayers, CoordinateType, GroupingRule, MultiBitActivation, PackedModel, PathPattern,
    Quantizer,
};
use burn_store::{
    BurnToPyTorchAdapter, BurnpackStore, HalfPrecisionAdapter, ModuleSnapshot,
    PyTorchToBurnAdapter, SafetensorsStore,
};
use multibit::file::ReadError;

use crate::MEMORY;
use crate::any_model::outcome;
use crate::devices::device;
use crate::support::alone;

/// Of everything something: a weight in two places, a norm, an activation, a product, a float head.
#[derive(Module, Debug)]
pub struct Net {
    table: Embedding,
    conv: Conv2d,
    norm: BatchNorm,
    act: MultiBitActivation,
    wide: Linear,
    tied: Linear,
    head: Linear,
}

impl Net {
    pub fn new(device: &Device) -> Self {
        let table = EmbeddingConfig::new(12, 12).init(device);
        let mut tied = LinearConfig::new(12, 12).init(device);
        tied.weight = table.weight.clone();
        Self {
            table,
            conv: Conv2dConfig::new([2, 6], [3, 3]).init(device),
            norm: BatchNormConfig::new(6).init(device),
            act: MultiBitActivation::off(device),
            wide: LinearConfig::new(48, 40).init(device),
            tied,
            head: LinearConfig::new(12, 5).init(device),
        }
    }
}

pub fn quantizer() -> Quantizer {
    Quantizer::new(3)
        .coordinate_type(CoordinateType::F16)
        .rule(PathPattern::glob("**"), GroupingRule::Channelwise)
        .rule_with_bits(
            PathPattern::exact("conv.weight"),
            GroupingRule::Kernelwise,
            2,
        )
        .product(PathPattern::exact("wide.weight"), 1.0)
        .keep_float(PathPattern::glob("head.**"))
        .activations(PathPattern::exact("act"), 2)
}

fn config() -> BTreeMap<String, String> {
    [("made by".to_string(), "a test".to_string())].into()
}

/// What is made in memory of a model that was loaded.
fn in_memory(net: Net, out: &Path) -> burn_alq::quantize::QuantizeReport {
    let (net, report) = quantizer().quantize(net).unwrap();
    let packed = PackedModel::pack(&net).unwrap();
    let mut packed = packed.with_coordinate_type(CoordinateType::F16).unwrap();
    packed.config = config();
    packed.save(out).unwrap();
    report
}

#[test]
fn a_file_is_converted_to_the_bytes_that_memory_makes() {
    let device = device();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let net = Net::new(&device);

    let float = path("float.safetensors");
    let store = || SafetensorsStore::from_file(&float);
    net.save_into(&mut store().with_to_adapter(BurnToPyTorchAdapter))
        .unwrap();
    let mut loaded = Net::new(&device);
    let adapter = || AsBurnLayers(PyTorchToBurnAdapter);
    loaded
        .load_from(&mut store().with_from_adapter(adapter()))
        .unwrap();
    let expected = in_memory(loaded, &path("memory.bpk"));
    let source = FloatFile::open(&float).unwrap().with_adapter(adapter());
    let out = path("streamed.bpk");
    let report = quantizer().convert_file(Net::new(&device), source, &config(), &out);
    assert_eq!(report.unwrap(), expected);
    assert!(matches!(
        outcome(&expected, "wide.weight"),
        Outcome::Quantized(_)
    ));
    assert!(matches!(
        outcome(&expected, "tied.weight"),
        Outcome::Tied { .. }
    ));
    let bytes = std::fs::read(&out).unwrap();
    assert!(bytes == std::fs::read(path("memory.bpk")).unwrap());

    // From Burn's own container, with the numbers of another type where the device has it.
    let float = path("float.bpk");
    let store = || BurnpackStore::from_file(&float);
    let halves = device.supports_dtype(FloatDType::F16);
    let mut saved = store();
    if halves {
        saved = saved.with_to_adapter(HalfPrecisionAdapter::new());
    }
    net.save_into(&mut saved).unwrap();
    let mut loaded = Net::new(&device);
    loaded.load_from(&mut store()).unwrap();
    let expected = in_memory(loaded, &path("memory.bpk"));
    let source = FloatFile::open(&float).unwrap();
    let report = quantizer().convert_file(Net::new(&device), source, &config(), &out);
    assert_eq!(report.unwrap(), expected);
    assert!(std::fs::read(&out).unwrap() == std::fs::read(path("memory.bpk")).unwrap());
    if halves {
        assert!(std::fs::read(&out).unwrap() != bytes);
    }

    let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    names.retain(|entry| entry.as_ref().unwrap().path().extension().unwrap() == "tmp");
    assert!(names.is_empty(), "{names:?}");
}

/// The model's bytes pass through memory, and only few of them at a time.
#[test]
fn a_conversion_holds_one_layer() {
    const LAYERS: usize = 48;
    const SIDE: usize = 256;

    #[derive(Module, Debug)]
    struct Deep {
        layers: Vec<Linear>,
    }

    if !alone("stream::a_conversion_holds_one_layer") {
        return;
    }
    let device = Device::flex();
    let deep = || Deep {
        layers: (0..LAYERS)
            .map(|_| LinearConfig::new(SIDE, SIDE).init(&device))
            .collect(),
    };
    let folder = tempfile::tempdir().unwrap();
    let float = folder.path().join("float.safetensors");
    deep()
        .save_into(&mut SafetensorsStore::from_file(&float))
        .unwrap();
    let quantizer = Quantizer::new(2).rule(PathPattern::glob("**"), GroupingRule::Channelwise);
    let source = FloatFile::open(&float).unwrap();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let out = folder.path().join("packed.bpk");
    quantizer
        .convert_file(deep(), source, &BTreeMap::new(), &out)
        .unwrap();
    let taken = MEMORY.peak_usage() - before;
    let layer = 4 * SIDE * SIDE;
    // Copies in the order of groups, of the result, and what threads sort by: of one layer, not of all.
    assert!(
        taken < 12 * layer,
        "{taken} bytes, where a layer has {layer}"
    );
    assert!(taken < LAYERS * layer / 4);
}

fn saved(folder: &Path, coding: Coding) -> (std::path::PathBuf, PackedModel) {
    let net = Net::new(&device());
    let packed = PackedModel::pack(&quantizer().quantize(net).unwrap().0).unwrap();
    let file = folder.join("model.bpk");
    packed.save_with(&file, coding).unwrap();
    (file, packed)
}

#[test]
fn a_file_is_read_in_parts() {
    #[derive(Module, Debug)]
    struct Part {
        tied: Linear,
        wide: Linear,
    }

    let folder = tempfile::tempdir().unwrap();
    let (path, packed) = saved(folder.path(), Coding::Plain);
    let file = ModelFile::open(&path).unwrap();
    assert_eq!(file.load().unwrap(), packed);
    assert_eq!(PackedModel::load(&path).unwrap(), packed);
    let names = packed
        .weights
        .iter()
        .map(|(path, weight)| (&path[..], weight.shape()));
    assert!(file.weights().eq(names));
    let names = packed
        .tensors
        .iter()
        .map(|(path, tensor)| (&path[..], &tensor.shape()[..]));
    assert!(file.tensors().eq(names));

    let conv = file.load_where(|path| path.starts_with("conv.")).unwrap();
    assert_eq!(conv.weights[..], packed.weights[1..2]);
    assert_eq!(conv.tensors.len(), 1);
    assert!(conv.tied.is_empty());
    assert_eq!(conv.config, packed.config);

    // The second place of a tied weight, and a product, by what a module has.
    let device = device();
    let fresh = || Part {
        tied: LinearConfig::new(12, 12).init(&device),
        wide: LinearConfig::new(48, 40).init(&device),
    };
    let part = file.load_for(&fresh()).unwrap();
    let names: Vec<&str> = part.weights.iter().map(|(path, _)| &path[..]).collect();
    assert_eq!(
        names,
        [
            "tied.weight",
            "wide.weight.product.first",
            "wide.weight.product.second"
        ]
    );
    assert!(part.weights[0].1 == packed.weights[0].1);
    let part = part.apply(fresh()).unwrap();
    let whole = packed.apply(Net::new(&device)).unwrap();
    assert_eq!(
        part.tied.weight.val().into_data(),
        whole.tied.weight.val().into_data()
    );
    assert_eq!(
        part.wide.weight.val().into_data(),
        whole.wide.weight.val().into_data()
    );
}

/// What is not asked for is not looked at.
#[test]
fn damage_is_found_where_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (path, packed) = saved(folder.path(), Coding::Plain);
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (name, _) = packed.tensors.last().unwrap();
    let file = ModelFile::open(&path).unwrap();
    assert!(file.load_where(|path| path != name).is_ok());
    for error in [
        file.load().unwrap_err(),
        PackedModel::load(&path).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains(&format!("{name}: wrong checksum")), "{text}");
    }
    // Its length is in the directory.
    for change in [&bytes[..last], &[&bytes[..], &[0]].concat()] {
        std::fs::write(&path, change).unwrap();
        let error = ModelFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("another length than its tensor"), "{error}");
    }

    let (path, packed) = saved(folder.path(), Coding::Deflate);
    let error = ModelFile::open(&path).unwrap_err();
    let whole = |error: &FileError| {
        matches!(
            error,
            FileError::Read {
                source: ReadError::Whole,
                ..
            }
        )
    };
    assert!(whole(&error), "{error}");
    assert_eq!(PackedModel::load(&path).unwrap(), packed);
}
