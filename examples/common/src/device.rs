//! Burn's devices by name: those that were compiled in, and why another one is not there.
//!
//! The benchmark of devices in `crates/burn-alq` takes this file in by its path.

use burn::tensor::Device;

/// A device that a feature of the same name compiles in.
struct Known {
    name: &'static str,
    /// Finds it on this machine; none if it was not compiled in.
    find: Option<fn() -> Option<Device>>,
    /// What a machine must have for it.
    needs: &'static str,
}

const VULKAN: &str = "a graphics card's driver with Vulkan (Debian's mesa-vulkan-drivers has a \
                      software device too, for machines without a card)";

/// A device of a feature. Burn enumerates devices without a panic where their driver is missing.
macro_rules! known {
    ($name:literal, $kind:ident, $device:expr, $needs:expr) => {
        Known {
            name: $name,
            #[cfg(feature = $name)]
            find: Some(|| {
                let found = Device::enumerate(DeviceType::$kind).into_vec();
                (!found.is_empty()).then(|| $device)
            }),
            #[cfg(not(feature = $name))]
            find: None,
            needs: $needs,
        }
    };
}

// NdArray is deprecated by Burn, but still in use.
#[allow(deprecated)]
static KNOWN: [Known; 9] = {
    // Each feature uses its own of these.
    #[allow(unused_imports)]
    use burn::tensor::{DeviceIndex, DeviceKind::DefaultDevice, DeviceType};
    [
        Known {
            name: "flex",
            find: Some(|| Some(Device::flex())),
            needs: "",
        },
        known!("ndarray", NdArray, Device::ndarray(), ""),
        known!("wgpu", Wgpu, Device::wgpu(DefaultDevice), VULKAN),
        known!("vulkan", Vulkan, Device::vulkan(DefaultDevice), VULKAN),
        known!(
            "webgpu",
            WebGpu,
            Device::webgpu(DefaultDevice),
            "a browser; elsewhere, wgpu is the device to build for"
        ),
        known!("metal", Metal, Device::metal(DefaultDevice), "macOS"),
        known!(
            "cuda",
            Cuda,
            Device::cuda(DeviceIndex::Default),
            "an NVIDIA card with its driver (libcuda.so) and the CUDA toolkit"
        ),
        known!(
            "rocm",
            Rocm,
            Device::rocm(DeviceIndex::Default),
            "an AMD card with ROCm (libamdhip64.so)"
        ),
        known!("cpu", Cpu, Device::cpu(), ""),
    ]
};

/// The names of what was compiled in.
pub fn names() -> String {
    let compiled = KNOWN.iter().filter(|known| known.find.is_some());
    let names: Vec<&str> = compiled.map(|known| known.name).collect();
    names.join(", ")
}

/// Opens a device, without autodiff.
///
/// # Errors
/// If there is no such device, the program was built without it, or the machine does not have it.
pub fn open(name: &str) -> Result<Device, String> {
    let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
        return Err(format!("no such device; there are: {}", names()));
    };
    let Some(find) = known.find else {
        return Err(format!(
            "this program was built with {}; build it with --features {name} for this device",
            names()
        ));
    };
    find().ok_or_else(|| {
        format!(
            "this machine does not have it; what it needs is {}",
            known.needs
        )
    })
}
