//! Multi-bit activations, and packed layers in all arithmetics.

use burn::module::Module;
use burn::nn::pool::MaxPool2dConfig;
use burn::nn::{BatchNormConfig, PaddingConfig2d};
use burn::tensor::{Device, Distribution, Tensor, TensorData, Tolerance};
use burn_alq::{
    Arithmetic, GroupingRule, MultiBitActivation, MultiBitActivationConfig, MultiBitConv2d,
    MultiBitConv2dConfig, MultiBitLinear, MultiBitLinearConfig, PackedModel, Quantized,
};
use multibit::cpu::Levels;

use crate::devices::device;
use crate::support::{assert_at_levels, assert_close, widen};

fn values(tensor: Tensor<1>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// `x_ref` and `γ`.
fn numbers(activation: &MultiBitActivation) -> Vec<f32> {
    let levels = activation.levels().unwrap();
    let mut numbers = vec![levels.reference()];
    numbers.extend(levels.coordinates());
    numbers
}

/// An activation that has seen some batches.
fn fitted(bits: usize, device: &Device) -> MultiBitActivation {
    let device = device.clone().autodiff();
    let activation = MultiBitActivationConfig::new(bits).init(&device);
    for _ in 0..20 {
        let x = Tensor::<2>::random([64, 32], Distribution::Normal(0.2, 1.0), &device);
        activation.forward(x);
    }
    activation.valid()
}

#[test]
fn training_fits_the_levels_and_evaluation_does_not() {
    let device = device();
    device.seed(3);
    let train = device.clone().autodiff();
    // Four values at the distances of two coordinates, 1.5 ± 1 ± 0.4.
    let levels = [0.1f32, 0.9, 2.1, 2.9];
    let x: Vec<f32> = (0..400).map(|i| levels[i % 4]).collect();
    let x = Tensor::<1>::from_floats(x.as_slice(), &train);
    let activation = MultiBitActivationConfig::new(2).init(&train);
    for _ in 0..60 {
        activation.forward(x.clone());
    }
    let activation = activation.valid();
    let found = numbers(&activation);
    // What is kept of the start after 60 steps, 0.9^60, is below a hundredth.
    let expected = TensorData::from([1.5f32, 1.0, 0.4]);
    let found = TensorData::new(found, [3]);
    found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(0.01));

    let other = Tensor::<1>::from_floats([7.0, -3.0, 0.6], &device);
    let quantized = values(activation.forward(other).into_tensor());
    let after = TensorData::new(numbers(&activation), [3]);
    assert_eq!(after, found, "evaluation changed the levels");
    let expected = TensorData::from([2.9f32, 0.1, 0.9]);
    TensorData::new(quantized, [3]).assert_approx_eq::<f32>(&expected, Tolerance::absolute(0.02));
}

/// Levels are read once from what is recorded, and again where that may have changed.
#[test]
fn levels_are_what_is_recorded() {
    let device = device();
    let [first, second] = [0.9, 3.0].map(|largest| Levels::uniform(2, largest).unwrap());
    let activation = MultiBitActivation::with_levels(&first, &device);
    let other = MultiBitActivation::with_levels(&second, &device);
    let clone = activation.clone();
    assert_eq!(clone.levels(), Some(first));
    let activation = activation.load_record(other.into_record());
    assert_eq!(activation.levels(), Some(second.clone()));
    // Clones share what is recorded.
    assert_eq!(clone.levels(), Some(second));

    let train = device.clone().autodiff();
    let activation = MultiBitActivationConfig::new(2).init(&train);
    assert_eq!(activation.levels(), None);
    let step = |scale: f32| {
        let x = Tensor::<1>::from_floats([0.1, 0.9, 2.1, 2.9], &train);
        activation.forward(x * scale);
        activation.valid().levels()
    };
    let [early, late] = [1.0, 10.0].map(step);
    assert!(early.is_some() && early != late);
    assert_eq!(activation.levels(), late);
    assert_eq!(activation.train().levels(), late);
}

