//! Convolutions: one output channel after the other, one weight after the other over all places.

use alloc::vec::Vec;
use core::ops::Range;

use super::super::{BITWISE, Conv2d, INT8, LayerView};
use super::rows::{floats, fours};
use super::taps::Taps;
use super::{Levels, bitwise, int8, larger, windows};
use crate::bits::signed;
use crate::cpu::vector::{Strip, Vector};
use crate::cpu::{
    Arithmetic, Conv2dOptions, Isa, Pool2dOptions, Sizes, bit_layout, int8_scale, inverse,
    prefers_values, sums_pay,
};
use crate::file::FileWeight;

/// What a convolution is computed by: as the kernels choose it for one image.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::runtime) enum Way {
    /// Weights in f32.
    Floats,
    /// Sums of four inputs in f32, which outputs share.
    Fours,
    /// Weights and inputs as bytes.
    Bytes,
    /// Counted bits.
    Bits,
    /// One input channel a group: weights in f32, the places of the kernel in this order.
    Depthwise(Vec<[usize; 2]>),
}

impl Way {
    pub(in crate::runtime) fn of(
        weight: &FileWeight<'_>,
        options: &Conv2dOptions,
        arithmetic: Arithmetic,
        bits: usize,
        [from, to]: [[usize; 3]; 2],
    ) -> Self {
        let shape = shape(weight);
        if options.groups > 1 && shape[1] == 1 {
            return Self::Depthwise(taps(weight, options));
        }
        match arithmetic {
            Arithmetic::Int8 => return Self::Bytes,
            Arithmetic::Bitwise if BITWISE && !by_values(weight, options, bits, [from, to]) => {
                return Self::Bits;
            }
            _ => {}
        }
        let groups = weight.grouping().groups_per_output(weight.shape());
        let part = shape[0] / options.groups;
        let pay = (0..options.groups).all(|channels| {
            let widths = channels * part * groups..(channels + 1) * part * groups;
            let mut counts = [0, 0];
            for width in widths.map(|group| weight.width(group)) {
                counts[0] += width;
                counts[1] += usize::from(width > 0);
            }
            sums_pay(counts[0], groups, counts[1])
        });
        if pay { Self::Fours } else { Self::Floats }
    }
}

/// Whether the kernels multiply levels rather than count their bits.
fn by_values(
    weight: &FileWeight<'_>,
    options: &Conv2dOptions,
    bits: usize,
    [from, to]: [[usize; 3]; 2],
) -> bool {
    let shape = shape(weight);
    let groups = weight.grouping().groups_per_output(weight.shape());
    let widths: Vec<u8> = (0..shape[0] * groups)
        .map(|group| weight.width(group) as u8)
        .collect();
    let (words, sort, _) = bit_layout(shape, weight.grouping());
    let part = shape[0] / options.groups;
    let parts = (0..options.groups).map(|channels| channels * part..(channels + 1) * part);
    let sizes = parts.map(|outputs| Sizes::of(&widths, groups, outputs, words, sort));
    let sizes = sizes.fold(Sizes::default(), Sizes::add);
    let shapes = [from, to].map(|[channels, height, width]| [1, channels, height, width]);
    let patch = shape[1] * shape[2] * shape[3];
    prefers_values(Isa::PORTABLE, sizes, bits, patch, shapes)
}

/// `[channels_out, channels_in / groups, height, width]`.
pub(super) fn shape(weight: &FileWeight<'_>) -> [usize; 4] {
    // The plan has checked the rank.
    weight.shape().try_into().unwrap_or([1; 4])
}

/// The places of a kernel by columns of the input sorted by the remainders of the stride, then by
/// rows of it.
fn taps(weight: &FileWeight<'_>, options: &Conv2dOptions) -> Vec<[usize; 2]> {
    if weight.rows() == 0 {
        return Vec::new();
    }
    let [.., height, width] = shape(weight);
    let [down, across] = options.stride;
    let key = |&[y, x]: &[usize; 2]| {
        let (y, x) = (y * options.dilation[0], x * options.dilation[1]);
        (x / across, y % down, x % across, y / down)
    };
    // They are few: each goes to its place among those before.
    let mut taps: Vec<[usize; 2]> = Vec::new();
    for tap in (0..height).flat_map(|y| (0..width).map(move |x| [y, x])) {
        taps.push(tap);
        let mut place = taps.len() - 1;
        while place > 0 && key(&taps[place]) < key(&taps[place - 1]) {
            taps.swap(place - 1, place);
            place -= 1;
        }
    }
    taps
}

/// Where the weights of an output lie, in the order of the grouping.
#[derive(Clone, Copy)]
pub(super) struct Patch {
    shape: [usize; 4],
    axes: [usize; 3],
}

