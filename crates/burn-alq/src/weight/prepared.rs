//! A packed weight with what its layers run on, each part made when it is first needed.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

use burn_core::tensor::{DType, Device, Tensor};
#[cfg(feature = "cube")]
use burn_cubecl::{CubeDevice, cubecl::client::Client};
use multibit::cpu::{Arithmetic, Conv2dKernel, KernelError, LinearKernel};
#[cfg(feature = "cube")]
use multibit::gpu::packed::DeviceWeight;
use multibit::{Grouping, PackedWeight};

use super::made::{Each, Lazy};

/// A packed weight that layers run on.
///
/// A kernel is laid out once, at the first use of its arithmetic, and shared by all clones.
pub struct PreparedWeight {
    weight: Arc<PackedWeight>,
    linear: [Lazy<LinearKernel>; 3],
    conv2d: [Lazy<Conv2dKernel>; 3],
    with_height: Lazy<Arc<PreparedWeight>>,
    first_rows: Lazy<Vec<usize>>,
    dense: Each<(Device, DType), Tensor<1>>,
    #[cfg(feature = "cube")]
    on_cube: Each<CubeDevice, Arc<DeviceWeight>>,
}

impl PreparedWeight {
    /// A weight of which nothing is prepared yet.
    pub fn new(weight: Arc<PackedWeight>) -> Self {
        Self {
            weight,
            linear: Default::default(),
            conv2d: Default::default(),
            with_height: Default::default(),
            first_rows: Default::default(),
            dense: Default::default(),
            #[cfg(feature = "cube")]
            on_cube: Default::default(),
        }
    }

    /// Checks that groups lie within what is one output of a layer.
    ///
    /// # Errors
    /// If the output axis of the grouping is not `expected`.
    pub fn check_output_axis(&self, expected: usize) -> Result<(), KernelError> {
        match self.weight.grouping().axes()[0] {
            axis if axis == expected => Ok(()),
            axis => Err(KernelError::OutputAxis { expected, axis }),
        }
    }

    /// The kernel of a linear layer.
    ///
    /// # Panics
    /// If the weight has another rank than 2, or is not grouped by outputs.
    pub fn linear(&self, arithmetic: Arithmetic) -> &LinearKernel {
        self.linear[arithmetic as usize].get_or_init(|| {
            LinearKernel::new(&self.weight, arithmetic)
                .unwrap_or_else(|error| panic!("MultiBitLinear: {error}"))
        })
    }

    /// The kernel of a convolution with `groups` groups of channels.
    ///
    /// # Panics
    /// If the weight has another rank than 4, or is not grouped by outputs.
    pub fn conv2d(&self, arithmetic: Arithmetic, groups: usize) -> &Conv2dKernel {
        self.conv2d[arithmetic as usize].get_or_init(|| {
            Conv2dKernel::new(self.weight.clone(), groups, arithmetic)
                .unwrap_or_else(|error| panic!("MultiBitConv2d: {error}"))
        })
    }

    /// A 1-D convolution's weight `[out, in, k]` as a 2-D one of height 1, `[out, in, 1, k]`.
    ///
    /// # Panics
    /// If the weight has another rank than 3.
    pub fn with_height(&self) -> Arc<PreparedWeight> {
        let prepared = self.with_height.get_or_init(|| {
            let &[out, input, width] = self.weight.shape() else {
                panic!(
                    "MultiBitConv1d: a weight of shape {:?}",
                    self.weight.shape()
                );
            };
            // The new axis of one element goes before the old axis 2, which is 3 now.
            let axes = self.weight.grouping().axes().iter();
            let axes = axes.flat_map(|&axis| match axis {
                2 => alloc::vec![2, 3],
                axis => alloc::vec![axis],
            });
            let weight = Grouping::new(axes.collect(), self.weight.grouping().len())
                .and_then(|grouping| self.weight.reshaped(&[out, input, 1, width], grouping));
            let weight = weight.expect("one more axis of one element changes no group");
            Arc::new(Self::new(Arc::new(weight)))
        });
        prepared.clone()
    }

    /// Rows of a weight `[rows, columns]` whose groups lie within rows; only these are unpacked.
    ///
    /// # Shapes
    /// - result: `[indices, columns]`
    ///
    /// # Panics
    /// If the weight has another rank than 2 or another grouping, or there is no such row.
    pub fn rows(&self, indices: &[i64]) -> Vec<f32> {
        let &[rows, columns] = self.weight.shape() else {
            panic!(
                "MultiBitEmbedding: a weight of shape {:?}",
                self.weight.shape()
            );
        };
        self.check_output_axis(0)
            .unwrap_or_else(|error| panic!("MultiBitEmbedding: {error}"));
        let first = self.first_rows.get_or_init(|| self.weight.first_rows());
        let mut values = alloc::vec![0.0; indices.len() * columns];
        for (&index, values) in indices.iter().zip(values.chunks_exact_mut(columns.max(1))) {
            let row = usize::try_from(index).ok().filter(|&row| row < rows);
            let row = row
                .unwrap_or_else(|| panic!("MultiBitEmbedding: index {index} of {rows} embeddings"));
            self.weight.unpack_output(row, first[row], values);
        }
        values
    }

    /// The bits on a CubeCL device, copied there at the first use.
    #[cfg(feature = "cube")]
    pub(crate) fn on_cube(&self, client: &Client, device: &CubeDevice) -> Arc<DeviceWeight> {
        self.on_cube.get_or_make(device.clone(), || {
            Arc::new(DeviceWeight::new(client, &self.weight))
        })
    }

    /// The dense weight, flat, on a plain device and in a type: what `unpack` gives at the first
    /// use there, kept.
    pub(crate) fn dense(
        &self,
        device: &Device,
        dtype: DType,
        unpack: impl FnOnce() -> Tensor<1>,
    ) -> Tensor<1> {
        self.dense.get_or_make((device.clone(), dtype), unpack)
    }

    /// The bits, shared.
    pub(crate) fn bits(&self) -> &Arc<PackedWeight> {
        &self.weight
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
