use burn_core::tensor::Tensor;
use burn_nn::BatchNorm;
use multibit::cpu::Activation;

use super::functional::activate;
#[cfg(feature = "train")]
use super::training::batch_norm;

/// What follows a layer: `activation(norm(y) + residual)`, all of it at choice.
///
/// ```
/// use burn_alq::{Activation, Epilogue, MultiBitConv2d};
/// use burn_core::tensor::Tensor;
///
/// fn block(first: &MultiBitConv2d, second: &MultiBitConv2d, x: Tensor<4>) -> Tensor<4> {
///     let y = first.forward_then(x.clone(), Activation::Relu);
///     let skip = Epilogue { residual: Some(x), ..Activation::Relu.into() };
///     second.forward_then(y, skip)
/// }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Epilogue<'a, const D: usize> {
    /// Batch norm over the outputs; once packed it folds into scale and offset of each output.
    pub norm: Option<&'a BatchNorm>,
    /// Added behind it, in the shape of the output.
    pub residual: Option<Tensor<D>>,
    /// Last.
    pub activation: Activation,
}

impl<const D: usize> From<Activation> for Epilogue<'_, D> {
    fn from(activation: Activation) -> Self {
        Self {
            norm: None,
            residual: None,
            activation,
        }
    }
}

impl<'a, const D: usize> Epilogue<'a, D> {
    /// Batch norm alone.
    pub(super) fn norm(norm: &'a BatchNorm) -> Self {
        Self {
            norm: Some(norm),
            ..Activation::Identity.into()
        }
    }

    /// The end of a layer that is not packed.
    pub(super) fn apply(self, y: Tensor<D>) -> Tensor<D> {
        let y = match self.norm {
            Some(norm) => batch_norm(norm, y),
            None => y,
        };
        let y = match self.residual {
            Some(residual) => y + residual,
            None => y,
        };
        if self.activation == Activation::Identity {
            return y;
        }
        activate(y, self.activation)
    }

    /// The residual, for the operation of a packed layer.
    ///
    /// # Panics
    /// If it has another shape than the output.
    pub(super) fn residual(&self, layer: &str, output: [usize; D]) -> Option<Tensor<D>> {
        let residual = self.residual.clone()?;
        assert_eq!(
            residual.dims(),
            output,
            "{layer}: the residual must have the shape of the output"
        );
        Some(residual)
    }
}

/// Without training there is nothing that Burn's does not do as well.
#[cfg(not(feature = "train"))]
fn batch_norm<const D: usize>(norm: &BatchNorm, input: Tensor<D>) -> Tensor<D> {
    norm.forward(input)
}
