//! What steps of training cost on a CubeCL device: few launches, and nothing that is read back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use burn_alq::optim::prune::Budget;
use burn_alq::optim::{AlqOptimizer, Cost};
use burn_alq::{
    AlqOptimizerConfig, MultiBitConv2d, MultiBitConv2dConfig, MultiBitLinear, MultiBitLinearConfig,
    Phase,
};
use burn_core::backend::{Backend, Dispatch};
use multibit::gpu::cubecl::logging::{LaunchObservation, LaunchObserver};

use crate::devices::{device, device_name};
use crate::support::alone;

/// Two multi-bit weights, one of which is cut along an axis that is not its last, and nothing else.
#[derive(Module, Debug)]
struct Net {
    conv: MultiBitConv2d,
    fc: MultiBitLinear,
}

const WEIGHTS: usize = 2;

impl Net {
    fn new(device: &Device) -> Self {
        let conv = MultiBitConv2dConfig::new([1, 8], [3, 3]).with_bias(false);
        let fc = MultiBitLinearConfig::new(8 * 16, 4).with_bias(false);
        Self {
            conv: conv.init(device),
            fc: fc.init(device),
        }
    }

    fn gradients(&self, device: &Device) -> GradientsParams {
        let y = self.conv.forward(Tensor::<4>::ones([2, 1, 6, 6], device));
        let y = self.fc.forward(y.flatten::<2>(1, 3));
        let gradients = (y.clone() * y).mean().backward();
        GradientsParams::from_grads(gradients, self)
    }
}

#[derive(Default)]
struct Launches(Mutex<Vec<&'static str>>);

impl LaunchObserver for Launches {
    fn launched(&self, kernel: &'static str) {
        self.0.lock().unwrap().push(kernel);
    }
}

/// Some steps that compile kernels and learn how weights are cut, then one that is recorded instead
/// of run. What is read back or written from the host cannot be recorded, and fails.
fn record(phase: Phase) -> Result<Vec<&'static str>, String> {
    let plain = device();
    let device = plain.clone().autodiff();
    let backend = plain.as_dispatch();
    let mut net = Net::new(&device);
    let mut optimizer: AlqOptimizer = AlqOptimizerConfig::new().init();
    optimizer.set_phase(phase);
    let mut gradients: Vec<_> = (0..4).map(|_| net.gradients(&device)).collect();
    let last = gradients.pop().unwrap();
    Dispatch::graph_prepare(backend).unwrap();
    for gradients in gradients {
        net = optimizer.step(1e-3, net, gradients);
        Dispatch::sync(backend).unwrap();
    }
    Dispatch::graph_start_capture(backend).unwrap();
    let launches = Arc::new(Launches::default());
    let watching = LaunchObservation::new(launches.clone());
    let stepped = catch_unwind(AssertUnwindSafe(|| optimizer.step(1e-3, net, last)));
    // Kernel fusion launches here what it has put off, if its result is still wanted.
    let recorded = Dispatch::graph_stop_capture(backend);
    drop(watching);
    stepped.map_err(|_| "the step panicked")?;
    recorded.map_err(|error| error.to_string())?;
    let launches = launches.0.lock().unwrap();
    Ok(launches.clone())
}

/// Whether the device is one of CubeCL's. A build can have others too.
fn on_cubecl() -> bool {
    !["flex", "ndarray", "remote"].contains(&device_name().as_str())
}

#[test]
fn a_step_launches_little_and_reads_nothing() {
    if !on_cubecl() || !alone("launches::a_step_launches_little_and_reads_nothing") {
        return;
    }
    for phase in [Phase::Basis, Phase::Coordinate, Phase::Ste] {
        let launches = record(phase).unwrap_or_else(|error| panic!("{phase:?}: {error}"));
        let own = launches
            .iter()
            .filter(|name| name.contains("multibit::gpu"));
        assert_eq!(own.count(), WEIGHTS, "{phase:?}: {launches:?}");
        assert!(launches.len() <= 8 * WEIGHTS, "{phase:?}: {launches:?}");
    }
}

#[test]
fn pruning_reads_back() {
    if !on_cubecl() || !alone("launches::pruning_reads_back") {
        return;
    }
    let budget = Budget {
        cost: Cost::Coordinates,
        at_most: 1e9,
        top_k: 0.1,
        loss_share: 1.0,
        floor: 0.0,
    };
    let error = record(Phase::Prune(budget)).expect_err("pruning ranks on the host");
    assert!(!error.is_empty());
}
