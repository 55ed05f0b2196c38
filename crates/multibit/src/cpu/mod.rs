//! Layers that compute from the packed form, on the CPU.
//!
//! [`mod@reference`] is the definition, in plain loops. [`LinearKernel`] and [`Conv2dKernel`] lay the
//! bits of a weight out once and then run fast, with the instruction set that they are given
//! ([`Isa::best`] asks the processor), in one of three arithmetics ([`Mode`]):
//!
//! | mode | inputs | how |
//! |---|---|---|
//! | exact | f32 | sums of four inputs, looked up by four signs; for many rows and places, products of weights that are unpacked to f32 block by block |
//! | int8 | f32, rounded | the same, in int8 and with weights that are unpacked to bytes |
//! | bitwise | multi-bit levels | XOR and popcount; convolutions of few inputs multiply the levels in f32 |
//!
//! Between layers in bitwise arithmetic, activations stay bits ([`Planes`]). What else stands between
//! layers is here in f32: an [`Activation`] and a residual at the end of a layer ([`Affine`]) or
//! alone ([`activate`]), [`softmax`], [`layer_norm`], and [`Attention`]. Training has its dense layers here,
//! forward and backward: [`DenseConv2d`] and [`BatchNorm`].
//!
//! # Unsafe code
//! Instances of an instruction set (`x86_64/`, `aarch64/`, `wasm32/`) call its instructions; only
//! [`Isa`] makes them, after asking the processor. The kernels (`generic/`) leave out a bounds check in
//! their innermost loop, after one check for all of its rounds. Tasks write disjoint parts of one
//! output (`threads.rs`).

#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod aarch64;
mod activation;
mod attention;
mod batch_norm;
mod conv2d;
mod dense;
mod few;
mod generic;
mod integers;
mod isa;
mod levels;
#[cfg(feature = "limits")]
#[doc(hidden)]
pub mod limits;
mod linear;
mod norm;
mod planes;
mod pool;
mod portable;
pub mod reference;
mod simd;
mod threads;
mod tiles;
#[cfg(feature = "chain")]
pub(crate) mod vector;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm32;
#[cfg(all(target_arch = "x86_64", feature = "std"))]
mod x86_64;

use core::fmt;
use core::ops::Range;

use thiserror::Error;

#[cfg(feature = "chain")]
pub(crate) use activation::activate_bits;
#[cfg(feature = "chain")]
pub(crate) use conv2d::{bit_layout, prefers_values};
#[cfg(feature = "chain")]
pub(crate) use generic::{inverse, scale, sums_pay};
#[cfg(feature = "chain")]
pub(crate) use integers::{TOGETHER, to_integers};
#[cfg(feature = "chain")]
pub(crate) use levels::Ladder;
#[cfg(feature = "chain")]
pub(crate) use tiles::Sizes;

pub use activation::{Activation, activate};
pub use attention::{Attention, Masks, Rows};
pub use batch_norm::{BatchNorm, Statistics, TermGrads};
pub use conv2d::{Conv2dInput, Conv2dKernel};
pub use dense::DenseConv2d;
use generic::Ends;
pub use isa::Isa;
pub use levels::{Levels, LevelsError, MAX_ACTIVATION_BITS};
pub use linear::LinearKernel;
pub use norm::{layer_norm, softmax};
pub use planes::Planes;
pub use pool::{Pool2dOptions, max_pool2d};

/// The arithmetic of a layer once it is packed; it trains as float in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Arithmetic {
    /// Inputs in f32: the result of the dense layer, up to the order of sums.
    #[default]
    Exact,
    /// Inputs rounded to int8 at run time; [`Mode::Int8`] bounds the error.
    Int8,
    /// Inputs from a multi-bit activation, as bits.
    Bitwise,
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Int8 => "int8",
            Self::Bitwise => "bitwise",
        })
    }
}

