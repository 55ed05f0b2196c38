//! Sketching that knows the inputs: float weights and `H` → bases and coordinates.

use alloc::vec::Vec;
use core::ops::Range;

use super::hessian::{Hessian, add, dot};
use super::nearest::NearestCode;
use super::sketch::{Room, Sketch, SketchError, check_finite, normalize, stored};
use super::{check_len, check_max_bits};
use crate::math::solve_spd_rounded;
use crate::{CoordinateType, MAX_BITS};

/// Of the mean diagonal: bases that depend on each other share what is theirs.
const RIDGE: f64 = 1e-9;

/// Times that codes and coordinates of a group take turns before the next group's.
const TURNS: usize = 2;

/// Approximates every output's weights by groups of scaled ±1 vectors so that the error of the
/// *output* is small: `(w − ŵ)ᵀ H (w − ŵ)`, with `H = Σ x xᵀ` over samples of the inputs.
///
/// With `H = NᵀN`, `N` lower triangular, the error is `Σⱼ (N(ŵ − w))ⱼ²`, and term `j` knows only the
/// weights up to `j`. So weights are taken one after the other, each at the level nearest to what
/// makes up for the errors before it (the nearest plane of Babai, and what GPTQ does, Frantar et al.,
/// ICLR 2023). When a group's first weight is due, its coordinates are sketched as in
/// [`sketch`](super::sketch()), with weights that count `Nⱼⱼ²`.
///
/// Then up to `sweeps` sweeps of coordinate descent: group after group, each weight takes the best
/// level given all others of the output, and the group's coordinates are refitted by the normal
/// equations `BᵀHB α = Bᵀ(H Bα − g)`, with `g = H(ŵ − w)`. No move makes the error larger; a sweep
/// that changes nothing is the last. A diagonal `H` needs none.
///
/// A `w` that is not the float weight makes up for errors of the layers before:
/// [`Hessian::least_squares`]. Where a layer has a bias, `H` may be that of `x` without its mean `μ`;
/// then `(w − ŵ)ᵀμ` belongs to the bias.
///
/// Mean cosine to a transformer's float embeddings, of 300 sentences that are not among the 512 of
/// `H` (all 36 linear layers of MiniLM-L6, groups of 64, coordinates in f16, two sweeps):
///
/// | bits | 2 | 3 | 4 |
/// |---|---|---|---|
/// | sketch | 0.603 | 0.884 | 0.970 |
/// | diagonal of `H` | 0.701 | 0.923 | 0.983 |
/// | `H`, no sweep | 0.873 | 0.970 | 0.993 |
/// | `H` | 0.893 | 0.974 | 0.994 |
///
/// # Shapes
/// - `weights`: `[outputs, d_in]`, `d_in` of them for each output in the order of its groups
/// - `widths`: `[groups]`, the bases of each group; it gets fewer where they would be nothing
///
/// # Errors
/// If a weight is not finite.
///
/// # Panics
/// If `len` does not divide `d_in`, a slice has another length or a width is above
/// [`MAX_BITS`].
pub fn calibrate(
    weights: &[f32],
    hessian: &Hessian,
    len: usize,
    widths: &[u8],
    coordinate_type: CoordinateType,
    sweeps: usize,
) -> Result<Sketch, SketchError> {
    let groups = hessian.groups_of(len);
    check_len("weights", weights.len(), widths.len(), len);
    assert!(
        widths.len().is_multiple_of(groups),
        "`widths` holds {} values, not {groups} for each output",
        widths.len()
    );
    let max_bits = usize::from(widths.iter().copied().max().unwrap_or(0).max(1));
    check_max_bits(max_bits);
    check_finite(weights)?;
    let mut sketch = Sketch::empty(widths.len(), len, max_bits);
    sketch.widths.copy_from_slice(widths);
    let inputs = hessian.inputs();
    sketch.in_parts(weights, groups, |weights, codes, slots, widths| {
        let mut output = Output::new(hessian, len, max_bits, coordinate_type);
        let weights = weights.chunks_exact(inputs);
        let codes = codes.chunks_exact_mut(inputs);
        let slots = slots.chunks_exact_mut(groups * max_bits);
        let widths = widths.chunks_exact_mut(groups);
        for ((weights, codes), (slots, widths)) in weights.zip(codes).zip(slots.zip(widths)) {
            output.fit(weights, codes, slots, widths, sweeps);
        }
    });
    Ok(sketch)
}