impl Patch {
    pub(super) fn new(weight: &FileWeight<'_>) -> Self {
        let mut axes = [1, 2, 3];
        for (to, &axis) in axes.iter_mut().zip(&weight.grouping().axes()[1..]) {
            *to = axis;
        }
        let shape = shape(weight);
        Self { shape, axes }
    }

    /// `[channel, kernel row, kernel column]` of weight `j`.
    #[inline]
    pub(super) fn place(&self, j: usize) -> [usize; 3] {
        let mut place = [0; 4];
        let mut rest = j;
        for axis in self.axes.into_iter().rev() {
            let size = self.shape[axis];
            place[axis] = rest % size;
            rest /= size;
        }
        [place[1], place[2], place[3]]
    }

    /// The weight at a place.
    #[inline]
    pub(super) fn index(&self, [channel, y, x]: [usize; 3]) -> usize {
        let place = [0, channel, y, x];
        self.axes
            .iter()
            .fold(0, |index, &axis| index * self.shape[axis] + place[axis])
    }
}

/// The input's places under one place of the kernel along an axis.
#[derive(Clone)]
pub(super) struct Seen {
    /// Outputs that see the input there, not its padding.
    pub outputs: Range<usize>,
    /// The input's place of the first of them.
    pub first: usize,
    pub stride: usize,
}

/// A convolution over one image.
pub(super) struct Call<'c> {
    pub conv: &'c Conv2d<'c>,
    pub weight: &'c FileWeight<'c>,
    pub patch: Patch,
    /// Groups of weights of an output.
    pub groups: usize,
    /// Weights of a group.
    pub len: usize,
    /// Rows of the output that are computed now, one channel after the other.
    pub rows: Range<usize>,
}

impl Call<'_> {
    /// What place `tap` of the kernel sees along an axis.
    #[inline]
    pub(super) fn seen(&self, axis: usize, tap: usize) -> Seen {
        let options = &self.conv.options;
        let (size, outputs) = (self.conv.from[1 + axis], self.conv.to[1 + axis]);
        let (stride, padding) = (options.stride[axis], options.padding[axis].0);
        let reach = tap * options.dilation[axis];
        let low = padding.saturating_sub(reach).div_ceil(stride);
        let high = (size + padding)
            .saturating_sub(reach)
            .div_ceil(stride)
            .min(outputs);
        let outputs = low..high;
        if outputs.is_empty() {
            let (outputs, first) = (0..0, 0);
            return Seen {
                outputs,
                first,
                stride,
            };
        }
        Seen {
            first: low * stride + reach - padding,
            outputs,
            stride,
        }
    }

    /// The input's place under one of the kernel, none in the padding.
    #[inline]
    pub(super) fn under(&self, axis: usize, output: usize, tap: usize) -> Option<usize> {
        let options = &self.conv.options;
        let padded = output * options.stride[axis] + tap * options.dilation[axis];
        let place = padded.checked_sub(options.padding[axis].0)?;
        (place < self.conv.from[1 + axis]).then_some(place)
    }

    /// What a row of the output and the first channel that it sees add to the input's place of a tap.
    pub(super) fn row(&self, channel: usize, row: usize) -> usize {
        let [_, height, width] = self.conv.from;
        let row = row * self.conv.options.stride[0];
        row.wrapping_mul(width)
            .wrapping_add(channel * height * width)
    }

    /// The first input channel that an output sees.
    pub(super) fn first_channel(&self, output: usize) -> usize {
        let groups = self.conv.options.groups;
        output / (self.conv.to[0] / groups) * (self.conv.from[0] / groups)
    }

    /// Calls `add(places of the output's rows, place of the input, its stride)` for each row of outputs that
    /// see a weight.
    #[inline]
    pub(super) fn each_row(
        &self,
        first_channel: usize,
        [channel, y, x]: [usize; 3],
        mut add: impl FnMut(Range<usize>, usize, usize),
    ) {
        let [_, height, width] = self.conv.from;
        let out_width = self.conv.to[2];
        let (rows, columns) = (self.seen(0, y), self.seen(1, x));
        let plane = (first_channel + channel) * height * width;
        let first = rows.outputs.start.max(self.rows.start);
        for row in first..rows.outputs.end.min(self.rows.end) {
            let to = (row - self.rows.start) * out_width;
            let to = to + columns.outputs.start..to + columns.outputs.end;
            let from_row = rows.first + (row - rows.outputs.start) * rows.stride;
            add(to, plane + from_row * width + columns.first, columns.stride);
        }
    }
}

/// Words of sums that a pool takes at a time, where a row of its outputs does not take more.
const STRIP: usize = 128;

/// Rows of the output that are computed at a time, and rows of a pool behind it that they become.
struct Rows {
    pooled: usize,
    rows: usize,
}

