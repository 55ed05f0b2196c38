//! Int8 mode: the image as bytes, the bits of the weight as signs in bytes.
//!
//! Inputs become `x ≈ s·q` with `q = round(x/s)` and one scale an image, `s = max |x| / 127`, so that
//! `−127 ≤ q ≤ 127`. The instructions multiply bytes without sign by bytes with one, so the image is
//! stored as `u = q + 128`, and for a row of `n` signs `bⱼ = ±1`
//! ```text
//! Σ bⱼ·uⱼ = Σ bⱼ·qⱼ + 128·Σ bⱼ     so     Σ bⱼ·qⱼ = −128·Σ bⱼ + Σ bⱼ·uⱼ
//! ```
//! A total starts at `−128·Σ bⱼ`, which the weight alone decides, and is then exact in 32 bits:
//! `|bⱼ·uⱼ| ≤ 255`, and two of them, which some instruction sets add in 16 bits, stay below 2¹⁵. An
//! output is `y = s·Σ_rows α·Σ bⱼ·qⱼ`, and since `|x − s·q| ≤ s/2`, a row is wrong by at most
//! `α·n·s/2`. The padding is `q = 0`, a byte of 128: it needs no case of its own.
//!
//! Four neighbours meet at once, a *quad*. Which neighbours depends on the weight's groups: a quad
//! lies along a row of the kernel, or along the channels at one place of it. Places of a quad that
//! hold no weight of the group have sign 0, and whatever input lies there counts nothing; of the two
//! ways the one with fewer quads is taken. A 3×3 kernel fills three of four places along its rows;
//! four channels in one group fill all.

use alloc::vec;
use alloc::vec::Vec;

use super::Call;
use super::blocks::Blocks;
use crate::bits::bit;
use crate::cpu::generic::{BIAS, Largest, Output, Products, Run, Signs, ToBytes, inverse};
use crate::cpu::simd::{LANES, Line};
use crate::cpu::threads::{self, Shared};
use crate::cpu::tiles::Tiles;
use crate::cpu::{Isa, int8_scale};

/// Bytes of a quad.
const QUAD: usize = 4;

/// The weight of one group of channels for this mode.
pub(super) struct ByteSigns {
    pub tiles: Tiles,
    along: Along,
    /// The quads of each group of weights: `[channel, kernel row, kernel column]` of their first.
    quads: Vec<Vec<[usize; 3]>>,
    lines: Vec<Line<u32>>,
    firsts: Vec<usize>,
    starts: Vec<Line<u32>>,
}

/// Where the four of a quad lie.
#[derive(Clone, Copy, PartialEq)]
enum Along {
    /// Next to each other in a row of the kernel.
    Row,
    /// They are at one place of four channels.
    Channels,
}

impl Along {
    /// The quad of a weight, and its place there.
    fn quad(self, [channel, row, column]: [usize; 3]) -> ([usize; 3], usize) {
        match self {
            Self::Row => ([channel, row, column / QUAD * QUAD], column % QUAD),
            Self::Channels => ([channel / QUAD * QUAD, row, column], channel % QUAD),
        }
    }

    /// The quads of each group of weights, and the quad and the place there of each weight of a
    /// patch.
    fn quads(self, patch: &[[usize; 3]], len: usize) -> (Vec<Vec<[usize; 3]>>, Vec<[usize; 2]>) {
        let mut quads = Vec::new();
        let mut places = Vec::with_capacity(patch.len());
        for group in patch.chunks_exact(len) {
            let mut seen: Vec<[usize; 3]> = group.iter().map(|&place| self.quad(place).0).collect();
            seen.sort_unstable();
            seen.dedup();
            for &weight in group {
                let (quad, place) = self.quad(weight);
                let index = seen.binary_search(&quad).expect("collected above");
                places.push([index, place]);
            }
            quads.push(seen);
        }
        (quads, places)
    }
}

