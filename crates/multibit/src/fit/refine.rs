//! The refinement of one group's sketch: nearest levels and least squares in turn.

use alloc::vec::Vec;
use core::ops::Range;

use super::nearest::NearestCode;
use super::normal::Normal;
use super::sketch::stored;
use super::sort::Sorter;
use crate::{CoordinateType, MAX_BITS};

/// Coordinates of one group, those from its width on 0.
type Coordinates = [f32; MAX_BITS];

/// Rounds of a start.
const ROUNDS: usize = 8;

/// Starts that are taken further than one round.
const KEPT: usize = 2;

/// Of the mean diagonal: bases that depend on each other share what is theirs.
const RIDGE: f64 = 1e-9;

/// Shares of the largest magnitude at which equal steps end.
const CLIPS: [f64; 6] = [1.0, 0.85, 0.7, 0.58, 0.46, 0.36];

/// By width, the coordinates of the smallest squared error for distributions of variance 1 that are
/// like those of weights, with tails of three kinds. Found by search from thousands of random starts.
const SHAPES: [[&[f64]; MAX_BITS]; 3] = [NORMAL, LOGISTIC, LAPLACE];

const NORMAL: [&[f64]; MAX_BITS] = [
    &[0.7979],
    &[0.5288, 0.9815],
    &[0.4509, 0.7481, 0.9881],
    &[0.2956, 0.5558, 0.7076, 1.1267],
    &[0.2446, 0.4716, 0.5966, 0.9171, 0.9867],
    &[0.1294, 0.2593, 0.5100, 0.5753, 1.0036, 1.0402],
    &[0.1276, 0.2535, 0.3175, 0.5041, 0.5370, 1.0015, 1.0195],
    &[
        0.1393, 0.2084, 0.2796, 0.3123, 0.4001, 0.5581, 0.8289, 1.1173,
    ],
];

const LOGISTIC: [&[f64]; MAX_BITS] = [
    &[0.7645],
    &[0.5905, 1.0473],
    &[0.5387, 0.8852, 1.1629],
    &[0.5070, 0.8127, 0.9871, 1.1479],
    &[0.3181, 0.6069, 0.7689, 1.1815, 1.2688],
    &[0.2839, 0.5574, 0.7008, 1.0707, 1.1190, 1.1666],
    &[0.3607, 0.5186, 0.6095, 0.6984, 0.8330, 1.0367, 1.2401],
    &[
        0.2243, 0.2701, 0.4465, 0.5393, 0.6232, 0.9163, 1.0807, 1.2451,
    ],
];

const LAPLACE: [&[f64]; MAX_BITS] = [
    &[0.7074],
    &[0.7070, 1.1268],
    &[0.5868, 1.0140, 1.3400],
    &[0.6065, 0.9369, 1.1438, 1.3258],
    &[0.5758, 0.9050, 1.0988, 1.1998, 1.3025],
    &[0.3034, 0.6043, 1.0313, 1.1784, 1.2314, 1.4293],
    &[0.3784, 0.6232, 0.7577, 0.8128, 0.8683, 1.3541, 1.5172],
    &[
        0.3365, 0.5052, 0.6211, 0.6737, 0.7363, 0.9305, 1.1384, 1.3455,
    ],
];

/// Room to refine groups in.
pub(super) struct Refinement {
    coordinate_type: CoordinateType,
    nearest: NearestCode,
    /// The weights in ascending order.
    sorted: Vec<f32>,
    sorter: Sorter,
    /// Room to sort weights with their `h`.
    pairs: Vec<(f32, f32)>,
    /// Sums of `h·w` of the first of them, from one on.
    sums: Vec<f64>,
    /// Sums of `h`, likewise.
    masses: Vec<f64>,
    /// `Σ h w²`.
    norm: f64,
}

impl Refinement {
    pub(super) fn new(coordinate_type: CoordinateType) -> Self {
        Self {
            coordinate_type,
            nearest: NearestCode::new(),
            sorted: Vec::new(),
            sorter: Sorter::default(),
            pairs: Vec::new(),
            sums: Vec::new(),
            masses: Vec::new(),
            norm: 0.0,
        }
    }

    /// A buffer as long as a group that nothing is kept in from one group to the next.
    pub(super) fn lend(&mut self) -> &mut Vec<f64> {
        &mut self.sums
    }

