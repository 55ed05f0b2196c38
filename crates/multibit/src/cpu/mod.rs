//! Layers on packed weights, on CPUs.
//!
//! The functions here check shapes, then compute. [`reference`] is the definition that every faster
//! kernel is judged by.

pub mod reference;

use crate::packed::PackedWeight;

/// Options of a 2-D convolution; pairs are `[height, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// Steps between outputs.
    pub stride: [usize; 2],
    /// Zeros before and after each axis.
    pub padding: [(usize, usize); 2],
    /// Steps between the weights of a kernel.
    pub dilation: [usize; 2],
    /// Groups of channels that see each other only.
    pub groups: usize,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Self {
            stride: [1, 1],
            padding: [(0, 0), (0, 0)],
            dilation: [1, 1],
            groups: 1,
        }
    }
}

/// `y = x Ŵ + b` with a packed weight.
///
/// # Shapes
/// - input: `[batch, d_in]`
/// - weight: `[d_in, d_out]`
/// - bias: `[d_out]`
/// - output: `[batch, d_out]`
///
/// # Panics
/// If a shape does not fit, or the weight's groups do not lie along its inputs.
pub fn linear(
    input: &[f32],
    batch: usize,
    weight: &PackedWeight,
    bias: Option<&[f32]>,
    output: &mut [f32],
) {
    let &[d_in, d_out] = weight.shape() else {
        panic!("linear: a weight of rank 2, not {:?}", weight.shape());
    };
    assert_eq!(
        weight.grouping().axes(),
        [1, 0],
        "linear: groups along the inputs"
    );
    assert_eq!(
        input.len(),
        batch * d_in,
        "linear: axis 1 of the input must be {d_in}"
    );
    assert_eq!(
        output.len(),
        batch * d_out,
        "linear: axis 1 of the output must be {d_out}"
    );
    if let Some(bias) = bias {
        assert_eq!(
            bias.len(),
            d_out,
            "linear: axis 0 of the bias must be {d_out}"
        );
    }
    reference::linear(input, weight, bias, output);
}

/// Shape of the output of [`conv2d`], `[batch, out, h_out, w_out]`.
///
/// # Panics
/// If the shapes or options do not fit.
pub fn conv2d_output_shape(
    input: [usize; 4],
    weight: &[usize],
    options: &Conv2dOptions,
) -> [usize; 4] {
    let &[out, group_in, kernel_h, kernel_w] = weight else {
        panic!("conv2d: a weight of rank 4, not {weight:?}");
    };
    let [batch, channels, ..] = input;
    let groups = options.groups;
    assert!(
        groups > 0 && out.is_multiple_of(groups),
        "conv2d: {groups} groups of {out} outputs"
    );
    assert_eq!(
        channels,
        group_in * groups,
        "conv2d: axis 1 of the input must be {}",
        group_in * groups
    );
    let size = |axis: usize, kernel: usize| {
        let (before, after) = options.padding[axis];
        let (stride, dilation) = (options.stride[axis], options.dilation[axis]);
        assert!(
            stride > 0 && dilation > 0,
            "conv2d: stride and dilation of axis {axis} must not be 0"
        );
        let padded = input[2 + axis] + before + after;
        let covered = dilation * (kernel - 1) + 1;
        assert!(
            padded >= covered,
            "conv2d: axis {} of the input is smaller than the kernel",
            2 + axis
        );
        (padded - covered) / stride + 1
    };
    [batch, out, size(0, kernel_h), size(1, kernel_w)]
}

/// 2-D convolution with a packed weight.
///
/// # Shapes
/// - input: `[batch, in, h, w]`, given as `input_shape`
/// - weight: `[out, in / groups, k_h, k_w]`
/// - bias: `[out]`
/// - output: [`conv2d_output_shape`]
///
/// # Panics
/// If a shape does not fit, or the output is not the weight's first axis in its grouping.
pub fn conv2d(
    input: &[f32],
    input_shape: [usize; 4],
    weight: &PackedWeight,
    bias: Option<&[f32]>,
    options: &Conv2dOptions,
    output: &mut [f32],
) {
    let shape = conv2d_output_shape(input_shape, weight.shape(), options);
    assert_eq!(
        weight.grouping().axes()[0],
        0,
        "conv2d: groups within an output"
    );
    assert_eq!(
        input.len(),
        input_shape.iter().product(),
        "conv2d: elements of the input"
    );
    assert_eq!(
        output.len(),
        shape.iter().product(),
        "conv2d: elements of the output"
    );
    if let Some(bias) = bias {
        assert_eq!(
            bias.len(),
            shape[1],
            "conv2d: axis 0 of the bias must be {}",
            shape[1]
        );
    }
    reference::conv2d(input, input_shape, weight, bias, options, output, shape);
}
