//! Products of two matrices of signs, by what samples of the inputs say: float weights and `H` → signs
//! and scales.

use alloc::vec::Vec;

use super::hessian::{Hessian, add, dot};
use super::sketch::{Sketch, SketchError, check_finite, stored};
use super::{check_len, reconstruct};
use crate::CoordinateType;
use crate::math::{multiply, sqrt, transposed};

/// Steps of least squares alone, and steps that draw both factors towards signs.
const STEPS: [usize; 2] = [2, 60];

/// The pull of these steps, relative to the mean curvature: of the first of all, and of the last.
const PULL: [f32; 2] = [0.01, 1.0];

/// Rounds of descent on single signs and on scales.
const ROUNDS: usize = 6;

/// Times that the signs of a group are gone through in a round.
const SWEEPS: usize = 3;

/// Power steps to the nearest magnitudes `rᵢ cⱼ`, from those of the step before.
const POWERS: usize = 2;

/// Of the mean diagonal: inputs whose scales depend on each other share what is theirs.
const RIDGE: f64 = 1e-4;

/// A weight `[outputs, inputs]` as the product of two weights of one bit with a scale of each input,
/// `Ŵ = S F diag(c)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Product {
    /// `F`, `[rank, inputs]`: signs with a coordinate for each rank.
    pub first: Sketch,
    /// `S`, `[outputs, rank]`: signs with a coordinate for each output.
    pub second: Sketch,
    /// `c`, `[inputs]`, numbers of the coordinates' type. They may be negative.
    pub scale: Vec<f32>,
}

/// Approximates a weight by a product of two matrices of signs with scales of outputs, ranks and inputs,
/// `Ŵ = diag(s) ±1 diag(m) ±1 diag(c)`, so that the error of the *output* is small:
/// `tr (W − Ŵ) H (W − Ŵ)ᵀ`, with `H = Σ x xᵀ` over samples of the inputs.
///
/// It takes `rank · (outputs + inputs)` bits. From about one bit a weight on downwards it leaves less than
/// sums of bases do.
///
/// First the free factors of the least error, by alternating least squares from random signs (so no factor
/// is much larger than another). Then ADMM draws them towards signs: in turn each factor goes to the least
/// error given the other, pulled towards its nearest magnitudes `rᵢ cⱼ` with its own signs less what it has
/// not reached so far, by a pull that grows. Then coordinate descent in the metric of `H`, rank after rank
/// and output after output: each sign takes the better of its values given all others, each scale its best
/// one, as it is stored. No move of the descent makes the error larger.
///
/// DBF (Boža and Macko, 2025) and LittleBit (Lee et al., 2025) have such products; here `H` is not
/// taken for diagonal.
///
/// # Shapes
/// - `weights`: `[outputs, inputs]`
///
/// # Errors
/// If a weight is not finite.
///
/// # Panics
/// If `rank` is 0, or `weights` does not hold a whole number of outputs.
pub fn product(
    weights: &[f32],
    hessian: &Hessian,
    rank: usize,
    coordinate_type: CoordinateType,
) -> Result<Product, SketchError> {
    let inputs = hessian.inputs();
    assert!(rank > 0, "`rank` is 0, a product needs at least one");
    let outputs = weights.len() / inputs.max(1);
    check_len("weights", weights.len(), outputs, inputs);
    check_finite(weights)?;
    let largest = weights.iter().fold(0.0f32, |most, w| most.max(w.abs()));
    if largest < f32::MIN_POSITIVE {
        return Ok(Product {
            first: Sketch::empty(rank, inputs, 1),
            second: Sketch::empty(outputs, rank, 1),
            scale: alloc::vec![1.0; inputs],
        });
    }
    // Of about size 1, so that no sum is infinite; by the square of a power of two, of which each factor takes
    // one without rounding.
    let half = libm::exp2f(libm::floorf(0.5 * libm::log2f(largest)));
    let size = half * half;
    let weights: Vec<f32> = weights.iter().map(|w| w / size).collect();
    let fit = Fit {
        bent: hessian.times(&weights),
        weights: &weights,
        hessian,
        rank,
        outputs,
        coordinate_type,
    };
    let mut product = fit.split(fit.draw());
    for _ in 0..ROUNDS {
        let before = product.clone();
        fit.first(&mut product);
        fit.scale(&mut product);
        fit.second(&mut product);
        if product == before {
            break;
        }
    }
    for factor in [&mut product.first, &mut product.second] {
        for (slot, width) in factor.coordinates.iter_mut().zip(&mut factor.widths) {
            *slot = stored(f64::from(*slot) * f64::from(half), coordinate_type);
            *width = u8::from(*slot > 0.0);
        }
    }
    Ok(product)
}

