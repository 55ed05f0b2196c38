//! A convolution made ready to run.

mod batched;
mod bitwise;
mod blocks;
mod depthwise;
mod exact;
mod matrix;
mod padded;
mod planes;
mod quads;

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::generic::{Bytes, Finish};
use super::reference::{named, patch};
use super::simd::{LANES, Line};
use super::threads::Shared;
use super::tiles::{NONE, Sizes, Sort, Tiles};
use super::{
    Affine, Arithmetic, Conv2dOptions, Isa, KernelError, Levels, Mode, assert_arithmetic,
    assert_len, conv2d_output_shape,
};
use crate::grouping::Grouping;
use crate::packed::PackedWeight;
use blocks::{End, ToValues};
use exact::Rows;
use matrix::MatrixWeight;
pub use planes::Conv2dInput;

/// A packed weight `[channels_out, channels_in / groups, kernel_height, kernel_width]` in the
/// layout of its arithmetic.
pub struct Conv2dKernel {
    weight: Arc<PackedWeight>,
    groups: usize,
    arithmetic: Arithmetic,
    /// `[channel, kernel row, kernel column]` of an output's weights in the grouping's order.
    patch: Vec<[usize; 3]>,
    layout: Layout,
    /// What multiplies levels in f32, in bitwise arithmetic.
    values: Option<Rows>,
    isa: Isa,
}

/// What the modes work on; one [`Tiles`] a group of channels.
enum Layout {
    /// The packed weight, with where its rows of bits are.
    Rows(Rows),
    /// The packed weight itself, of one input channel a group; the first row of each output.
    Depthwise(Vec<usize>),
    /// The packed weight, with what int8 adds to it.
    Bytes(MatrixWeight),
    /// The words of a row follow the patch.
    Patches(Vec<Tiles>),
    /// The words of a row follow the kernel's places, the bits of a word the channels.
    Channels(Vec<Tiles>),
}

impl Conv2dKernel {
    /// Lays the bits out for the kernels; `groups` are those of the convolution.
    ///
    /// # Errors
    /// If the weight has another rank or its groups do not lie within output channels.
    ///
    /// # Panics
    /// If `groups` does not divide the output channels.
    pub fn new(
        weight: Arc<PackedWeight>,
        groups: usize,
        arithmetic: Arithmetic,
    ) -> Result<Self, KernelError> {
        let &[channels_out, channels_in, height, width] = weight.shape() else {
            return Err(KernelError::Rank {
                expected: 4,
                found: weight.shape().len(),
            });
        };
        let grouping = weight.grouping();
        let axis = grouping.axes()[0];
        if axis != 0 {
            return Err(KernelError::OutputAxis { expected: 0, axis });
        }
        assert!(
            groups > 0 && channels_out.is_multiple_of(groups),
            "conv2d: {channels_out} channels_out do not fall into {groups} groups"
        );
        let patch = patch(&weight);
        let part = channels_out / groups;
        let each = |words: usize, places: &[usize], sort| -> Vec<Tiles> {
            let outputs = (0..groups).map(|group| group * part..(group + 1) * part);
            let tiles = outputs
                .map(|outputs| Tiles::new(&weight, outputs, words, places, arithmetic, sort));
            tiles.collect()
        };
        let shape = [channels_out, channels_in, height, width];
        let (words, sort, moved) = bit_layout(shape, grouping);
        let layout = match arithmetic {
            _ if groups > 1 && channels_in == 1 => Layout::Depthwise(weight.first_rows()),
            Arithmetic::Exact => Layout::Rows(Rows::new(&weight, groups)),
            Arithmetic::Bitwise if sort == Sort::All => Layout::Patches(each(words, &[], sort)),
            Arithmetic::Bitwise => {
                let channel_words = channels_in.div_ceil(32);
                let place = |&[c, y, x]: &[usize; 3]| {
                    ((y * width + x) * channel_words + c / 32) * 32 + c % 32
                };
                let places: Vec<usize> = match moved {
                    true => patch.iter().map(place).collect(),
                    false => Vec::new(),
                };
                Layout::Channels(each(words, &places, sort))
            }
            Arithmetic::Int8 => Layout::Bytes(MatrixWeight::int8(&weight, &patch)),
        };
        let counts = matches!(layout, Layout::Channels(_) | Layout::Patches(_));
        Ok(Self {
            groups,
            arithmetic,
            patch,
            layout,
            values: counts.then(|| Rows::new(&weight, groups)),
            weight,
            isa: Isa::best(),
        })
    }

