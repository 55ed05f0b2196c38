//! The layers: against Burn's own, made fresh and from trained ones, packed and not.

use burn::module::Module;
use burn::nn::conv::Conv2dConfig;
use burn::nn::{LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Distribution, Tensor, Tolerance};
use burn_alq::{
    GroupingRule, MultiBitConv2d, MultiBitConv2dConfig, MultiBitLinear, MultiBitLinearConfig,
    PackedModel,
};

use crate::devices::device;
use crate::support::assert_close;

/// Packs a layer and puts the bits back into it.
fn packed<M: Module>(layer: M) -> M {
    let packed = PackedModel::pack(&layer).unwrap();
    packed.apply(layer).unwrap()
}

#[test]
fn linear_is_burns_linear_with_the_reconstructed_weight() {
    let device = device();
    device.seed(1);
    let float = LinearConfig::new(24, 10).init(&device);
    let input = Tensor::<3>::random([2, 5, 24], Distribution::Normal(0.0, 1.0), &device);
    let config = MultiBitLinearConfig::new(24, 10).with_grouping(GroupingRule::Subchannelwise(3));
    let layer = config.quantize(float.clone()).unwrap();
    let mut dense = float.clone();
    dense.weight = layer.weight.clone().materialize();
    let expected = dense.forward(input.clone()).into_data();
    let found = layer.forward(input.clone()).into_data();
    assert_close(found.clone(), expected.clone(), "the same weight");

    // Six bits are close to the float layer.
    let float = float.forward(input.clone()).into_data();
    found.assert_approx_eq::<f32>(&float, Tolerance::absolute(0.1));

    let bits = packed(layer).forward(input).into_data();
    assert_close(bits, expected, "packed");
}

#[test]
fn conv2d_is_burns_conv2d_with_the_reconstructed_weight() {
    let base = || MultiBitConv2dConfig::new([4, 6], [3, 3]);
    let cases = [
        base(),
        base()
            .with_grouping(GroupingRule::Pixelwise)
            .with_stride([2, 1]),
        base()
            .with_grouping(GroupingRule::Channelwise)
            .with_padding(PaddingConfig2d::Same),
        base()
            .with_padding(PaddingConfig2d::Explicit(1, 0, 2, 3))
            .with_dilation([2, 1]),
        base()
            .with_groups(2)
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
            .with_bias(false),
        base()
            .with_stride([3, 2])
            .with_padding(PaddingConfig2d::Same),
    ];
    let device = device();
    for config in &cases {
        let what = format!("{config:?}");
        device.seed(2);
        let input = Tensor::<4>::random([3, 4, 9, 8], Distribution::Normal(0.0, 1.0), &device);
        let layer = config.init(&device);
        let mut dense = Conv2dConfig::new(config.channels, config.kernel_size)
            .with_stride(config.stride)
            .with_dilation(config.dilation)
            .with_groups(config.groups)
            .with_padding(config.padding.clone())
            .with_bias(config.bias)
            .init(&device);
        dense.weight = layer.weight.clone().materialize();
        dense.bias = layer.bias.clone();
        let expected = dense.forward(input.clone()).into_data();
        let found = layer.forward(input.clone()).into_data();
        assert_close(found, expected.clone(), &what);
        assert_close(packed(layer).forward(input).into_data(), expected, &what);
    }
}

#[test]
fn an_empty_batch_works() {
    let device = device();
    let layer: MultiBitLinear = packed(MultiBitLinearConfig::new(6, 2).init(&device));
    let input = Tensor::<2>::zeros([0, 6], &device);
    assert_eq!(layer.forward(input).dims(), [0, 2]);
}

#[test]
fn displays_show_the_bits() {
    let device = device();
    device.seed(3);
    let linear = MultiBitLinearConfig::new(8, 4)
        .with_max_bits(2)
        .init(&device);
    let text = format!("{linear}");
    assert!(
        text.starts_with("MultiBitLinear {d_input: 8, d_output: 4, bias: true, bits: 2.00"),
        "{text}"
    );
    let text = format!("{}", packed(linear));
    assert!(text.contains("bits: 2.00 packed"), "{text}");
    let conv: MultiBitConv2d = MultiBitConv2dConfig::new([2, 3], [3, 3])
        .with_max_bits(1)
        .init(&device);
    let text = format!("{conv}");
    assert!(
        text.contains("ch_in: 2, ch_out: 3") && text.contains("bits: 1.00"),
        "{text}"
    );
    let float = MultiBitConv2dConfig::new([2, 3], [3, 3]).init_float(&device);
    assert!(format!("{float}").contains("bits: float"));
}

#[test]
#[should_panic(expected = "axis 1 expected 8, got 7")]
fn a_wrong_width_names_its_axis() {
    let device = device();
    let layer = MultiBitLinearConfig::new(8, 4).init(&device);
    let _ = layer.forward(Tensor::<2>::zeros([2, 7], &device));
}

#[test]
#[should_panic(expected = "axis 1 of the input must have 4 channels")]
fn wrong_channels_name_their_axis() {
    let device = device();
    let layer: MultiBitConv2d = packed(MultiBitConv2dConfig::new([4, 4], [3, 3]).init(&device));
    let _ = layer.forward(Tensor::<4>::zeros([2, 3, 5, 5], &device));
}

#[test]
#[should_panic(expected = "8 inputs do not fall into 3 equal groups")]
fn subchannels_that_do_not_divide_are_refused() {
    let _ = MultiBitLinearConfig::new(8, 4)
        .with_grouping(GroupingRule::Subchannelwise(3))
        .init(&Device::flex());
}
