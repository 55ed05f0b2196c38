//! Exact and int8 modes: the weights of some outputs, unpacked block by block, times all positions.
//!
//! With the padding written out, the inputs under one weight for all outputs of an image are one run
//! of memory, that begins where the weight lies: with stride 1, output `(y, x)` at distance
//! `y·width + x`. Runs are as wide as the padded input, so that some sums at the end of each row
//! belong to no output. A stride above 1 first sorts the image by the remainder of its places. Under
//! a 1×1 kernel with stride 1, an image in f32 is read where it lies.
//!
//! Int8 mode rounds inputs to `x ≈ s·q` with `q = round(x/s)` and one scale an image, `s = max |x| /
//! 127`; the padding is `q = 0`. Four neighbours meet at once, a *quad*: which ones, [`quads`] says.

use alloc::vec;
use alloc::vec::Vec;
use core::marker::PhantomData;

use super::Call;
use super::padded::{Padded, SETS};
use super::quads::{Along, QUAD, Quads};
use crate::cpu::generic::{
    BLOCK_WORDS as BLOCK, Bytes, Depth, Element, Input, LINES, Largest, Matrix, MatrixRows,
    OUTPUTS, Offsets, Room, Single, Starts, ToRows, ToWords, Uses, Weights, inverse, task_unit,
};
use crate::cpu::int8_scale;
use crate::cpu::integers::{Integers, TOGETHER};
use crate::cpu::simd::{LANES, Line, flat_words};
use crate::cpu::threads::{self, Shared};
use crate::packed::PackedWeight;

/// Images that are laid out at once.
const IMAGES: usize = 16;

/// Outputs and tiles of a task: unpacked weights, and sums, that the second cache holds.
const TASK_OUTPUTS: usize = 64;
const TASK_TILES: usize = 20;

/// Words of inputs that the second cache holds for several tasks.
const TASK_INPUTS: usize = 64 << 10;

/// Positions of a tile at most.
const TILE: usize = LINES * LANES;

/// A weight that is multiplied output by output.
pub(super) struct MatrixWeight {
    /// The first row of bits of each output, and the end.
    pub first: Vec<usize>,
    depth: Depth,
    /// The coordinates of products of bytes; in int8.
    integers: Integers,
    /// In int8.
    quads: Option<Quads>,
}

impl MatrixWeight {
    pub(super) fn exact(weight: &PackedWeight) -> Self {
        let grouping = weight.grouping();
        let groups = grouping.groups_per_output(weight.shape());
        let pieces = (0..groups).map(|_| [grouping.len(), 1]);
        Self {
            first: weight.first_rows(),
            depth: Depth::new(pieces, Single::INPUTS),
            integers: Integers::default(),
            quads: None,
        }
    }

    pub(super) fn int8(weight: &PackedWeight, patch: &[[usize; 3]]) -> Self {
        let quads = Quads::new(weight, patch);
        let widest = weight.widths().iter().copied().max().unwrap_or(0);
        let components = usize::from(widest).div_ceil(TOGETHER);
        let pieces = quads.groups.iter().map(|quads| [quads.len(), components]);
        Self {
            first: weight.first_rows(),
            depth: Depth::new(pieces, Bytes::INPUTS),
            integers: Integers::of_rows(weight),
            quads: Some(quads),
        }
    }

    /// The weights of the matrix product.
    fn weights<'a>(&'a self, weight: &'a PackedWeight) -> Weights<'a> {
        let (words, row_words, valid) = match &self.quads {
            None => (weight.words(), weight.row_words(), None),
            Some(quads) => quads.rows(weight),
        };
        let (first, integers) = (&self.first, &self.integers);
        Weights::rows(weight, first, words, row_words, integers, valid)
    }

    /// Which inputs a word of the laid out image holds.
    fn along(&self) -> Option<Along> {
        self.quads.as_ref().map(|quads| quads.along)
    }

