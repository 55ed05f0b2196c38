//! The younger layers against Burn's own on the reconstructed weights, packed and not.

use burn::module::Module;
use burn::nn::conv::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, ConvTranspose2dConfig};
use burn::nn::{EmbeddingConfig, LinearConfig, LinearLayout, PaddingConfig1d};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use burn_alq::optim::{average_bits, sizes};
use burn_alq::{
    AlqOptimizerConfig, Arithmetic, GroupingRule, MultiBitActivation, MultiBitConv1d,
    MultiBitConv1dConfig, MultiBitConv2d, MultiBitConvTranspose2d, MultiBitConvTranspose2dConfig,
    MultiBitEmbedding, MultiBitEmbeddingConfig, MultiBitLinear, MultiBitLinearConfig, PackedModel,
    Phase,
};

use multibit::cpu::Levels;

use crate::devices::device;
use crate::support::{Random, assert_close};

/// Packs a layer and puts the bits back into it, through a file's bytes.
fn packed<M: Module>(layer: M) -> M {
    let bytes = PackedModel::pack(&layer).unwrap().to_bytes().unwrap();
    PackedModel::from_bytes(bytes, "layer")
        .unwrap()
        .apply(layer)
        .unwrap()
}

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

#[test]
fn conv1d_is_burns() {
    let base = || MultiBitConv1dConfig::new(4, 8, 3);
    let cases = [
        base(),
        base().with_grouping(GroupingRule::Pixelwise).with_stride(2),
        base()
            .with_grouping(GroupingRule::Kernelwise)
            .with_dilation(2),
        base().with_padding(PaddingConfig1d::Same).with_bias(false),
        base()
            .with_padding(PaddingConfig1d::Explicit(0, 2))
            .with_groups(2),
        base()
            .with_padding(PaddingConfig1d::Same)
            .with_groups(4)
            .with_stride(3),
    ];
    let device = device();
    for config in &cases {
        let what = format!("{config:?}");
        let layer = config.init(&device);
        let mut dense = Conv1dConfig::new(4, 8, 3)
            .with_stride(config.stride)
            .with_dilation(config.dilation)
            .with_groups(config.groups)
            .with_padding(config.padding.clone())
            .with_bias(config.bias)
            .init(&device);
        dense.weight = layer.weight.clone().materialize();
        dense.bias = layer.bias.clone();
        let input = random([2, 4, 11], &device);
        let expected = dense.forward(input.clone()).into_data();
        let found = layer.forward(input.clone()).into_data();
        assert_close(found, expected.clone(), &what);
        assert_close(packed(layer).forward(input).into_data(), expected, &what);
    }
}

#[test]
fn packed_conv1d_in_all_arithmetics() {
    let device = device();
    let levels = Levels::new(0.4, &[0.5, 0.25]).unwrap();
    let activation = MultiBitActivation::with_levels(&levels, &device);
    // In each image multiples of the largest by 1/127, so that rounding to int8 loses nothing; nor does it of
    // a weight of one basis.
    let input: Vec<f32> = (0..88)
        .map(|i| (((i % 44) * 53 + 254) % 255 - 127) as f32 / 64.0)
        .collect();
    let input = Tensor::<3>::from_data(TensorData::new(input, [2, 4, 11]), &device);
    for (arithmetic, grouping) in [
        (Arithmetic::Int8, GroupingRule::Channelwise),
        (Arithmetic::Int8, GroupingRule::Pixelwise),
        (Arithmetic::Bitwise, GroupingRule::Kernelwise),
        (Arithmetic::Bitwise, GroupingRule::Pixelwise),
    ] {
        let max_bits = if arithmetic == Arithmetic::Int8 { 1 } else { 6 };
        let layer = MultiBitConv1dConfig::new(4, 8, 3)
            .with_grouping(grouping)
            .with_max_bits(max_bits)
            .with_padding(PaddingConfig1d::Same)
            .with_dilation(2)
            .with_arithmetic(arithmetic)
            .init(&device);
        let input = match arithmetic {
            Arithmetic::Bitwise => activation.forward(input.clone()),
            _ => input.clone().into(),
        };
        let expected = layer.forward(input.clone().into_tensor()).into_data();
        let what = format!("{arithmetic:?} {grouping:?}");
        assert_close(packed(layer).forward(input).into_data(), expected, &what);
    }
}

