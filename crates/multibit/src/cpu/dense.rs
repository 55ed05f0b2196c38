//! Convolutions of dense weights in f32, forward and backward: what training on a CPU takes most of its
//! time for.
//!
//! Each is a product of matrices, image by image, of which one holds the image's patches; a tile of some
//! rows of the output at a time, so that it stays in the second cache. Nothing changes its layout: outputs
//! and gradients are written where they belong.

use alloc::vec;
use core::ops::Range;

use super::generic::{Product, pack_panels, panels_len};
use super::simd::LANES;
use super::threads::{self, Shared};
use super::{Conv2dOptions, Isa, assert_len, conv2d_output_shape};

/// Numbers of a tile of patches, about.
const TILE: usize = 1 << 16;

/// Parts that a batch's gradient is summed in, whatever the number of threads: sums do not depend on it.
const PARTS: usize = 8;

/// A 2-D convolution of a dense weight with inputs of a shape, without groups of channels.
#[derive(Debug, Clone)]
pub struct DenseConv2d {
    input: [usize; 4],
    weight: [usize; 4],
    output: [usize; 4],
    options: Conv2dOptions,
}

impl DenseConv2d {
    /// A convolution of inputs `[batch, channels_in, height, width]` by a weight `[channels_out, channels_in,
    /// kernel_height, kernel_width]`.
    ///
    /// # Panics
    /// If the shapes do not fit each other, or the options ask for groups.
    pub fn new(input: [usize; 4], weight: [usize; 4], options: &Conv2dOptions) -> Self {
        assert_eq!(options.groups, 1, "dense conv2d: it has no groups");
        Self {
            input,
            weight,
            output: conv2d_output_shape(input, &weight, options),
            options: *options,
        }
    }

    /// The shape of the output, `[batch, channels_out, height_out, width_out]`.
    pub fn output_shape(&self) -> [usize; 4] {
        self.output
    }

    /// The output; sums are in f32, in an order of their own.
    ///
    /// # Shapes
    /// - `input`: `[batch, channels_in, height, width]`
    /// - `weight`: `[channels_out, channels_in, kernel_height, kernel_width]`
    /// - `output`: as [`output_shape`](Self::output_shape), written whole
    ///
    /// # Panics
    /// If a slice has another length.
    pub fn forward(&self, isa: Isa, input: &[f32], weight: &[f32], output: &mut [f32]) {
        self.check([input, weight, output]);
        let [outputs, patch] = [self.weight[0], self.patch()];
        let mut a = vec![0.0; panels_len(outputs, patch)];
        pack_panels(outputs, patch, &mut a, |row, k| weight[row * patch + k]);
        let (image, result) = (self.image(), self.result());
        let output = Shared::new(output);
        let room = || vec![0.0; patch * self.tile_width(patch)];
        threads::for_each_with(self.output[0], self.cost(), room, |columns, number| {
            let input = &input[number * image..][..image];
            // SAFETY: each task has an image of its own.
            let output = unsafe { output.part(number * result, result) };
            for rows in self.tiles(patch) {
                let places = rows.len() * self.output[3];
                let width = places.next_multiple_of(LANES);
                self.columns(input, rows.clone(), width, columns);
                isa.run(Product {
                    a: &a,
                    b: columns,
                    width,
                    c: &mut output[rows.start * self.output[3]..],
                    stride: self.places(),
                    size: [outputs, places],
                    inner: patch,
                    add: false,
                });
            }
        });
    }

    /// The gradient of a loss with regard to the input, of that with regard to the output.
    ///
    /// # Shapes
    /// - `weight`: `[channels_out, channels_in, kernel_height, kernel_width]`
    /// - `grad`: as [`output_shape`](Self::output_shape)
    /// - `input_grad`: `[batch, channels_in, height, width]`, written whole
    ///
    /// # Panics
    /// If a slice has another length.
    pub fn input_grad(&self, isa: Isa, weight: &[f32], grad: &[f32], input_grad: &mut [f32]) {
        self.check([input_grad, weight, grad]);
        let [outputs, patch] = [self.weight[0], self.patch()];
        let mut a = vec![0.0; panels_len(patch, outputs)];
        pack_panels(patch, outputs, &mut a, |row, k| weight[k * patch + row]);
        let (image, result, places) = (self.image(), self.result(), self.places());
        let input_grad = Shared::new(input_grad);
        let tile = self.tile_width(patch);
        let room = || (vec![0.0; patch * tile], vec![0.0; outputs * tile]);
        threads::for_each_with(self.output[0], self.cost(), room, |(columns, b), number| {
            let grad = &grad[number * result..][..result];
            // SAFETY: each task has an image of its own.
            let input_grad = unsafe { input_grad.part(number * image, image) };
            input_grad.fill(0.0);
            for rows in self.tiles(patch) {
                let part = rows.start * self.output[3]..rows.end * self.output[3];
                let width = part.len().next_multiple_of(LANES);
                let channels = grad.chunks_exact(places);
                for (to, channel) in b.chunks_exact_mut(width).zip(channels) {
                    to[..part.len()].copy_from_slice(&channel[part.clone()]);
                }
                isa.run(Product {
                    a: &a,
                    b: &b[..outputs * width],
                    width,
                    c: columns,
                    stride: width,
                    size: [patch, width],
                    inner: outputs,
                    add: false,
                });
                self.add_columns(columns, rows, width, input_grad);
            }
        });
    }