#[test]
fn gradients_pass_where_the_activation_is_in_range() {
    let device = device().autodiff();
    let activation = MultiBitActivationConfig::new(1).init(&device);
    // Levels 0 and 4·mean = 25.4 at the first call.
    let x = Tensor::<1>::from_floats([-1.0, 0.2, 0.6, 50.0, 0.0, 0.0, 0.0, 0.0], &device);
    let x = x.require_grad();
    let scale = Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 5.0, 5.0], &device);
    let y = activation.forward(x.clone()).into_tensor();
    let gradients = (y * scale).sum().backward();
    let gradient = values(x.grad(&gradients).unwrap());
    assert_eq!(gradient[..4], [0.0, 2.0, 3.0, 0.0]);
}

#[test]
#[should_panic(expected = "the levels are not fitted yet")]
fn evaluation_without_levels_is_refused() {
    let device = device();
    let activation = MultiBitActivationConfig::new(2).init(&device);
    activation.forward(Tensor::<1>::zeros([4], &device));
}

/// An activation and two layers behind it.
#[derive(Module, Debug)]
struct Net {
    activation: MultiBitActivation,
    conv: MultiBitConv2d,
    linear: MultiBitLinear,
}

impl Net {
    fn new(arithmetic: Arithmetic, grouping: GroupingRule, device: &Device) -> Self {
        Self {
            activation: fitted(2, device),
            conv: MultiBitConv2dConfig::new([5, 7], [3, 3])
                .with_grouping(grouping)
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .with_arithmetic(arithmetic)
                .with_max_bits(2)
                .init(device),
            linear: MultiBitLinearConfig::new(36, 9)
                .with_grouping(GroupingRule::Subchannelwise(2))
                .with_arithmetic(arithmetic)
                .with_bias(false)
                .with_max_bits(3)
                .init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.conv.forward(self.activation.forward(x));
        let pool = MaxPool2dConfig::new([2, 1]).with_strides([2, 1]).init();
        let x = self.activation.forward(x).max_pool2d(&pool);
        self.linear.forward(x.map(|x| x.reshape([2, 7, 3, 36])))
    }
}

#[test]
fn packed_layers_compute_what_they_were_trained_to() {
    let device = device();
    for arithmetic in [Arithmetic::Exact, Arithmetic::Int8, Arithmetic::Bitwise] {
        for grouping in [
            GroupingRule::Channelwise,
            GroupingRule::Kernelwise,
            GroupingRule::Pixelwise,
        ] {
            device.seed(4);
            let net = Net::new(arithmetic, grouping, &device);
            let x = Tensor::<4>::random([2, 5, 6, 36], Distribution::Default, &device) * 2.0;
            let expected = net.forward(x.clone()).into_data();
            let packed = PackedModel::pack(&net).unwrap();
            // Other levels, that must be replaced.
            let fresh = Net::new(arithmetic, grouping, &device);
            let found = packed.apply(fresh).unwrap().forward(x).into_data();
            // An activation at a threshold may fall on the other side of it.
            let room = match arithmetic {
                Arithmetic::Int8 => 0.3,
                _ => 1e-4,
            };
            let what = format!("{arithmetic:?} {grouping:?}");
            println!("{what}");
            let pairs = found.iter::<f32>().zip(expected.iter::<f32>());
            let far = pairs.filter(|(a, b)| (a - b).abs() > room).count();
            let most = found.shape().num_elements() / 50;
            assert!(far <= most, "{what}: {far} outputs differ");
        }
    }
}

/// A convolution, batch norm and what is added, then an activation: as bits, and one after the other.
#[test]
fn what_lies_between_layers_is_the_same_as_bits() {
    let pool = MaxPool2dConfig::new([3, 3])
        .with_strides([2, 2])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .init();
    let device = device();
    device.seed(6);
    // A channel more than a word has.
    let shape = [2, 33, 6, 7];
    let random = || Tensor::<4>::random(shape, Distribution::Normal(0.4, 1.0), &device);
    let norm = BatchNormConfig::new(33).init(&device);
    for bits in [1, 2, 3] {
        let activation = fitted(bits, &device);
        let levels = activation.levels().unwrap();
        for (arithmetic, grouping) in [
            (Arithmetic::Bitwise, GroupingRule::Pixelwise),
            (Arithmetic::Bitwise, GroupingRule::Kernelwise),
            (Arithmetic::Int8, GroupingRule::Channelwise),
            (Arithmetic::Exact, GroupingRule::Channelwise),
        ] {
            let layer = MultiBitConv2dConfig::new([33, 33], [3, 3])
                .with_grouping(grouping)
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .with_arithmetic(arithmetic)
                .with_max_bits(1)
                .init(&device);
            let packed = PackedModel::pack(&layer).unwrap();
            let packed = packed.apply(layer.clone()).unwrap();
            let (x, added) = (random(), random());
            for layer in [layer, packed] {
                for residual in [
                    None,
                    Some(added.clone().into()),
                    Some(activation.forward(added.clone())),
                    Some(activation.forward(added.clone()).pack()),
                ] {
                    let x = activation.forward(x.clone());
                    let mut before = layer.forward_norm(x.clone(), &norm);
                    if let Some(residual) = &residual {
                        before = before + residual.clone().into_tensor();
                    }
                    let found = layer.forward_act(x.pack(), Some(&norm), residual, &activation);
                    let pooled = found.clone().max_pool2d(&pool);
                    assert_eq!(found.dims(), shape);
                    let what = format!("{arithmetic:?} {grouping:?} {bits}");
                    // Sums of 300 products below 1, scaled: the same in both, but for their order.
                    let check = |found: Quantized<4>, before: Tensor<4>, what: &str| {
                        let before: Vec<f32> = before.into_data().try_into_vec().unwrap();
                        assert_at_levels(found, &widen(&before), &levels, |_| 1e-4, what);
                    };
                    check(found, before.clone(), &what);
                    check(pooled, pool.forward(before), &format!("{what}, pooled"));
                }
            }
        }
    }
}

#[test]
fn in_training_what_lies_between_layers_is_computed_as_it_reads() {
    let device = device().autodiff();
    device.seed(7);
    let activation = MultiBitActivationConfig::new(2).init(&device);
    let conv = MultiBitConv2dConfig::new([3, 4], [3, 3])
        .with_max_bits(2)
        .init(&device);
    let x = Tensor::<4>::random([2, 3, 5, 5], Distribution::Default, &device).require_grad();
    let y = conv.forward_act(x.clone(), None, None, &activation);
    let gradients = y.into_tensor().sum().backward();
    let gradient = x.grad(&gradients).expect("gradients reach the input");
    assert!(gradient.abs().sum().into_scalar::<f32>() > 0.0);
    assert!(
        activation.valid().levels().is_some(),
        "the levels are fitted"
    );
}

#[test]
fn the_arithmetic_is_in_the_display() {
    let device = device();
    let net = Net::new(Arithmetic::Int8, GroupingRule::Kernelwise, &device);
    let display = format!("{net}");
    assert_eq!(display.matches("Int8").count(), 2, "{display}");
    assert!(display.contains("levels"), "{display}");
}

#[test]
#[should_panic(expected = "bitwise arithmetic needs the output of a MultiBitActivation")]
fn bitwise_arithmetic_of_plain_values_is_refused() {
    let device = device();
    let layer = MultiBitLinearConfig::new(4, 2)
        .with_arithmetic(Arithmetic::Bitwise)
        .init(&device);
    let layer = PackedModel::pack(&layer).unwrap().apply(layer).unwrap();
    layer.forward(Tensor::<2>::zeros([1, 4], &device));
}

#[test]
fn pooling_before_quantizing_is_pooling_after() {
    let device = device();
    device.seed(5);
    let activation = fitted(3, &device);
    let pool = MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init();
    let x = Tensor::<4>::random([2, 3, 8, 8], Distribution::Normal(0.5, 1.0), &device);
    let before = activation.forward(x.clone()).max_pool2d(&pool);
    let after = pool.forward(activation.forward(x).into_tensor());
    assert_close(
        before.into_tensor().into_data(),
        after.into_data(),
        "pooled",
    );
}
