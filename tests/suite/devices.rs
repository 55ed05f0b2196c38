//! The device that the suite runs on.
//!
//! On Flex whatever the device: `file` (bytes in files), `levers` (options of the loop), `learner`
//! but for its first test, and `learner::seed` (Burn's Learner, its checkpoints, its threads and what
//! it draws). Without a device: the golden vectors.

use burn::tensor::{Device, Tensor};

#[cfg(feature = "ndarray")]
use crate::support::rerun;

/// The names of the devices, and how Burn writes them.
const DEVICES: [(&str, &str); 7] = [
    ("flex", "Flex"),
    ("ndarray", "NdArray"),
    ("wgpu", "Wgpu("),
    ("vulkan", "Vulkan"),
    ("cpu", "Cpu("),
    ("cuda", "Cuda("),
    ("remote", "Remote("),
];

/// The name in `BURN_DEVICE`, where `cargo xtask test --device` puts it; without it, Flex.
pub fn device_name() -> String {
    std::env::var("BURN_DEVICE").map_or("flex".into(), |name| name.to_lowercase())
}

/// The device of the suite.
///
/// # Panics
/// If this build lacks it, or there is no such device.
pub fn device() -> Device {
    match device_name().as_str() {
        // Burn's default is another device where the build has one.
        "flex" => Device::flex(),
        #[cfg(feature = "remote")]
        "remote" => crate::remote::device(),
        _ => Device::default(),
    }
}

/// Of a run with `--device`, `xtask` tests that the name arrives in `BURN_DEVICE`.
#[test]
fn the_device_is_the_one_asked_for() {
    let name = device_name();
    let found = DEVICES.iter().find(|(known, _)| *known == name);
    let (_, expected) = found.unwrap_or_else(|| panic!("no device {name}; there are {DEVICES:?}"));
    // Where a result is, not only where it was asked for.
    for device in [device(), device().autodiff()] {
        let sum = Tensor::<1>::ones([3], &device).sum();
        let place = format!("{:?}", sum.device());
        assert!(place.contains(expected), "{place} for {name}");
        assert_eq!(sum.into_scalar::<f32>(), 3.0, "{place}");
    }
}

/// On Flex steps and layers run on kernels of this project; on NdArray on tensors, as on any device
/// that it has no kernels for. (`--device ndarray` runs the whole suite there.)
#[cfg(feature = "ndarray")]
#[test]
fn steps_and_layers_pass_on_ndarray() {
    if device_name() != "flex" {
        return;
    }
    let modules =
        "activations:: family:: layers:: model:: numbers:: packed:: running:: halves:: steps::";
    let text = rerun(modules.split(' '), ("BURN_DEVICE", "ndarray"));
    for module in modules.split(' ') {
        assert!(text.contains(&format!("test {module}")), "{module}: {text}");
    }
}