impl Rows {
    fn of(conv: &Conv2d<'_>) -> Self {
        let [_, height, width] = conv.to;
        let whole = Self {
            pooled: usize::MAX,
            rows: height,
        };
        let Some(pool) = conv.pool else {
            return whole;
        };
        let stride = pool.stride[0];
        let reach = pool.dilation[0] * (pool.kernel[0] - 1) + 1;
        // No row is computed twice; in int8, weights are not looked for once more for each strip.
        if reach > stride || conv.way == Way::Bytes {
            return whole;
        }
        let pooled = (STRIP / (stride.saturating_mul(width)).max(1)).max(1);
        Self {
            pooled,
            rows: height.min((pooled - 1) * stride + reach),
        }
    }

    /// The rows that a pool's rows from `first` on see.
    fn seen(&self, conv: &Conv2d<'_>, pool: &Pool2dOptions, first: usize) -> Range<usize> {
        let start = (first * pool.stride[0]).saturating_sub(pool.padding[0]);
        let end = start.saturating_add(self.rows).min(conv.to[1]);
        start.min(end)..end
    }
}

/// Words of scratch.
pub(super) fn scratch(weight: &FileWeight<'_>, conv: &Conv2d<'_>) -> Option<usize> {
    let [_, height, width] = conv.to;
    let [channels, rows, columns] = conv.from;
    // Sums of a channel, where the output has none of its size.
    let plane = match conv.pool {
        Some(_) => Rows::of(conv).rows * width,
        None => 0,
    };
    let bytes = || {
        Some(
            channels
                .checked_mul(rows)?
                .checked_mul(columns)?
                .div_ceil(4),
        )
    };
    let own = match (&conv.way, conv.weights.arithmetic) {
        (Way::Floats | Way::Fours, _) => plane,
        (Way::Bytes, _) => {
            let room = int8::room(weight.grouping().len(), [height, width])?;
            plane.checked_add(bytes()?)?.checked_add(room)?
        }
        (Way::Depthwise(_), Arithmetic::Int8) => plane.checked_add(bytes()?)?,
        (Way::Depthwise(_), _) => plane,
        (Way::Bits, _) => {
            let bits = conv.weights.levels.map_or(0, |levels| levels.bits);
            bitwise::words(weight).checked_mul(bits + 1)?
        }
    };
    Some(own)
}

/// A layer over one image.
pub(in crate::runtime) fn conv2d(
    layer: &LayerView<'_, '_>,
    conv: &Conv2d<'_>,
    input: &[u32],
    output: &mut [u32],
    scratch: &mut [u32],
) {
    let weight = layer.weight;
    let mut call = Call {
        conv,
        weight,
        patch: Patch::new(weight),
        groups: weight.grouping().groups_per_output(weight.shape()),
        len: weight.grouping().len(),
        rows: 0..conv.to[1],
    };
    if BITWISE && conv.way == Way::Bits {
        let levels = conv.weights.levels;
        let levels = levels.and_then(|state| Levels::of(layer.file, state));
        if let Some(levels) = levels {
            bitwise::run(&call, layer, &levels, input, output, scratch);
        }
        return;
    }
    // Inputs as bytes come first in the scratch.
    let is_int8 = INT8 && conv.weights.arithmetic == Arithmetic::Int8;
    let bytes = if is_int8 { input.len().div_ceil(4) } else { 0 };
    let (bytes, scratch) = scratch.split_at_mut(bytes);
    let mut scale = 1.0;
    if is_int8 {
        scale = int8_scale(int8::largest(input));
        int8::round(input, inverse(scale), bytes);
    }
    let [channels, height, width] = conv.to;
    let strip = Rows::of(conv);
    let own = if conv.pool.is_some() {
        strip.rows * width
    } else {
        0
    };
    let (plane, scratch) = scratch.split_at_mut(own);
    let size = (output.len() / channels.max(1)).max(1);
    let pieces = (INT8 && conv.way == Way::Bytes).then(|| int8::Pieces::new(&call));
    let mut taps = Taps::NONE;
    let mut row = 0;
    for (o, to) in output.chunks_exact_mut(size).enumerate() {
        let widths = o * call.groups..(o + 1) * call.groups;
        let rows: usize = widths.map(|group| weight.width(group)).sum();
        let (factor, offset) = layer.affine(o);
        let factor = scale * factor;
        let across = match conv.pool {
            Some(pool) => windows(pool, 1, width),
            None => width,
        };
        let part = strip.pooled.saturating_mul(across).clamp(1, size);
        for (number, to) in to.chunks_mut(part).enumerate() {
            let first = number * strip.pooled;
            call.rows = match conv.pool {
                Some(pool) => strip.seen(conv, pool, first),
                None => 0..height,
            };
            let sums = match conv.pool {
                Some(_) => &mut plane[..call.rows.len() * width],
                None => &mut *to,
            };
            sums.fill(0);
            match &conv.way {
                Way::Floats => floats(&call, o, row, input, sums, &mut taps),
                Way::Fours => fours(&call, o, row, input, sums, &mut taps),
                Way::Bytes => {
                    if let Some(pieces) = &pieces {
                        int8::sums(&call, pieces, o, row, bytes, sums, scratch);
                    }
                }
                Way::Depthwise(taps) if is_int8 => {
                    depthwise(&call, taps, o, row, |weight, to, mut from, stride| {
                        for sum in &mut sums[to] {
                            let x = f32::from(int8::byte(bytes, from));
                            *sum = (weight * x + f32::from_bits(*sum)).to_bits();
                            from += stride;
                        }
                    });
                }
                Way::Depthwise(taps) => {
                    depthwise(&call, taps, o, row, |weight, to, from, stride| {
                        let len = to.len();
                        let (from, sums) = (&input[from..], &mut sums[to]);
                        let mut row = AddScaled {
                            weight,
                            from,
                            stride,
                            sums,
                        };
                        row.over(0..len, stride == 1);
                    });
                }
                Way::Bits => {}
            }
            let len = sums.len();
            let mut finish = Finish {
                factor,
                offset,
                sums,
            };
            finish.over(0..len, true);
            if let Some(pool) = conv.pool {
                // The windows of these rows begin before them where they begin in the padding.
                let before =
                    (call.rows.start + pool.padding[0]).wrapping_sub(first * pool.stride[0]);
                let padding = [before, pool.padding[1]];
                let pool = Pool2dOptions { padding, ..*pool };
                let sums = &plane[..call.rows.len() * width];
                super::pool(false, sums, [1, call.rows.len(), width], &pool, to);
            }
        }
        row += rows;
    }
}