/// A model that was quantized on a CPU, where codes are bytes, trains on where it is moved to.
#[test]
fn a_model_in_training_moves_to_the_device() {
    let step = |layer: MultiBitLinear| {
        let device = layer.weight.val().device();
        let x = Tensor::<2>::from_floats(
            core::array::from_fn::<_, 9, _>(|i| [i as f32 * 0.25 - 1.0]),
            &device,
        );
        let y = layer.forward(x.transpose());
        let gradients = (y.clone() * y).sum().backward();
        let gradients = GradientsParams::from_grads(gradients, &layer);
        let mut optimizer = AlqOptimizerConfig::new().init();
        optimizer.set_phase(Phase::Basis);
        let layer = optimizer.step(1e-3, layer, gradients);
        assert!(average_bits(&sizes(&layer)) > 0.0);
        layer.weight.val().into_data()
    };
    // Always the same weights, and few levels: next to the middle of two, devices may differ.
    let flex = Device::flex().autodiff();
    let mut linear = LinearConfig::new(9, 5).with_bias(false).init(&flex);
    let weights: Vec<f32> = Random::new(5)
        .normals(45, 0.3)
        .iter()
        .map(|&w| w as f32)
        .collect();
    linear.weight = linear.weight.map(|_| {
        let weights = TensorData::new(weights.clone(), [9, 5]);
        Tensor::from_data(weights, &flex).require_grad()
    });
    let config = MultiBitLinearConfig::new(9, 5).with_max_bits(2);
    let layer = config.quantize(linear).unwrap();
    let expected = step(layer.clone());
    let moved = layer.fork(&device().autodiff());
    assert_close(step(moved), expected, "moved");
}

#[test]
fn a_converted_model_moves_between_devices() {
    let flex = Device::flex();
    let other = device();
    // Beside Flex that is NdArray, where the build has it: deprecated by Burn but still in use.
    #[cfg(feature = "ndarray")]
    #[allow(deprecated)]
    let other = if other == flex {
        Device::ndarray()
    } else {
        other
    };
    let layer = MultiBitConv1dConfig::new(4, 8, 3).init(&flex);
    let input = random([2, 4, 11], &flex);
    let expected = layer.forward(input.clone()).into_data();
    let moved = layer.clone().to_device(&other);
    let there = input.to_device(&other);
    assert_close(
        moved.forward(there.clone()).into_data(),
        expected.clone(),
        "moved",
    );
    // Its bases and coordinates went along.
    let bytes = |layer: &MultiBitConv1d| PackedModel::pack(layer).unwrap().to_bytes().unwrap();
    assert!(bytes(&moved) == bytes(&layer), "the same bits");
    let packed = packed(layer).to_device(&other);
    assert_close(
        packed.forward(there).into_data(),
        expected,
        "packed, then moved",
    );
}

#[test]
fn conv_transpose2d_is_burns() {
    let base = || MultiBitConvTranspose2dConfig::new([4, 6], [3, 2]);
    let cases = [
        base(),
        base()
            .with_grouping(GroupingRule::Channelwise)
            .with_stride([2, 3]),
        base()
            .with_grouping(GroupingRule::Pixelwise)
            .with_dilation([2, 1]),
        base().with_groups(2).with_padding([1, 0]).with_bias(false),
        base()
            .with_stride([2, 2])
            .with_padding_out([1, 0])
            .with_padding([1, 1]),
    ];
    let device = device();
    for config in &cases {
        let what = format!("{config:?}");
        let layer = config.init(&device);
        let mut dense = ConvTranspose2dConfig::new(config.channels, config.kernel_size)
            .with_stride(config.stride)
            .with_dilation(config.dilation)
            .with_groups(config.groups)
            .with_padding(config.padding)
            .with_padding_out(config.padding_out)
            .with_bias(config.bias)
            .init(&device);
        dense.weight = layer.weight.clone().materialize();
        dense.bias = layer.bias.clone();
        let input = random([2, 4, 5, 4], &device);
        let expected = dense.forward(input.clone()).into_data();
        let found = layer.forward(input.clone()).into_data();
        assert_close(found, expected.clone(), &what);
        let bits = packed(layer);
        assert!(format!("{bits}").contains("packed"), "{bits}");
        assert_close(bits.forward(input).into_data(), expected, &what);
    }
}