    /// The same on another instruction set than [`Isa::best`].
    #[must_use]
    pub fn on(self, isa: Isa) -> Self {
        Self { isa, ..self }
    }

    /// The arithmetic.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// The weight.
    pub fn weight(&self) -> &PackedWeight {
        &self.weight
    }

    /// Weights of all rows of bits.
    fn row_weights(&self) -> usize {
        self.weight.coordinates().len() * self.weight.grouping().len()
    }

    /// What multiplies the levels themselves, where that takes less time than counting their bits.
    fn by_values(&self, levels: &Levels, shapes: [[usize; 4]; 2]) -> Option<&Rows> {
        let (Layout::Channels(tiles) | Layout::Patches(tiles)) = &self.layout else {
            return None;
        };
        let sizes = tiles
            .iter()
            .map(Tiles::sizes)
            .fold(Sizes::default(), Sizes::add);
        let by_values = prefers_values(self.isa, sizes, levels.bits(), self.patch.len(), shapes);
        self.values.as_ref().filter(|_| by_values)
    }

    /// The shape of the output, if all fits.
    fn check(
        &self,
        mode: &Mode,
        input_shape: [usize; 4],
        affine: &Affine<'_>,
        options: &Conv2dOptions,
    ) -> [usize; 4] {
        assert_arithmetic("conv2d", self.arithmetic, mode);
        let shape = conv2d_output_shape(input_shape, self.weight.shape(), options);
        assert_eq!(
            options.groups, self.groups,
            "conv2d: the kernel was made for {} groups",
            self.groups
        );
        affine.check("conv2d", &named(shape)[1..2], &named(shape));
        shape
    }

    /// The convolution, by the definition of [`reference::conv2d`](super::reference::conv2d) in
    /// this mode up to the order of sums.
    ///
    /// # Shapes
    /// - `input`: `[batch, channels_in, height, width]`; the batch may be 0
    /// - `affine`: `[channels_out]`, its residual as the output
    /// - `output`: [`conv2d_output_shape`], written whole
    ///
    /// # Panics
    /// If a shape does not fit, `options` has other groups than the kernel was made for, or a
    /// slice has another length, or the mode another arithmetic.
    pub fn forward(
        &self,
        mode: &Mode,
        input: &[f32],
        input_shape: [usize; 4],
        affine: &Affine<'_>,
        options: &Conv2dOptions,
        output: &mut [f32],
    ) {
        let shape = self.check(mode, input_shape, affine, options);
        assert_len("conv2d", "input", input.len(), &named(input_shape));
        assert_len("conv2d", "output", output.len(), &named(shape));
        if output.is_empty() {
            return;
        }
        let mut call = Call {
            kernel: self,
            input,
            input_shape,
            affine,
            options,
            output_shape: shape,
            output: Shared::new(output),
        };
        let by_values = match mode {
            Mode::Bitwise(levels) => {
                let rows = self.by_values(levels, [input_shape, shape]);
                rows.zip(Some(levels))
            }
            _ => None,
        };
        let counts = matches!(self.layout, Layout::Channels(_) | Layout::Patches(_));
        if call.is_pointwise() && (by_values.is_some() || !counts) {
            // Places next to each other are one row.
            for [.., height, width] in [&mut call.input_shape, &mut call.output_shape] {
                (*height, *width) = (1, *height * *width);
            }
        }
        if let Some((rows, levels)) = by_values {
            return Call {
                input: &levels.quantized_on(self.isa, input),
                ..call
            }
            .exact(rows);
        }
        match &self.layout {
            Layout::Rows(rows) => call.exact(rows),
            Layout::Bytes(weight) => call.one_by_one::<Bytes>(weight, 0, None),
            Layout::Depthwise(first_rows) => call.depthwise(mode, first_rows),
            _ => call.sums(mode, None, ToValues),
        }
    }
}

