//! Steps and their tensors → shapes, and what computes each step.

use alloc::vec::Vec;

use super::scalar::Way;
use super::{
    BITWISE, Conv2d, FUNCTIONS, INT8, LevelState, PlanError, Planned, Shape, StepError, Value,
    Weights, Work,
};
use crate::cpu::{
    Activation, Arithmetic, Conv2dOptions, KernelError, Ladder, MAX_ACTIVATION_BITS, Pool2dOptions,
};
use crate::file::{FileWeight, Input, Layer, Op, PackedFile, Step};

/// Places of the kernel of a convolution at most.
const MOST_PLACES: usize = 1 << 12;

/// Adds the steps with the values that they take, and gives all values.
pub(super) fn plan<'f>(
    file: &'f PackedFile<'_>,
    input: &Input,
    steps: &mut Vec<Planned<'f>>,
) -> Result<Vec<Value>, PlanError> {
    let chain = &file.about().chain;
    let shape = match input.shape[..] {
        [channels, height, width] => Shape::Image([channels, height, width]),
        // One channel of signals, as burn-alq's convolutions of one dimension see them.
        [channels, width] => Shape::Image([channels, 1, width]),
        _ => Shape::Features(input.len()),
    };
    let mut values = Vec::with_capacity(chain.len() + 1);
    values.push(Value {
        shape,
        levels: None,
    });
    for (index, step) in chain.iter().enumerate() {
        // The reader has seen that values and tensors are there.
        let input = step.input.unwrap_or(index);
        let planned = of(file, step, &values, values[input]);
        let (work, value) = planned.map_err(|source| PlanError::Step {
            step: index + 1,
            name: name(&step.op),
            source,
        })?;
        if value.shape.len().is_none() {
            return Err(PlanError::TooLarge);
        }
        steps.push(Planned {
            input,
            work,
            scratch: 0..0,
        });
        values.push(value);
    }
    fuse(steps);
    Ok(values)
}

fn name(op: &Op<usize>) -> &'static str {
    match op {
        Op::Linear(_) => "linear",
        Op::Conv2d(..) => "conv2d",
        Op::MaxPool2d(_) => "max_pool2d",
        Op::AvgPool2d(_) | Op::GlobalAvgPool2d => "avg_pool2d",
        Op::Flatten => "flatten",
        Op::Activation(_) => "activation",
        Op::Levels(_) => "levels",
        Op::Add(_) => "add",
    }
}

fn image(shape: Shape) -> Result<[usize; 3], StepError> {
    match shape {
        Shape::Image(size) => Ok(size),
        Shape::Features(_) => Err(StepError::Rank {
            expected: "[channels, height, width]",
        }),
    }
}

