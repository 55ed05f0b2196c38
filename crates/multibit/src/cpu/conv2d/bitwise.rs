//! Bitwise mode: activations packed once, then XOR and popcount.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::Call;
use super::blocks::Blocks;
use crate::cpu::generic::{Bitwise, Class, Classes, Output};
use crate::cpu::planes;
use crate::cpu::reference::place;
use crate::cpu::threads::{self, Shared};
use crate::cpu::tiles::Tiles;
use crate::cpu::{Isa, Levels};

/// Rows or columns of the output that see the same part of the kernel.
struct Strip {
    outputs: Vec<usize>,
    kernel: Range<usize>,
}

impl Call<'_> {
    /// Words of 32 channels, one word a pixel: `[image, group, word, plane, pixel]`.
    pub(super) fn pack_channels(&self, levels: &Levels) -> Vec<u32> {
        let [images, _, height, width] = self.input_shape;
        let channels = self.kernel.weight.shape()[1];
        let pixels = height * width;
        let words = images * self.options.groups * channels.div_ceil(32);
        let mut activations = vec![0; words * levels.bits() * pixels];
        let isa = self.kernel.isa;
        planes::pack(isa, self.input, channels, pixels, levels, &mut activations);
        activations
    }

    /// The blocks of a layer that works on words of 32 channels.
    pub(super) fn channel_blocks<'a>(
        &self,
        tiles: &'a [Tiles],
        levels: &'a Levels,
        activations: &'a [u32],
    ) -> BitwiseBlocks<'a> {
        let [.., height, width] = self.input_shape;
        let pixels = height * width;
        let classes = self.channel_classes(&tiles[0], levels.bits() * pixels);
        self.bitwise(tiles, levels, activations, pixels, classes)
    }

    /// Which words of the activations meet which lines, for each part of the border.
    fn channel_classes(&self, tiles: &Tiles, word_stride: usize) -> Classes {
        let [_, channels, _, kernel_width] = *self.kernel.weight.shape() else {
            unreachable!("a convolution has a kernel");
        };
        let words = channels.div_ceil(32);
        let (width, out_width) = (self.input_shape[3], self.output_shape[3]);
        let [(top, _), (left, _)] = self.options.padding;
        let [down, across] = self.options.stride;
        let by_place = tiles.groups > 1;
        let channels = channels as i32;
        let mut classes = Vec::new();
        for rows in self.strips(0) {
            for columns in self.strips(1) {
                let mut taps = vec![Vec::new(); tiles.groups];
                let mut counts = vec![0; tiles.groups];
                for y in rows.kernel.clone() {
                    for x in columns.kernel.clone() {
                        let place = y * kernel_width + x;
                        let group = if by_place { place } else { 0 };
                        let line = if by_place { 0 } else { place * words };
                        let row = (y * self.options.dilation[0]) as isize - top as isize;
                        let column = (x * self.options.dilation[1]) as isize - left as isize;
                        let offset = row * width as isize + column;
                        counts[group] += channels;
                        taps[group].extend(
                            (0..words)
                                .map(|word| (line + word, offset + (word * word_stride) as isize)),
                        );
                    }
                }
                let position = |&y: &usize, x: usize| {
                    let base = y * down * width + x * across;
                    (base as isize, y * out_width + x)
                };
                let mut positions = Vec::with_capacity(rows.outputs.len() * columns.outputs.len());
                for y in &rows.outputs {
                    positions.extend(columns.outputs.iter().map(|&x| position(y, x)));
                }
                classes.push(Class {
                    positions,
                    taps,
                    counts,
                    masks: Vec::new(),
                });
            }
        }
        Classes::new(classes)
    }

    /// The outputs along an axis by what they see of the kernel.
    fn strips(&self, axis: usize) -> Vec<Strip> {
        let size = self.input_shape[2 + axis];
        let kernel = self.kernel.weight.shape()[2 + axis];
        let mut strips: Vec<Strip> = Vec::new();
        for out in 0..self.output_shape[2 + axis] {
            let seen = |&k: &usize| place(self.options, axis, out, k, size).is_some();
            let first = (0..kernel).find(seen).unwrap_or(0);
            let last = (0..kernel).rev().find(seen).map_or(0, |k| k + 1);
            let kernel = first..last;
            match strips.iter_mut().find(|strip| strip.kernel == kernel) {
                Some(strip) => strip.outputs.push(out),
                None => strips.push(Strip {
                    outputs: vec![out],
                    kernel,
                }),
            }
        }
        strips
    }

    /// Any grouping: the bits under the kernel, once for each position, in the grouping's order:
    /// `[image, group, position, plane, word]`.
    pub(super) fn pack_all_patches(&self, tiles: &Tiles, levels: &Levels) -> Vec<u32> {
        let images = self.input_shape[0];
        let len = self.positions() * levels.bits() * tiles.groups * tiles.words;
        let mut activations = vec![0; images * self.options.groups * len];
        let shared = Shared::new(&mut activations);
        let cost = self.positions() * images * self.kernel.patch.len() * self.options.groups;
        threads::for_each(images * self.options.groups, cost, |task| {
            let (group, image) = (task % self.options.groups, task / self.options.groups);
            // SAFETY: each task has words of its own.
            let words = unsafe { shared.part(task * len, len) };
            self.pack_patches(image, group, tiles, levels, words);
        });
        activations
    }

    /// The blocks of a layer that works on patches.
    pub(super) fn patch_blocks<'a>(
        &self,
        tiles: &'a [Tiles],
        levels: &'a Levels,
        activations: &'a [u32],
    ) -> BitwiseBlocks<'a> {
        let row_words = tiles[0].groups * tiles[0].words;
        let classes = self.patch_classes(&tiles[0], levels.bits() * row_words);
        self.bitwise(tiles, levels, activations, row_words, classes)
    }

    fn pack_patches(
        &self,
        image: usize,
        group: usize,
        tiles: &Tiles,
        levels: &Levels,
        words: &mut [u32],
    ) {
        let [.., height, width] = self.input_shape;
        let out_width = self.output_shape[3];
        let codes: Vec<u8> = self
            .channels(image, group)
            .iter()
            .map(|&x| levels.code(levels.rank(x)))
            .collect();
        let row_words = tiles.groups * tiles.words;
        let rows = words.chunks_exact_mut(levels.bits() * row_words);
        for (position, planes) in rows.enumerate() {
            for (j, &[c, y, x]) in self.kernel.patch.iter().enumerate() {
                let y = place(self.options, 0, position / out_width, y, height);
                let x = place(self.options, 1, position % out_width, x, width);
                if let (Some(y), Some(x)) = (y, x) {
                    let code = codes[(c * height + y) * width + x];
                    let (word, bit) = patch_bit(tiles, j);
                    for (plane, words) in planes.chunks_exact_mut(row_words).enumerate() {
                        words[word] |= u32::from(code >> plane & 1) << bit;
                    }
                }
            }
        }
    }

    fn patch_classes(&self, tiles: &Tiles, position_stride: usize) -> Classes {
        let out_width = self.output_shape[3];
        let mut classes = Vec::new();
        for rows in self.strips(0) {
            for columns in self.strips(1) {
                let mut masks = vec![vec![0; tiles.words]; tiles.groups];
                let mut counts = vec![0; tiles.groups];
                for (j, [_, y, x]) in self.kernel.patch.iter().enumerate() {
                    if rows.kernel.contains(y) && columns.kernel.contains(x) {
                        let (word, bit) = patch_bit(tiles, j);
                        let group = word / tiles.words;
                        masks[group][word % tiles.words] |= 1 << bit;
                        counts[group] += 1;
                    }
                }
                let taps = (0..tiles.groups).map(|group| {
                    let word = |word| (word, (group * tiles.words + word) as isize);
                    (0..tiles.words).map(word).collect()
                });
                let positions = rows.outputs.iter().flat_map(|y| {
                    let places = columns.outputs.iter().map(move |x| y * out_width + x);
                    places.map(|place| ((place * position_stride) as isize, place))
                });
                classes.push(Class {
                    positions: positions.collect(),
                    taps: taps.collect(),
                    counts,
                    masks,
                });
            }
        }
        Classes::new(classes)
    }

    fn bitwise<'a>(
        &self,
        tiles: &'a [Tiles],
        levels: &'a Levels,
        activations: &'a [u32],
        plane_stride: usize,
        classes: Classes,
    ) -> BitwiseBlocks<'a> {
        BitwiseBlocks {
            tiles,
            levels,
            activations,
            image_words: activations.len() / (self.input_shape[0] * tiles.len()),
            plane_stride,
            classes,
            isa: self.kernel.isa,
        }
    }
}

