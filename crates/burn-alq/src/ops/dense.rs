//! Default bodies of the step operations, in Burn operations.
//!
//! Written column by column: a basis is a `[groups, len]` plane of ±1, made from the codes when it
//! is needed, and everything that belongs to a group is a `[groups, 1]` column. Absent slots have
//! coordinate 0 and a live mask of 0, so no group is a special case.

use alloc::vec::Vec;

use burn_core::backend::tensor::{FloatTensor, IntTensor};
use burn_core::backend::{Backend, TensorMetadata};
use burn_core::tensor::{IntDType, Shape, TensorData};
use multibit::CoordinateType;
use multibit::fit::{self, Moments, StepParams};

use super::expr::{F, I, cast_small};
use super::host::{Copied, Elements, Memory};
use super::{StepState, WeightLayout};

/// A weight's state with operators, its integers at 32 bits.
struct State<B: Backend> {
    codes: I<B>,
    coordinates: F<B>,
    /// Live masks, one `[groups, 1]` column a slot.
    live: Vec<F<B>>,
    widths: IntTensor<B>,
    weight: Moments<F<B>>,
    alpha: Moments<F<B>>,
    codes_like: IntTensor<B>,
}

impl<B: Backend> State<B> {
    fn new(StepState(state): StepState<B>) -> Self {
        let coordinates = F(state.coordinates);
        let [groups, slots] = coordinates.dims();
        let widths = I::<B>::from_any(state.widths.clone()).reshape([groups, 1]);
        let live = (0..slots)
            .map(|i| I::<B>::from_bool(widths.above(i)).float(&coordinates))
            .collect();
        Self {
            codes: I::from_any(state.codes.clone()),
            live,
            widths: state.widths,
            weight: state.weight.map(F),
            alpha: state.alpha.map(F),
            codes_like: state.codes,
            coordinates,
        }
    }

    fn finish(self) -> StepState<B> {
        StepState(fit::State {
            codes: cast_small::<B>(self.codes.0, self.codes_like.dtype().into()),
            coordinates: self.coordinates.0,
            widths: self.widths,
            weight: self.weight.map(|moment| moment.0),
            alpha: self.alpha.map(|moment| moment.0),
        })
    }

    fn slots(&self) -> usize {
        self.live.len()
    }

    /// Basis `i`, `[groups, len]` of ±1.
    fn basis(&self, i: usize) -> F<B> {
        basis_of(&self.codes, i, &self.coordinates)
    }

    /// `ŵ = Σ_i α_i b_i`, in ascending order of `i`.
    fn reconstruct(&self) -> F<B> {
        sum_of_bases(&self.codes, &self.coordinates, self.weight.m.zeros_like())
    }

    /// `Bᵀ x`, 0 in absent slots.
    fn project(&self, x: &F<B>) -> F<B> {
        F::cat(
            (0..self.slots()).map(|i| (self.basis(i) * x.clone()).sum_row() * self.live[i].clone()),
        )
    }

    /// The moments of the weight domain with gradient `g`.
    fn update_moments(&mut self, g: &F<B>, params: &StepParams) {
        update(&mut self.weight, g, params);
    }

    /// The moments of the α domain with gradient `Bᵀ g`.
    fn update_alpha_moments(&mut self, g: &F<B>, params: &StepParams) {
        let g_alpha = self.project(g);
        update(&mut self.alpha, &g_alpha, params);
    }

    /// Makes `alpha` the coordinates, negative ones by negating the coordinate, its basis and its
    /// first moment: the same weight and the same trajectory.
    fn set_coordinates(&mut self, alpha: F<B>) {
        let mut flips = None;
        let mut moments = Vec::new();
        for i in 0..self.slots() {
            let column = alpha.column(i);
            let negative = I::<B>::from_bool(column.lower_scalar(0.0));
            let sign = negative.clone().float(&alpha) * -2.0 + 1.0;
            moments.push(self.alpha.m.column(i) * sign);
            let bit = negative.mul_scalar(1 << i);
            flips = Some(match flips {
                None => bit,
                Some(flips) => I::add(flips, bit),
            });
        }
        let Some(flips) = flips else { return };
        let dims = self.weight.m.dims();
        self.codes = self.codes.clone().xor(flips.expand(dims));
        self.alpha.m = F::cat(moments);
        // A live coordinate stays positive, an absent one 0.
        let smallest = f64::from(f32::MIN_POSITIVE);
        let alpha = alpha.abs();
        let below = alpha.clone().lower_scalar(smallest);
        let live = F::cat(self.live.iter().cloned());
        self.coordinates = alpha.fill_where(below, smallest) * live;
    }
}

