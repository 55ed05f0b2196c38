//! Burn's devices by name: those that were compiled in, and why another one is not there.
//!
//! The benchmark of devices in `crates/burn-alq` takes this file in by its path.

use burn::tensor::Device;

/// Finds a device, or says why it is not there, by what it needs.
type Find = fn(needs: &str) -> Result<Device, String>;

/// A device that a feature of the same name compiles in.
struct Known {
    name: &'static str,
    /// None if it was not compiled in.
    find: Option<Find>,
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
            find: Some(|needs| {
                let found = Device::enumerate(DeviceType::$kind).into_vec();
                if found.is_empty() {
                    return Err(format!(
                        "this machine does not have it; what it needs is {needs}"
                    ));
                }
                Ok($device)
            }),
            #[cfg(not(feature = $name))]
            find: None,
            needs: $needs,
        }
    };
}

/// Where a server's device is, if `BURN_REMOTE_ADDRESS` does not say: Burn's own default.
#[cfg(feature = "remote")]
const SERVER: &str = "ws://127.0.0.1:3000";

/// The first device of a server.
#[cfg(feature = "remote")]
fn of_server(_: &str) -> Result<Device, String> {
    let address = std::env::var("BURN_REMOTE_ADDRESS").unwrap_or_else(|_| SERVER.into());
    let host = burn::tensor::remote::RemoteHost::websocket(&address);
    let device = Device::remote_options(&host).init();
    device.map_err(|error| format!("{address}: {error}"))
}

// NdArray is deprecated by Burn, but still in use.
#[allow(deprecated)]
static KNOWN: [Known; 10] = {
    // Each feature uses its own of these.
    #[allow(unused_imports)]
    use burn::tensor::{DeviceIndex, DeviceKind::DefaultDevice, DeviceType};
    [
        Known {
            name: "flex",
            find: Some(|_| Ok(Device::flex())),
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
        Known {
            name: "remote",
            #[cfg(feature = "remote")]
            find: Some(of_server),
            #[cfg(not(feature = "remote"))]
            find: None,
            needs: "",
        },
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
/// If there is no such device, the program was built without it, or the machine does not have it; if the
/// server of a remote device cannot be used, with its address.
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
    find(known.needs)
}