    /// The gradient of a loss with regard to the weight, of that with regard to the output.
    ///
    /// # Shapes
    /// - `input`: `[batch, channels_in, height, width]`
    /// - `grad`: as [`output_shape`](Self::output_shape)
    /// - `weight_grad`: `[channels_out, channels_in, kernel_height, kernel_width]`, written whole
    ///
    /// # Panics
    /// If a slice has another length.
    pub fn weight_grad(&self, isa: Isa, input: &[f32], grad: &[f32], weight_grad: &mut [f32]) {
        self.check([input, weight_grad, grad]);
        let [outputs, patch] = [self.weight[0], self.patch()];
        let (image, result, places) = (self.image(), self.result(), self.places());
        let width = patch.next_multiple_of(LANES);
        let part = outputs * width;
        let mut sums = vec![0.0; PARTS * part];
        let shared = Shared::new(&mut sums);
        let tile = self.tile_width(width);
        let room = || {
            let a = vec![0.0; panels_len(outputs, tile)];
            (vec![0.0; image], vec![0.0; tile * width], a)
        };
        let batch = self.output[0];
        threads::for_each_with(PARTS, self.cost(), room, |(channels_last, b, a), task| {
            // SAFETY: each task has sums of its own.
            let sums = unsafe { shared.part(task * part, part) };
            for number in task * batch / PARTS..(task + 1) * batch / PARTS {
                self.to_channels_last(&input[number * image..][..image], channels_last);
                let grad = &grad[number * result..][..result];
                for rows in self.tiles(width) {
                    let first = rows.start * self.output[3];
                    let inner = rows.len() * self.output[3];
                    self.patches(channels_last, rows, width, b);
                    let a = &mut a[..panels_len(outputs, inner)];
                    pack_panels(outputs, inner, a, |row, k| grad[row * places + first + k]);
                    isa.run(Product {
                        a,
                        b: &b[..inner * width],
                        width,
                        c: sums,
                        stride: width,
                        size: [outputs, patch],
                        inner,
                        add: true,
                    });
                }
            }
        });
        let [_, channels, height, kernel_width] = self.weight;
        let kernel = height * kernel_width;
        for (at, to) in weight_grad.iter_mut().enumerate() {
            let (output, channel, place) = (at / patch, at % patch / kernel, at % kernel);
            let from = output * width + place * channels + channel;
            *to = (0..PARTS).map(|task| sums[task * part + from]).sum();
        }
    }

    /// Inputs that an output sees.
    fn patch(&self) -> usize {
        self.weight[1..].iter().product()
    }

    /// Numbers of an image of the input.
    fn image(&self) -> usize {
        self.input[1..].iter().product()
    }

    /// Numbers of an image of the output.
    fn result(&self) -> usize {
        self.output[1..].iter().product()
    }

    /// Places of an image of the output.
    fn places(&self) -> usize {
        self.output[2] * self.output[3]
    }

    /// Vector operations, about.
    fn cost(&self) -> usize {
        self.output.iter().product::<usize>() * self.patch() / LANES
    }

    /// Rows of the output in a tile, of so many numbers a place.
    fn tile_rows(&self, numbers: usize) -> usize {
        let row = self.output[3] * numbers;
        (TILE / row.max(1)).clamp(1, self.output[2].max(1))
    }

    /// Places of a tile, whole vectors.
    fn tile_width(&self, numbers: usize) -> usize {
        (self.tile_rows(numbers) * self.output[3]).next_multiple_of(LANES)
    }

    /// The rows of each tile.
    fn tiles(&self, numbers: usize) -> impl Iterator<Item = Range<usize>> {
        let (height, rows) = (self.output[2], self.tile_rows(numbers));
        let first = (0..height).step_by(rows);
        first.map(move |first| first..height.min(first + rows))
    }

    /// Where a kernel's element looks, of an output's place along an axis; none outside.
    fn looks_at(&self, axis: usize, place: usize, element: usize) -> Option<usize> {
        let [stride, dilation] = [self.options.stride[axis], self.options.dilation[axis]];
        let at = place * stride + element * dilation;
        let at = at.checked_sub(self.options.padding[axis].0)?;
        (at < self.input[2 + axis]).then_some(at)
    }