fn update<B: Backend>(moments: &mut Moments<F<B>>, g: &F<B>, params: &StepParams) {
    let Moments { m, v, v_max } = moments;
    *m = m.clone() * params.beta1 + g.clone() * (1.0 - params.beta1);
    *v = v.clone() * params.beta2 + g.clone() * g.clone() * (1.0 - params.beta2);
    *v_max = v_max.clone().max(v.clone());
}

/// Basis `i` of some codes, `[groups, len]` of ±1.
fn basis_of<B: Backend>(codes: &I<B>, i: usize, like: &F<B>) -> F<B> {
    codes.bit(i).float(like) * -2.0 + 1.0
}

/// `Σ_i α_i b_i` in ascending order of `i`, from `zeros`.
fn sum_of_bases<B: Backend>(codes: &I<B>, coordinates: &F<B>, zeros: F<B>) -> F<B> {
    let [_, slots] = coordinates.dims();
    (0..slots).fold(zeros, |sum, i| {
        sum + basis_of(codes, i, coordinates) * coordinates.column(i)
    })
}

/// `p` and `h` of the local model.
fn model<B: Backend>(moments: &Moments<F<B>>, params: &StepParams) -> (F<B>, F<B>) {
    let Moments { m, v_max, .. } = moments;
    let t = params.t as i32;
    let p = m.clone() * (params.lr / (1.0 - libm::pow(params.beta1, f64::from(t))));
    let h = (v_max.clone().sqrt() + params.epsilon)
        * (1.0 / libm::sqrt(1.0 - libm::pow(params.beta2, f64::from(t))));
    (p, h)
}

/// Weight layout, flat → `[groups, len]`.
fn group<B: Backend>(weight: FloatTensor<B>, layout: &WeightLayout) -> F<B> {
    let weight = B::float_reshape(weight, Shape::from(layout.shape.clone()));
    F::<B>(B::float_permute(weight, layout.grouping.axes())).reshape(layout.dims())
}

/// `[groups, len]` → weight layout, flat.
fn ungroup<B: Backend>(grouped: F<B>, layout: &WeightLayout) -> FloatTensor<B> {
    let axes = layout.grouping.axes();
    let permuted: Vec<usize> = axes.iter().map(|&axis| layout.shape[axis]).collect();
    let mut inverse = alloc::vec![0; axes.len()];
    for (place, &axis) in axes.iter().enumerate() {
        inverse[axis] = place;
    }
    let weight = B::float_reshape(grouped.0, Shape::from(permuted));
    let weight = B::float_permute(weight, &inverse);
    let len = layout.shape.iter().product::<usize>();
    B::float_reshape(weight, Shape::from([len]))
}

