//! Sketching that knows the inputs: float weights and `H` → bases and coordinates.

use alloc::vec::Vec;
use core::ops::Range;

use thiserror::Error;

use super::hessian::Hessian;
use super::nearest::NearestCode;
use super::refine::Refinement;
use super::sketch::{Sketch, SketchError, normalize};
use crate::math::solve_spd_rounded;
use crate::{CoordinateType, MAX_BITS};

const RIDGE: f64 = 1e-9;
const PASSES: usize = 2;
const LANES: usize = 16;

/// .
pub fn calibrate(
    weights: &[f32],
    hessian: &Hessian,
    len: usize,
    widths: &[u8],
    coordinate_type: CoordinateType,
    sweeps: usize,
) -> Result<Sketch, SketchError> {
    let inputs = hessian.inputs();
    let per_row = inputs / len;
    let max_bits = usize::from(*widths.iter().max().unwrap()).max(1);
    let mut sketch = Sketch {
        codes: alloc::vec![0; weights.len()],
        coordinates: alloc::vec![0.0; widths.len() * max_bits],
        widths: widths.to_vec(),
        max_bits,
        len,
    };
    use rayon::prelude::*;
    let rows = weights.par_chunks(inputs).zip(sketch.codes.par_chunks_mut(inputs));
    let slots = sketch.coordinates.par_chunks_mut(per_row * max_bits).zip(sketch.widths.par_chunks_mut(per_row));
    rows.zip(slots).for_each_init(
        || Row::new(hessian, len, max_bits, coordinate_type),
        |row, ((weights, codes), (slots, widths))| row.fit(weights, codes, slots, widths, sweeps),
    );
    Ok(sketch)
}

struct Row<'a> {
    hessian: &'a Hessian,
    len: usize,
    max_bits: usize,
    coordinate_type: CoordinateType,
    refinement: Refinement,
    nearest: NearestCode,
    /// `ŵ − w`
    delta: Vec<f32>,
    targets: Vec<f32>,
    masses: Vec<f32>,
    gradient: Vec<f32>,
    signs: Vec<f32>,
    products: Vec<f32>,
    changed: Vec<u8>,
}

impl<'a> Row<'a> {
    fn new(hessian: &'a Hessian, len: usize, max_bits: usize, coordinate_type: CoordinateType) -> Self {
        Self {
            hessian, len, max_bits, coordinate_type,
            refinement: Refinement::new(coordinate_type),
            nearest: NearestCode::new(),
            delta: alloc::vec![0.0; hessian.inputs()],
            targets: alloc::vec![0.0; len],
            masses: alloc::vec![0.0; len],
            gradient: alloc::vec![0.0; len],
            signs: alloc::vec![0.0; len],
            products: alloc::vec![0.0; len * MAX_BITS],
            changed: alloc::vec![0; len],
        }
    }

    fn fit(&mut self, weights: &[f32], codes: &mut [u8], slots: &mut [f32], widths: &mut [u8], sweeps: usize) {
        let groups = widths.len();
        for group in 0..groups {
            let span = group * self.len..(group + 1) * self.len;
            self.successive(&weights[span.clone()], span.clone(), &mut codes[span], &mut slots[group * self.max_bits..][..self.max_bits], &mut widths[group]);
        }
        if self.hessian.is_diagonal() { return; }
        for _ in 0..sweeps {
            let mut moved = false;
            for group in 0..groups {
                let span = group * self.len..(group + 1) * self.len;
                moved |= self.descend(&weights[span.clone()], span.clone(), &mut codes[span], &mut slots[group * self.max_bits..][..self.max_bits], &mut widths[group]);
            }
            if !moved { break; }
        }
    }

    fn successive(&mut self, weights: &[f32], span: Range<usize>, codes: &mut [u8], slots: &mut [f32], width: &mut u8) {
        for (i, j) in span.clone().enumerate() {
            let (row, pivot) = self.hessian.factor_row(j);
            let seen = row.len().min(span.start);
            self.gradient[i] = dot(&row[..seen], &self.delta[..seen]) / pivot;
            self.targets[i] = weights[i] - self.gradient[i];
            self.masses[i] = pivot * pivot;
        }
        let found = self.refinement.group(&self.targets, Some(&self.masses), usize::from(*width), None);
        let alpha = found.map(f64::from);
        *width = normalize(&alpha[..usize::from(*width)], &mut [], slots, self.coordinate_type);
        self.nearest.build(&slots[..usize::from(*width)]);
        for (i, j) in span.clone().enumerate() {
            let (row, pivot) = self.hessian.factor_row(j);
            let inside = row.get(span.start..).unwrap_or(&[]);
            let target = self.targets[i] - dot(inside, &self.delta[span.start..j]) / pivot;
            self.nearest.assign(&[target], &mut codes[i..=i]);
            self.delta[j] = self.nearest.codebook().value(codes[i]) - weights[i];
        }
    }