    /// `[channel, kernel row, kernel column]` of the first input of each step.
    fn steps<'a>(&'a self, patch: &'a [[usize; 3]]) -> impl Iterator<Item = [usize; 3]> + 'a {
        let (exact, int8) = match &self.quads {
            None => (patch, [].as_slice()),
            Some(quads) => ([].as_slice(), quads.groups.as_slice()),
        };
        exact.iter().chain(int8.iter().flatten()).copied()
    }
}

/// Some images as the words of steps.
pub(super) struct Laid<'a> {
    words: &'a [u32],
    /// Words of an image, and of a group of channels.
    len: usize,
    group_len: usize,
    /// The scale of each image.
    scales: &'a [f32],
    /// Sums of a row.
    pub columns: usize,
    /// Whether nothing may be read behind the last place.
    is_tight: bool,
}

impl Laid<'_> {
    pub(super) fn images(&self) -> usize {
        self.scales.len()
    }

    /// An image from the first channel of a group on.
    pub(super) fn part(&self, image: usize, group: usize) -> &[u32] {
        let words = &self.words[image * self.len..][..self.len];
        &words[group * self.group_len..]
    }
}

impl Call<'_> {
    /// The images from `start` on, some at a time; by sums of four inputs where `uses` are given.
    pub(super) fn one_by_one<E: Element>(
        &self,
        weight: &MatrixWeight,
        start: usize,
        uses: Option<&[Uses]>,
    ) {
        let [batch, channels, height, width] = self.input_shape;
        let [_, _, out_height, out_width] = self.output_shape;
        let groups = self.options.groups;
        let along = weight.along();
        let steps = weight.steps(&self.kernel.patch);
        let pixels = height * width;
        // Planes a large power of two apart share few sets of the cache: eight of a block each.
        let shift = (pixels / LANES).trailing_zeros().min(SETS.trailing_zeros());
        let apart = !pixels.is_multiple_of(LANES) || channels.min(BLOCK) << shift <= 8 * SETS;
        if along.is_none() && uses.is_none() && self.is_pointwise() && pixels >= TILE && apart {
            let steps: Vec<usize> = steps.map(|[channel, ..]| channel * pixels).collect();
            let len = channels * pixels;
            let laid = Laid {
                words: flat_words(&self.input[start * len..]),
                len,
                group_len: len / groups,
                scales: &vec![1.0; batch - start],
                columns: pixels,
                is_tight: true,
            };
            return self.multiply::<E>(weight, start, &laid, &steps);
        }
        let [.., kernel_height, kernel_width] = *self.kernel.weight.shape() else {
            unreachable!("a convolution has a kernel");
        };
        let padded = Padded::new(
            self.input_shape,
            [kernel_height, kernel_width],
            self.options,
        );
        let planes = match along {
            Some(Along::Channels) => (channels / groups).div_ceil(QUAD) * groups,
            _ => channels,
        };
        let dilation = self.options.dilation;
        let step = |[channel, y, x]: [usize; 3]| {
            let plane = match along {
                Some(Along::Channels) => channel / QUAD,
                _ => channel,
            };
            let place = padded.place(y * dilation[0], x * dilation[1]);
            plane * padded.plane + place.expect("the kernel reaches itself")
        };
        let steps: Vec<usize> = steps.map(step).collect();
        let flat = (out_height - 1) * padded.columns + out_width;
        let highest = steps.iter().copied().max().unwrap_or(0);
        let lines = flat.div_ceil(LANES);
        let group_planes = planes / groups;
        // The sums of the last row run on for up to a row and a line.
        let last_group = (groups - 1) * group_planes * padded.plane;
        let len = (last_group + highest + lines * LANES).max(planes * padded.plane);
        let count = IMAGES.min(batch - start);
        let mut words = vec![0; count * len];
        let mut scales = vec![1.0; count];
        for first in (start..batch).step_by(IMAGES) {
            scales.truncate(batch - first);
            self.lay_words(
                first,
                along,
                &padded,
                [planes, len],
                &mut words,
                &mut scales,
            );
            let laid = Laid {
                words: &words,
                len,
                group_len: group_planes * padded.plane,
                scales: &scales,
                columns: padded.columns,
                is_tight: false,
            };
            match uses {
                None => self.multiply::<E>(weight, first, &laid, &steps),
                Some(uses) => {
                    let len = self.kernel.weight.grouping().len();
                    self.fours(first, &laid, &Offsets::new(steps.clone(), len), uses);
                }
            }
        }
    }

    /// Lays out some images, of so many planes and words.
    fn lay_words(
        &self,
        first: usize,
        along: Option<Along>,
        padded: &Padded,
        [planes, len]: [usize; 2],
        words: &mut [u32],
        scales: &mut [f32],
    ) {
        let count = scales.len();
        let [_, channels, height, width] = self.input_shape;
        if width * height * channels == 0 {
            return; // All of it is padding.
        }
        if along.is_some() {
            let scales = Shared::new(scales);
            let cost = count * channels * height * width / LANES;
            threads::for_each(count, cost, |image| {
                let mut largest = 0.0;
                self.kernel.isa.run(Largest {
                    values: self.image(first + image),
                    largest: &mut largest,
                });
                // SAFETY: each image has a scale of its own.
                unsafe { scales.part(image, 1)[0] = int8_scale(largest) };
            });
        }
        let group_planes = planes / self.options.groups;
        let shared = Shared::new(words);
        let group_in = channels / self.options.groups;
        let [(top, _), (left, _)] = self.options.padding;
        let window = match along {
            Some(Along::Row) => Some((left, self.options.dilation[1])),
            _ => None,
        };
        // The first column that has a word.
        let before = window.map_or(0, |_| left);
        let cost = count * planes * padded.plane / 4;
        threads::for_each_with(count * planes, cost, Vec::new, |row_words, task| {
            let (image, plane) = (task / planes, task % planes);
            // SAFETY: each plane of an image has words of its own.
            let to = unsafe { shared.part(image * len + plane * padded.plane, padded.plane) };
            let (group, plane) = (plane / group_planes, plane % group_planes);
            let (channel, end) = match along {
                Some(Along::Channels) => (plane * QUAD, group_in.min((plane + 1) * QUAD)),
                _ => (plane, plane + 1),
            };
            let channel = group * group_in + channel..group * group_in + end;
            let values = &self.image(first + image)[channel.start * height * width..];
            let values = &values[..channel.len() * height * width];
            for y in 0..height {
                let Some(place) = padded.place(top + y, 0) else {
                    continue;
                };
                row_words.resize(before + width, 0);
                let words = match padded.keeps_rows() {
                    true => &mut to[place + left - before..][..before + width],
                    false => row_words.as_mut_slice(),
                };
                self.kernel.isa.run(ToWords {
                    values: &values[y * width..],
                    channel: height * width,
                    inverse: along.map(|_| inverse(scales[image])),
                    window,
                    words,
                });
                if !padded.keeps_rows() {
                    padded.put_row(top + y, left - before, row_words, to);
                }
            }
        });
    }

    /// Where the sums of an image go.
    pub(super) fn to_rows(&self, image: usize, scale: f32, columns: usize) -> ToRows<'_> {
        let [_, channels_out, out_height, out_width] = self.output_shape;
        ToRows {
            scale,
            affine: self.affine,
            columns,
            size: [out_height, out_width],
            start: image * channels_out * self.positions(),
            output: &self.output,
        }
    }

    /// Some images × all weights.
    fn multiply<E: Element>(
        &self,
        weight: &MatrixWeight,
        first_image: usize,
        laid: &Laid,
        steps: &[usize],
    ) {
        let (kernel, count) = (self.kernel, laid.images());
        let [_, channels_out, out_height, out_width] = self.output_shape;
        let (groups, group_out) = (self.options.groups, channels_out / self.options.groups);
        let flat = (out_height - 1) * laid.columns + out_width;
        let all = flat.div_ceil(LANES);
        let tiles = all.div_ceil(LINES);
        let lines = all.div_ceil(tiles);
        let tiles = all.div_ceil(lines);
        let last_lines = all - (tiles - 1) * lines;
        let last = match laid.is_tight {
            true => flat - last_lines * LANES,
            false => usize::MAX,
        };
        let input = |image: usize, group: usize| Input {
            words: laid.part(image, group),
            steps,
            tile: lines * LANES,
            lines,
            starts: &[],
        };
        let pieces = weight.depth.pieces.len();
        let mut starts = Vec::new();
        let group_starts = tiles * pieces;
        if E::STARTS {
            starts = vec![[Line([0; LANES]); LINES]; count * groups * group_starts];
            let shared = Shared::new(&mut starts);
            let cost = count * groups * tiles * lines * steps.len();
            threads::for_each(count * groups * tiles, cost, |task| {
                let (tile, part) = (task % tiles, task / tiles);
                let place = part * group_starts + tile * pieces;
                kernel.isa.run(Starts {
                    depth: &weight.depth,
                    input: input(part / groups, part % groups),
                    tile,
                    lines: if tile + 1 == tiles { last_lines } else { lines },
                    // SAFETY: each tile has starts of its own.
                    starts: unsafe { shared.part(place, pieces) },
                });
            });
        }
        let weights = weight.weights(&kernel.weight);
        // Of one block, the sums of a tile are done before the next.
        let one = weight.depth.blocks() == 1;
        let task_tiles = match one {
            true => (TASK_INPUTS / (steps.len().max(1) * TILE)).max(TASK_TILES),
            false => TASK_TILES,
        };
        let row_parts = tiles.div_ceil(task_tiles);
        let part_tiles = tiles.div_ceil(row_parts);
        let row_parts = tiles.div_ceil(part_tiles);
        let parts = threads::parts().div_ceil(count * groups * row_parts);
        let unit = task_unit::<E>(kernel.isa);
        let outputs = group_out.div_ceil(parts).next_multiple_of(unit);
        let outputs = outputs.min(TASK_OUTPUTS.next_multiple_of(unit));
        let output_parts = group_out.div_ceil(outputs);
        let room = || (Room::default(), Vec::new());
        let cost = count * kernel.weight.weights() / Single::INPUTS * all;
        let tasks = count * groups * output_parts * row_parts;
        threads::for_each_with(tasks, cost, room, |(room, sums), task| {
            let (row_part, task) = (task % row_parts, task / row_parts);
            let (output_part, task) = (task % output_parts, task / output_parts);
            let (group, image) = (task % groups, task / groups);
            let first_tile = row_part * part_tiles;
            let end_tile = tiles.min(first_tile + part_tiles);
            let output = output_part * outputs;
            let slots = output..group_out.min(output + outputs);
            let slots = group * group_out + slots.start..group * group_out + slots.end;
            let slot_room = slots.len().next_multiple_of(OUTPUTS);
            let room_tiles = if one { 1 } else { end_tile - first_tile };
            sums.resize(room_tiles * slot_room, [Line([0.0; LANES]); LINES]);
            let starts = match E::STARTS {
                true => &starts[(image * groups + group) * group_starts..],
                false => &[],
            };
            kernel.isa.run(Matrix::<E> {
                weights,
                depth: &weight.depth,
                slots,
                input: Input {
                    starts,
                    ..input(image, group)
                },
                tiles: first_tile..end_tile,
                last_lines: if end_tile == tiles { last_lines } else { lines },
                room,
                sums,
                // A place of a channel of an image belongs to one task.
                rows: Some(MatrixRows {
                    to: self.to_rows(first_image + image, laid.scales[image], laid.columns),
                    last,
                }),
                element: PhantomData,
            });
        });
    }
}
