//! One input channel a group, in every arithmetic: its weights in f32 over its inputs.
//!
//! An input meets `kernel height · kernel width` weights, too few for sums of four, products of bytes
//! or words of bits to pay. But each arithmetic is a sum over weights of f32 and a map of the inputs,
//! ```text
//! exact    Σ_rows α·Σ ±x        = Σ ŵ·x
//! int8     Σ_rows α·(s·Σ ±q)    = s·Σ ŵ·q     q = round(x / s)
//! bitwise  Σ_rows α·Σ ±x̂        = Σ ŵ·x̂       x̂ the nearest level, 0 in the padding
//! ```
//! equal to its definition up to the order of sums of f32. The map is applied while the padding is
//! written out; then all three are the same.

use alloc::vec;
use alloc::vec::Vec;

use super::Call;
use crate::bits::{bit, signed};
use crate::cpu::Mode;
use crate::cpu::generic::{Depthwise, Fill, InputMap, Largest, MOST_TAPS, Taps, inverse};
use crate::cpu::int8_scale;
use crate::cpu::simd::LANES;
use crate::cpu::threads::{self, Shared};

/// Padded inputs, in f32, that stay in the first cache with the outputs.
const BAND: usize = 6 << 10;

/// Where the rows of a padded channel lie, sorted by the remainders of their places by the stride;
/// of a part of the outputs' rows.
struct Band {
    /// Rows and columns of one remainder.
    rows: usize,
    columns: usize,
    /// Rows of outputs.
    outputs: usize,
}

/// What a task works in.
struct Room {
    taps: Vec<Taps>,
    mapped: Vec<f32>,
    input: Vec<f32>,
    sums: Vec<f32>,
}