/// Whether multiplying levels in f32 takes less time than counting their bits.
///
/// Both are estimated in cycles of AVX-512 for a position of the output: making bits or levels,
/// the product, and writing the output. On other instruction sets both take longer.
pub(crate) fn prefers_values(
    isa: Isa,
    sizes: Sizes,
    bits: usize,
    patch: usize,
    [input, output]: [[usize; 4]; 2],
) -> bool {
    let [_, channels, ..] = input;
    let [_, outputs, ..] = output;
    let [pixels, positions] = [input, output].map(|[.., height, width]| height * width);
    let bits = bits as f32;
    let inputs = (channels * pixels) as f32 / positions.max(1) as f32;
    let word = if isa.counts_bits() { 0.75 } else { 2.0 };
    let each = 0.3 * inputs + word * sizes.lines as f32 + 1.5 * sizes.steps as f32;
    let counted = bits * each + 12.0 * sizes.blocks as f32;
    // Lanes are positions, of which the last vector may have few.
    let lanes = positions.next_multiple_of(LANES) as f32 / positions.max(1) as f32;
    let output = 0.034 * patch as f32 * lanes + 0.6;
    let multiplied = 0.5 * inputs + output * outputs as f32;
    multiplied < counted
}

/// How the bits of a convolution are laid out to be counted: words of a row, and how outputs are
/// sorted.
pub(crate) fn bit_layout(shape: [usize; 4], grouping: &Grouping) -> (usize, Sort, bool) {
    let [_, channels, height, width] = shape;
    let words = grouping.len().div_ceil(32);
    if grouping.axes() == [0, 2, 3, 1] && grouping.len() == channels {
        (words, Sort::Words, false)
    } else if grouping.len() == channels * height * width {
        (height * width * channels.div_ceil(32), Sort::Words, true)
    } else {
        (words, Sort::All, false)
    }
}

/// One run of a kernel.
struct Call<'a> {
    kernel: &'a Conv2dKernel,
    input: &'a [f32],
    input_shape: [usize; 4],
    affine: &'a Affine<'a>,
    options: &'a Conv2dOptions,
    output_shape: [usize; 4],
    output: Shared<'a, f32>,
}

impl Call<'_> {
    /// Computes sums, of activations in words of channels if they are given.
    fn sums(&self, mode: &Mode, words: Option<&[u32]>, end: impl End) {
        match (&self.kernel.layout, mode) {
            (Layout::Channels(tiles), Mode::Bitwise(levels)) => {
                let packed = words.is_none().then(|| self.pack_channels(levels));
                let words = words.or(packed.as_deref()).expect("one of both");
                end.of(self, &self.channel_blocks(tiles, levels, words));
            }
            (Layout::Patches(tiles), Mode::Bitwise(levels)) => {
                let words = self.pack_all_patches(&tiles[0], levels);
                end.of(self, &self.patch_blocks(tiles, levels, &words));
            }
            _ => unreachable!("other layers have no blocks, and the arithmetic was checked"),
        }
    }

    /// One image.
    fn image(&self, image: usize) -> &[f32] {
        let [_, channels, height, width] = self.input_shape;
        let len = channels * height * width;
        &self.input[image * len..][..len]
    }

    /// Whether each output sees one place of the input, the same as its own.
    fn is_pointwise(&self) -> bool {
        let options = self.options;
        let is_one = |axes: &[usize]| axes.iter().all(|&size| size == 1);
        let is_bare = options.padding == [(0, 0); 2] && is_one(&options.stride);
        is_bare && is_one(&self.kernel.weight.shape()[2..])
    }

    /// Places of an output channel.
    fn positions(&self) -> usize {
        self.output_shape[2] * self.output_shape[3]
    }

    /// The input channels of one image and group.
    fn channels(&self, image: usize, group: usize) -> &[f32] {
        let image = self.image(image);
        let part = image.len() / self.options.groups;
        &image[group * part..][..part]
    }

    /// Writes the outputs of a block, `[positions, lanes]`, from place `first` of each channel on.
    ///
    /// # Safety
    /// No other task may write the same places.
    unsafe fn write(
        &self,
        tiles: &Tiles,
        block: usize,
        image: usize,
        first: usize,
        sums: &[Line<f32>],
    ) {
        let start = |output: u32| {
            let channel = image * self.output_shape[1] + output as usize;
            (output != NONE).then(|| channel * self.positions() + first)
        };
        let outputs = tiles.block_outputs(block);
        self.kernel.isa.run(Finish {
            sums,
            affine: tiles.affine(block, self.affine),
            ends: self.affine.ends(),
            // An output is in one block; the caller keeps blocks and places apart.
            starts: core::array::from_fn(|lane| start(outputs[lane])),
            output: &self.output,
        });
    }
}