/// A run in this mode.
pub(super) struct BitwiseBlocks<'a> {
    tiles: &'a [Tiles],
    levels: &'a Levels,
    activations: &'a [u32],
    /// The words of an image and a group.
    image_words: usize,
    plane_stride: usize,
    classes: Classes,
    isa: Isa,
}

impl Blocks for BitwiseBlocks<'_> {
    fn tiles(&self, group: usize) -> &Tiles {
        &self.tiles[group]
    }

    fn cost(&self) -> usize {
        3 * self.levels.bits() * self.tiles.iter().map(Tiles::size).sum::<usize>()
    }

    fn run<O: Output>(&self, [image, group, block]: [usize; 3], part: (usize, usize), output: O) {
        let first = (image * self.tiles.len() + group) * self.image_words;
        self.isa.run(Bitwise {
            tiles: &self.tiles[group],
            block,
            activations: &self.activations[first..][..self.image_words],
            plane_stride: self.plane_stride,
            reference: self.levels.reference(),
            gammas: self.levels.coordinates(),
            classes: &self.classes,
            part,
            output,
        });
    }
}

/// Word and bit of weight `j` of a patch whose groups begin on a new word.
fn patch_bit(tiles: &Tiles, j: usize) -> (usize, usize) {
    let (group, j) = (j / tiles.len, j % tiles.len);
    (group * tiles.words + j / 32, j % 32)
}