    fn descend(&mut self, weights: &[f32], span: Range<usize>, codes: &mut [u8], slots: &mut [f32], width: &mut u8) -> bool {
        if *width == 0 { return false; }
        for (gradient, j) in self.gradient.iter_mut().zip(span.clone()) {
            *gradient = dot(self.hessian.row(j), &self.delta);
        }
        let mut moved = false;
        for _ in 0..PASSES {
            let a = self.reassign(weights, span.clone(), codes, &slots[..usize::from(*width)]);
            let b = self.refit(weights, span.clone(), codes, slots, width);
            moved |= a | b;
            if !(a | b) { break; }
        }
        moved
    }

    fn reassign(&mut self, weights: &[f32], span: Range<usize>, codes: &mut [u8], live: &[f32]) -> bool {
        self.nearest.build(live);
        let mut moved = false;
        for (i, j) in span.clone().enumerate() {
            let old = self.nearest.codebook().value(codes[i]);
            let target = old - self.gradient[i] / self.hessian.entry(j);
            let mut code = [0];
            self.nearest.assign(&[target], &mut code);
            let step = self.nearest.codebook().value(code[0]) - old;
            if step != 0.0 {
                codes[i] = code[0];
                self.delta[j] = self.nearest.codebook().value(code[0]) - weights[i];
                add(&mut self.gradient, step, &self.hessian.row(j)[span.clone()]);
                moved = true;
            }
        }
        moved
    }

    fn refit(&mut self, weights: &[f32], span: Range<usize>, codes: &mut [u8], slots: &mut [f32], width: &mut u8) -> bool {
        let bases = usize::from(*width);
        let len = self.len;
        for basis in 0..bases {
            for (sign, code) in self.signs.iter_mut().zip(&*codes) {
                *sign = if code >> basis & 1 == 1 { -1.0 } else { 1.0 };
            }
            let products = &mut self.products[basis * len..][..len];
            for (product, j) in products.iter_mut().zip(span.clone()) {
                *product = dot(&self.hessian.row(j)[span.clone()], &self.signs);
            }
        }
        let mut gram = [0.0; MAX_BITS * MAX_BITS];
        let mut rhs = [0.0; MAX_BITS];
        for i in 0..bases {
            let signed = |x: f32, code: u8| f64::from(if code >> i & 1 == 1 { -x } else { x });
            for k in 0..=i {
                let products = &self.products[k * len..][..len];
                let sum: f64 = products.iter().zip(&*codes).map(|(&x, &code)| signed(x, code)).sum();
                gram[i * bases + k] = sum;
                gram[k * bases + i] = sum;
            }
            rhs[i] = -self.gradient.iter().zip(&*codes).map(|(&x, &code)| signed(x, code)).sum::<f64>();
        }
        let old: [f64; MAX_BITS] = core::array::from_fn(|i| if i < bases { f64::from(slots[i]) } else { 0.0 });
        for i in 0..bases {
            rhs[i] += (0..bases).map(|k| gram[i * bases + k] * old[k]).sum::<f64>();
        }
        let model = |alpha: &[f64]| -> f64 {
            (0..bases).map(|i| alpha[i] * ((0..bases).map(|k| gram[i * bases + k] * alpha[k]).sum::<f64>() * 0.5 - rhs[i])).sum()
        };
        let mut a = gram;
        let trace = (0..bases).map(|i| gram[i * bases + i]).sum::<f64>() / bases as f64;
        for i in 0..bases { a[i * bases + i] += RIDGE * trace; }
        let mut alpha = rhs;
        let round = |alpha: f64| {
            let c = f64::from(super::sketch::stored(alpha, self.coordinate_type));
            if alpha < 0.0 { -c } else { c }
        };
        if solve_spd_rounded(&mut a[..bases * bases], &mut alpha[..bases], bases, round).is_err() { return false; }
        if !(model(&alpha[..bases]) < model(&old[..bases])) { return false; }
        slots.fill(0.0);
        for basis in 0..bases {
            let step = (alpha[basis] - old[basis]) as f32;
            add(&mut self.gradient, step, &self.products[basis * len..][..len]);
        }
        *width = normalize(&alpha[..bases], codes, slots, self.coordinate_type);
        self.nearest.build_codebook(&slots[..usize::from(*width)]);
        for ((delta, &code), weight) in self.delta[span].iter_mut().zip(&*codes).zip(weights) {
            *delta = self.nearest.codebook().value(code) - weight;
        }
        true
    }
}

/// `y ← y + a x`.
fn add(y: &mut [f32], a: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// `Σ x y`, in a fixed order.
fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let (x, y) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let rest: f32 = x.remainder().iter().zip(y.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in x.zip(y) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f32>() + rest
}