/// What a step does, and the value that it makes.
fn of<'f>(
    file: &'f PackedFile<'_>,
    step: &'f Step<usize>,
    values: &[Value],
    input: Value,
) -> Result<(Work<'f>, Value), StepError> {
    let value = |shape, levels| Value { shape, levels };
    Ok(match &step.op {
        Op::Linear(layer) => {
            let Shape::Features(found) = input.shape else {
                let expected = "[features]";
                return Err(StepError::Rank { expected });
            };
            let (weight, weights) = weights(file, layer, 1, 2, input)?;
            let sizes = [weight.shape()[0], weight.shape()[1]];
            same("features", found, sizes[0])?;
            let shape = Shape::Features(sizes[1]);
            (Work::Linear(weights, sizes), value(shape, None))
        }
        Op::Conv2d(layer, options) => {
            let from = image(input.shape)?;
            let (weight, weights) = weights(file, layer, 0, 4, input)?;
            let &[outputs, inputs, height, width] = weight.shape() else {
                unreachable!("its rank was checked")
            };
            let groups = options.groups;
            if groups == 0 || !outputs.is_multiple_of(groups) {
                return Err(StepError::Groups { outputs, groups });
            }
            same("channels", from[0], inputs.checked_mul(groups).unwrap_or(0))?;
            // So that what a kernel's places take is little, whatever a file claims.
            if height
                .checked_mul(width)
                .is_none_or(|places| places > MOST_PLACES)
            {
                let axis = "height and width";
                return Err(StepError::Window { axis });
            }
            let [out_height, out_width] = slide(from, [height, width], options)?;
            let to = [outputs, out_height, out_width];
            let shape = Shape::Image(to);
            // Its bytes must be a number before anything is counted.
            if shape.len().is_none() {
                return Ok((Work::Nothing, value(shape, None)));
            }
            let bits = weights.levels.map_or(0, |levels| levels.bits);
            let way = Way::of(weight, options, weights.arithmetic, bits, [from, to]);
            let conv = Conv2d {
                weights,
                options,
                from,
                to,
                way,
                pool: None,
            };
            (Work::Conv2d(conv), value(shape, None))
        }
        Op::MaxPool2d(options) => {
            let (size, shape) = pool(input, options)?;
            (Work::MaxPool2d(options, size), value(shape, input.levels))
        }
        Op::AvgPool2d(options) => {
            let (size, shape) = pool(input, options)?;
            (Work::AvgPool2d(*options, size), value(shape, None))
        }
        Op::GlobalAvgPool2d => {
            let [_, height, width] = image(input.shape)?;
            let options = Pool2dOptions {
                kernel: [height, width],
                stride: [1, 1],
                padding: [0, 0],
                dilation: [1, 1],
            };
            let (size, shape) = pool(input, &options)?;
            (Work::AvgPool2d(options, size), value(shape, None))
        }
        Op::Flatten => {
            let len = input.shape.size();
            (Work::Nothing, value(Shape::Features(len), input.levels))
        }
        Op::Activation(Activation::Identity) => (Work::Nothing, input),
        Op::Activation(activation) => {
            let is_cut = matches!(activation, Activation::Relu | Activation::Relu6);
            built_with(FUNCTIONS || is_cut, "functions")?;
            (Work::Activation(*activation), value(input.shape, None))
        }
        Op::Levels(tensor) => match level_state(file, *tensor)? {
            Some(state) => (Work::Levels(state), value(input.shape, Some(state))),
            None => (Work::Activation(Activation::Relu), value(input.shape, None)),
        },
        Op::Add(other) => {
            if values[*other].shape != input.shape {
                return Err(StepError::Add);
            }
            (Work::Add(*other), value(input.shape, None))
        }
    })
}

/// That this program can run it.
fn built_with(is_there: bool, feature: &'static str) -> Result<(), StepError> {
    match is_there {
        true => Ok(()),
        false => Err(StepError::Feature { feature }),
    }
}

fn same(axis: &'static str, found: usize, expected: usize) -> Result<(), StepError> {
    match found == expected {
        true => Ok(()),
        false => Err(StepError::Size {
            axis,
            found,
            expected,
        }),
    }
}

/// The tensors of a layer, whose outputs lie along an axis of a weight of a rank.
fn weights<'f, 'a>(
    file: &'f PackedFile<'a>,
    layer: &'f Layer<usize>,
    axis: usize,
    rank: usize,
    input: Value,
) -> Result<(&'f FileWeight<'a>, Weights<'f>), StepError> {
    let weight = &file.weights()[layer.weight];
    let found = weight.shape().len();
    if found != rank {
        let expected = rank;
        return Err(KernelError::Rank { expected, found }.into());
    }
    let first = weight.grouping().axes()[0];
    if first != axis {
        let expected = axis;
        return Err(KernelError::OutputAxis {
            expected,
            axis: first,
        }
        .into());
    }
    let outputs = weight.shape()[axis];
    let check = |name, tensor: usize| {
        let tensor = &file.tensors()[tensor];
        let fits = tensor.float_type().is_some() && tensor.shape() == [outputs];
        fits.then_some(())
            .ok_or(StepError::Outputs { name, outputs })
    };
    if let Some(bias) = layer.bias {
        check("the bias", bias)?;
    }
    if let Some(norm) = &layer.norm {
        for tensor in [norm.gamma, norm.beta, norm.mean, norm.variance] {
            check("batch norm", tensor)?;
        }
    }
    let arithmetic = weight.arithmetic().or(layer.arithmetic).unwrap_or_default();
    built_with(INT8 || arithmetic != Arithmetic::Int8, "int8")?;
    built_with(BITWISE || arithmetic != Arithmetic::Bitwise, "bitwise")?;
    let levels = match arithmetic {
        Arithmetic::Bitwise => Some(input.levels.ok_or(StepError::NoLevels)?),
        _ => None,
    };
    let weights = Weights {
        layer,
        arithmetic,
        levels,
    };
    Ok((weight, weights))
}