/// The basis step around `centre`: new codes and coordinates.
fn refit<B: Backend>(state: &mut State<B>, centre: &F<B>, params: &StepParams) {
    let (p, h) = model(&state.weight, params);
    let target = centre.clone() - p.clone() / h.clone();
    let old_codes = state.codes.clone();
    let old_alpha = state.coordinates.clone();
    state.codes = nearest(state, target);

    // (BᵀHB + λI) α = Bᵀ(H centre − p), divided by Σh to keep the numbers near 1.
    let slots = state.slots();
    let [groups, _] = old_alpha.dims();
    let total = h.clone().sum_row();
    let rhs_plane = h.clone() * centre.clone() - p;
    let bases: Vec<F<B>> = (0..slots).map(|i| state.basis(i)).collect();
    let mut matrix: Vec<Vec<F<B>>> = Vec::with_capacity(slots);
    let mut rhs = Vec::with_capacity(slots);
    for i in 0..slots {
        let weighted = bases[i].clone() * h.clone();
        let live = &state.live[i];
        let mut row: Vec<F<B>> = (0..i)
            .map(|k| {
                let sum = (weighted.clone() * bases[k].clone()).sum_row() / total.clone();
                sum * live.clone() * state.live[k].clone()
            })
            .collect();
        // Σh/Σh = 1 on the diagonal of live and absent slots alike, plus the relative ridge.
        row.push(total.clone() / total.clone() + params.ridge);
        matrix.push(row);
        let sum = (bases[i].clone() * rhs_plane.clone()).sum_row() / total.clone();
        rhs.push(sum * live.clone());
    }
    let alpha = F::cat(solve(matrix, rhs));

    // A group whose gradients have always been zero, or whose system has no finite solution,
    // stays as it was.
    let largest = state.weight.v_max.clone().sum_row();
    let finite = alpha.clone().abs().sum_row().finite();
    let moved = I::<B>::from_bool(F::<B>(B::float_neg(largest.0)).lower_scalar(0.0));
    let moved = moved.mul(I::from_bool(finite)).reshape([groups, 1]);
    let alpha = old_alpha
        .clone()
        .replace(moved.clone().expand(old_alpha.dims()).above(0), alpha);
    state.codes = old_codes.replace(
        moved.expand(state.weight.m.dims()).above(0),
        state.codes.clone(),
    );
    state.set_coordinates(alpha);

    // The α domain continues from the weight domain with the new bases.
    let sums = |x: &F<B>| {
        let sum = x.clone().sum_row();
        F::cat(state.live.iter().map(|live| live.clone() * sum.clone()))
    };
    state.alpha = Moments {
        m: state.project(&state.weight.m),
        v: sums(&state.weight.v),
        v_max: sums(&state.weight.v_max),
    };
}

/// The code of the nearest level for every target: levels sorted a group, then a binary search
/// over their midpoints, one gather a bit.
fn nearest<B: Backend>(state: &State<B>, target: F<B>) -> I<B> {
    let slots = state.slots();
    let zero = state.coordinates.column(0).zeros_like();
    // Column c holds the level of code c; absent slots repeat the levels of the others.
    let levels = (0..slots).fold(zero, |levels, i| {
        let alpha = state.coordinates.column(i);
        F::cat([levels.clone() + alpha.clone(), levels - alpha])
    });
    let count = 1 << slots;
    let (sorted, order) = levels.sorted();
    let middles = (sorted.columns(0, count - 1) + sorted.columns(1, count)) * 0.5;
    let [groups, len] = target.dims();
    let mut place = I::from_any(B::int_zeros(
        Shape::from([groups, len]),
        &target.0.device(),
        IntDType::I32,
    ));
    for bit in (0..slots).rev() {
        let step = 1i64 << bit;
        let middle = middles.gather(place.clone().add_scalar(step - 1));
        let above = I::<B>::from_bool(middle.lower(target.clone()));
        place = place.add(above.mul_scalar(step));
    }
    let code = order.gather(place);
    // Of equal levels it is the one without bits in absent slots that counts.
    (0..slots)
        .map(|i| {
            let live = I::<B>::from_any(B::float_into_int(state.live[i].0.clone(), IntDType::I32));
            code.bit(i)
                .mul(live.expand([groups, len]))
                .mul_scalar(1 << i)
        })
        .reduce(I::add)
        .expect("a weight has at least one slot")
}