impl ByteSigns {
    pub(super) fn new(tiles: Tiles, patch: &[[usize; 3]]) -> Self {
        let cuts =
            [Along::Row, Along::Channels].map(|along| (along, along.quads(patch, tiles.len)));
        let count = |quads: &[Vec<_>]| quads.iter().map(Vec::len).sum::<usize>();
        let (along, (quads, places)) = cuts
            .into_iter()
            .min_by_key(|(_, (quads, _))| count(quads))
            .expect("two ways");
        let steps = tiles.len_steps();
        let mut signs = Self {
            along,
            quads,
            lines: Vec::new(),
            firsts: Vec::with_capacity(steps),
            starts: Vec::with_capacity(steps),
            tiles,
        };
        for step in 0..steps {
            signs.push_step(step, &places);
        }
        signs
    }

    fn push_step(&mut self, step: usize, places: &[[usize; 2]]) {
        let (tiles, first) = (&self.tiles, self.lines.len());
        let group = tiles.group(step);
        let mut quads = vec![[[0i8; QUAD]; LANES]; self.quads[group].len()];
        let mut sums = [0i32; LANES];
        let words = tiles.lines(step);
        for (j, &[quad, place]) in places[group * tiles.len..][..tiles.len].iter().enumerate() {
            for (lane, sum) in sums.iter_mut().enumerate() {
                let sign = 1 - 2 * bit(&[words[j / 32].0[lane]], j % 32) as i8;
                quads[quad][lane][place] = sign;
                *sum += i32::from(sign);
            }
        }
        let words = |quad: [[i8; QUAD]; LANES]| {
            Line(quad.map(|four| u32::from_le_bytes(four.map(|sign| sign as u8))))
        };
        self.lines.extend(quads.into_iter().map(words));
        self.firsts.push(first);
        let starts = sums.map(|sum| (-i32::from(BIAS) * sum) as u32);
        self.starts.push(Line(starts));
    }

    fn signs(&self) -> Signs<'_> {
        Signs {
            tiles: &self.tiles,
            lines: &self.lines,
            firsts: &self.firsts,
            starts: &self.starts,
        }
    }
}

/// The padded images as bytes, each group of channels on its own.
///
/// # Shapes
/// - along rows: `[channels, rows, dilation, columns / dilation]`: what a kernel sees of a row is
///   contiguous
/// - along channels: `[channels / 4, rows, columns, 4]`
struct Bytes {
    along: Along,
    /// Height and width of a padded channel.
    size: [usize; 2],
    dilation: usize,
    /// The bytes of an image and a group of channels.
    len: usize,
    bytes: Vec<u8>,
    /// The scale of each image.
    scales: Vec<f32>,
}

impl Bytes {
    fn new(call: &Call<'_>, along: Along) -> Self {
        let [images, _, height, width] = call.input_shape;
        let [(top, bottom), (left, right)] = call.options.padding;
        let channels = call.kernel.weight.shape()[1];
        let dilation = match along {
            Along::Row => call.options.dilation[1],
            Along::Channels => 1,
        };
        let size = [
            height + top + bottom,
            (width + left + right).next_multiple_of(dilation),
        ];
        // Quads may begin at the last byte.
        let channels = match along {
            Along::Row => channels,
            Along::Channels => channels.next_multiple_of(QUAD),
        };
        let len = channels * size[0] * size[1] + QUAD;
        let groups = call.options.groups;
        let mut all = Self {
            along,
            size,
            dilation,
            len,
            bytes: vec![BIAS; images * groups * len],
            scales: vec![0.0; images],
        };
        let (layout, scales) = (all.layout(), Shared::new(&mut all.scales));
        let shared = Shared::new(&mut all.bytes);
        threads::for_each(images, call.input.len() / 2, |image| {
            let values = call.image(image);
            let mut largest = 0.0;
            let isa = call.kernel.isa;
            isa.run(Largest {
                values,
                largest: &mut largest,
            });
            let scale = int8_scale(largest);
            // SAFETY: a task has an image of its own.
            let (to, bytes) = unsafe {
                let len = groups * len;
                (scales.part(image, 1), shared.part(image * len, len))
            };
            to[0] = scale;
            if values.is_empty() {
                return; // All of it is padding.
            }
            let parts = values.chunks_exact(values.len() / groups);
            for (values, bytes) in parts.zip(bytes.chunks_exact_mut(len)) {
                layout.fill(isa, values, [height, width], [top, left], scale, bytes);
            }
        });
        all
    }

    fn layout(&self) -> ByteLayout {
        ByteLayout {
            along: self.along,
            size: self.size,
            dilation: self.dilation,
        }
    }
}

