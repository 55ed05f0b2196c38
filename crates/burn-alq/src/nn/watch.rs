//! What passes through layers, for who quantizes them by it.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::cell::RefCell;
use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use burn_core::module::{Param, ParamId};
use burn_core::tensor::ops::PadMode;
use burn_core::tensor::{DType, Tensor};
use multibit::cpu::Conv2dOptions;

use super::Epilogue;

/// Rows of a call that are kept at most. A convolution has one for each place of each image, which differ
/// little from their neighbours: all places of a batch of photographs would take gigabytes, and their
/// products most of the time.
const ROWS: usize = 1 << 13;

/// One call of a layer that is not packed: all its rows, or some from all over.
pub(crate) struct Seen {
    /// The weight.
    pub weight: ParamId,
    /// The bias, if the layer has one.
    pub bias: Option<ParamId>,
    /// What the weights of an output were multiplied by, `[rows, weights of an output]`, in the order of the
    /// weight's axes without that of the outputs.
    pub inputs: Tensor<2>,
    /// What came out, `[rows, outputs]`, with what was added to it at once. None where outputs see different
    /// inputs (groups of channels): then there are rows for each of these.
    pub outputs: Option<Tensor<2>>,
}

/// Who watches: which weights, and what was seen.
struct Watch {
    weights: BTreeSet<ParamId>,
    /// The number of calls after which nothing more is asked for.
    last: Option<usize>,
    seen: Vec<Seen>,
}

std::thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// What passes through the layers of some weights, call after call, while `run` runs on this thread. Burn's own
/// layers say nothing, nor do transposed convolutions and tables.
///
/// `run` ends at the call of that number, if there is one and panics unwind.
pub(crate) fn watch<T>(
    weights: BTreeSet<ParamId>,
    last: Option<usize>,
    run: impl FnOnce() -> T,
) -> Vec<Seen> {
    let last = last.filter(|_| cfg!(panic = "unwind"));
    let seen = Vec::new();
    WATCH.set(Some(Watch {
        weights,
        last,
        seen,
    }));
    let result = catch_unwind(AssertUnwindSafe(run));
    let watch = WATCH.take();
    if let Err(reason) = result
        && !reason.is::<Enough>()
    {
        resume_unwind(reason);
    }
    watch.map(|watch| watch.seen).unwrap_or_default()
}

/// Why a run is over.
struct Enough;

/// Shows a call to who watches.
///
/// # Arguments
/// - `y`: what the layer gives, with outputs on `axis`
/// - `epilogue`: what follows
/// - `inputs`: what [`Seen`] says, of the rows with these numbers, which ascend
/// - `groups`: of channels
pub(super) fn see<const W: usize, const D: usize>(
    weight: &Param<Tensor<W>>,
    bias: Option<&Param<Tensor<1>>>,
    (y, axis): (&Tensor<D>, usize),
    epilogue: &Epilogue<'_, D>,
    inputs: impl FnOnce(&[usize]) -> Tensor<2>,
    groups: usize,
) {
    let watches = |watch: &Option<Watch>| {
        let weights = watch.as_ref().map(|watch| &watch.weights);
        weights.is_some_and(|weights| weights.contains(&weight.id))
    };
    if !WATCH.with_borrow(watches) {
        return;
    }
    let outputs = y.dims()[axis];
    let all = y.shape().num_elements() / outputs.max(1);
    let rows = kept(all);
    let outputs = (groups == 1).then(|| {
        let y = y.clone().without_autodiff();
        let y = match &epilogue.residual {
            Some(residual) if epilogue.norm.is_none() => y + residual.clone().without_autodiff(),
            _ => y,
        };
        let y = y.movedim(axis, D - 1).reshape([all, outputs]);
        take(y, &rows).cast(DType::F32)
    });
    let seen = Seen {
        weight: weight.id,
        bias: bias.map(|bias| bias.id),
        inputs: inputs(&rows).without_autodiff().cast(DType::F32),
        outputs,
    };
    let is_last = WATCH.with_borrow_mut(|watch| {
        watch.as_mut().is_some_and(|watch| {
            watch.seen.push(seen);
            watch.last == Some(watch.seen.len())
        })
    });
    if is_last {
        resume_unwind(Box::new(Enough));
    }
}

/// The numbers of at most [`ROWS`] rows out of so many: one out of each part of them, at an uneven distance, for
/// images have periods.
fn kept(rows: usize) -> Vec<usize> {
    let parts = rows.min(ROWS);
    let part = |part: usize| part * rows / parts;
    let kept = (0..parts).map(|index| {
        let (start, end) = (part(index), part(index + 1));
        // Multiples of the golden ratio fill a circle evenly.
        let turn = (index as u32).wrapping_mul(0x9e37_79b9) >> 16;
        start + turn as usize % (end - start)
    });
    kept.collect()
}

/// Some rows.
pub(super) fn take(x: Tensor<2>, rows: &[usize]) -> Tensor<2> {
    match x.dims()[0] == rows.len() {
        true => x,
        false => select(x, rows.iter().copied()),
    }
}

fn select(x: Tensor<2>, rows: impl Iterator<Item = usize>) -> Tensor<2> {
    let rows: Vec<i32> = rows.map(|row| row as i32).collect();
    let rows = Tensor::from_ints(rows.as_slice(), &x.device());
    x.select(0, rows)
}

/// What the outputs of a convolution see at some places, which are counted over `[batch, height_out,
/// width_out]`: `[places * groups, channels_in / groups * kernel]`.
pub(super) fn patches(
    input: Tensor<4>,
    places: &[usize],
    kernel: [usize; 2],
    options: &Conv2dOptions,
) -> Tensor<2> {
    let Conv2dOptions {
        stride, dilation, ..
    } = *options;
    let padded = input.pad(options.padding, PadMode::Constant(0.0));
    let [batch, channels, height, width] = padded.dims();
    let windows = |axis: usize, len: usize| {
        (len - dilation[axis] * (kernel[axis] - 1) - 1) / stride[axis] + 1
    };
    let [rows, columns] = [windows(0, height), windows(1, width)];
    let pixels = places.iter().flat_map(|place| {
        let (image, row, column) = (
            place / columns / rows,
            place / columns % rows,
            place % columns,
        );
        let first = (image * height + row * stride[0]) * width + column * stride[1];
        let (down, right) = (dilation[0] * width, dilation[1]);
        (0..kernel[0]).flat_map(move |y| (0..kernel[1]).map(move |x| first + y * down + x * right))
    });
    let flat = padded
        .permute([0, 2, 3, 1])
        .reshape([batch * height * width, channels]);
    let taps = kernel[0] * kernel[1];
    let seen = select(flat, pixels).reshape([places.len(), taps, channels]);
    let shape = [
        places.len() * options.groups,
        channels / options.groups * taps,
    ];
    seen.swap_dims(1, 2).reshape(shape)
}
