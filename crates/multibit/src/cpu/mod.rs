//! Layers that compute from the packed form, on the CPU.
//!
//! The functions here check shapes and then call the scalar definition.

mod reference;

use crate::PackedWeight;

/// How a 2-D convolution slides over its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conv2dOptions {
    /// Steps of the kernel, `[height, width]`.
    pub stride: [usize; 2],
    /// Zeros around the input, `(before, after)` for `[height, width]`.
    pub padding: [(usize, usize); 2],
    /// Distance of neighbouring kernel elements, `[height, width]`.
    pub dilation: [usize; 2],
    /// Groups of channels that do not see each other; must divide inputs and outputs.
    pub groups: usize,
}

impl Default for Conv2dOptions {
    /// Stride 1, no padding, dilation 1, one group.
    fn default() -> Self {
        Self {
            stride: [1, 1],
            padding: [(0, 0); 2],
            dilation: [1, 1],
            groups: 1,
        }
    }
}

/// A linear layer, `y = x Ŵ + bias`.
///
/// Of each output, `y = bias + Σ over its groups and their bases of α·(Σ ±x)`, in f32: the signed
/// inputs are summed in the order of the row, those sums in the order of the rows, and the bias is
/// added last. A group of width 0 costs nothing.
///
/// # Shapes
/// - `input`: `[batch, d_in]`; the batch may be 0
/// - `weight`: `[d_in, d_out]`
/// - `bias`: `[d_out]`
/// - `output`: `[batch, d_out]`, written whole
///
/// # Panics
/// If the weight has another rank or its groups do not lie within outputs, or a slice has another
/// length.
pub fn linear(
    input: &[f32],
    batch: usize,
    weight: &PackedWeight,
    bias: Option<&[f32]>,
    output: &mut [f32],
) {
    let &[d_in, d_out] = weight.shape() else {
        panic!(
            "linear: `weight` has shape {:?}, but must be [d_in, d_out]",
            weight.shape()
        );
    };
    let out_axis = weight.grouping().axes()[0];
    assert_eq!(
        out_axis, 1,
        "linear: the groups of `weight` lie along axis {out_axis}, but d_out is axis 1"
    );
    assert_len(
        "linear",
        "input",
        input.len(),
        &[("batch", batch), ("d_in", d_in)],
    );
    assert_len(
        "linear",
        "output",
        output.len(),
        &[("batch", batch), ("d_out", d_out)],
    );
    if let Some(bias) = bias {
        assert_len("linear", "bias", bias.len(), &[("d_out", d_out)]);
    }
    reference::linear(input, batch, weight, bias, output);
}

/// A 2-D convolution (cross-correlation), zeros outside the input.
///
/// Each output is the sum that [`linear`] describes, over the patch of the input under the kernel
/// in the order of the weight's grouping. The padding contributes exactly 0.
///
/// # Shapes
/// - `input`: `[batch, channels_in, height, width]`; the batch may be 0
/// - `weight`: `[channels_out, channels_in / groups, kernel_height, kernel_width]`
/// - `bias`: `[channels_out]`
/// - `output`: [`conv2d_output_shape`], written whole
///
/// # Panics
/// If a shape does not fit, the groups of the weight do not lie within output channels, or a slice
/// has another length.
pub fn conv2d(
    input: &[f32],
    input_shape: [usize; 4],
    weight: &PackedWeight,
    bias: Option<&[f32]>,
    options: &Conv2dOptions,
    output: &mut [f32],
) {
    let shape = conv2d_output_shape(input_shape, weight.shape(), options);
    let out_axis = weight.grouping().axes()[0];
    assert_eq!(
        out_axis, 0,
        "conv2d: the groups of `weight` lie along axis {out_axis}, but channels_out is axis 0"
    );
    let axes = ["batch", "channels", "height", "width"];
    let named = |shape: [usize; 4]| [0, 1, 2, 3].map(|axis| (axes[axis], shape[axis]));
    assert_len("conv2d", "input", input.len(), &named(input_shape));
    assert_len("conv2d", "output", output.len(), &named(shape));
    if let Some(bias) = bias {
        assert_len("conv2d", "bias", bias.len(), &[("channels_out", shape[1])]);
    }
    reference::conv2d(input, input_shape, weight, bias, options, output, shape);
}

/// The shape of a convolution's output, `[batch, channels_out, height, width]`.
///
/// `(size + padding − dilation·(kernel − 1) − 1) / stride + 1` along each axis.
///
/// # Panics
/// If the weight has another rank, the channels do not fit the groups, a stride or a dilation is
/// 0, or the kernel is larger than the padded input.
pub fn conv2d_output_shape(
    input_shape: [usize; 4],
    weight_shape: &[usize],
    options: &Conv2dOptions,
) -> [usize; 4] {
    let &[channels_out, channels_in, kernel_height, kernel_width] = weight_shape else {
        panic!(
            "conv2d: `weight` has shape {weight_shape:?}, but must be [channels_out, \
             channels_in / groups, kernel_height, kernel_width]"
        );
    };
    let [batch, channels, height, width] = input_shape;
    let groups = options.groups;
    assert!(
        groups > 0 && channels_out.is_multiple_of(groups),
        "conv2d: {channels_out} channels_out do not fall into {groups} groups"
    );
    assert_eq!(
        channels,
        channels_in * groups,
        "conv2d: `input` has {channels} channels_in, `weight` {channels_in} in each of {groups} \
         groups"
    );
    let sizes = [
        ("height", height, kernel_height),
        ("width", width, kernel_width),
    ];
    let [height, width] = [0, 1].map(|axis| {
        let (name, size, kernel) = sizes[axis];
        let (stride, dilation) = (options.stride[axis], options.dilation[axis]);
        assert!(stride > 0, "conv2d: the stride of {name} is 0");
        assert!(dilation > 0, "conv2d: the dilation of {name} is 0");
        let padded = size + options.padding[axis].0 + options.padding[axis].1;
        let reach = dilation * (kernel - 1) + 1;
        assert!(
            padded >= reach,
            "conv2d: the kernel reaches over {reach} of {name}, but the padded input has {padded}"
        );
        (padded - reach) / stride + 1
    });
    [batch, channels_out, height, width]
}

fn assert_len(layer: &str, name: &str, found: usize, axes: &[(&str, usize)]) {
    let expected: usize = axes.iter().map(|(_, size)| size).product();
    assert_eq!(
        found, expected,
        "{layer}: `{name}` holds {found} values, but {axes:?} need {expected}"
    );
}
