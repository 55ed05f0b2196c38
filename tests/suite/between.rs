//! What stands between packed layers, against f64: activations, layer norm, attention, and the
//! epilogue of each kind of layer.

use burn::nn::BatchNormConfig;
use burn::tensor::{Bool, Device, Tensor, TensorData, activation};
use burn_alq::nn;
use burn_alq::nn::functional::{Attention, activate, attention, layer_norm};
use burn_alq::{
    Activation, Arithmetic, Epilogue, MultiBitConv1dConfig, MultiBitConv2dConfig,
    MultiBitConvTranspose2dConfig, MultiBitLinear, MultiBitLinearConfig, PackedModel,
};
use multibit::cpu::reference;

use crate::devices::device;
use crate::support::{Random, assert_close, assert_near, narrow, values};

const ALL: [Activation; 9] = [
    Activation::Identity,
    Activation::Relu,
    Activation::Relu6,
    Activation::HardSwish,
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluApproximate,
    Activation::Sigmoid,
    Activation::Tanh,
];

fn tensor<const D: usize>(x: &[f64], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(narrow(x), shape), device)
}

#[test]
fn activations_are_their_definition() {
    let mut random = Random::new(71);
    let x = random.normals(210, 3.0);
    let input = tensor(&x, [5, 42], &device());
    // Neither dense nor the whole of its memory.
    let part = input.clone().transpose().slice([3..40, 1..4]);
    for function in ALL {
        let of = |x: f64| reference::activation(function, x) as f32;
        let expected: Vec<f32> = x.iter().map(|&x| of(x)).collect();
        assert_near(&values(activate(input.clone(), function)), &expected, 1e-5);
        let expected: Vec<f32> = (0..37 * 3)
            .map(|i| of(x[(1 + i % 3) * 42 + 3 + i / 3]))
            .collect();
        assert_near(&values(activate(part.clone(), function)), &expected, 1e-5);
    }
}

#[test]
fn layer_norm_is_its_definition() {
    let device = device();
    let mut random = Random::new(72);
    for (rows, d_model) in [(1, 1), (3, 20), (6, 100)] {
        let x = random.normals(rows * d_model, 2.0);
        let [gamma, beta] = [0, 1].map(|_| random.normals(d_model, 1.0));
        let input = tensor(&x, [1, rows, d_model], &device);
        for with_beta in [false, true] {
            let mut expected = Vec::new();
            for row in x.chunks_exact(d_model) {
                let mean = row.iter().sum::<f64>() / d_model as f64;
                let squares = row.iter().map(|x| (x - mean) * (x - mean));
                let deviation = (squares.sum::<f64>() / d_model as f64 + 1e-5).sqrt();
                for (i, x) in row.iter().enumerate() {
                    let offset = if with_beta { beta[i] } else { 0.0 };
                    expected.push(((x - mean) / deviation * gamma[i] + offset) as f32);
                }
            }
            let [gamma, beta] = [&gamma, &beta].map(|x| tensor(x, [d_model], &device));
            let found = layer_norm(input.clone(), gamma, with_beta.then_some(beta), 1e-5);
            assert_eq!(found.dims(), [1, rows, d_model]);
            assert_near(&values(found), &expected, 1e-5);
        }
    }
}

/// Context and weights, in plain loops; `masked` by sequence, query and key.
fn attended(
    [query, key, value]: [&[f64]; 3],
    [batch, queries, keys, d_model]: [usize; 4],
    options: &Attention,
    masked: impl Fn(usize, usize, usize) -> bool,
) -> (Vec<f32>, Vec<f32>) {
    let width = d_model / options.heads;
    let mut context = vec![0.0; batch * queries * d_model];
    let mut weights = Vec::new();
    for n in 0..batch {
        for head in 0..options.heads {
            for i in 0..queries {
                let at = |x: &[f64], row: usize, c: usize| x[row * d_model + head * width + c];
                let score = |j: usize| {
                    if masked(n, i, j) {
                        return options.min_float;
                    }
                    let product = |c| at(query, n * queries + i, c) * at(key, n * keys + j, c);
                    (0..width).map(product).sum::<f64>() * options.scale
                };
                let scores: Vec<f64> = (0..keys).map(score).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let e: Vec<f64> = scores.iter().map(|x| (x - largest).exp()).collect();
                let more = if options.quiet { (-largest).exp() } else { 0.0 };
                let sum = e.iter().sum::<f64>() + more;
                for (j, e) in e.iter().enumerate() {
                    weights.push((e / sum) as f32);
                    for c in 0..width {
                        context[(n * queries + i) * d_model + head * width + c] +=
                            e / sum * at(value, n * keys + j, c);
                    }
                }
            }
        }
    }
    (narrow(&context), weights)
}