/// A weight that a product is fitted to.
struct Fit<'a> {
    /// `W`, `[outputs, inputs]`.
    weights: &'a [f32],
    /// `W H`.
    bent: Vec<f32>,
    hessian: &'a Hessian,
    rank: usize,
    outputs: usize,
    coordinate_type: CoordinateType,
}

/// A factor that is drawn towards signs with a scale of each row and of each column.
struct Drawn {
    columns: usize,
    /// Where the last step has brought it.
    free: Vec<f32>,
    /// What is near to it: signs with scales, or itself as long as it is not drawn.
    near: Vec<f32>,
    /// What it has not reached of that in all steps.
    left: Vec<f32>,
    /// The scales.
    rows: Vec<f32>,
    scales: Vec<f32>,
}

impl Drawn {
    fn new(rows: usize, columns: usize) -> Self {
        let zeros = || alloc::vec![0.0; rows * columns];
        Self {
            columns,
            free: zeros(),
            near: zeros(),
            left: zeros(),
            rows: alloc::vec![1.0; rows],
            scales: alloc::vec![1.0; columns],
        }
    }

    /// Where it is pulled to.
    fn target(&self) -> impl Iterator<Item = f32> + '_ {
        self.near
            .iter()
            .zip(&self.left)
            .map(|(near, left)| near - left)
    }

    /// The nearest signs with scales, an error in column `j` counting `counts[j]`.
    fn project(&mut self, counts: &[f32]) {
        let over = |sum: f32, norm: f32| sum / norm.max(f32::MIN_POSITIVE);
        for (left, free) in self.left.iter_mut().zip(&self.free) {
            *left += free;
        }
        let sums = &self.left;
        for _ in 0..POWERS {
            let weighted = self.scales.iter().zip(counts);
            let weighted: Vec<f32> = weighted.map(|(c, count)| c * count).collect();
            let norm: f32 = weighted.iter().zip(&self.scales).map(|(a, b)| a * b).sum();
            for (row, x) in self.rows.iter_mut().zip(sums.chunks_exact(self.columns)) {
                let along = x.iter().zip(&weighted).map(|(x, c)| x.abs() * c);
                *row = over(along.sum(), norm);
            }
            let norm: f32 = self.rows.iter().map(|row| row * row).sum();
            self.scales.fill(0.0);
            for (row, x) in self.rows.iter().zip(sums.chunks_exact(self.columns)) {
                for (scale, x) in self.scales.iter_mut().zip(x) {
                    *scale += over(row * x.abs(), norm);
                }
            }
        }
        let nears = self.near.chunks_exact_mut(self.columns);
        let lefts = self.left.chunks_exact_mut(self.columns);
        for ((near, left), row) in nears.zip(lefts).zip(&self.rows) {
            for ((near, left), scale) in near.iter_mut().zip(left).zip(&self.scales) {
                *near = (row * scale).copysign(*left);
                *left -= *near;
            }
        }
    }
}

