//! The optimization steps of [`fit`](crate::fit) on a device: one launch a weight, nothing read
//! back.
//!
//! A cube holds rows of lanes, a group each; a lane visits every `lanes`-th weight of its group, and
//! sums go through shared memory in a fixed order. Sums are f32, where those on slices are f64.
//! Where a group's least squares have no finite solution it keeps both bases and coordinates.

mod group;
mod rates;
mod refit;
mod slots;

use alloc::format;

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use self::group::Plan;
use self::rates::StepRatesLaunch;
use super::order::{OrderLaunch, order};
use super::{check, cubes};
use crate::fit::{State, StepParams, check_max_bits};
use crate::grouping::Grouping;

/// The most buffers that a step binds, the kernel's own included.
pub const MAX_BINDINGS: u32 = 16;

/// One weight and how it is cut into groups of which every one has so many slots.
#[derive(Clone, Copy, Debug)]
pub struct Layout<'a> {
    /// The shape of the dense weight.
    pub shape: &'a [usize],
    /// How it is cut.
    pub grouping: &'a Grouping,
    /// Slots of a group, 1 to [`MAX_BITS`](crate::MAX_BITS).
    pub max_bits: usize,
}

impl Layout<'_> {
    fn groups(&self) -> usize {
        self.grouping.groups(self.shape)
    }

    fn weights(&self) -> usize {
        self.groups() * self.grouping.len()
    }

    fn slots(&self) -> usize {
        self.groups() * self.max_bits
    }
}

/// Buffers of a [`State`] before a step: codes and widths are integers of one type. Moments are changed
/// in place.
pub type Buffers = State<BufferArg, BufferArg>;

/// Buffers that a step writes whole.
pub struct Moved {
    /// New codes, `[groups, len]`.
    pub codes: BufferArg,
    /// New coordinates, `[groups, max_bits]`.
    pub coordinates: BufferArg,
    /// The new weight in its own layout.
    pub weight: BufferArg,
}

/// A launch on one weight: its plan, its order and how many cubes it takes.
struct Launch {
    plan: Plan,
    order: OrderLaunch,
    count: CubeCount,
    dim: CubeDim,
    groups: u32,
    len: u32,
}

impl Launch {
    /// # Panics
    /// If the layout does not fit or the weight has 2³² elements or more.
    fn new(layout: &Layout<'_>) -> Self {
        check_max_bits(layout.max_bits);
        let len = layout.grouping.len();
        let plan = Plan::new(len, layout.max_bits);
        let groups = layout.groups();
        Self {
            plan,
            order: order(layout.grouping, layout.shape),
            count: cubes(groups.div_ceil(plan.rows)),
            dim: CubeDim::new_2d(plan.lanes as u32, plan.rows as u32),
            groups: groups as u32,
            len: len as u32,
        }
    }
}

fn check_state(state: &Buffers, layout: &Layout<'_>) {
    check("codes", &state.codes, layout.weights());
    check("coordinates", &state.coordinates, layout.slots());
    check("widths", &state.widths, layout.groups());
    for (name, moment) in state.weight.as_ref().named() {
        check(name, moment, layout.weights());
    }
    for (name, moment) in state.alpha.as_ref().named() {
        check(&format!("{name}_alpha"), moment, layout.slots());
    }
}

impl Moved {
    fn check(&self, layout: &Layout<'_>) {
        check("new codes", &self.codes, layout.weights());
        check("new coordinates", &self.coordinates, layout.slots());
        check("weight", &self.weight, layout.weights());
    }
}