#[test]
fn attention_is_its_definition() {
    let device = device();
    let mut random = Random::new(73);
    for (batch, queries, keys, heads, width) in
        [(1, 1, 3, 2, 4), (2, 5, 5, 2, 8), (1, 14, 20, 1, 6)]
    {
        let d_model = heads * width;
        let mut drawn = |length: usize| random.normals(batch * length * d_model, 1.0);
        let [q, k, v] = [queries, keys, keys].map(&mut drawn);
        let tensors = || {
            [(&q, queries), (&k, keys), (&v, keys)]
                .map(|(x, length)| tensor(x, [batch, length, d_model], &device))
        };
        let pad: Vec<bool> = (0..batch * keys).map(|i| i % 4 == 1).collect();
        let pairs: Vec<bool> = (0..batch * queries * keys).map(|i| i % 5 == 2).collect();
        let mask_pad = || {
            let data = TensorData::new(pad.clone(), [batch, keys]);
            Tensor::<2, Bool>::from_data(data, &device)
        };
        let mask_attn = || {
            let data = TensorData::new(pairs.clone(), [batch, queries, keys]);
            Tensor::<3, Bool>::from_data(data, &device)
        };
        for quiet in [false, true] {
            let options = Attention {
                heads,
                scale: 1.0 / (width as f64).sqrt(),
                min_float: -1e4,
                quiet,
                weights: true,
            };
            let sizes = [batch, queries, keys, d_model];
            for [by_pad, by_pair] in [[false, false], [true, false], [true, true]] {
                let (context, weights) = attended([&q, &k, &v], sizes, &options, |n, i, j| {
                    by_pad && pad[n * keys + j] || by_pair && pairs[(n * queries + i) * keys + j]
                });
                let masks = || (by_pad.then(mask_pad), by_pair.then(mask_attn));
                let (mask_pad, mask_attn) = masks();
                let found = attention(tensors(), mask_pad, mask_attn, options.clone());
                assert_near(&values(found.0), &context, 1e-4);
                assert_near(&values(found.1.unwrap()), &weights, 1e-5);
                let alone = Attention {
                    weights: false,
                    ..options.clone()
                };
                let (mask_pad, mask_attn) = masks();
                let found = attention(tensors(), mask_pad, mask_attn, alone.clone());
                assert!(found.1.is_none());
                assert_near(&values(found.0), &context, 1e-4);
                if queries == keys {
                    // Side by side, as three linear layers of one input leave them.
                    let together = Tensor::cat(tensors().to_vec(), 2);
                    let parts = [0, 1, 2].map(|i| {
                        let columns = i * d_model..(i + 1) * d_model;
                        together.clone().slice([0..batch, 0..keys, columns])
                    });
                    let (mask_pad, mask_attn) = masks();
                    let found = attention(parts, mask_pad, mask_attn, alone);
                    assert_near(&values(found.0), &context, 1e-4);
                }
            }
        }
    }
}

