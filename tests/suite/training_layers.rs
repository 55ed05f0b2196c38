//! Float layers in training compute what Burn's do, forward and backward.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv1dConfig, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig1d, PaddingConfig2d};
use burn::tensor::{Distribution, Tensor, TensorData, Tolerance};
use burn_alq::{MultiBitConv1dConfig, MultiBitConv2dConfig};

use crate::devices::device;

/// Sums of a few thousand products, in another order.
fn assert_near(found: &[TensorData], expected: &[TensorData], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        found.assert_approx_eq::<f32>(expected, Tolerance::rel_abs(1e-4, 1e-4));
    }
}

/// A training device, an input on it with a gradient, and a weight for each output of the loss.
fn inputs<const D: usize>(shape: [usize; D], outputs: [usize; D]) -> [Tensor<D>; 2] {
    let device = device();
    device.seed(5);
    let random = |shape| {
        let plain = Tensor::<D>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        Tensor::from_data(plain.into_data(), &device.clone().autodiff())
    };
    [random(shape).require_grad(), random(outputs)]
}

/// Output and gradients of `Σ weights·output`: of the input and of some parameters.
fn passes<const D: usize, const P: usize>(
    [input, weights]: [Tensor<D>; 2],
    parameters: &[&Param<Tensor<P>>],
    terms: &[&Param<Tensor<1>>],
    forward: impl Fn(Tensor<D>) -> Tensor<D>,
) -> Vec<TensorData> {
    let output = forward(input.clone());
    let grads = (output.clone() * weights).sum().backward();
    let mut found = vec![output.into_data()];
    found.extend(input.grad(&grads).map(Tensor::into_data));
    let of = parameters
        .iter()
        .map(|param| param.val().grad(&grads).unwrap().into_data());
    found.extend(of);
    let of = terms
        .iter()
        .map(|param| param.val().grad(&grads).unwrap().into_data());
    found.extend(of);
    found
}

#[test]
fn convolutions_learn_as_burns() {
    let base = |channels, kernel| MultiBitConv2dConfig::new(channels, kernel);
    let cases = [
        base([4, 6], [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)),
        base([4, 20], [1, 1]).with_bias(false),
        base([4, 6], [3, 2])
            .with_stride([2, 3])
            .with_padding(PaddingConfig2d::Same),
        base([4, 5], [2, 3])
            .with_padding(PaddingConfig2d::Explicit(1, 0, 2, 3))
            .with_dilation([2, 1]),
        // Groups of channels are Burn's own.
        base([4, 6], [3, 3]).with_groups(2),
    ];
    let train = device().autodiff();
    for config in cases {
        let burns = Conv2dConfig::new(config.channels, config.kernel_size)
            .with_stride(config.stride)
            .with_dilation(config.dilation)
            .with_groups(config.groups)
            .with_padding(config.padding.clone())
            .with_bias(config.bias)
            .init(&train);
        let shape = [9, 4, 9, 8];
        let outputs = burns.forward(Tensor::zeros(shape, &train)).dims();
        let ours = config
            .init_float(&train)
            .load_record(burns.clone().into_record());
        let terms = |bias: &Option<Param<Tensor<1>>>| bias.clone().into_iter().collect::<Vec<_>>();
        let (of_ours, of_burns) = (terms(&ours.bias), terms(&burns.bias));
        let inputs = inputs(shape, outputs);
        let found = passes(
            inputs.clone(),
            &[&ours.weight],
            &of_ours.iter().collect::<Vec<_>>(),
            |x| ours.forward(x),
        );
        let expected = passes(
            inputs,
            &[&burns.weight],
            &of_burns.iter().collect::<Vec<_>>(),
            |x| burns.forward(x),
        );
        assert_near(&found, &expected, &format!("{config:?}"));
    }
}

#[test]
fn a_convolution_of_one_axis_learns_as_burns() {
    let train = device().autodiff();
    let burns = Conv1dConfig::new(3, 5, 4)
        .with_stride(2)
        .with_padding(PaddingConfig1d::Explicit(1, 2))
        .init(&train);
    let ours = MultiBitConv1dConfig::new(3, 5, 4)
        .with_stride(2)
        .with_padding(PaddingConfig1d::Explicit(1, 2))
        .init_float(&train)
        .load_record(burns.clone().into_record());
    let inputs = inputs([4, 3, 17], [4, 5, 9]);
    let [bias, burns_bias] = [&ours.bias, &burns.bias].map(|bias| bias.clone().unwrap());
    let found = passes(inputs.clone(), &[&ours.weight], &[&bias], |x| {
        ours.forward(x)
    });
    let expected = passes(inputs, &[&burns.weight], &[&burns_bias], |x| {
        burns.forward(x)
    });
    assert_near(&found, &expected, "conv1d");
}

/// The running statistics, as evaluation sees them.
fn running(norm: &BatchNorm) -> Vec<TensorData> {
    let norm = norm.valid();
    [norm.running_mean, norm.running_var]
        .map(|state| state.value_sync().into_data())
        .into()
}

#[test]
fn batch_norm_behind_a_layer_learns_as_burns() {
    let train = device().autodiff();
    let conv = MultiBitConv2dConfig::new([4, 6], [1, 1]).init_float(&train);
    let norm = BatchNormConfig::new(6).with_momentum(0.3).init(&train);
    let burns = norm.clone().fork(&train);
    let [gamma, beta] = [&norm.gamma, &norm.beta].map(Clone::clone);
    let inputs = inputs([5, 4, 7, 6], [5, 6, 7, 6]);
    let terms = [&gamma, &beta];
    let found = passes(inputs.clone(), &[&conv.weight], &terms, |x| {
        conv.forward_norm(x, &norm)
    });
    let terms = [&burns.gamma, &burns.beta];
    let expected = passes(inputs.clone(), &[&conv.weight], &terms, |x| {
        burns.forward(conv.forward(x))
    });
    assert_near(&found, &expected, "batch norm");
    // The statistics moved once, and alike.
    assert_near(&running(&norm), &running(&burns), "running statistics");
    let [moved, _] = &running(&norm)[..] else {
        unreachable!("two statistics")
    };
    assert!(
        moved.iter::<f32>().any(|mean| mean != 0.0),
        "they did not move"
    );

    // Frozen, it takes its running statistics, and leaves them.
    let frozen = norm.freeze();
    let before = running(&frozen);
    let [input, _] = inputs;
    let output = conv.forward_norm(input.clone(), &frozen).into_data();
    let expected = frozen.forward(conv.forward(input)).into_data();
    assert_near(&[output], &[expected], "frozen");
    assert_near(&running(&frozen), &before, "frozen statistics");
}