    /// The places along a row of the output whose element `x` lies inside the input, and where that of the
    /// first does.
    fn inside(&self, x: usize) -> (Range<usize>, usize) {
        let inside = |place: &usize| self.looks_at(1, *place, x).is_some();
        let width = self.output[3];
        let first = (0..width).find(inside).unwrap_or(width);
        let end = (first..width).rfind(inside).map_or(first, |last| last + 1);
        (first..end, self.looks_at(1, first, x).unwrap_or(0))
    }

    /// Calls `each(first, places, image)` for each row of the output in the columns: where its places begin in
    /// them, which of these see the input, and where the first of those does; none where no one does.
    #[inline(always)]
    fn each_row(
        &self,
        rows: Range<usize>,
        width: usize,
        mut each: impl FnMut(usize, Range<usize>, Option<usize>),
    ) {
        let [_, channels, height, row_len] = self.input;
        let [_, _, kernel_height, kernel_width] = self.weight;
        let mut column = 0;
        for channel in 0..channels {
            for y in 0..kernel_height {
                for x in 0..kernel_width {
                    let (inside, start) = self.inside(x);
                    let mut first = column * width;
                    for row in rows.clone() {
                        let from = self.looks_at(0, row, y);
                        let from = from.map(|y| (channel * height + y) * row_len + start);
                        each(first, inside.clone(), from);
                        first += self.output[3];
                    }
                    column += 1;
                }
            }
        }
    }

    /// The inputs of some rows of the output, `[channels_in, kernel_height, kernel_width, width]`, places in
    /// rows of whole vectors.
    fn columns(&self, image: &[f32], rows: Range<usize>, width: usize, to: &mut [f32]) {
        let (out_width, stride) = (self.output[3], self.options.stride[1]);
        self.each_row(rows, width, |first, inside, from| {
            let to = &mut to[first..][..out_width];
            let Some(from) = from else {
                to.fill(0.0);
                return;
            };
            to[..inside.start].fill(0.0);
            to[inside.end..].fill(0.0);
            let (to, from) = (&mut to[inside], &image[from..]);
            match stride {
                1 => to.copy_from_slice(&from[..to.len()]),
                _ => {
                    let from = from.iter().step_by(stride);
                    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                }
            }
        });
    }

    /// Adds [`columns`](Self::columns) to where they come from.
    fn add_columns(&self, from: &[f32], rows: Range<usize>, width: usize, image: &mut [f32]) {
        let stride = self.options.stride[1];
        self.each_row(rows, width, |first, inside, to| {
            let Some(to) = to else { return };
            let from = &from[first + inside.start..first + inside.end];
            let to = &mut image[to..];
            match stride {
                1 => {
                    let to = to[..from.len()].iter_mut();
                    to.zip(from).for_each(|(to, from)| *to += from);
                }
                _ => {
                    let to = to.iter_mut().step_by(stride);
                    to.zip(from).for_each(|(to, from)| *to += from);
                }
            }
        });
    }

    /// `[channels_in, height, width]` → `[height, width, channels_in]`.
    fn to_channels_last(&self, image: &[f32], to: &mut [f32]) {
        let [_, channels, height, width] = self.input;
        for (place, to) in to.chunks_exact_mut(channels).enumerate() {
            let from = image.iter().skip(place).step_by(height * width);
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
    }

    /// The inputs of some rows of the output, `[places, kernel_height, kernel_width, channels_in]`, in rows of
    /// whole vectors.
    fn patches(&self, image: &[f32], rows: Range<usize>, width: usize, to: &mut [f32]) {
        let [_, channels, _, row_len] = self.input;
        let [_, _, kernel_height, kernel_width] = self.weight;
        let places = rows.flat_map(|row| (0..self.output[3]).map(move |column| (row, column)));
        for (to, (row, column)) in to.chunks_exact_mut(width).zip(places) {
            let mut elements = to.chunks_exact_mut(channels);
            for y in 0..kernel_height {
                let y = self.looks_at(0, row, y);
                for (x, to) in (0..kernel_width).zip(&mut elements) {
                    match (y, self.looks_at(1, column, x)) {
                        (Some(y), Some(x)) => {
                            let from = (y * row_len + x) * channels;
                            to.copy_from_slice(&image[from..][..channels]);
                        }
                        _ => to.fill(0.0),
                    }
                }
            }
        }
    }

    fn check(&self, slices: [&[f32]; 3]) {
        let shapes = [self.input, self.weight, self.output];
        let names = ["input", "weight", "output"];
        for ((name, shape), slice) in names.into_iter().zip(shapes).zip(slices) {
            let axes = ["first", "second", "third", "fourth"];
            let axes: [(&str, usize); 4] = core::array::from_fn(|axis| (axes[axis], shape[axis]));
            assert_len("dense conv2d", name, slice.len(), &axes);
        }
    }
}