/// Gradients of the operations are those of Burn's, of which the same result is made.
#[test]
fn gradients_flow() {
    let device = device().autodiff();
    let mut random = Random::new(74);
    let x = random.normals(24, 1.0);
    let leaf = || tensor(&x, [2, 3, 4], &device).require_grad();
    let gradient = |of: &dyn Fn(Tensor<3>) -> Tensor<3>| {
        let x = leaf();
        let grads = (of(x.clone()) * tensor(&x_weights(), [2, 3, 4], &device))
            .sum()
            .backward();
        x.grad(&grads).unwrap().into_data()
    };
    let gelu = gradient(&|x| activate(x, Activation::Gelu));
    assert_close(gelu, gradient(&|x| activation::gelu(x)), "gelu");
    let options = Attention {
        heads: 2,
        scale: 0.5,
        min_float: -1e4,
        quiet: false,
        weights: false,
    };
    let found = gradient(&|x| {
        let rows = [x.clone(), x.clone(), x];
        attention(rows, None, None, options.clone()).0
    });
    let expected = gradient(&|x| {
        let split = x.reshape([2, 3, 2, 2]).swap_dims(1, 2);
        let scores = split.clone().matmul(split.clone().transpose()) * 0.5;
        let context = activation::softmax(scores, 3).matmul(split);
        context.swap_dims(1, 2).reshape([2, 3, 4])
    });
    assert_close(found, expected, "attention");
    let linear = MultiBitLinearConfig::new(4, 4).init(&device);
    let linear = PackedModel::pack(&linear).unwrap().apply(linear).unwrap();
    let found = gradient(&|x| {
        let residual = Some(x.clone());
        linear.forward_then(
            x,
            Epilogue {
                residual,
                ..Activation::Silu.into()
            },
        )
    });
    let expected = gradient(&|x| activation::silu(linear.forward(x.clone()) + x));
    assert_close(found, expected, "a packed layer");
}

fn x_weights() -> Vec<f64> {
    (0..24).map(|i| f64::from(i % 7) - 3.0).collect()
}

/// `forward_then` is the layer, batch norm, the residual and the activation, packed and not.
macro_rules! assert_then {
    ($layer:expr, $shape:expr, $norm:expr, $random:expr) => {{
        let device = device();
        let layer = $layer;
        let packed = PackedModel::pack(&layer)
            .unwrap()
            .apply(layer.clone())
            .unwrap();
        for layer in [layer, packed] {
            let x = tensor(
                &$random.normals($shape.iter().product(), 1.0),
                $shape,
                &device,
            );
            let plain = layer.forward(x.clone());
            let drawn = $random.normals(plain.shape().num_elements(), 1.0);
            let residual = tensor(&drawn, plain.dims(), &device);
            let relu = layer.forward_then(x.clone(), Activation::Relu);
            assert_close(
                relu.into_data(),
                activation::relu(plain.clone()).into_data(),
                "activation",
            );
            let norm: Option<burn::nn::BatchNorm> = $norm;
            let epilogue = Epilogue {
                norm: norm.as_ref(),
                residual: Some(residual.clone()),
                activation: Activation::Gelu,
            };
            let normed = norm
                .as_ref()
                .map_or(plain.clone(), |norm| norm.forward(plain));
            let found = layer.forward_then(x, epilogue);
            let expected = activation::gelu(normed + residual);
            assert_close(found.into_data(), expected.into_data(), "all");
        }
    }};
}

#[test]
fn layers_end_in_one_pass() {
    let device = device();
    let mut random = Random::new(75);
    let norm = |features| Some(BatchNormConfig::new(features).init(&device));
    for arithmetic in [Arithmetic::Exact, Arithmetic::Int8] {
        let linear = MultiBitLinearConfig::new(20, 6)
            .with_arithmetic(arithmetic)
            .init(&device);
        assert_then!(linear.clone(), [7, 20], norm(6), random);
        assert_then!(linear, [2, 3, 20], None, random);
        let conv = MultiBitConv1dConfig::new(4, 6, 3)
            .with_arithmetic(arithmetic)
            .init(&device);
        assert_then!(conv, [2, 4, 9], norm(6), random);
        let conv = MultiBitConv2dConfig::new([4, 6], [3, 3]).with_arithmetic(arithmetic);
        assert_then!(conv.init(&device), [2, 4, 7, 6], norm(6), random);
    }
    let conv = MultiBitConvTranspose2dConfig::new([4, 6], [2, 2]).init(&device);
    assert_then!(conv, [2, 4, 5, 5], norm(6), random);
}

