//! Forward and backward passes of networks in training, multi-bit against float.

use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Tensor};
use burn_alq::{GroupingRule, PathPattern, Quantizer};

use crate::shared::case::{Case, Side, Work, same, timed, values};
use crate::shared::nets::{self, Net};

/// What a network has to do for one image, and its size.
struct Counts {
    multiplications: usize,
    weights: usize,
    /// Numbers between its layers.
    activations: usize,
}

/// LeNet5 at 6 bits.
pub fn lenet5(device: &Device, batch: usize) -> Case {
    let counts = Counts {
        multiplications: nets::LENET5_PRODUCTS,
        weights: 430_500,
        activations: 19_700,
    };
    case::<nets::LeNet5>(device, [batch, 1, 28, 28], 6, counts)
}

/// VGG-small at 4 bits.
pub fn vgg_small(device: &Device, batch: usize) -> Case {
    let counts = Counts {
        multiplications: nets::VGG_SMALL_PRODUCTS,
        weights: 14_022_016,
        activations: 521_000,
    };
    case::<nets::VggSmall>(device, [batch, 3, 32, 32], 4, counts)
}

fn case<N: Net>(device: &Device, dims: [usize; 4], bits: usize, counts: Counts) -> Case {
    let host = Device::flex().autodiff();
    host.clone().without_autodiff().seed(6);
    let float = nets::float::<N>(&host);
    let weights = |pattern| PathPattern::regex(pattern).expect("a pattern");
    let quantizer = Quantizer::new(bits)
        .rule(weights("conv.*weight$"), GroupingRule::Kernelwise)
        .rule(
            weights("(fc|full).*weight$"),
            GroupingRule::Subchannelwise(2),
        );
    let quantized = quantizer
        .quantize(float.clone())
        .expect("groupings that fit")
        .0;
    let x = Tensor::<4>::random(dims, Distribution::Default, &Device::flex());
    let check = {
        let (model, x, device) = (quantized.clone(), x.clone(), device.clone());
        move || {
            let scores = |device: &Device| {
                let x = x.clone().to_device(device);
                values(model.clone().fork(device).forward(x).into_data())
            };
            // Cards may round factors of f32 products to tf32, and several layers do.
            same(&scores(&device), &scores(&Device::flex()), 1e-2)
        }
    };
    let x = x.to_device(device);
    let step = |model: N| {
        let model = model.fork(&device.clone().autodiff());
        let x = x.clone();
        timed(device, move || {
            let y = model.forward(x.clone());
            GradientsParams::from_grads((y.clone() * y).mean().backward(), &model)
        })
    };
    // Three passes: forward, gradients of inputs, gradients of weights.
    let values = 3 * (counts.weights + 2 * dims[0] * counts.activations);
    Case {
        ours: step(quantized),
        other: step(float),
        side: Side::BurnF32,
        work: Work {
            bytes: [4.0 * values as f64; 2],
            operations: 6.0 * (dims[0] * counts.multiplications) as f64,
        },
        check: Box::new(check),
    }
}