/// [`fit::basis`](crate::fit::basis), or with a `latent` weight (`[groups, len]`, moved in place)
/// [`fit::ste`](crate::fit::ste).
///
/// # Shapes
/// - `grad`: the weight's own layout
/// - `int`: the type of codes and widths
///
/// # Panics
/// If a buffer has another length, or a number in `params` is out of range.
#[expect(clippy::too_many_arguments, reason = "what a step consists of")]
pub fn refit(
    client: &Client,
    layout: &Layout<'_>,
    int: ElemType,
    grad: BufferArg,
    state: Buffers,
    latent: Option<BufferArg>,
    params: &StepParams,
    moved: Moved,
) {
    check_state(&state, layout);
    moved.check(layout);
    check("grad", &grad, layout.weights());
    let launch = Launch::new(layout);
    let ste = latent.is_some();
    let latent = match latent {
        Some(latent) => {
            check("latent", &latent, layout.weights());
            latent
        }
        // SAFETY: one element was allocated; the basis step does not touch it.
        None => unsafe { BufferArg::from_raw_parts(client.empty(size_of::<f32>()), 1) },
    };
    // SAFETY: every index is below the lengths just checked: groups come from the number of the
    // cube and are cut off at `groups`, weights at `len`, and places in the tensor are a
    // permutation of its elements. Levels are read below 2^slots.
    unsafe {
        refit::refit::launch_unchecked(
            client,
            launch.count,
            launch.dim,
            grad,
            state.weight.m,
            state.weight.v,
            state.weight.v_max,
            latent,
            state.codes,
            state.coordinates,
            state.widths,
            moved.codes,
            moved.coordinates,
            state.alpha.m,
            state.alpha.v,
            state.alpha.v_max,
            moved.weight,
            launch.order,
            launch.groups,
            launch.len,
            StepRatesLaunch::from(params),
            launch.plan,
            ste,
            int,
        );
    }
}

/// [`fit::coordinate`](crate::fit::coordinate).
///
/// # Shapes
/// As [`refit`].
///
/// # Panics
/// As [`refit`].
pub fn coordinate(
    client: &Client,
    layout: &Layout<'_>,
    int: ElemType,
    grad: BufferArg,
    state: Buffers,
    params: &StepParams,
    moved: Moved,
) {
    check_state(&state, layout);
    moved.check(layout);
    check("grad", &grad, layout.weights());
    let launch = Launch::new(layout);
    // SAFETY: as in `refit`.
    unsafe {
        slots::coordinate::launch_unchecked(
            client,
            launch.count,
            launch.dim,
            grad,
            state.weight.m,
            state.weight.v,
            state.weight.v_max,
            state.codes,
            state.coordinates,
            state.widths,
            moved.codes,
            moved.coordinates,
            state.alpha.m,
            state.alpha.v,
            state.alpha.v_max,
            moved.weight,
            launch.order,
            launch.groups,
            launch.len,
            StepRatesLaunch::from(params),
            launch.plan,
            int,
        );
    }
}

/// [`fit::importance`](crate::fit::importance).
///
/// # Shapes
/// - `delta`: `[groups, max_bits]`, written whole
/// - otherwise as [`refit`]
///
/// # Panics
/// As [`refit`].
pub fn importance(
    client: &Client,
    layout: &Layout<'_>,
    int: ElemType,
    grad: BufferArg,
    state: Buffers,
    params: &StepParams,
    delta: BufferArg,
) {
    check_state(&state, layout);
    check("grad", &grad, layout.weights());
    check("delta", &delta, layout.slots());
    let launch = Launch::new(layout);
    // SAFETY: as in `refit`.
    unsafe {
        slots::importance::launch_unchecked(
            client,
            launch.count,
            launch.dim,
            grad,
            state.weight.m,
            state.weight.v,
            state.weight.v_max,
            state.codes,
            state.coordinates,
            state.widths,
            state.alpha.m,
            state.alpha.v,
            state.alpha.v_max,
            delta,
            launch.order,
            launch.groups,
            launch.len,
            StepRatesLaunch::from(params),
            f32::INFINITY,
            launch.plan,
            int,
        );
    }
}

/// [`fit::drop_coordinates`](crate::fit::drop_coordinates); `new_widths` is written beside `moved`.
///
/// # Shapes
/// - `drop`: `[groups, max_bits]`, an integer that is not 0 where a coordinate goes
///
/// # Panics
/// As [`refit`].
pub fn drop_coordinates(
    client: &Client,
    layout: &Layout<'_>,
    int: ElemType,
    drop: BufferArg,
    state: Buffers,
    new_widths: BufferArg,
    moved: Moved,
) {
    check_state(&state, layout);
    moved.check(layout);
    check("drop", &drop, layout.slots());
    check("new widths", &new_widths, layout.groups());
    let launch = Launch::new(layout);
    // SAFETY: as in `refit`; a slot moves to a lower one of its group.
    unsafe {
        slots::drop_coordinates::launch_unchecked(
            client,
            launch.count,
            launch.dim,
            drop,
            state.codes,
            state.coordinates,
            state.widths,
            moved.codes,
            moved.coordinates,
            new_widths,
            state.alpha.m,
            state.alpha.v,
            state.alpha.v_max,
            moved.weight,
            launch.order,
            launch.groups,
            launch.len,
            launch.plan,
            int,
        );
    }
}