/// One output, and what is reused from one to the next.
struct Output<'a> {
    hessian: &'a Hessian,
    len: usize,
    max_bits: usize,
    coordinate_type: CoordinateType,
    room: Room,
    nearest: NearestCode,
    /// `ŵ − w`, `[d]`; 0 for groups to come.
    error: Vec<f32>,
    /// Of the group in hand, `[len]`: what its weights should be, and what they count.
    targets: Vec<f32>,
    h: Vec<f32>,
    /// `H(ŵ − w)` of the group in hand, `[len]`.
    gradient: Vec<f32>,
    /// One basis as floats, `[len]`.
    signs: Vec<f32>,
    /// `HB` of the group in hand, `[bases, len]`.
    products: Vec<f32>,
}

/// One group of an output in training form.
struct Group<'a> {
    span: Range<usize>,
    weights: &'a [f32],
    codes: &'a mut [u8],
    slots: &'a mut [f32],
    width: &'a mut u8,
}

impl Group<'_> {
    fn live(&self) -> &[f32] {
        &self.slots[..usize::from(*self.width)]
    }
}

impl<'a> Output<'a> {
    fn new(
        hessian: &'a Hessian,
        len: usize,
        max_bits: usize,
        coordinate_type: CoordinateType,
    ) -> Self {
        let group = || alloc::vec![0.0; len];
        Self {
            hessian,
            len,
            max_bits,
            coordinate_type,
            room: Room::new(coordinate_type),
            nearest: NearestCode::new(),
            error: alloc::vec![0.0; hessian.inputs()],
            targets: group(),
            h: group(),
            gradient: group(),
            signs: group(),
            products: alloc::vec![0.0; len * max_bits],
        }
    }

    fn fit(
        &mut self,
        weights: &[f32],
        codes: &mut [u8],
        slots: &mut [f32],
        widths: &mut [u8],
        sweeps: usize,
    ) {
        let (len, max_bits) = (self.len, self.max_bits);
        let mut each = |this: &mut Self, step: fn(&mut Self, &mut Group<'_>) -> bool| {
            let weights = weights.chunks_exact(len).zip(codes.chunks_exact_mut(len));
            let slots = slots.chunks_exact_mut(max_bits).zip(&mut *widths);
            let mut moved = false;
            for (group, ((weights, codes), (slots, width))) in weights.zip(slots).enumerate() {
                moved |= step(
                    this,
                    &mut Group {
                        span: group * len..(group + 1) * len,
                        weights,
                        codes,
                        slots,
                        width,
                    },
                );
            }
            moved
        };
        each(self, Self::nearest_plane);
        for _ in 0..sweeps {
            if self.hessian.is_diagonal() || !each(self, Self::descend) {
                break;
            }
        }
    }

    /// The first sketch of a group, given those before it.
    fn nearest_plane(&mut self, group: &mut Group<'_>) -> bool {
        let span = group.span.clone();
        for (i, j) in span.clone().enumerate() {
            let (row, pivot) = self.hessian.factor_row(j);
            let seen = row.len().min(span.start);
            self.targets[i] = group.weights[i] - dot(&row[..seen], &self.error[..seen]) / pivot;
            self.h[i] = pivot * pivot;
        }
        let asked = &mut group.slots[..usize::from(*group.width)];
        *group.width = if asked.is_empty() {
            0
        } else {
            let (targets, h) = (&self.targets, Some(self.h.as_slice()));
            self.room.weighted(targets, h, group.codes, asked)
        };
        self.nearest.build(group.live());
        for (i, j) in span.clone().enumerate() {
            let (row, pivot) = self.hessian.factor_row(j);
            let inside = row.get(span.start..).unwrap_or_default();
            let made_up = dot(inside, &self.error[span.start..j]) / pivot;
            let target = &[self.targets[i] - made_up];
            self.nearest.assign(target, &mut group.codes[i..=i]);
            self.error[j] = self.nearest.codebook().value(group.codes[i]) - group.weights[i];
        }
        true
    }

    /// Whether codes or coordinates of a group have become better, given all others.
    fn descend(&mut self, group: &mut Group<'_>) -> bool {
        let mut moved = false;
        if *group.width > 0 {
            for (gradient, j) in self.gradient.iter_mut().zip(group.span.clone()) {
                *gradient = dot(self.hessian.row(j), &self.error);
            }
            for _ in 0..TURNS {
                let turn = self.reassign(group) | self.refit(group);
                moved |= turn;
                if !turn {
                    break;
                }
            }
        }
        moved
    }

