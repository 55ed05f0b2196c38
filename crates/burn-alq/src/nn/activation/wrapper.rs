use burn_core as burn;
use burn_core::config::Config;
use burn_core::module::Module;
use burn_core::tensor::{Device, Tensor};
use burn_nn::Identity;
use burn_nn::activation::{
    Celu, CeluConfig, Elu, EluConfig, Gelu, HardShrink, HardShrinkConfig, HardSigmoid,
    HardSigmoidConfig, HardSwish, LeakyRelu, LeakyReluConfig, PRelu, PReluConfig, Relu, Selu,
    Shrink, ShrinkConfig, Sigmoid, SoftShrink, SoftShrinkConfig, Softplus, SoftplusConfig,
    Softsign, Tanh, ThresholdedRelu, ThresholdedReluConfig,
};

use super::{SwiGlu, SwiGluConfig};
use crate::nn::Activation as Fused;

/// Configuration to create an [`Activation`] with [`init`](Self::init): Burn's
/// [`ActivationConfig`](burn_nn::activation::ActivationConfig).
#[derive(Config, Debug)]
#[non_exhaustive]
pub enum ActivationConfig {
    /// [`Identity`] layer.
    Identity,
    /// [`Gelu`] layer.
    Gelu,
    /// [`Gelu`] layer with tanh approximation.
    GeluApproximate,
    /// [`PRelu`] layer.
    PRelu(PReluConfig),
    /// [`Relu`] layer.
    Relu,
    /// [`LeakyRelu`] layer.
    LeakyRelu(LeakyReluConfig),
    /// [`SwiGlu`] layer.
    SwiGlu(SwiGluConfig),
    /// [`Selu`] layer.
    Selu,
    /// [`Sigmoid`] layer.
    Sigmoid,
    /// [`Tanh`] layer.
    Tanh,
    /// [`HardSigmoid`] layer.
    HardSigmoid(HardSigmoidConfig),
    /// [`HardSwish`] layer.
    HardSwish,
    /// [`Softplus`] layer.
    Softplus(SoftplusConfig),
    /// [`Softsign`] layer.
    Softsign,
    /// [`Elu`] layer.
    Elu(EluConfig),
    /// [`Celu`] layer.
    Celu(CeluConfig),
    /// [`ThresholdedRelu`] layer.
    ThresholdedRelu(ThresholdedReluConfig),
    /// [`HardShrink`] layer.
    HardShrink(HardShrinkConfig),
    /// [`SoftShrink`] layer.
    SoftShrink(SoftShrinkConfig),
    /// [`Shrink`] layer.
    Shrink(ShrinkConfig),
}

impl ActivationConfig {
    /// Initializes a wrapped activation layer.
    pub fn init(&self, device: &Device) -> Activation {
        match self {
            Self::Identity => Identity::new().into(),
            Self::Gelu => Gelu::new().into(),
            Self::GeluApproximate => Gelu::new_approximate().into(),
            Self::PRelu(config) => config.init(device).into(),
            Self::Relu => Relu.into(),
            Self::LeakyRelu(config) => config.init().into(),
            Self::SwiGlu(config) => config.init(device).into(),
            Self::Selu => Selu.into(),
            Self::Sigmoid => Sigmoid.into(),
            Self::Tanh => Tanh.into(),
            Self::HardSigmoid(config) => config.init().into(),
            Self::HardSwish => HardSwish.into(),
            Self::Softplus(config) => config.init().into(),
            Self::Softsign => Softsign.into(),
            Self::Elu(config) => config.init().into(),
            Self::Celu(config) => config.init().into(),
            Self::ThresholdedRelu(config) => config.init().into(),
            Self::HardShrink(config) => config.init().into(),
            Self::SoftShrink(config) => config.init().into(),
            Self::Shrink(config) => config.init().into(),
        }
    }
}

/// Conversions from what a variant holds.
macro_rules! from {
    ($wrapper:ident: $($variant:ident($held:ident)),*) => {
        $(impl From<$held> for $wrapper {
            fn from(held: $held) -> Self {
                Self::$variant(held)
            }
        })*
    };
}

from!(ActivationConfig:
    PRelu(PReluConfig), LeakyRelu(LeakyReluConfig), SwiGlu(SwiGluConfig),
    HardSigmoid(HardSigmoidConfig), Softplus(SoftplusConfig), Elu(EluConfig), Celu(CeluConfig),
    ThresholdedRelu(ThresholdedReluConfig), HardShrink(HardShrinkConfig),
    SoftShrink(SoftShrinkConfig), Shrink(ShrinkConfig)
);

/// The wrapper of layers that are called alike.
macro_rules! wrapper {
    ($($layer:ident),*) => {
        /// Any activation layer: Burn's [`Activation`](burn_nn::activation::Activation).
        #[derive(Module, Debug)]
        #[non_exhaustive]
        #[allow(clippy::large_enum_variant)]
        pub enum Activation {
            $(
                #[doc = concat!("[`", stringify!($layer), "`] layer.")]
                $layer($layer),
            )*
        }

        from!(Activation: $($layer($layer)),*);

        impl Activation {
            /// Applies the activation to the input tensor.
            pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
                match self {
                    $(Self::$layer(layer) => layer.forward(input),)*
                }
            }
        }
    };
}

impl Activation {
    /// The same as a packed layer computes it where an output is written, if one does.
    pub(in crate::nn) fn fused(&self) -> Option<Fused> {
        Some(match self {
            Self::Identity(_) => Fused::Identity,
            Self::Gelu(Gelu { approximate: false }) => Fused::Gelu,
            Self::Gelu(Gelu { approximate: true }) => Fused::GeluApproximate,
            Self::Relu(_) => Fused::Relu,
            Self::Sigmoid(_) => Fused::Sigmoid,
            Self::Tanh(_) => Fused::Tanh,
            Self::HardSwish(_) => Fused::HardSwish,
            _ => return None,
        })
    }
}

wrapper!(
    Identity,
    Gelu,
    PRelu,
    Relu,
    LeakyRelu,
    SwiGlu,
    Selu,
    Sigmoid,
    Tanh,
    HardSigmoid,
    HardSwish,
    Softplus,
    Softsign,
    Elu,
    Celu,
    ThresholdedRelu,
    HardShrink,
    SoftShrink,
    Shrink
);