/// An arithmetic, with what it needs to know of the inputs.
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    /// Inputs in f32: the dense product up to the order of sums.
    ///
    /// An input that is NaN or infinite makes every output NaN or infinite that has a basis for
    /// it; one whose group has width 0 there may become NaN or ignore it. Outputs of other rows and
    /// images keep their bits.
    Exact,
    /// Inputs rounded to int8 at run time.
    ///
    /// Inputs are rounded with one scale for each row of a linear layer and each image of a
    /// convolution, `s = max |x| / 127`; the coordinates of a group, in fours, to whole multiples of
    /// a common step, so that a weight is a small integer too. With fewer than 8 rows, a linear
    /// layer rounds sums of four inputs instead, and no coordinate; nor does a depthwise convolution
    /// round any.
    ///
    /// A group of `n` weights whose coordinates have the sum `A` adds at most
    /// `s·(A·(n + 3)/2 + 127·n·ε)` to the error of an output, in all of these ways. `ε`, how much a
    /// weight is wrong by, is 0 for one basis and at most `A/114`, `A/57` and `A/38` for two, three
    /// and four; on average it is some ten times less.
    ///
    /// A row or an image with NaN or an infinity, or whose sums of four overflow, makes all of its
    /// outputs NaN. One whose scale would be below the smallest normal f32 counts as 0.
    Int8,
    /// Inputs at the nearest of some levels: integer counts, then coordinates; or, where it takes
    /// less time, sums of levels in f32. NaN takes the lowest level. The padding of a convolution
    /// is 0.
    Bitwise(Levels),
}

impl Mode {
    /// The arithmetic.
    pub fn arithmetic(&self) -> Arithmetic {
        match self {
            Self::Exact => Arithmetic::Exact,
            Self::Int8 => Arithmetic::Int8,
            Self::Bitwise(_) => Arithmetic::Bitwise,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bitwise(levels) => write!(f, "bitwise a{}", levels.bits()),
            _ => self.arithmetic().fmt(f),
        }
    }
}

/// Panics if a kernel is asked for another arithmetic than it was laid out for.
fn assert_arithmetic(layer: &str, kernel: Arithmetic, mode: &Mode) {
    let asked = mode.arithmetic();
    assert_eq!(
        asked, kernel,
        "{layer}: the kernel is laid out for {kernel} arithmetic"
    );
}

/// What happens to the sums of an output at the end: `y = f(scale·Σ + offset + residual)`.
///
/// A bias is an offset; batch norm behind a layer is a scale and an offset.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Affine<'a> {
    /// One factor an output; none is 1.
    pub scale: Option<&'a [f32]>,
    /// One term an output; none is 0.
    pub offset: Option<&'a [f32]>,
    /// One term a place of the output, in its shape; none is 0.
    pub residual: Option<&'a [f32]>,
    /// The function `f`.
    pub activation: Activation,
}

impl<'a> Affine<'a> {
    /// A bias, if there is one.
    pub fn bias(bias: Option<&'a [f32]>) -> Self {
        Self {
            offset: bias,
            ..Self::default()
        }
    }

    /// Of some outputs; the residual stays whole.
    fn part(&self, outputs: Range<usize>) -> Self {
        let part = |slice: Option<&'a [f32]>| slice.map(|slice| &slice[outputs.clone()]);
        Self {
            scale: part(self.scale),
            offset: part(self.offset),
            ..*self
        }
    }

    /// Panics with the name if a slice has another length than its axes.
    fn check(&self, layer: &str, outputs: &[(&str, usize)], residual: &[(&str, usize)]) {
        for (name, slice, axes) in [
            ("scale", self.scale, outputs),
            ("offset", self.offset, outputs),
            ("residual", self.residual, residual),
        ] {
            if let Some(slice) = slice {
                assert_len(layer, name, slice.len(), axes);
            }
        }
    }

    /// Scale and offset of one output.
    fn of(&self, output: usize) -> (f32, f32) {
        let of = |slice: Option<&[f32]>, none| slice.map_or(none, |slice| slice[output]);
        (of(self.scale, 1.0), of(self.offset, 0.0))
    }

    /// What follows scale and offset.
    fn ends(&self) -> Ends<'a> {
        Ends {
            residual: self.residual,
            activation: self.activation,
        }
    }
}

/// Why a kernel cannot run a weight.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The weight has another rank.
    #[error("the weight has rank {found}, but the layer needs {expected}")]
    Rank {
        /// Needed.
        expected: usize,
        /// Given.
        found: usize,
    },
    /// The groups lie along another axis than the outputs.
    #[error("the groups of the weight lie along axis {axis}, but its outputs along {expected}")]
    OutputAxis {
        /// The axis of the outputs.
        expected: usize,
        /// The first axis of the grouping.
        axis: usize,
    },
}

/// How a 2-D convolution slides over its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conv2dOptions {
    /// Steps of the kernel, `[height, width]`.
    pub stride: [usize; 2],
    /// Zeros around the input, `(before, after)` for `[height, width]`.
    pub padding: [(usize, usize); 2],
    /// Distance of neighbouring kernel elements, `[height, width]`.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other; must divide inputs and outputs.
    pub groups: usize,
}