/// Height and width of a convolution's output.
fn slide(
    [_, height, width]: [usize; 3],
    kernel: [usize; 2],
    options: &Conv2dOptions,
) -> Result<[usize; 2], StepError> {
    let of = |axis: usize, size| {
        let (stride, dilation) = (options.stride[axis], options.dilation[axis]);
        let places = places(size, kernel[axis], stride, dilation, options.padding[axis]);
        let axis = ["height", "width"][axis];
        places.ok_or(StepError::Window { axis })
    };
    Ok([of(0, height)?, of(1, width)?])
}

/// The input's size and the output's shape of a pool.
fn pool(input: Value, options: &Pool2dOptions) -> Result<([usize; 3], Shape), StepError> {
    let size = image(input.shape)?;
    let as_conv = Conv2dOptions {
        stride: options.stride,
        padding: options.padding.map(|size| (size, size)),
        dilation: options.dilation,
        groups: 1,
    };
    let [height, width] = slide(size, options.kernel, &as_conv)?;
    Ok((size, Shape::Image([size[0], height, width])))
}

/// How many places a window takes along an axis; none if it has none, or too many to count.
fn places(
    size: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    (before, behind): (usize, usize),
) -> Option<usize> {
    if stride == 0 || dilation == 0 {
        return None;
    }
    let padded = size.checked_add(before)?.checked_add(behind)?;
    let reach = dilation
        .checked_mul(kernel.checked_sub(1)?)?
        .checked_add(1)?;
    Some(padded.checked_sub(reach)? / stride + 1)
}

/// The levels in the state of a multi-bit activation; none of a ReLU.
fn level_state(file: &PackedFile<'_>, tensor: usize) -> Result<Option<LevelState>, StepError> {
    let state = &file.tensors()[tensor];
    let fits = state.float_type().is_some() && state.shape() == [2 + MAX_ACTIVATION_BITS];
    if !fits {
        return Err(StepError::State);
    }
    let bits = (0..=MAX_ACTIVATION_BITS).find(|&bits| state.float(0) == bits as f32);
    let bits = bits.ok_or(StepError::State)?;
    if bits == 0 {
        return Ok(None);
    }
    if !BITWISE {
        let feature = "bitwise";
        return Err(StepError::Feature { feature });
    }
    let mut gammas = [0.0; MAX_ACTIVATION_BITS];
    for (j, gamma) in gammas[..bits].iter_mut().enumerate() {
        *gamma = state.float(2 + j);
    }
    let ladder = Ladder::new(state.float(1), &gammas[..bits])?;
    match ladder.are_apart(bits) {
        true => Ok(Some(LevelState { tensor, bits })),
        false => Err(StepError::Coincide),
    }
}

/// Lets a convolution take the largest of its sums at once, where nothing else sees them.
fn fuse(steps: &mut [Planned<'_>]) {
    for at in 1..steps.len() {
        let value = at; // What step `at − 1` makes.
        let seen = |step: &Planned<'_>| {
            let other = matches!(step.work, Work::Add(other) if other == value);
            usize::from(step.input == value) + usize::from(other)
        };
        let uses: usize = steps.iter().map(seen).sum();
        let (before, behind) = steps.split_at_mut(at);
        let (Some(before), Some(step)) = (before.last_mut(), behind.first_mut()) else {
            continue;
        };
        if let (Work::Conv2d(conv), Work::MaxPool2d(options, _)) = (&mut before.work, &step.work)
            && step.input == value
            && uses == 1
        {
            conv.pool = Some(options);
            step.work = Work::Nothing;
        }
    }
}