/// Where an input's byte lies.
#[derive(Clone, Copy)]
struct ByteLayout {
    along: Along,
    size: [usize; 2],
    dilation: usize,
}

impl ByteLayout {
    /// The byte of a place in a padded channel.
    fn place(&self, [channel, row, column]: [usize; 3]) -> usize {
        let [height, width] = self.size;
        match self.along {
            Along::Row => {
                let phase = column % self.dilation * (width / self.dilation);
                (channel * height + row) * width + phase + column / self.dilation
            }
            Along::Channels => {
                let pixel = (channel / QUAD * height + row) * width + column;
                pixel * QUAD + channel % QUAD
            }
        }
    }

    /// Distance of neighbours in a row, as a kernel of this dilation sees them.
    fn next(&self) -> usize {
        match self.along {
            Along::Row => 1,
            Along::Channels => QUAD,
        }
    }

    /// Channels, rounded.
    fn fill(
        &self,
        isa: Isa,
        values: &[f32],
        [height, width]: [usize; 2],
        [top, left]: [usize; 2],
        scale: f32,
        bytes: &mut [u8],
    ) {
        let inverse = inverse(scale);
        let contiguous = self.along == Along::Row && self.dilation == 1;
        let mut rounded = vec![0; width];
        for (i, values) in values.chunks_exact(width).enumerate() {
            let (channel, row) = (i / height, i % height + top);
            let to = self.place([channel, row, left]);
            if contiguous {
                let bytes = &mut bytes[to..][..width];
                isa.run(ToBytes {
                    values,
                    inverse,
                    bytes,
                });
                continue;
            }
            isa.run(ToBytes {
                values,
                inverse,
                bytes: &mut rounded,
            });
            for (x, &byte) in rounded.iter().enumerate() {
                bytes[self.place([channel, row, left + x])] = byte;
            }
        }
    }
}

/// A run in this mode.
pub(super) struct Int8Blocks<'a> {
    weights: &'a [ByteSigns],
    isa: Isa,
    bytes: Bytes,
    /// How far quads lie behind a position's base, by group of weights.
    offsets: Vec<Vec<usize>>,
    runs: Vec<Run>,
    step: usize,
    groups: usize,
}

impl<'a> Int8Blocks<'a> {
    pub(super) fn new(call: &Call<'_>, weights: &'a [ByteSigns]) -> Self {
        let bytes = Bytes::new(call, weights[0].along);
        let layout = bytes.layout();
        let [_, _, rows, columns] = call.output_shape;
        let ([down, across], [dilation, dilation_across]) =
            (call.options.stride, call.options.dilation);
        let offset = |&[channel, row, column]: &[usize; 3]| {
            layout.place([channel, row * dilation, column * dilation_across])
        };
        let quads = weights[0].quads.iter();
        let mut runs = Vec::new();
        for y in 0..rows {
            let run = |x: usize, count| Run {
                base: layout.place([0, y * down, x * across]),
                place: y * columns + x,
                count,
            };
            match layout.dilation {
                1 => runs.push(run(0, columns)),
                // Neighbours lie in other phases of the row.
                _ => runs.extend((0..columns).map(|x| run(x, 1))),
            }
        }
        Self {
            weights,
            isa: call.kernel.isa,
            offsets: quads
                .map(|quads| quads.iter().map(offset).collect())
                .collect(),
            runs,
            step: layout.next() * across,
            groups: call.options.groups,
            bytes,
        }
    }
}

impl Blocks for Int8Blocks<'_> {
    fn tiles(&self, group: usize) -> &Tiles {
        &self.weights[group].tiles
    }

    fn cost(&self) -> usize {
        self.weights.iter().map(|weight| weight.lines.len()).sum()
    }

    fn run<O: Output>(
        &self,
        [image, group, block]: [usize; 3],
        (part, parts): (usize, usize),
        output: O,
    ) {
        let part = self.runs.len() * part / parts..self.runs.len() * (part + 1) / parts;
        let len = self.bytes.len;
        self.isa.run(Products {
            signs: self.weights[group].signs(),
            block,
            bytes: &self.bytes.bytes[(image * self.groups + group) * len..][..len],
            offsets: &self.offsets,
            runs: &self.runs[part],
            step: self.step,
            scale: self.bytes.scales[image],
            output,
        });
    }
}