impl Call<'_> {
    pub(super) fn depthwise(&self, mode: &Mode, first_rows: &[usize]) {
        let [images, channels, ..] = self.input_shape;
        let band = self.band();
        let bands = self.output_shape[2].div_ceil(band.outputs);
        let scales = self.image_scales(mode);
        let (taps, places) = self.kernel_taps(&band);
        let [down, across] = self.options.stride;
        let room = || Room {
            taps: taps.clone(),
            mapped: Vec::new(),
            // Where rows are narrow, vectors run on behind the last.
            input: vec![0.0; down * across * band.rows * band.columns + LANES],
            sums: Vec::new(),
        };
        let cost = images * self.positions() * self.kernel.row_weights() / LANES;
        threads::for_each_with(images * channels * bands, cost, room, |room, task| {
            let (part, channel) = (task % bands, task / bands);
            let scale = scales[channel / channels];
            let map = match mode {
                Mode::Exact => InputMap::Copy,
                Mode::Int8 => InputMap::Round(inverse(scale)),
                Mode::Bitwise(levels) => InputMap::Level(levels),
            };
            self.fill(channel, part * band.outputs, &band, map, room);
            let multiplier = self.output_shape[1] / channels;
            let start = channel % channels * multiplier;
            let outputs = (start..).zip(&first_rows[start..][..multiplier]);
            for (output, &first_row) in outputs {
                self.make_taps(output, first_row, &places, &mut room.taps);
                let image = channel / channels;
                self.run_band(image, output, part * band.outputs, &band, scale, room);
            }
        });
    }

    /// The scale of the inputs of each image; 1 where they are not rounded.
    fn image_scales(&self, mode: &Mode) -> Vec<f32> {
        let mut scales = vec![1.0; self.input_shape[0]];
        if *mode == Mode::Int8 {
            let shared = Shared::new(&mut scales);
            let cost = self.input.len() / LANES;
            threads::for_each(self.input_shape[0], cost, |image| {
                let mut largest = 0.0;
                self.kernel.isa.run(Largest {
                    values: self.image(image),
                    largest: &mut largest,
                });
                // SAFETY: each image has a scale of its own.
                unsafe { shared.part(image, 1)[0] = int8_scale(largest) };
            });
        }
        scales
    }

    /// As many rows of outputs as keep their inputs in the cache.
    fn band(&self) -> Band {
        let [down, across] = self.options.stride;
        let (left, right) = self.options.padding[1];
        let columns = (self.input_shape[3] + left + right).div_ceil(across);
        let reach = self.options.dilation[0] * (self.kernel.weight.shape()[2] - 1) + 1;
        let fit = BAND / (columns * across);
        let outputs = (fit.saturating_sub(reach) / down + 1).min(self.output_shape[2]);
        Band {
            rows: ((outputs - 1) * down + reach).div_ceil(down),
            columns,
            outputs,
        }
    }

    /// Writes the inputs of the rows of outputs from `first` on.
    fn fill(&self, channel: usize, first: usize, band: &Band, map: InputMap<'_>, room: &mut Room) {
        let [_, _, height, width] = self.input_shape;
        let [down, across] = self.options.stride;
        let [(top, _), (left, _)] = self.options.padding;
        let rows = down * band.rows;
        // The input's rows among those of the band, and the band's first row among the input's.
        let before = top.saturating_sub(first * down).min(rows);
        let start = (first * down).saturating_sub(top).min(height);
        let count = (rows - before).min(height - start);
        let distance = band.rows * band.columns;
        for row in (0..before).chain(before + count..rows) {
            // Another band had inputs there.
            let place = (row % down * across * band.rows + row / down) * band.columns;
            for remainder in 0..across {
                room.input[place + remainder * distance..][..band.columns].fill(0.0);
            }
        }
        if width > 0 && count > 0 {
            self.kernel.isa.run(Fill {
                input: &self.input[(channel * height + start) * width..][..count * width],
                width,
                map,
                before: [before, left],
                stride: [down, across],
                size: [band.rows, band.columns],
                mapped: &mut room.mapped,
                output: &mut room.input,
            });
        }
    }

    /// The taps without their weights, and where each weight of the patch lies in them.
    fn kernel_taps(&self, band: &Band) -> (Vec<Taps>, Vec<[usize; 2]>) {
        let [down, across] = self.options.stride;
        let dilation = self.options.dilation;
        let mut taps: Vec<Taps> = Vec::new();
        let mut places = vec![[0; 2]; self.kernel.patch.len()];
        let mut patch: Vec<(usize, usize)> = Vec::new();
        for (j, &[_, y, x]) in self.kernel.patch.iter().enumerate() {
            let (y, x) = (y * dilation[0], x * dilation[1]);
            let remainder = y % down * across + x % across;
            patch.push((
                (remainder * band.rows + y / down) * band.columns + x / across,
                j,
            ));
        }
        // By columns, and rows from the first on.
        patch.sort_unstable_by_key(|&(offset, _)| (offset % band.columns, offset));
        for (offset, j) in patch {
            let last = taps.last_mut().filter(|taps| {
                taps.len < MOST_TAPS && offset == taps.offset + taps.len * band.columns
            });
            match last {
                Some(last) => last.len += 1,
                None => taps.push(Taps {
                    offset,
                    len: 1,
                    weights: [0.0; MOST_TAPS],
                }),
            }
            let last = taps.len() - 1;
            places[j] = [last, taps[last].len - 1];
        }
        (taps, places)
    }

    /// Sets the weights of an output.
    fn make_taps(&self, output: usize, first_row: usize, places: &[[usize; 2]], taps: &mut [Taps]) {
        let weight = &self.kernel.weight;
        let len = weight.grouping().len();
        let groups = places.chunks_exact(len);
        let widths = &weight.widths()[output * groups.len()..][..groups.len()];
        let mut row = first_row;
        for taps in &mut *taps {
            taps.weights = [0.0; MOST_TAPS];
        }
        for (places, &width) in groups.zip(widths) {
            for _ in 0..width {
                let alpha = weight.coordinates()[row];
                let bits = weight.row(row);
                for (j, &[at, i]) in places.iter().enumerate() {
                    taps[at].weights[i] += signed(alpha, bit(bits, j));
                }
                row += 1;
            }
        }
    }

    /// The rows of outputs from `first` on.
    fn run_band(
        &self,
        image: usize,
        output: usize,
        first: usize,
        band: &Band,
        scale: f32,
        room: &mut Room,
    ) {
        let [_, channels_out, height, width] = self.output_shape;
        let rows = band.outputs.min(height - first);
        let start = (image * channels_out + output) * self.positions() + first * width;
        // SAFETY: the rows of a band and a channel belong to one task.
        let to = unsafe { self.output.part(start, rows * width) };
        self.kernel.isa.run(Depthwise {
            taps: &room.taps,
            input: &room.input,
            columns: band.columns,
            scale,
            affine: self.affine.of(output),
            ends: self.affine.ends(),
            place: start,
            width,
            output: to,
            sums: &mut room.sums,
        });
    }
}