    /// Coordinates of the group that leave less of it than others tried, for the codes of the
    /// nearest levels. What is left is `Σ h (w − ŵ)²`, with `h` as 1 if it is not given.
    ///
    /// Tried are, at the width of `greedy`: those themselves, equal steps up to several magnitudes,
    /// and the best ones of some distributions. Each start gets a round of nearest levels and least
    /// squares; the best two go on until they improve no more, or for eight rounds.
    ///
    /// A round takes no pass over the weights: in ascending order those of one level are
    /// neighbours, and running sums say what they add up to.
    pub(super) fn group(
        &mut self,
        weights: &[f32],
        h: Option<&[f32]>,
        greedy: &[f32],
    ) -> Coordinates {
        self.take(weights, h);
        let width = greedy.len();
        let mut kept = [(f64::INFINITY, [0.0; MAX_BITS]); KEPT];
        let mut start = |this: &mut Self, alpha: &dyn Fn(usize) -> f64| {
            let mut coordinates = [0.0; MAX_BITS];
            for (i, coordinate) in coordinates[..width].iter_mut().enumerate() {
                *coordinate = stored(alpha(i), this.coordinate_type);
            }
            let normal = this.normal(&coordinates[..width]);
            let Some(refitted) = this.refit(&normal, width) else {
                return;
            };
            let new = (this.error(&normal, &refitted), refitted);
            let place = kept.iter().position(|old| new.0 < old.0);
            if let Some(place) = place {
                kept[place..].rotate_right(1);
                kept[place] = new;
            }
        };
        start(self, &|i| f64::from(greedy[i]));
        let ends = [self.sorted.first(), self.sorted.last()];
        let ends = ends.map(|end| f64::from(end.map_or(0.0, |end| end.abs())));
        let steps = f64::from((1u32 << width) - 1);
        for clip in CLIPS {
            let step = clip * ends[0].max(ends[1]) / steps;
            start(self, &|i| step * f64::from(1u32 << i));
        }
        let deviation = libm::sqrt(self.norm / self.masses.last().copied().unwrap_or(1.0));
        for shape in SHAPES {
            start(self, &|i| deviation * shape[width - 1][i]);
        }
        let mut best = (f64::INFINITY, [0.0; MAX_BITS]);
        for (_, mut coordinates) in kept {
            let mut last = f64::INFINITY;
            for _ in 0..ROUNDS {
                let normal = self.normal(&coordinates[..width]);
                let error = self.error(&normal, &coordinates);
                if error < best.0 {
                    best = (error, coordinates);
                }
                // Not a number: levels beyond f32.
                if error >= last || error.is_nan() {
                    break;
                }
                last = error;
                match self.refit(&normal, width) {
                    Some(refitted) => coordinates = refitted,
                    None => break,
                }
            }
        }
        best.1
    }

    /// Weights, and what each counts: `h`, or 1.
    fn take(&mut self, weights: &[f32], h: Option<&[f32]>) {
        self.sorted.clear();
        self.pairs.clear();
        if let Some(h) = h {
            self.pairs
                .extend(weights.iter().copied().zip(h.iter().copied()));
            self.pairs
                .sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
            self.sorted.extend(self.pairs.iter().map(|pair| pair.0));
        } else {
            self.sorted.extend_from_slice(weights);
            self.sorter.sort(&mut self.sorted);
        }
        self.sums.clear();
        self.masses.clear();
        let (mut sum, mut mass, mut norm) = (0.0, 0.0, 0.0);
        for (i, &weight) in self.sorted.iter().enumerate() {
            let weight = f64::from(weight);
            let h = self.pairs.get(i).map_or(1.0, |pair| f64::from(pair.1));
            sum += h * weight;
            mass += h;
            norm += h * weight * weight;
            self.sums.push(sum);
            self.masses.push(mass);
        }
        self.norm = norm;
    }

    /// The normal equations of the bases that are nearest with some coordinates.
    fn normal(&mut self, coordinates: &[f32]) -> Normal {
        self.nearest.build(coordinates);
        let within = |sums: &[f64], run: &Range<usize>| {
            let before = run.start.checked_sub(1).map_or(0.0, |last| sums[last]);
            sums[run.end - 1] - before
        };
        let runs = self.nearest.runs(&self.sorted).map(|(code, run)| {
            let (mass, sum) = (within(&self.masses, &run), within(&self.sums, &run));
            (code, [mass, sum])
        });
        Normal::sum(self.sorted.len(), coordinates.len(), runs)
    }