/// Cholesky on columns: `matrix` holds the lower triangle, every entry `[groups, 1]`.
fn solve<B: Backend>(mut matrix: Vec<Vec<F<B>>>, mut rhs: Vec<F<B>>) -> Vec<F<B>> {
    let n = rhs.len();
    for j in 0..n {
        for k in 0..j {
            let square = matrix[j][k].clone() * matrix[j][k].clone();
            matrix[j][j] = matrix[j][j].clone() - square;
        }
        matrix[j][j] = matrix[j][j].clone().sqrt();
        for i in j + 1..n {
            for k in 0..j {
                let product = matrix[i][k].clone() * matrix[j][k].clone();
                matrix[i][j] = matrix[i][j].clone() - product;
            }
            matrix[i][j] = matrix[i][j].clone() / matrix[j][j].clone();
        }
    }
    for i in 0..n {
        for k in 0..i {
            rhs[i] = rhs[i].clone() - matrix[i][k].clone() * rhs[k].clone();
        }
        rhs[i] = rhs[i].clone() / matrix[i][i].clone();
    }
    for i in (0..n).rev() {
        for k in i + 1..n {
            rhs[i] = rhs[i].clone() - matrix[k][i].clone() * rhs[k].clone();
        }
        rhs[i] = rhs[i].clone() / matrix[i][i].clone();
    }
    rhs
}

pub(crate) fn basis<B: Backend>(
    state: StepState<B>,
    grad: FloatTensor<B>,
    layout: &WeightLayout,
    params: &StepParams,
) -> (StepState<B>, FloatTensor<B>) {
    let mut state = State::new(state);
    state.update_moments(&group(grad, layout), params);
    let centre = state.reconstruct();
    refit(&mut state, &centre, params);
    let weight = ungroup(state.reconstruct(), layout);
    (state.finish(), weight)
}

pub(crate) fn ste<B: Backend>(
    state: StepState<B>,
    latent: FloatTensor<B>,
    grad: FloatTensor<B>,
    layout: &WeightLayout,
    params: &StepParams,
) -> (StepState<B>, FloatTensor<B>, FloatTensor<B>) {
    let mut state = State::new(state);
    state.update_moments(&group(grad, layout), params);
    let latent = F(latent);
    refit(&mut state, &latent, params);
    let (p, h) = model(&state.weight, params);
    let latent = latent - p / h;
    let weight = ungroup(state.reconstruct(), layout);
    (state.finish(), latent.0, weight)
}

pub(crate) fn coordinate<B: Backend>(
    state: StepState<B>,
    grad: FloatTensor<B>,
    layout: &WeightLayout,
    params: &StepParams,
) -> (StepState<B>, FloatTensor<B>) {
    let mut state = State::new(state);
    let g = group(grad, layout);
    state.update_moments(&g, params);
    state.update_alpha_moments(&g, params);
    let (p, h) = model(&state.alpha, params);
    let old = state.coordinates.clone();
    let alpha = old.clone() - p / h;
    // Only a moment that is not finite can do this; the coordinate stays valid.
    state.set_coordinates(old.replace(alpha.finite(), alpha));
    let weight = ungroup(state.reconstruct(), layout);
    (state.finish(), weight)
}

pub(crate) fn importance<B: Backend>(
    state: StepState<B>,
    grad: FloatTensor<B>,
    layout: &WeightLayout,
    params: &StepParams,
) -> (StepState<B>, FloatTensor<B>) {
    let mut state = State::new(state);
    let g = group(grad, layout);
    state.update_moments(&g, params);
    state.update_alpha_moments(&g, params);
    let (p, h) = model(&state.alpha, params);
    let alpha = state.coordinates.clone();
    let delta = h * alpha.clone() * alpha.clone() * 0.5 - p * alpha;
    let live = F::cat(state.live.iter().cloned());
    let delta = delta.fill_where(live.lower_scalar(0.5), f64::INFINITY);
    (state.finish(), delta.0)
}

/// On the host, where the values of most devices without a kernel for it are anyway.
pub(crate) fn smallest<B: Backend>(
    values: FloatTensor<B>,
    count: usize,
) -> (IntTensor<B>, FloatTensor<B>) {
    let device = values.device();
    let data = <Copied as Memory<B>>::floats(values);
    let values = data.f32();
    // NaN last, of whichever sign, and -0 before 0 as by their bits.
    let key = |&place: &u32| match values[place as usize] {
        x if x.is_nan() => (f32::NAN.copysign(1.0), place),
        x => (x, place),
    };
    let mut places: Vec<u32> = (0..values.len() as u32).collect();
    if count < places.len() {
        places.select_nth_unstable_by(count, |a, b| {
            let ((a, a_place), (b, b_place)) = (key(a), key(b));
            a.total_cmp(&b).then(a_place.cmp(&b_place))
        });
        places.truncate(count);
    }
    let smallest: Vec<f32> = places.iter().map(|&place| values[place as usize]).collect();
    (
        B::int_from_data(TensorData::new(places, [count]), &device),
        B::float_from_data(TensorData::new(smallest, [count]), &device),
    )
}

