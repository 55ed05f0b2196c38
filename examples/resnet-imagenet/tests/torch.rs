//! The network computes what PyTorch computes with the same weights. `fixtures/export.py` made them.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use example_common::{Config, Network};
use resnet_imagenet::model::{CLASSES, DEPTH, ResNet, WIDTH};
use resnet_imagenet::pretrained::load;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn network(depth: &str, width: &str, classes: &str) -> ResNet {
    let pairs = [(DEPTH, depth), (WIDTH, width), (CLASSES, classes)];
    let config = Config::from(pairs.map(|(key, value)| (key.to_string(), value.to_string())));
    ResNet::from_config(&config, &Device::default()).unwrap()
}

fn values(case: &serde_json::Value, key: &str) -> Vec<f32> {
    let values = case[key].as_array().unwrap().iter();
    values.map(|value| value.as_f64().unwrap() as f32).collect()
}

#[test]
fn scores_are_those_of_torch() {
    let case = std::fs::read_to_string(fixture("case.json")).unwrap();
    let case: serde_json::Value = serde_json::from_str(&case).unwrap();
    let images = TensorData::new(values(&case, "images"), [2, 3, 48, 48]);
    let expected = values(&case, "scores");
    for file in ["resnet18.pth", "resnet18.safetensors"] {
        let network = load(network("18", "0.0625", "10"), &fixture(file)).unwrap();
        let images = Tensor::from_data(images.clone(), &Device::default());
        let found: Vec<f32> = network.forward(images).into_data().try_into_vec().unwrap();
        assert_eq!(found.len(), expected.len());
        let error = found
            .iter()
            .zip(&expected)
            .map(|(found, expected)| (found - expected).abs())
            .fold(0.0, f32::max);
        assert!(error < 1e-4, "{file}: off by {error}");
    }
}

#[test]
fn a_tensor_that_does_not_fit_is_named() {
    // (file, depth, width, classes, what is said)
    let cases = [
        (
            "missing.pth",
            "18",
            "0.0625",
            "10",
            "no tensor layer2.0.downsample.0.weight",
        ),
        ("resnet18.pth", "18", "0.0625", "11", "fc."),
        ("resnet18.safetensors", "18", "0.125", "10", "has shape"),
        ("resnet18.pth", "34", "0.0625", "10", "no tensor layer"),
        ("case.json", "18", "0.0625", "10", "neither .pth nor"),
        ("absent.pth", "18", "0.0625", "10", "no such file"),
    ];
    for (file, depth, width, classes, expected) in cases {
        let error = load(network(depth, width, classes), &fixture(file)).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains(expected) && error.contains(file),
            "{error:?} does not say {expected:?}"
        );
    }
}