    /// Least squares, ascending and as stored.
    fn refit(&self, normal: &Normal, width: usize) -> Option<Coordinates> {
        let round = |alpha: f64| {
            let coordinate = f64::from(stored(alpha, self.coordinate_type));
            if alpha < 0.0 { -coordinate } else { coordinate }
        };
        let alpha = normal.solve(width, RIDGE, round)?;
        let mut coordinates = alpha.map(|alpha| alpha.abs() as f32);
        coordinates[..width].sort_unstable_by(f32::total_cmp);
        Some(coordinates)
    }

    /// `‖w − Bα‖²` for the bases of `normal`.
    fn error(&self, normal: &Normal, coordinates: &Coordinates) -> f64 {
        self.norm + 2.0 * normal.model(&coordinates.map(f64::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Midpoints of `count` equal shares of a distribution of variance 1, from its quantiles.
    fn shares(count: usize, quantile: impl Fn(f64) -> f64) -> Vec<f32> {
        let share = |i: usize| quantile((i as f64 + 0.5) / count as f64);
        let norm: f64 = (0..count).map(|i| share(i) * share(i)).sum();
        let scale = libm::sqrt(count as f64 / norm);
        (0..count).map(|i| (scale * share(i)) as f32).collect()
    }

    fn normal(p: f64) -> f64 {
        let (mut low, mut high) = (-8.0, 8.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            let below = 0.5 * libm::erfc(-middle * core::f64::consts::FRAC_1_SQRT_2);
            if below < p {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }

    fn logistic(p: f64) -> f64 {
        libm::log(p / (1.0 - p))
    }

    fn laplace(p: f64) -> f64 {
        let tail = p.min(1.0 - p);
        if p < 0.5 {
            (2.0 * tail).ln()
        } else {
            -(2.0 * tail).ln()
        }
    }

    /// Of each table the next round stays where it is, at an error that halves at least with each bit.
    #[test]
    fn the_tables_are_best_for_their_distributions() {
        let weights = [
            shares(8192, normal),
            shares(8192, logistic),
            shares(8192, laplace),
        ];
        let mut room = Refinement::new(CoordinateType::F32);
        for (weights, shape) in weights.iter().zip(SHAPES) {
            room.take(weights, None);
            let mut last = room.norm;
            for (i, table) in shape.iter().enumerate() {
                let mut coordinates = [0.0; MAX_BITS];
                for (coordinate, &entry) in coordinates.iter_mut().zip(*table) {
                    *coordinate = entry as f32;
                }
                assert_eq!(table.len(), i + 1);
                let normal = room.normal(&coordinates[..=i]);
                let error = room.error(&normal, &coordinates);
                assert!(error < 0.5 * last, "{table:?}: {error} after {last}");
                last = error;
                let refitted = room.refit(&normal, i + 1).unwrap();
                for (new, old) in refitted.iter().zip(coordinates) {
                    // Tables have four digits, and a start is not moved far by one round.
                    assert!((new - old).abs() < 2e-3, "{table:?} becomes {refitted:?}");
                }
            }
        }
    }

    /// The equations of a group are those of its codes, summed one by one.
    #[test]
    fn running_sums_are_sums() {
        let mut room = Refinement::new(CoordinateType::F32);
        for count in [3, 40, 1000] {
            let weights: Vec<f32> = (0..count).map(|i| (i as f32 * 0.7).sin()).collect();
            room.take(&weights, None);
            let coordinates = [0.1, 0.3, 0.4, 0.6];
            let found = room.normal(&coordinates);
            let mut codes = alloc::vec![0; count];
            room.nearest.assign(&weights, &mut codes);
            let (ones, zeros) = (alloc::vec![1.0; count], alloc::vec![0.0; count]);
            let expected = Normal::new(&codes, 4, &ones, &weights, &zeros);
            assert_eq!(found.gram, expected.gram, "counts are exact");
            for (found, expected) in found.rhs.iter().zip(expected.rhs) {
                assert!((found - expected).abs() < 1e-11 * count as f64);
            }
        }
    }
}