impl Default for Conv2dOptions {
    /// Stride 1, no padding, dilation 1, one group.
    fn default() -> Self {
        Self {
            stride: [1, 1],
            padding: [(0, 0); 2],
            dilation: [1, 1],
            groups: 1,
        }
    }
}

/// The shape of a convolution's output, `[batch, channels_out, height, width]`.
///
/// `(size + padding − dilation·(kernel − 1) − 1) / stride + 1` along each axis.
///
/// # Panics
/// If the weight has another rank, the channels do not fit the groups, a stride, a dilation or an
/// axis of the kernel is 0, or the kernel is larger than the padded input.
pub fn conv2d_output_shape(
    input_shape: [usize; 4],
    weight_shape: &[usize],
    options: &Conv2dOptions,
) -> [usize; 4] {
    let &[channels_out, channels_in, kernel_height, kernel_width] = weight_shape else {
        panic!(
            "conv2d: `weight` has shape {weight_shape:?}, but must be [channels_out, \
             channels_in / groups, kernel_height, kernel_width]"
        );
    };
    let [batch, channels, height, width] = input_shape;
    let groups = options.groups;
    assert!(
        groups > 0 && channels_out.is_multiple_of(groups),
        "conv2d: {channels_out} channels_out do not fall into {groups} groups"
    );
    assert_eq!(
        channels,
        channels_in * groups,
        "conv2d: `input` has {channels} channels_in, `weight` {channels_in} in each of {groups} \
         groups"
    );
    let of = |axis: usize, name, size, kernel| {
        let window = Window {
            owner: "conv2d: the kernel",
            axis: name,
            size: kernel,
            stride: options.stride[axis],
            dilation: options.dilation[axis],
        };
        window.places(size, options.padding[axis])
    };
    let height = of(0, "height", height, kernel_height);
    let width = of(1, "width", width, kernel_width);
    [batch, channels_out, height, width]
}

/// What slides along one axis of an input.
struct Window<'a> {
    /// What it belongs to, for messages.
    owner: &'a str,
    axis: &'a str,
    size: usize,
    stride: usize,
    dilation: usize,
}

impl Window<'_> {
    /// How many places it takes.
    ///
    /// # Panics
    /// If it is empty, does not move, or is larger than the padded input.
    fn places(&self, size: usize, (before, after): (usize, usize)) -> usize {
        let Self { owner, axis, .. } = self;
        assert!(self.size > 0, "{owner} has no {axis}");
        assert!(self.stride > 0, "{owner}: the stride of {axis} is 0");
        assert!(self.dilation > 0, "{owner}: the dilation of {axis} is 0");
        let padded = size.checked_add(before).and_then(|n| n.checked_add(after));
        let reach = self.dilation.checked_mul(self.size - 1);
        let reach = reach.and_then(|reach| reach.checked_add(1));
        let (Some(padded), Some(reach)) = (padded, reach) else {
            panic!("{owner} or the padded input is too large in {axis}");
        };
        assert!(
            padded >= reach,
            "{owner} reaches over {reach} of {axis}, but the padded input has {padded}"
        );
        (padded - reach) / self.stride + 1
    }
}

/// Rows of inputs of a linear layer from which int8 multiplies bytes.
pub(crate) const INT8_ROWS: usize = 8;

/// The scale of an input whose largest number, or sum of numbers, is rounded to ±127.
///
/// A scale without a normal inverse is 0, and so are its inputs; NaN and infinities stay.
#[inline(always)]
pub(crate) fn int8_scale(largest: f32) -> f32 {
    let scale = largest / 127.0;
    if scale < f32::MIN_POSITIVE {
        0.0
    } else {
        scale
    }
}

/// Panics with the axes if a slice has another length.
fn assert_len(layer: &str, name: &str, found: usize, axes: &[(&str, usize)]) {
    let sizes = axes.iter().map(|(_, size)| *size);
    let expected = product(sizes).unwrap_or_else(|| {
        panic!("{layer}: `{name}` holds {found} values, but {axes:?} is too large")
    });
    assert_eq!(
        found, expected,
        "{layer}: `{name}` holds {found} values, but {axes:?} need {expected}"
    );
}

/// The product, if it fits.
fn product(sizes: impl IntoIterator<Item = usize>) -> Option<usize> {
    sizes.into_iter().try_fold(1, usize::checked_mul)
}
