//! A packed weight with its kernels, each laid out when it is first needed.

use alloc::sync::Arc;
use core::fmt;
use core::ops::Deref;
use std::sync::OnceLock;

use multibit::PackedWeight;
use multibit::cpu::{Arithmetic, Conv2dKernel, KernelError, LinearKernel};

/// A packed weight that layers run on.
///
/// A kernel is laid out once, at the first use of its arithmetic, and shared by all clones.
pub struct PreparedWeight {
    weight: Arc<PackedWeight>,
    linear: [OnceLock<LinearKernel>; 3],
    conv2d: [OnceLock<Conv2dKernel>; 3],
}

impl PreparedWeight {
    /// Checks that the kernels can run the weight.
    ///
    /// # Errors
    /// If the weight has rank 2 or 4, and its groups do not lie along the outputs of a linear layer
    /// `[d_in, d_out]` or a convolution `[out, in, k_h, k_w]`.
    pub fn new(weight: Arc<PackedWeight>) -> Result<Self, KernelError> {
        let axis = weight.grouping().axes()[0];
        let expected = match weight.shape().len() {
            2 => 1,
            4 => 0,
            _ => axis,
        };
        if axis != expected {
            return Err(KernelError::OutputAxis { expected, axis });
        }
        Ok(Self {
            weight,
            linear: Default::default(),
            conv2d: Default::default(),
        })
    }

    /// The kernel of a linear layer.
    ///
    /// # Panics
    /// If the weight has another rank than 2.
    pub fn linear(&self, arithmetic: Arithmetic) -> &LinearKernel {
        self.linear[arithmetic as usize].get_or_init(|| {
            LinearKernel::new(&self.weight, arithmetic)
                .unwrap_or_else(|error| panic!("MultiBitLinear: {error}"))
        })
    }

    /// The kernel of a convolution with `groups` groups of channels.
    ///
    /// # Panics
    /// If the weight has another rank than 4.
    pub fn conv2d(&self, arithmetic: Arithmetic, groups: usize) -> &Conv2dKernel {
        self.conv2d[arithmetic as usize].get_or_init(|| {
            Conv2dKernel::new(self.weight.clone(), groups, arithmetic)
                .unwrap_or_else(|error| panic!("MultiBitConv2d: {error}"))
        })
    }
}

impl Deref for PreparedWeight {
    type Target = PackedWeight;

    fn deref(&self) -> &PackedWeight {
        &self.weight
    }
}

impl fmt::Debug for PreparedWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.weight.fmt(f)
    }
}