pub(crate) fn drop_coordinates<B: Backend>(
    state: StepState<B>,
    drop: IntTensor<B>,
    layout: &WeightLayout,
) -> (StepState<B>, FloatTensor<B>) {
    let mut state = State::new(state);
    let slots = state.slots();
    let [groups, _] = state.coordinates.dims();
    let dims = state.weight.m.dims();
    let drop = I::<B>::from_any(drop);
    let integer = |x: &F<B>| I::<B>::from_any(B::float_into_int(x.0.clone(), IntDType::I32));
    // kept[i] is 1 where slot i stays; place[i] counts the kept ones before it.
    let kept: Vec<I<B>> = (0..slots)
        .map(|i| {
            let dropped = I::<B>::from_bool(drop.column(i).above(0));
            integer(&state.live[i]).mul(dropped.mul_scalar(-1).add_scalar(1))
        })
        .collect();
    let zero = kept[0].clone().mul_scalar(0);
    let mut place = Vec::with_capacity(slots);
    let mut count = zero.clone();
    for kept in &kept {
        place.push(count.clone());
        count = count.add(kept.clone());
    }
    // moves[i][j] is 1 where slot i becomes slot j.
    let moves: Vec<Vec<I<B>>> = (0..slots)
        .map(|i| {
            (0..=i)
                .map(|j| I::<B>::from_bool(place[i].is(j)).mul(kept[i].clone()))
                .collect()
        })
        .collect();
    let compact = |x: &F<B>| {
        F::cat((0..slots).map(|j| {
            (j..slots)
                .map(|i| x.column(i) * moves[i][j].clone().float(x))
                .reduce(|a, b| a + b)
                .expect("slot j can keep its own value")
        }))
    };
    let alpha = state.alpha.as_ref().map(&compact);
    state.coordinates = compact(&state.coordinates);
    state.alpha = alpha;
    state.codes = (0..slots)
        .flat_map(|i| (0..=i).map(move |j| (i, j)))
        .map(|(i, j)| {
            let moved = moves[i][j].clone().expand(dims);
            state.codes.bit(i).mul(moved).mul_scalar(1 << j)
        })
        .reduce(I::add)
        .expect("a weight has at least one slot");
    state.live = (0..slots)
        .map(|i| I::<B>::from_bool(count.above(i)).float(&state.coordinates))
        .collect();
    let widths_dtype = state.widths.dtype();
    state.widths = cast_small::<B>(
        B::int_reshape(count.0, Shape::from([groups])),
        widths_dtype.into(),
    );
    let weight = ungroup(state.reconstruct(), layout);
    (state.finish(), weight)
}

/// On the host: coordinates are few, and not every device has these types.
pub(crate) fn round<B: Backend>(
    coordinates: FloatTensor<B>,
    coordinate_type: CoordinateType,
) -> FloatTensor<B> {
    let device = coordinates.device();
    let mut data = <Copied as Memory<B>>::floats(coordinates);
    for coordinate in data.f32_mut() {
        *coordinate = coordinate_type.round(*coordinate);
    }
    B::float_from_data(data, &device)
}

pub(crate) fn reconstruct<B: Backend>(
    codes: IntTensor<B>,
    coordinates: FloatTensor<B>,
    layout: &WeightLayout,
) -> FloatTensor<B> {
    let (codes, coordinates) = (I::<B>::from_any(codes), F::<B>(coordinates));
    let zeros = B::float_zeros(
        codes.0.shape(),
        &coordinates.0.device(),
        coordinates.0.dtype().into(),
    );
    ungroup(sum_of_bases(&codes, &coordinates, F(zeros)), layout)
}