#[test]
fn embedding_is_burns() {
    let device = device();
    let config = MultiBitEmbeddingConfig::new(7, 12).with_grouping(GroupingRule::Subchannelwise(3));
    let layer = config.init(&device);
    let mut dense = EmbeddingConfig::new(7, 12).init(&device);
    dense.weight = layer.weight.clone().materialize();
    let input = Tensor::<2, Int>::from_ints([[0, 6, 3], [3, 1, 0]], &device);
    let expected = dense.forward(input.clone()).into_data();
    let found = layer.forward(input.clone()).into_data();
    assert_close(found, expected.clone(), "dense");
    assert_close(packed(layer).forward(input).into_data(), expected, "packed");
}

#[test]
fn an_index_out_of_range_is_named() {
    let device = device();
    let layer = packed(MultiBitEmbeddingConfig::new(7, 4).init(&device));
    let look_up = || layer.forward(Tensor::<2, Int>::from_ints([[7]], &device));
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(look_up));
    match found {
        Err(panic) => {
            let text = panic.downcast_ref::<String>().expect("a message");
            assert!(text.contains("index 7 of 7 embeddings"), "{text}");
        }
        // Devices that do not read indices back.
        Ok(vector) => {
            let values: Vec<f32> = vector.into_data().try_into_vec().unwrap();
            assert!(values.iter().all(|x| x.is_nan()), "{values:?}");
        }
    }
}

#[test]
fn layers_come_from_floats() {
    let device = device();
    let six = "bits: 6.00";
    let linear = LinearConfig::new(9, 5).init(&device);
    assert!(format!("{}", MultiBitLinear::from(&linear)).contains(six));
    let conv: Conv1d = Conv1dConfig::new(4, 6, 7).with_groups(2).init(&device);
    let conv = format!("{}", MultiBitConv1d::from(&conv));
    assert!(conv.contains(six), "{conv}");
    let conv: Conv2d = Conv2dConfig::new([4, 4], [3, 3])
        .with_groups(4)
        .init(&device);
    let depthwise = MultiBitConv2d::from(&conv);
    let input = random([1, 4, 6, 6], &device);
    let expected = depthwise.forward(input.clone()).into_data();
    assert_close(
        packed(depthwise).forward(input).into_data(),
        expected,
        "depthwise",
    );
    let up = ConvTranspose2dConfig::new([4, 6], [3, 3]).init(&device);
    assert!(format!("{}", MultiBitConvTranspose2d::from(&up)).contains(six));
    let table = EmbeddingConfig::new(5, 16).init(&device);
    assert!(format!("{}", MultiBitEmbedding::from(&table)).contains(six));
}

#[test]
fn a_column_layout_records_and_packs() {
    let device = device();
    // Square: Burn compares the shape of a record before it transposes it.
    let config = MultiBitLinearConfig::new(6, 6).with_layout(LinearLayout::Col);
    let layer = config.init(&device);
    let input = random([3, 6], &device);
    let expected = layer.forward(input.clone()).into_data();
    let loaded = config
        .init(&device)
        .load_record(layer.clone().into_record());
    // A loaded weight lies transposed in memory, so sums are made in another order.
    assert_close(
        loaded.forward(input.clone()).into_data(),
        expected.clone(),
        "loaded",
    );
    assert_close(packed(layer).forward(input).into_data(), expected, "packed");
}
