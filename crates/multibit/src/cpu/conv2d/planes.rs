//! Convolutions of activations that are bits already, and whose outputs may stay so.

use alloc::vec;

use super::blocks::{ToPlanes, ToValues};
use super::{Call, Conv2dKernel, Layout};
use crate::cpu::generic::Ends;
use crate::cpu::generic::FEW_PLANES;
use crate::cpu::reference::named;
use crate::cpu::threads::Shared;
use crate::cpu::{Affine, Conv2dOptions, Levels, Mode, Planes, assert_len};

/// What a convolution reads.
#[derive(Clone, Copy, Debug)]
pub enum Conv2dInput<'a> {
    /// Values of a shape, for any mode.
    Values(&'a Mode, &'a [f32], [usize; 4]),
    /// Activations that are bits already, for bitwise mode.
    Planes(Planes<'a>),
}

impl Conv2dInput<'_> {
    /// `[batch, channels, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        match self {
            Self::Values(_, _, shape) => *shape,
            Self::Planes(planes) => planes.shape(),
        }
    }
}

impl Conv2dKernel {
    /// Whether the kernel works on [`Planes`] as they are; it computes with others too, but goes
    /// through values.
    pub fn takes_planes(&self) -> bool {
        self.groups == 1 && matches!(self.layout, Layout::Channels(_))
    }

    /// [`forward`](Self::forward) in bitwise arithmetic, of activations that are bits already.
    ///
    /// # Shapes
    /// - `affine`: `[channels_out]`, its residual as the output
    /// - `output`: [`conv2d_output_shape`](crate::cpu::conv2d_output_shape), written whole
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_planes(
        &self,
        input: &Planes<'_>,
        affine: &Affine<'_>,
        options: &Conv2dOptions,
        output: &mut [f32],
    ) {
        let mode = Mode::Bitwise(input.levels().clone());
        let shape = input.shape();
        let output_shape = self.check(&mode, shape, affine, options);
        let by_values = self.by_values(input.levels(), [shape, output_shape]);
        if by_values.is_some() || !self.takes_planes() {
            let mut values = vec![0.0; shape.iter().product()];
            input.unpack(self.isa, &mut values);
            return self.forward(&mode, &values, shape, affine, options, output);
        }
        assert_len("conv2d", "output", output.len(), &named(output_shape));
        if !output.is_empty() {
            let call = Call {
                kernel: self,
                input: &[],
                input_shape: shape,
                affine,
                options,
                output_shape,
                output: Shared::new(output),
            };
            call.sums(&mode, Some(input.words()), ToValues);
        }
    }

    /// The convolution, then `+ residual`, then the nearest of `levels`: a layer and what lies
    /// between it and the next, where the kernel allows it without a value in f32.
    ///
    /// Equal to [`forward`](Self::forward), the sum with the residual's levels, and
    /// [`Planes::pack`], bit for bit.
    ///
    /// # Shapes
    /// - `residual`: [`conv2d_output_shape`](crate::cpu::conv2d_output_shape)
    /// - `words`: [`Planes::len`] of this shape and `levels`, written whole
    ///
    /// # Panics
    /// As [`forward`](Self::forward), if the residual has another shape, or if `affine` has more
    /// than scale and offset: `residual` and `levels` stand in their places.
    pub fn forward_to_planes<'b>(
        &self,
        input: &Conv2dInput<'_>,
        affine: &Affine<'_>,
        options: &Conv2dOptions,
        residual: Option<&Planes<'_>>,
        levels: &'b Levels,
        words: &'b mut [u32],
    ) -> Planes<'b> {
        let bitwise;
        let (mode, values, planes) = match input {
            Conv2dInput::Values(mode, values, shape) => {
                assert_len("conv2d", "input", values.len(), &named(*shape));
                (*mode, *values, None)
            }
            Conv2dInput::Planes(planes) => {
                bitwise = Mode::Bitwise(planes.levels().clone());
                (&bitwise, [].as_slice(), Some(planes))
            }
        };
        let shape = self.check(mode, input.shape(), affine, options);
        assert!(
            affine.ends() == Ends::default(),
            "conv2d: outputs that become bits take no residual and activation of values"
        );
        if let Some(residual) = residual {
            let found = residual.shape();
            assert_eq!(
                found, shape,
                "conv2d: `residual` has shape {found:?}, the output {shape:?}"
            );
        }
        let len = Planes::len(shape, levels);
        assert_eq!(words.len(), len, "conv2d: the output needs {len} words");
        let (bits_in, by_values) = match mode {
            Mode::Bitwise(levels) => {
                let rows = self.by_values(levels, [input.shape(), shape]);
                (levels.bits(), rows.is_some())
            }
            _ => (0, false),
        };
        let has_blocks = !by_values && matches!(self.layout, Layout::Channels(_));
        if has_blocks && self.groups == 1 && bits_in.max(levels.bits()) <= FEW_PLANES {
            if !words.is_empty() {
                let call = Call {
                    kernel: self,
                    input: values,
                    input_shape: input.shape(),
                    affine,
                    options,
                    output_shape: shape,
                    output: Shared::new(&mut []),
                };
                let end = ToPlanes {
                    residual,
                    levels,
                    words,
                };
                call.sums(mode, planes.map(Planes::words), end);
            }
            return Planes::new(words, shape, levels);
        }
        let mut output = vec![0.0; shape.iter().product()];
        match planes {
            Some(planes) => self.forward_planes(planes, affine, options, &mut output),
            None => self.forward(mode, values, input.shape(), affine, options, &mut output),
        }
        if let Some(residual) = residual {
            let mut levels = vec![0.0; output.len()];
            residual.unpack(self.isa, &mut levels);
            for (y, x) in output.iter_mut().zip(levels) {
                *y += x;
            }
        }
        Planes::pack(self.isa, &output, shape, levels, words)
    }
}