    /// Each weight to the level that is best given all others.
    fn reassign(&mut self, group: &mut Group<'_>) -> bool {
        self.nearest.build(group.live());
        let mut moved = false;
        for (i, j) in group.span.clone().enumerate() {
            let old = self.nearest.codebook().value(group.codes[i]);
            let target = old - self.gradient[i] / self.hessian.entry(j);
            let mut code = [0];
            self.nearest.assign(&[target], &mut code);
            let new = self.nearest.codebook().value(code[0]);
            if new != old {
                group.codes[i] = code[0];
                self.error[j] = new - group.weights[i];
                let row = &self.hessian.row(j)[group.span.clone()];
                add(&mut self.gradient, new - old, row);
                moved = true;
            }
        }
        moved
    }

    /// All coordinates of a group to the best given its bases and all others.
    fn refit(&mut self, group: &mut Group<'_>) -> bool {
        let bases = group.live().len();
        let (gram, rhs) = self.normal_equations(group);
        let (gram, rhs) = (&gram[..bases * bases], &rhs[..bases]);
        let model = |alpha: &dyn Fn(usize) -> f64| -> f64 {
            let rows = gram.chunks_exact(bases).zip(rhs).enumerate();
            let terms = rows.map(|(i, (row, rhs))| {
                let product: f64 = row.iter().enumerate().map(|(k, g)| g * alpha(k)).sum();
                alpha(i) * (0.5 * product - rhs)
            });
            terms.sum()
        };
        let mut a = [0.0; MAX_BITS * MAX_BITS];
        let (a, mut alpha) = (&mut a[..gram.len()], [0.0; MAX_BITS]);
        let alpha = &mut alpha[..bases];
        a.copy_from_slice(gram);
        alpha.copy_from_slice(rhs);
        let trace: f64 = gram.iter().step_by(bases + 1).sum();
        let ridge = RIDGE * trace / bases as f64;
        a.iter_mut().step_by(bases + 1).for_each(|a| *a += ridge);
        let round = |alpha: f64| f64::from(stored(alpha, self.coordinate_type)).copysign(alpha);
        let solved = solve_spd_rounded(a, alpha, bases, round);
        let old = |i: usize| f64::from(group.slots[i]);
        // Not a number is not better.
        let is_better = solved.is_ok() && model(&|i| alpha[i]) < model(&old);
        if !is_better {
            return false;
        }
        for (basis, products) in self.products.chunks_exact(self.len).take(bases).enumerate() {
            let step = (alpha[basis] - old(basis)) as f32;
            add(&mut self.gradient, step, products);
        }
        group.slots.fill(0.0);
        *group.width = normalize(alpha, group.codes, group.slots, self.coordinate_type);
        self.nearest.build_codebook(group.live());
        let errors = &mut self.error[group.span.clone()];
        for ((error, &code), weight) in errors.iter_mut().zip(&*group.codes).zip(group.weights) {
            *error = self.nearest.codebook().value(code) - weight;
        }
        true
    }

    /// `BᵀHB` and `Bᵀ(H Bα − g)` of a group, and `HB` in `products`.
    fn normal_equations(
        &mut self,
        group: &Group<'_>,
    ) -> ([f64; MAX_BITS * MAX_BITS], [f64; MAX_BITS]) {
        let live = group.live();
        let bases = live.len();
        let mut gram = [0.0; MAX_BITS * MAX_BITS];
        let mut rhs = [0.0; MAX_BITS];
        for i in 0..bases {
            for (sign, code) in self.signs.iter_mut().zip(&*group.codes) {
                *sign = if code >> i & 1 == 1 { -1.0 } else { 1.0 };
            }
            let products = &mut self.products[i * self.len..][..self.len];
            for (product, j) in products.iter_mut().zip(group.span.clone()) {
                *product = dot(&self.hessian.row(j)[group.span.clone()], &self.signs);
            }
            let against = |x: &[f32]| -> f64 {
                let terms = x.iter().zip(&self.signs);
                terms.map(|(&x, &sign)| f64::from(x * sign)).sum()
            };
            for k in 0..=i {
                gram[i * bases + k] = against(&self.products[k * self.len..][..self.len]);
                gram[k * bases + i] = gram[i * bases + k];
            }
            rhs[i] = -against(&self.gradient);
        }
        for (rhs, row) in rhs.iter_mut().zip(gram.chunks_exact(bases)) {
            let products = row.iter().zip(live).map(|(g, &alpha)| g * f64::from(alpha));
            *rhs += products.sum::<f64>();
        }
        (gram, rhs)
    }
}