/// `factor·x + offset` of sums.
struct Finish<'s> {
    factor: f32,
    offset: f32,
    sums: &'s mut [u32],
}

impl Strip for Finish<'_> {
    #[inline(always)]
    fn run<V: Vector>(&mut self, place: usize) {
        let scaled = V::splat(self.factor).mul(V::load(self.sums, place));
        let sum = scaled.add(V::splat(self.offset));
        sum.store(self.sums, place);
    }
}

/// Adds `weight·x` to the sums of a row, of every `stride`th input.
struct AddScaled<'s> {
    weight: f32,
    from: &'s [u32],
    stride: usize,
    sums: &'s mut [u32],
}

impl Strip for AddScaled<'_> {
    #[inline(always)]
    fn run<V: Vector>(&mut self, place: usize) {
        let x = V::load(self.from, place * self.stride);
        let sum = V::splat(self.weight).mul(x).add(V::load(self.sums, place));
        sum.store(self.sums, place);
    }
}

/// One input channel: calls `add(weight, places of the output, place of the input, its stride)` with weights
/// in f32, in the order of the taps.
fn depthwise(
    call: &Call<'_>,
    taps: &[[usize; 2]],
    output: usize,
    first_row: usize,
    mut add: impl FnMut(f32, Range<usize>, usize, usize),
) {
    let weight = call.weight;
    let channel = call.first_channel(output);
    for &[y, x] in taps {
        let j = call.patch.index([0, y, x]);
        let (group, j) = (j / call.len, j % call.len);
        let first = output * call.groups;
        let before = (first..first + group).map(|group| weight.width(group));
        let row = first_row + before.sum::<usize>();
        let rows = row..row + weight.width(first + group);
        let value = rows.fold(0.0, |sum, row| {
            sum + signed(weight.coordinate(row), weight.bit(row, j))
        });
        call.each_row(channel, [0, y, x], |to, from, stride| {
            add(value, to, from, stride);
        });
    }
}

/// Puts a value into the windows of a pool that see it; they begin at −∞.
pub(super) fn into_windows(
    options: &Pool2dOptions,
    [row, column]: [usize; 2],
    [height, width]: [usize; 2],
    value: f32,
    to: &mut [u32],
) {
    let windows = |axis: usize, place: usize, count: usize| {
        let Pool2dOptions {
            kernel,
            stride,
            padding,
            dilation,
        } = *options;
        let (stride, dilation) = (stride[axis], dilation[axis]);
        let place = place + padding[axis];
        let first = place
            .saturating_sub(dilation * (kernel[axis] - 1))
            .div_ceil(stride);
        let windows = first..count.min(place / stride + 1);
        windows.filter(move |window| (place - window * stride).is_multiple_of(dilation))
    };
    for y in windows(0, row, height) {
        for x in windows(1, column, width) {
            let to = &mut to[y * width + x];
            *to = larger(f32::from_bits(*to), value).to_bits();
        }
    }
}