impl Fit<'_> {
    /// Both factors, `[rank, inputs]` and `[outputs, rank]`, near to signs with scales.
    fn draw(&self) -> [Drawn; 2] {
        let (inputs, rank, outputs) = (self.hessian.inputs(), self.rank, self.outputs);
        let mut first = Drawn::new(rank, inputs);
        let mut second = Drawn::new(outputs, rank);
        let mut state = 1u64;
        for near in &mut first.near {
            // Knuth's generator; its highest bit.
            state = state.wrapping_mul(6_364_136_223_846_793_005);
            state = state.wrapping_add(1_442_695_040_888_963_407);
            *near = if state >> 63 == 1 { 1.0 } else { -1.0 };
        }
        let counts: Vec<f32> = (0..inputs).map(|j| self.hessian.entry(j)).collect();
        let equal = alloc::vec![1.0; rank];
        let [free, drawn] = STEPS;
        for step in 0..free + drawn {
            let share = step.saturating_sub(free) as f32 / (drawn - 1) as f32;
            let pull = PULL[0] + (PULL[1] - PULL[0]) * share * share;

            let (gram, rhs) = self.equations(&first.near);
            let (inverse, pull_of) = damped_inverse(&gram, rank, pull);
            let sum = pulled(&rhs, pull_of, second.target());
            second.free = multiply(&sum, &inverse, rank, rank);
            if step < free {
                second.near.clone_from(&second.free);
            } else {
                second.project(&equal);
            }

            let back = transposed(&second.near, rank);
            let gram = multiply(&back, &second.near, outputs, rank);
            let rhs = multiply(&back, self.weights, outputs, inputs);
            let (inverse, pull_of) = damped_inverse(&gram, rank, pull);
            let sum = pulled(&rhs, pull_of, first.target());
            first.free = multiply(&inverse, &sum, rank, inputs);
            if step < free {
                first.near.clone_from(&first.free);
            } else {
                first.project(&counts);
            }
        }
        [first, second]
    }

    /// `G H Gᵀ` and `W H Gᵀ` of a first factor `G`, `[rank, inputs]`.
    fn equations(&self, g: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let inputs = self.hessian.inputs();
        let back = transposed(g, inputs);
        let gram = multiply(&self.hessian.times(g), &back, inputs, self.rank);
        (gram, multiply(&self.bent, &back, inputs, self.rank))
    }

    /// What is near to both factors as signs and scales: of inputs of about 1, of ranks and of outputs of one
    /// mean, so that steps of one size move both.
    fn split(&self, [first, second]: [Drawn; 2]) -> Product {
        let mean = |scales: &[f32]| match scales.iter().sum::<f32>() / scales.len() as f32 {
            mean if mean > 0.0 => mean,
            _ => 1.0,
        };
        let of_inputs = mean(&first.scales);
        let ranks = first.rows.iter().zip(&second.scales);
        let ranks: Vec<f32> = ranks.map(|(a, b)| a * b * of_inputs).collect();
        // What the scales of ranks are multiplied by, and those of outputs divided.
        let shift = sqrt(mean(&second.rows) / mean(&ranks));
        let sketch = |near: &[f32], len: usize, scales: &mut dyn Iterator<Item = f32>| {
            let mut sketch = Sketch::empty(near.len() / len, len, 1);
            for (code, near) in sketch.codes.iter_mut().zip(near) {
                *code = u8::from(*near < 0.0);
            }
            for ((slot, width), scale) in sketch
                .coordinates
                .iter_mut()
                .zip(&mut sketch.widths)
                .zip(scales)
            {
                *slot = stored(f64::from(scale), self.coordinate_type);
                *width = u8::from(*slot > 0.0);
            }
            sketch
        };
        let inputs = self.hessian.inputs();
        let scales = first.scales.iter();
        Product {
            first: sketch(&first.near, inputs, &mut ranks.iter().map(|m| m * shift)),
            second: sketch(
                &second.near,
                self.rank,
                &mut second.rows.iter().map(|s| s / shift),
            ),
            scale: scales.map(|c| self.rounded(c / of_inputs)).collect(),
        }
    }

    /// A scale of an input as it is stored.
    fn rounded(&self, c: f32) -> f32 {
        self.coordinate_type.round(c.abs()).copysign(c)
    }

    /// `F diag(c)`.
    fn scaled(&self, product: &Product) -> Vec<f32> {
        let mut g = values(&product.first);
        for row in g.chunks_exact_mut(product.scale.len()) {
            for (g, c) in row.iter_mut().zip(&product.scale) {
                *g *= c;
            }
        }
        g
    }

    /// Descent on the first factor, one rank after the other given all others.
    fn first(&self, product: &mut Product) {
        let (inputs, rank) = (self.hessian.inputs(), self.rank);
        let second = values(&product.second);
        let back = transposed(&second, rank);
        let gram = multiply(&back, &second, self.outputs, rank);
        let rhs = multiply(&back, &self.bent, self.outputs, inputs);
        // `F diag(c) H`, kept up to date.
        let mut bent = self.hessian.times(&self.scaled(product));
        let (scale, first) = (&product.scale, &mut product.first);
        let ranks = gram.chunks_exact(rank).zip(rhs.chunks_exact(inputs));
        for (k, (gram, rhs)) in ranks.enumerate() {
            if gram[k] <= 0.0 {
                continue;
            }
            let mut lacks = rhs.to_vec();
            let others = bent.chunks_exact(inputs).zip(gram).enumerate();
            for (_, (bent, &g)) in others.filter(|&(other, _)| other != k) {
                add(&mut lacks, -g, bent);
            }
            let codes = &mut first.codes[k * inputs..][..inputs];
            let signed = codes.iter().zip(scale).map(|(&code, &c)| sign(code) * c);
            let mut signed: Vec<f32> = signed.collect();
            let mut along = self.hessian.times(&signed);
            let slot = &mut first.coordinates[k];
            let row = |j| (self.hessian.row(j), self.hessian.entry(j));
            let group = (&mut signed[..], &mut along[..], &mut *slot);
            descend(group, &lacks, gram[k], row, self.coordinate_type);
            for ((code, v), c) in codes.iter_mut().zip(&signed).zip(scale) {
                *code = u8::from((*v < 0.0) != (*c < 0.0));
            }
            first.widths[k] = u8::from(*slot > 0.0);
            for (bent, along) in bent[k * inputs..].iter_mut().zip(&along) {
                *bent = *slot * along;
            }
        }
    }

    /// Descent on the second factor, each output by itself.
    fn second(&self, product: &mut Product) {
        let rank = self.rank;
        let (gram, rhs) = self.equations(&self.scaled(product));
        product
            .second
            .in_parts(&rhs, 1, |rhs, codes, slots, widths| {
                let outputs = rhs.chunks_exact(rank).zip(codes.chunks_exact_mut(rank));
                for ((rhs, codes), (slot, width)) in outputs.zip(slots.iter_mut().zip(widths)) {
                    let mut signs: Vec<f32> = codes.iter().map(|&code| sign(code)).collect();
                    let mut along = alloc::vec![0.0; rank];
                    for (&sign, row) in signs.iter().zip(gram.chunks_exact(rank)) {
                        add(&mut along, sign, row);
                    }
                    let row = |k: usize| (&gram[k * rank..][..rank], gram[k * rank + k]);
                    let group = (&mut signs[..], &mut along[..], &mut *slot);
                    descend(group, rhs, 1.0, row, self.coordinate_type);
                    for (code, sign) in codes.iter_mut().zip(&signs) {
                        *code = u8::from(*sign < 0.0);
                    }
                    *width = u8::from(*slot > 0.0);
                }
            });
    }

    /// The best scales of inputs given both factors, unless they are no better as they are stored:
    /// `(EᵀE ∘ H) c = diag(Eᵀ W H)` with `E = S F`.
    fn scale(&self, product: &mut Product) {
        let (inputs, rank) = (self.hessian.inputs(), self.rank);
        let [first, second] = [&product.first, &product.second].map(values);
        let dense = multiply(&second, &first, rank, inputs);
        let mut gram = multiply(&transposed(&dense, inputs), &dense, self.outputs, inputs);
        for (i, row) in gram.chunks_exact_mut(inputs).enumerate() {
            let h = self.hessian.row(i);
            for (j, entry) in row.iter_mut().enumerate() {
                *entry *= match h.get(j) {
                    Some(h) => *h,
                    None if i == j => self.hessian.entry(i),
                    None => 0.0,
                };
            }
        }
        let mut rhs = alloc::vec![0.0; inputs];
        for (dense, bent) in dense
            .chunks_exact(inputs)
            .zip(self.bent.chunks_exact(inputs))
        {
            for ((rhs, dense), bent) in rhs.iter_mut().zip(dense).zip(bent) {
                *rhs += dense * bent;
            }
        }
        let rows = || gram.chunks_exact(inputs).zip(&rhs);
        let model = |c: &[f32]| -> f64 {
            let term = |((row, rhs), c_i): ((&[f32], &f32), &f32)| {
                f64::from(*c_i) * (f64::from(dot(row, c)) - 2.0 * f64::from(*rhs))
            };
            rows().zip(c).map(term).sum()
        };
        let lacking = rows().map(|(row, rhs)| rhs - dot(row, &product.scale));
        let lacking: Vec<f32> = lacking.collect();
        let Ok(damped) = Hessian::new(&gram, inputs, RIDGE) else {
            return;
        };
        let mut new = damped.least_squares(&product.scale, &lacking);
        new.iter_mut().for_each(|c| *c = self.rounded(*c));
        if model(&new) < model(&product.scale) {
            product.scale = new;
        }
    }
}

