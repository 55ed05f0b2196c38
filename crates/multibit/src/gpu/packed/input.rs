//! Where a layer's input lies: a row of a matrix, or the patch under a kernel.

use cubecl::prelude::*;

use super::weight::DeviceWeight;
use crate::cpu::{Conv2dOptions, conv2d_output_shape};

/// How positions of the output and weights meet inputs. A linear layer is one of `channels` inputs
/// and one position a row.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Window {
    channels: u32,
    height: u32,
    width: u32,
    /// Channels that one output sees.
    group_in: u32,
    stride_y: u32,
    stride_x: u32,
    padding_y: u32,
    padding_x: u32,
    dilation_y: u32,
    dilation_x: u32,
    /// Width of the output.
    out_width: u32,
    /// Positions of an image.
    pub pixels: u32,
    /// Positions of all images.
    pub positions: u32,
}

/// A place in the input, or in the padding.
#[derive(CubeType)]
pub(super) struct Place {
    pub inside: bool,
    pub image: u32,
    pub channel: u32,
    pub pixel: u32,
}

#[cube]
impl Window {
    /// The input that weight `k` of a group of channels meets at a position.
    pub fn place(
        &self,
        patch: &[u32],
        k: u32,
        position: u32,
        group: u32,
        #[comptime] conv: bool,
    ) -> Place {
        if comptime!(conv) {
            let image = position / self.pixels;
            let pixel = position % self.pixels;
            let kernel = patch[(2u32 * k + 1u32) as usize];
            let row = pixel / self.out_width * self.stride_y + (kernel >> 16u32) * self.dilation_y;
            let column =
                pixel % self.out_width * self.stride_x + (kernel & 0xFFFFu32) * self.dilation_x;
            // A place before the input is below 0, which wraps around.
            let y = row - self.padding_y;
            let x = column - self.padding_x;
            Place {
                inside: y < self.height && x < self.width,
                image,
                channel: group * self.group_in + patch[(2u32 * k) as usize],
                pixel: y * self.width + x,
            }
        } else {
            Place {
                inside: true.runtime(),
                image: position,
                channel: k,
                pixel: 0u32.runtime(),
            }
        }
    }

    /// The index of a place among values `[image, channel, pixel]`.
    pub fn value(&self, place: &Place) -> usize {
        let plane = place.image * self.channels + place.channel;
        (plane * (self.height * self.width) + place.pixel) as usize
    }

    /// The index of its word among planes `[image, ⌈channels / 32⌉, bits, pixel]`.
    pub fn word(&self, place: &Place, plane: u32, #[comptime] bits: usize) -> usize {
        let words = place.image * self.channels.div_ceil(32u32) + place.channel / 32u32;
        let plane = words * comptime!(bits as u32) + plane;
        (plane * (self.height * self.width) + place.pixel) as usize
    }

    /// The index of an output.
    pub fn output(&self, position: u32, output: u32, outputs: u32) -> usize {
        let image = position / self.pixels;
        ((image * outputs + output) * self.pixels + position % self.pixels) as usize
    }
}

/// The input of a layer, on the host.
pub(super) struct Input {
    /// `[batch, channels, height, width]`.
    pub shape: [usize; 4],
    /// Positions of an image.
    pub pixels: usize,
    /// Groups of channels.
    pub groups: usize,
    pub conv: bool,
    options: Conv2dOptions,
    out_width: usize,
}

impl Input {
    /// Rows of a matrix `[batch, d_in]`.
    pub fn linear(batch: usize, weight: &DeviceWeight) -> Self {
        Self {
            shape: [batch, weight.inputs(), 1, 1],
            pixels: 1,
            groups: 1,
            conv: false,
            options: Conv2dOptions::default(),
            out_width: 1,
        }
    }

    /// Images that a convolution slides over.
    ///
    /// # Panics
    /// As [`conv2d_output_shape`], or if an extent of the kernel does not fit 16 bits.
    pub fn conv2d(shape: [usize; 4], weight: &DeviceWeight, options: &Conv2dOptions) -> Self {
        let [.., height, width] = conv2d_output_shape(shape, weight.shape(), options);
        let kernel = &weight.shape()[2..];
        assert!(
            kernel.iter().all(|&size| size < 1 << 16),
            "conv2d: a kernel of {kernel:?} is larger than kernels for GPUs can be"
        );
        Self {
            shape,
            pixels: height * width,
            groups: options.groups,
            conv: true,
            options: *options,
            out_width: width,
        }
    }

    /// Positions of all images.
    pub fn positions(&self) -> usize {
        self.shape[0] * self.pixels
    }

    /// Elements of the input.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// # Panics
    /// If the input or output has 2³² elements or more.
    pub fn window(&self, weight: &DeviceWeight) -> WindowLaunch {
        let [_, channels, height, width] = self.shape;
        let largest = self.len().max(self.positions() * weight.outputs());
        assert!(
            u32::try_from(largest).is_ok(),
            "a layer with {largest} inputs or outputs is larger than kernels for GPUs can index"
        );
        let Conv2dOptions {
            stride,
            padding,
            dilation,
            ..
        } = self.options;
        let window = [
            channels,
            height,
            width,
            channels / self.groups,
            stride[0],
            stride[1],
            padding[0].0,
            padding[1].0,
            dilation[0],
            dilation[1],
            self.out_width,
            self.pixels,
            self.positions(),
        ];
        let [a, b, c, d, e, f, g, h, i, j, k, l, m] = window.map(|x| x as u32);
        WindowLaunch::new(a, b, c, d, e, f, g, h, i, j, k, l, m)
    }
}
