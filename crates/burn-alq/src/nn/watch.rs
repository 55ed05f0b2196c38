//! What passes through layers, for who quantizes them by it.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::cell::RefCell;
use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use burn_core::module::{Param, ParamId};
use burn_core::tensor::module::unfold4d;
use burn_core::tensor::ops::{PadMode, UnfoldOptions};
use burn_core::tensor::{DType, Tensor};
use multibit::cpu::Conv2dOptions;

use super::Epilogue;

/// One call of a layer that is not packed.
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
/// - `inputs`: what [`Seen`] says
/// - `groups`: of channels
pub(super) fn see<const W: usize, const D: usize>(
    weight: &Param<Tensor<W>>,
    bias: Option<&Param<Tensor<1>>>,
    (y, axis): (&Tensor<D>, usize),
    epilogue: &Epilogue<'_, D>,
    inputs: impl FnOnce() -> Tensor<2>,
    groups: usize,
) {
    let watches = |watch: &Option<Watch>| {
        let weights = watch.as_ref().map(|watch| &watch.weights);
        weights.is_some_and(|weights| weights.contains(&weight.id))
    };
    if !WATCH.with_borrow(watches) {
        return;
    }
    let outputs = (groups == 1).then(|| {
        let y = y.clone().without_autodiff();
        let outputs = y.dims()[axis];
        let y = match &epilogue.residual {
            Some(residual) if epilogue.norm.is_none() => y + residual.clone().without_autodiff(),
            _ => y,
        };
        let rows = y.shape().num_elements() / outputs.max(1);
        let y = y.movedim(axis, D - 1).reshape([rows, outputs]);
        y.cast(DType::F32)
    });
    let seen = Seen {
        weight: weight.id,
        bias: bias.map(|bias| bias.id),
        inputs: inputs().without_autodiff().cast(DType::F32),
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

/// What each output of a convolution sees: `[batch * height_out * width_out * groups, channels_in / groups *
/// kernel]`.
pub(super) fn patches(input: Tensor<4>, kernel: [usize; 2], options: &Conv2dOptions) -> Tensor<2> {
    let unfold = UnfoldOptions::new(options.stride, [0, 0], options.dilation);
    let padded = input.pad(options.padding, PadMode::Constant(0.0));
    let columns = unfold4d(padded, kernel, unfold);
    let [batch, weights, places] = columns.dims();
    let shape = [batch * places * options.groups, weights / options.groups];
    columns.swap_dims(1, 2).reshape(shape)
}
