//! Convolutions of activations that are bits already, and whose outputs may stay so.

use alloc::vec;

use super::{Call, Conv2dKernel, Layout};
use crate::cpu::generic::{Bitwise, Residual, ToPlanes};
use crate::cpu::reference::named;
use crate::cpu::simd::LANES;
use crate::cpu::threads::{self, Shared};
use crate::cpu::tiles::{Tiles, WORD};
use crate::cpu::{Affine, Conv2dOptions, Levels, Mode, Planes, assert_len};

impl Conv2dKernel {
    /// Whether the kernel works on [`Planes`] as they are; it computes with others too, but goes
    /// through values.
    pub fn takes_planes(&self) -> bool {
        self.groups == 1 && matches!(self.layout, Layout::Channels(_))
    }

    /// [`forward`](Self::forward) in bitwise arithmetic, of activations that are bits already.
    ///
    /// # Shapes
    /// - `affine`: `[channels_out]`
    /// - `output`: [`conv2d_output_shape`], written whole
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
        match &self.layout {
            Layout::Channels(tiles) if self.takes_planes() => {
                let out_shape = self.check(&mode, shape, affine, options);
                assert_len("conv2d", "output", output.len(), &named(out_shape));
                if output.is_empty() {
                    return;
                }
                let call = Call {
                    kernel: self,
                    input: &[],
                    input_shape: shape,
                    affine,
                    options,
                    output_shape: out_shape,
                    output: Shared::new(output),
                };
                call.bitwise_channels(tiles, input.levels(), input.words());
            }
            _ => {
                let mut values = vec![0.0; shape.iter().product()];
                input.unpack(self.isa, &mut values);
                self.forward(&mode, &values, shape, affine, options, output);
            }
        }
    }

    /// The same, then `+ residual`, then the nearest of `levels`: two layers and what lies between
    /// them as bits, without a value in f32.
    ///
    /// Equal to [`forward_planes`](Self::forward_planes), the sum with the residual's levels, and
    /// [`Planes::pack`], bit for bit.
    ///
    /// # Shapes
    /// - `residual`: [`conv2d_output_shape`]
    /// - `words`: [`Planes::len`] of [`conv2d_output_shape`] and `levels`, written whole
    ///
    /// # Panics
    /// As [`forward`](Self::forward), and if the residual has another shape.
    pub fn forward_to_planes<'b>(
        &self,
        input: &Planes<'_>,
        affine: &Affine<'_>,
        options: &Conv2dOptions,
        residual: Option<&Planes<'_>>,
        levels: &'b Levels,
        words: &'b mut [u32],
    ) -> Planes<'b> {
        let mode = Mode::Bitwise(input.levels().clone());
        let shape = self.check(&mode, input.shape(), affine, options);
        if let Some(residual) = residual {
            let found = residual.shape();
            assert_eq!(
                found, shape,
                "conv2d: `residual` has shape {found:?}, the output {shape:?}"
            );
        }
        let len = Planes::len(shape, levels);
        assert_eq!(words.len(), len, "conv2d: the output needs {len} words");
        match &self.layout {
            Layout::Channels(tiles) if self.takes_planes() => {
                if words.is_empty() {
                    return Planes::new(words, shape, levels);
                }
                let call = Call {
                    kernel: self,
                    input: &[],
                    input_shape: input.shape(),
                    affine,
                    options,
                    output_shape: shape,
                    output: Shared::new(&mut []),
                };
                match levels.bits() {
                    1 => call.to_planes::<1>(&tiles[0], input, residual, levels, words),
                    2 => call.to_planes::<2>(&tiles[0], input, residual, levels, words),
                    3 => call.to_planes::<3>(&tiles[0], input, residual, levels, words),
                    _ => call.to_planes::<4>(&tiles[0], input, residual, levels, words),
                }
                Planes::new(words, shape, levels)
            }
            _ => {
                let mut values = vec![0.0; shape.iter().product()];
                self.forward_planes(input, affine, options, &mut values);
                if let Some(residual) = residual {
                    let mut levels = vec![0.0; values.len()];
                    residual.unpack(self.isa, &mut levels);
                    for (y, x) in values.iter_mut().zip(levels) {
                        *y += x;
                    }
                }
                Planes::pack(self.isa, &values, shape, levels, words)
            }
        }
    }
}

impl Call<'_> {
    /// A task is a word of outputs of an image, at some of the positions.
    fn to_planes<const Q: usize>(
        &self,
        tiles: &Tiles,
        input: &Planes<'_>,
        residual: Option<&Planes<'_>>,
        levels: &Levels,
        words: &mut [u32],
    ) {
        let [images, _, height, width] = self.input_shape;
        let activations = input.levels();
        let classes = self.channel_classes(tiles, activations.bits() * height * width);
        let image_words = input.words().len() / images;
        let (blocks, pixels) = (tiles.blocks(), self.positions());
        let word_blocks = WORD / LANES;
        let out_words = blocks.div_ceil(word_blocks);
        let parts = threads::parts().div_ceil(images * out_words);
        let cost = 3 * activations.bits() * tiles.size() * images * pixels;
        let output = Shared::new(words);
        threads::for_each(images * out_words * parts, cost, |task| {
            let (part, word) = (task % parts, task / parts);
            let (image, first) = (word / out_words, word % out_words * word_blocks);
            let residual = residual.map(|planes| {
                let len = planes.levels().bits() * pixels;
                Residual {
                    words: &planes.words()[word * len..][..len],
                    levels: planes.levels(),
                }
            });
            for block in first..blocks.min(first + word_blocks) {
                // SAFETY: a task has a word of outputs and positions of its own.
                let output = unsafe {
                    ToPlanes::<Q>::new(
                        tiles.affine(block, self.affine),
                        tiles.lane_bits(block),
                        block == first,
                        residual,
                        levels,
                        &output,
                        [word * levels.bits() * pixels, pixels],
                    )
                };
                self.kernel.isa.run(Bitwise {
                    tiles,
                    block,
                    activations: &input.words()[image * image_words..][..image_words],
                    plane_stride: height * width,
                    reference: activations.reference(),
                    gammas: activations.coordinates(),
                    classes: &classes,
                    part: (part, parts),
                    output,
                });
            }
        });
    }
}