/// Brings `g m² vᵀQv − 2m yᵀv` down, over the signs of `v` one after the other and over `m ≥ 0`, as it is
/// stored; `Qv` is kept up to date.
///
/// # Arguments
/// - `group`: `v`, `Qv` and `m`
/// - `row`: row `j` of `Q`, nothing if it is diagonal, and `Q_jj`
fn descend<'q>(
    (v, along, slot): (&mut [f32], &mut [f32], &mut f32),
    y: &[f32],
    g: f32,
    row: impl Fn(usize) -> (&'q [f32], f32),
    coordinate_type: CoordinateType,
) {
    for sweep in 0..SWEEPS {
        let mut moved = false;
        let m = g * *slot;
        // Without a scale no sign is better than the other.
        let places = if m > 0.0 { 0..v.len() } else { 0..0 };
        for j in places {
            let (q, entry) = row(j);
            let pull = y[j] - m * (along[j] - entry * v[j]);
            if v[j] * pull < 0.0 {
                v[j] = -v[j];
                match q {
                    [] => along[j] += 2.0 * v[j] * entry,
                    q => add(along, 2.0 * v[j], q),
                }
                moved = true;
            }
        }
        if !moved && sweep > 0 {
            break;
        }
        let norm = f64::from(g) * f64::from(dot(v, along));
        let product = f64::from(dot(y, v));
        if product < 0.0 {
            v.iter_mut().chain(along.iter_mut()).for_each(|x| *x = -*x);
        }
        let product = product.abs();
        let best = if norm > 0.0 { product / norm } else { 0.0 };
        let new = stored(best, coordinate_type);
        let model = |m: f32| f64::from(m) * (f64::from(m) * norm - 2.0 * product);
        if model(new) < model(*slot) {
            *slot = new;
        }
    }
}