#[test]
#[should_panic(expected = "MultiBitLinear: the residual must have the shape of the output")]
fn a_residual_of_another_shape_is_refused() {
    let device = device();
    let linear = MultiBitLinearConfig::new(4, 3).init(&device);
    let linear = PackedModel::pack(&linear).unwrap().apply(linear).unwrap();
    let residual = Some(Tensor::zeros([1, 3], &device));
    let epilogue = Epilogue {
        residual,
        ..Activation::Identity.into()
    };
    linear.forward_then(Tensor::<2>::zeros([2, 4], &device), epilogue);
}

#[test]
#[should_panic(expected = "attention: the shape of `mask_pad`")]
fn a_mask_of_another_shape_is_refused() {
    let device = device();
    let x = Tensor::<3>::zeros([1, 2, 4], &device);
    let mask = Tensor::<2, Bool>::from_data(TensorData::new(vec![false; 3], [1, 3]), &device);
    let options = Attention {
        heads: 2,
        scale: 1.0,
        min_float: -1e4,
        quiet: false,
        weights: false,
    };
    attention([x.clone(), x.clone(), x], Some(mask), None, options);
}

/// Layers of one input, packed and not, with a bias and without.
#[test]
fn layers_of_one_input_lie_side_by_side() {
    let device = device();
    let mut random = Random::new(76);
    let x = tensor(&random.normals(2 * 3 * 20, 1.0), [2, 3, 20], &device);
    for arithmetic in [Arithmetic::Exact, Arithmetic::Int8] {
        let mut layers = [(6, true), (6, false), (9, true)].map(|(outputs, bias)| {
            let config = MultiBitLinearConfig::new(20, outputs).with_bias(bias);
            config.with_arithmetic(arithmetic).init(&device)
        });
        for is_packed in [false, true] {
            if is_packed {
                layers =
                    layers.map(|layer| PackedModel::pack(&layer).unwrap().apply(layer).unwrap());
            }
            let found = MultiBitLinear::forward_all(&layers.each_ref(), x.clone());
            let expected = layers.each_ref().map(|layer| layer.forward(x.clone()));
            let expected = Tensor::cat(expected.to_vec(), 2);
            assert_close(found.into_data(), expected.into_data(), "side by side");
        }
    }
}

/// Layers with Burn's names end as the multi-bit ones do.
#[test]
fn layers_with_burns_names_end_alike() {
    let device = device();
    let mut random = Random::new(77);
    macro_rules! assert_alike {
        ($multi_bit:expr, $burns:expr, $input:expr, $output:expr) => {{
            let multi_bit = $multi_bit.with_bias(false).init(&device);
            let packed = PackedModel::pack(&multi_bit).unwrap();
            let burns = $burns.with_bias(false).init(&device);
            let burns = packed.apply(burns).unwrap();
            let multi_bit = packed.apply(multi_bit).unwrap();
            let mut drawn = |shape: &[usize]| random.normals(shape.iter().product(), 1.0);
            let x = tensor(&drawn(&$input), $input, &device);
            let epilogue = Epilogue {
                residual: Some(tensor(&drawn(&$output), $output, &device)),
                ..Activation::Tanh.into()
            };
            let expected = multi_bit.forward_then(x.clone(), epilogue.clone());
            let found = burns.forward_then(x, epilogue);
            assert_eq!(found.into_data(), expected.into_data());
        }};
    }
    assert_alike!(
        MultiBitLinearConfig::new(20, 6),
        nn::LinearConfig::new(20, 6),
        [2, 3, 20],
        [2, 3, 6]
    );
    assert_alike!(
        MultiBitConv1dConfig::new(4, 6, 3),
        nn::conv::Conv1dConfig::new(4, 6, 3),
        [2, 4, 9],
        [2, 6, 7]
    );
    assert_alike!(
        MultiBitConv2dConfig::new([4, 6], [3, 3]),
        nn::conv::Conv2dConfig::new([4, 6], [3, 3]),
        [2, 4, 7, 6],
        [2, 6, 5, 4]
    );
    assert_alike!(
        MultiBitConvTranspose2dConfig::new([4, 6], [2, 2]),
        nn::conv::ConvTranspose2dConfig::new([4, 6], [2, 2]),
        [2, 4, 5, 5],
        [2, 6, 6, 6]
    );
}
