//! Float layers in training: forward and backward by the device's own operations.

use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_autodiff::{Autodiff, NodeId};
use burn_core::backend::AutodiffBackend;
use burn_core::backend::tensor::FloatTensor;
use multibit::cpu::Conv2dOptions;

use crate::ops::{LayerOps, Normed};

/// A convolution with regard to input and weight.
#[derive(Debug)]
struct DenseConv2d;

impl<B: LayerOps> Backward<B, 2> for DenseConv2d {
    /// Input and weight.
    type State = ([NodeId; 2], Conv2dOptions);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [of_input, of_weight] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let (nodes, options) = ops.state;
        let [input, weight] =
            nodes.map(|node| checkpointer.retrieve_node_output::<FloatTensor<B>>(node));
        if let Some(node) = of_input {
            let (input, weight, grad) = (input.clone(), weight.clone(), grad.clone());
            let grad = B::alq_dense_conv2d_input_grad(input, weight, grad, options);
            grads.register::<B>(node.id, grad);
        }
        if let Some(node) = of_weight {
            let grad = B::alq_dense_conv2d_weight_grad(input, weight, grad, options);
            grads.register::<B>(node.id, grad);
        }
    }
}

/// A batch norm with regard to input, `γ` and `β`.
#[derive(Debug)]
struct BatchNorm;

impl<B: LayerOps> Backward<B, 3> for BatchNorm {
    /// Input and `γ`, mean and variance, `ε`.
    type State = ([NodeId; 2], [FloatTensor<B>; 2], f64);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&ops.node);
        let (nodes, [mean, variance], epsilon) = ops.state;
        let [input, gamma] =
            nodes.map(|node| checkpointer.retrieve_node_output::<FloatTensor<B>>(node));
        let found = B::alq_batch_norm_grads(input, gamma, mean, variance, epsilon, grad);
        let found = [found.input, found.gamma, found.beta];
        for (node, grad) in ops.parents.into_iter().zip(found) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

impl<B: LayerOps, C: CheckpointStrategy> LayerOps for Autodiff<B, C> {
    fn alq_dense_conv2d(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        options: Conv2dOptions,
    ) -> FloatTensor<Self> {
        let nodes = [input.node(), weight.node()];
        let forward = |input: FloatTensor<Self>, weight: FloatTensor<Self>| {
            let [(input, _), (weight, _)] = [input, weight].map(FloatTensor::<Self>::into_parts);
            B::alq_dense_conv2d(input, weight, options)
        };
        match DenseConv2d.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = [&input, &weight].map(|tensor| prep.checkpoint(tensor));
                prep.finish((state, options), forward(input, weight))
            }
            OpsKind::UnTracked(prep) => prep.finish(forward(input, weight)),
        }
    }

    fn alq_batch_norm(
        input: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> Normed<Self> {
        let nodes = [input.node(), gamma.node(), beta.node()];
        let forward = |tensors: [FloatTensor<Self>; 3]| {
            let [(input, _), (gamma, _), (beta, _)] = tensors.map(FloatTensor::<Self>::into_parts);
            B::alq_batch_norm(input, gamma, beta, epsilon)
        };
        let (output, mean, variance) =
            match BatchNorm.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(mut prep) => {
                    let state = [&input, &gamma].map(|tensor| prep.checkpoint(tensor));
                    let normed = forward([input, gamma, beta]);
                    let statistics = [normed.mean.clone(), normed.variance.clone()];
                    let output = prep.finish((state, statistics, epsilon), normed.output);
                    (output, normed.mean, normed.variance)
                }
                OpsKind::UnTracked(prep) => {
                    let normed = forward([input, gamma, beta]);
                    (prep.finish(normed.output), normed.mean, normed.variance)
                }
            };
        // The statistics have no gradient of their own.
        let [mean, variance] = [mean, variance].map(Self::from_inner);
        Normed {
            output,
            mean,
            variance,
        }
    }
}