/// `(A + pull · mean · I)⁻¹` with the mean of `A`'s diagonal, and `pull · mean`. Nothing of an `A` of zeros.
fn damped_inverse(a: &[f32], n: usize, pull: f32) -> (Vec<f32>, f32) {
    let mean = a.iter().step_by(n + 1).sum::<f32>() / n as f32;
    let zeros = alloc::vec![0.0; n * n];
    let mut unit = zeros.clone();
    unit.iter_mut()
        .step_by(n + 1)
        .for_each(|entry| *entry = 1.0);
    let damped = Hessian::new(a, n, f64::from(pull));
    // Rounding does not reach as far as the pull.
    let inverse = damped.map_or(zeros, |damped| {
        damped.least_squares(&alloc::vec![0.0; n * n], &unit)
    });
    (inverse, pull * mean)
}

/// `rhs + pull · target`.
fn pulled(rhs: &[f32], pull: f32, target: impl Iterator<Item = f32>) -> Vec<f32> {
    let pairs = rhs.iter().zip(target);
    pairs.map(|(rhs, target)| rhs + pull * target).collect()
}

fn sign(code: u8) -> f32 {
    if code == 1 { -1.0 } else { 1.0 }
}

/// The dense matrix of a factor.
fn values(sketch: &Sketch) -> Vec<f32> {
    let mut out = alloc::vec![0.0; sketch.codes.len()];
    let Sketch {
        codes,
        coordinates,
        widths,
        max_bits,
        len,
    } = sketch;
    reconstruct(codes, coordinates, widths, *len, *max_bits, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tr (W − Ŵ) H (W − Ŵ)ᵀ`, as it is written.
    fn error(fit: &Fit<'_>, product: &Product) -> f64 {
        let (inputs, rank) = (fit.hessian.inputs(), fit.rank);
        let levels = multiply(&values(&product.second), &fit.scaled(product), rank, inputs);
        let left: Vec<f64> = fit
            .weights
            .iter()
            .zip(&levels)
            .map(|(w, l)| f64::from(w - l))
            .collect();
        let h = |i: usize, j: usize| match fit.hessian.row(i).get(j) {
            Some(h) => f64::from(*h),
            None if i == j => f64::from(fit.hessian.entry(i)),
            None => 0.0,
        };
        let of_row = |left: &[f64]| -> f64 {
            let pairs = (0..inputs * inputs).map(|e| (e / inputs, e % inputs));
            pairs.map(|(i, j)| left[i] * h(i, j) * left[j]).sum()
        };
        left.chunks_exact(inputs).map(of_row).sum()
    }

    #[test]
    fn no_step_of_the_descent_makes_the_error_larger() {
        let mut state = 7u64;
        let mut unit = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        for (outputs, inputs, rank) in [(24, 17, 9), (5, 30, 4), (12, 12, 12)] {
            let x: Vec<f32> = (0..3 * inputs * inputs).map(|_| unit()).collect();
            let gram = multiply(&transposed(&x, inputs), &x, 3 * inputs, inputs);
            let weights: Vec<f32> = (0..outputs * inputs).map(|_| unit()).collect();
            for coordinate_type in [CoordinateType::F32, CoordinateType::Bf16] {
                for hessian in [
                    Hessian::new(&gram, inputs, 0.05).unwrap(),
                    Hessian::diagonal(&x[..inputs].iter().map(|x| x * x).collect::<Vec<_>>(), 0.05)
                        .unwrap(),
                ] {
                    let fit = Fit {
                        weights: &weights,
                        bent: hessian.times(&weights),
                        hessian: &hessian,
                        rank,
                        outputs,
                        coordinate_type,
                    };
                    let mut product = fit.split(fit.draw());
                    let begin = error(&fit, &product);
                    let mut last = begin;
                    for _ in 0..ROUNDS {
                        for step in [Fit::first, Fit::scale, Fit::second] {
                            step(&fit, &mut product);
                            let now = error(&fit, &product);
                            assert!(now <= last * (1.0 + 1e-5), "{now} after {last}");
                            last = now;
                        }
                    }
                    assert!(last < begin, "{last} after {begin}");
                }
            }
        }
    }
}
