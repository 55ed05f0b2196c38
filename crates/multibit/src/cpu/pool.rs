//! Max pooling, which commutes with the rising levels of multi-bit activations.

use super::generic::MaxPool;
use super::threads::{self, Shared};
use super::{Isa, Window, assert_len};

/// How a 2-D pooling window slides over its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pool2dOptions {
    /// Size of the window, `[height, width]`.
    pub kernel: [usize; 2],
    /// Steps of the window, `[height, width]`.
    pub stride: [usize; 2],
    /// Places around the input that are never the largest, on both sides of `[height, width]`.
    pub padding: [usize; 2],
    /// Distance of neighbouring places of the window, `[height, width]`.
    pub dilation: [usize; 2],
}

impl Pool2dOptions {
    /// `[height, width]` of the output.
    ///
    /// # Panics
    /// If a kernel, stride or dilation is 0, or the window is larger than the padded input.
    pub fn output_size(&self, input: [usize; 2]) -> [usize; 2] {
        [("height", 0), ("width", 1)].map(|(name, axis)| {
            let window = Window {
                owner: "max_pool2d: the window",
                axis: name,
                size: self.kernel[axis],
                stride: self.stride[axis],
                dilation: self.dilation[axis],
            };
            window.places(input[axis], (self.padding[axis], self.padding[axis]))
        })
    }
}

/// The largest value of each window; NaN if one is NaN, −∞ if all places are padding.
///
/// # Shapes
/// - `input`: `[planes, height, width]`, a plane being a channel of an image
/// - `output`: `[planes, height_out, width_out]` by [`Pool2dOptions::output_size`], written whole
///
/// # Panics
/// If a slice has another length, or as [`Pool2dOptions::output_size`].
pub fn max_pool2d(
    isa: Isa,
    input: &[f32],
    [planes, height, width]: [usize; 3],
    options: &Pool2dOptions,
    output: &mut [f32],
) {
    let [out_height, out_width] = options.output_size([height, width]);
    let axes = |height, width| [("planes", planes), ("height", height), ("width", width)];
    assert_len("max_pool2d", "input", input.len(), &axes(height, width));
    let out_axes = axes(out_height, out_width);
    assert_len("max_pool2d", "output", output.len(), &out_axes);
    if input.is_empty() {
        output.fill(f32::NEG_INFINITY);
        return;
    }
    let part = planes.div_ceil(threads::parts());
    let (plane, out_plane) = (height * width, out_height * out_width);
    let output = Shared::new(output);
    threads::for_each(planes.div_ceil(part), input.len() / 2, |task| {
        let first = task * part;
        let count = part.min(planes - first);
        isa.run(MaxPool {
            input: &input[first * plane..][..count * plane],
            size: [height, width],
            options,
            out_size: [out_height, out_width],
            // SAFETY: each task has planes of its own.
            output: unsafe { output.part(first * out_plane, count * out_plane) },
        });
    });
}
