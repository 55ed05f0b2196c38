//! The encoder of MiniLM: six layers, 384 wide, in the names of Burn.

use burn::module::Module;
use burn::tensor::{Device, Distribution, Tensor};
use burn_alq::{Arithmetic, GroupingRule, PackedModel, PathPattern, Quantizer};

use crate::shared::case::{Case, Side, Work, same, timed, values};

/// The same module from `burn::nn` and from `burn_alq::nn`: what differs is the `use` line.
macro_rules! encoder {
    ($side:ident, use $($nn:ident)::+) => {
        mod $side {
            use $($nn)::+::transformer::{
                TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
            };
            use burn::tensor::{Device, Tensor};

            pub fn new(device: &Device) -> TransformerEncoder {
                TransformerEncoderConfig::new(384, 1536, 12, 6).init(device)
            }

            pub fn forward(encoder: &TransformerEncoder, x: Tensor<3>) -> Tensor<3> {
                encoder.forward(TransformerEncoderInput::new(x))
            }
        }
    };
}

encoder!(float, use burn::nn);
encoder!(bits, use burn_alq::nn);

/// `batch` texts of so many tokens, weights of `bits` bits in groups of 128.
pub fn mini_lm(
    device: &Device,
    bits: usize,
    [batch, tokens]: [usize; 2],
    arithmetic: Arithmetic,
) -> Case {
    device.seed(1);
    let groups = GroupingRule::Groupwise(128);
    let matrices =
        PathPattern::regex("(query|key|value|output|linear_.*)\\.weight").expect("valid");
    let quantizer = Quantizer::new(bits).rule(matrices, groups);
    let multi_bit = quantizer.quantize(bits::new(device)).expect("groups fit").0;
    let model = PackedModel::pack(&multi_bit).expect("a quantized model");
    let packed = model
        .apply_with(bits::new(device), arithmetic)
        .expect("it fits");
    // Its matrices, its input and its output, and products with the matrices alone.
    let rows = batch * tokens;
    let matrices = || model.weights.iter().map(|(_, weight)| weight);
    let weights: usize = matrices().map(|weight| weight.weights()).sum();
    let bytes: usize = matrices()
        .map(|weight| weight.encoded_bytes().total())
        .sum();
    let work = Work {
        bytes: [bytes, 4 * weights].map(|bytes| (bytes + 4 * 2 * 384 * rows) as f64),
        operations: 2.0 * (rows * weights) as f64,
    };
    let other = float::new(device);
    let x = Tensor::<3>::random([batch, tokens, 384], Distribution::Normal(0.0, 1.0), device);
    let room = match arithmetic {
        // Rounding in each of 36 layers, each pair behind a layer norm.
        Arithmetic::Int8 => 0.05,
        _ if *device == Device::flex() => 1e-4,
        // Cards may round factors of the other side's products to tf32.
        _ => 1e-2,
    };
    let check = {
        let (packed, x) = (packed.clone(), x.clone());
        move || {
            let found = values(bits::forward(&packed, x.clone()).into_data());
            let dense = packed.materialize();
            same(&found, &values(bits::forward(&dense, x).into_data()), room)
        }
    };
    let ours = x.clone();
    Case {
        ours: timed(device, move || bits::forward(&packed, ours.clone())),
        other: timed(device, move || float::forward(&other, x.clone())),
        side: Side::BurnF32,
        work,
        check: Box::new(check),
    }
}
