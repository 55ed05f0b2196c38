//! Groupings chosen by the loss: which cut of each weight buys the least of it for a byte.

use std::string::String;
use std::vec::Vec;

use burn_core::module::Module;
use multibit::report::table;
use multibit::{Grouping, fit};

use super::local_model::{LocalModel, LocalWeight};
use crate::quantize::{Action, PathPattern, Quantizer};
use crate::train::{ScheduleConfig, Target};
use crate::weight::{GroupingRule, Layout, QuantizeError};

/// No group is shorter, unless all groupings of a weight are: a coordinate is as large as its basis
/// at 16 or 32 weights already.
const SHORTEST: usize = 8;

/// The grouping chosen for one weight, and what is expected of it at the target.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupingChoice {
    /// The weight's path.
    pub path: String,
    /// The rule.
    pub rule: GroupingRule,
    /// The grouping's name for the weight's shape.
    pub name: String,
    /// Groups.
    pub groups: usize,
    /// Weights of a group.
    pub len: usize,
    /// Average bitwidth at the target.
    pub bits: f64,
    /// Bytes at the target: bases, coordinates, widths.
    pub bytes: f64,
    /// Modelled increase of the loss at the target.
    pub loss: f64,
}

impl GroupingChoice {
    /// A table of choices, in Markdown.
    pub fn to_markdown(choices: &[Self]) -> String {
        let head = [
            "weight",
            "grouping",
            "groups",
            "length",
            "bits",
            "bytes",
            "modelled loss",
        ];
        let mut rows = std::vec![head.map(String::from)];
        rows.extend(choices.iter().map(|choice| {
            [
                choice.path.clone(),
                choice.name.clone(),
                choice.groups.to_string(),
                choice.len.to_string(),
                std::format!("{:.3}", choice.bits),
                std::format!("{:.0}", choice.bytes),
                std::format!("{:.4}", choice.loss),
            ]
        }));
        table(&rows)
    }
}

impl Quantizer {
    /// The quantizer with another grouping for each weight that it quantizes: of all groupings that
    /// fit the weight's shape, the one that at the schedule's target has the least modelled loss for
    /// its bytes.
    ///
    /// Every group of a weight is sketched at all bitwidths from 0 on; the local model says what
    /// each would cost. One price of a byte for the whole network decides every bitwidth and every
    /// grouping, `min loss + price · bytes`, and is itself decided by the target. Bytes are those of
    /// bases, coordinates of the schedule's type, and widths; a target in bits counts bases alone, as
    /// the paper does, but a longer group still pays for fewer coordinates.
    ///
    /// A weight that the local model lacks (it had no gradient) keeps its grouping. What becomes a product is left
    /// as it is.
    ///
    /// # Errors
    /// As [`quantize`](Self::quantize), or if a weight is not finite.
    pub fn regroup<M: Module>(
        self,
        module: &M,
        local: &LocalModel,
        schedule: &ScheduleConfig,
    ) -> Result<(Self, Vec<GroupingChoice>), QuantizeError> {
        let mut planned = self.planned(module)?;
        planned.retain(|planned| !planned.is_product);
        let mut weights = Vec::new();
        for weight in &local.weights {
            if let Some(planned) = planned.iter().find(|planned| planned.path == weight.path) {
                let candidates = candidates(weight, planned.layout, planned.max_bits)?;
                weights.push((weight, planned, candidates));
            }
        }
        let rate = Rate::new(schedule);
        let price = rate.price(
            &weights.iter().map(|(.., c)| &c[..]).collect::<Vec<_>>(),
            schedule,
        );
        let mut quantizer = self;
        let mut choices = Vec::new();
        for (weight, planned, candidates) in weights {
            let (candidate, at) = rate.best(&candidates, price);
            let action = Action::Quantize {
                grouping: candidate.rule,
                max_bits: Some(planned.max_bits),
                layout: Some(planned.layout),
                or_float: false,
                arithmetic: planned.arithmetic,
            };
            quantizer = quantizer.with(PathPattern::exact(&weight.path), action);
            choices.push(GroupingChoice {
                path: weight.path.clone(),
                rule: candidate.rule,
                name: candidate.grouping.describe(&weight.shape),
                groups: candidate.groups(),
                len: candidate.grouping.len(),
                bits: at.base_bits / weight.value.len() as f64,
                bytes: at.bytes,
                loss: at.loss,
            });
        }
        Ok((quantizer, choices))
    }
}

/// One way to cut a weight.
struct Candidate {
    rule: GroupingRule,
    grouping: Grouping,
    max_bits: usize,
    /// Modelled increase of the loss, `[groups, max_bits + 1]`: by group and bitwidth.
    losses: Vec<f64>,
}

impl Candidate {
    fn new(
        weight: &LocalWeight,
        rule: GroupingRule,
        grouping: Grouping,
        max_bits: usize,
    ) -> Result<Self, QuantizeError> {
        let gather = |values: &[f32]| {
            let mut grouped = std::vec![0.0; values.len()];
            grouping.gather(&weight.shape, values, &mut grouped);
            grouped
        };
        let len = grouping.len();
        let [value, gradient, curvature] =
            [&weight.value, &weight.gradient, &weight.curvature].map(|values| gather(values));
        let groups = value.len() / len;
        let mut losses = std::vec![0.0; groups * (max_bits + 1)];
        for bits in 0..=max_bits {
            let (sketched, _) = weight.sketched(&grouping, bits)?;
            let sketched = gather(&sketched);
            for group in 0..groups {
                let range = group * len..(group + 1) * len;
                let [value, gradient, curvature, sketched] =
                    [&value, &gradient, &curvature, &sketched].map(|all| &all[range.clone()]);
                losses[group * (max_bits + 1) + bits] =
                    fit::local_model(value, gradient, curvature, sketched);
            }
        }
        Ok(Self {
            rule,
            grouping,
            max_bits,
            losses,
        })
    }

    fn groups(&self) -> usize {
        self.losses.len() / (self.max_bits + 1)
    }
}

/// All ways to cut a weight. Structures that coincide are tried once.
fn candidates(
    weight: &LocalWeight,
    layout: Layout,
    max_bits: usize,
) -> Result<Vec<Candidate>, QuantizeError> {
    let mut found = GroupingRule::candidates(layout, &weight.shape);
    let longest = found.iter().map(|(_, grouping)| grouping.len()).max();
    let shortest = SHORTEST.min(longest.unwrap_or(0));
    found.retain(|(_, grouping)| grouping.len() >= shortest);
    let candidates = found.into_iter();
    candidates
        .map(|(rule, grouping)| Candidate::new(weight, rule, grouping, max_bits))
        .collect()
}

/// What bits cost.
struct Rate {
    /// Bytes of a coordinate.
    coordinate: f64,
}

/// A weight, or several, at some price.
#[derive(Clone, Copy, Default)]
struct Point {
    base_bits: f64,
    bytes: f64,
    loss: f64,
}

/// More halvings do not change a sum of f64 any more.
const HALVINGS: usize = 80;

impl Rate {
    fn new(schedule: &ScheduleConfig) -> Self {
        Self {
            coordinate: schedule.coordinate_type.bytes() as f64,
        }
    }

    /// The candidate with the smallest `loss + price · bytes`, and where it then is.
    fn best<'a>(&self, candidates: &'a [Candidate], price: f64) -> (&'a Candidate, Point) {
        let all = candidates
            .iter()
            .map(|candidate| (candidate, self.at(candidate, price)));
        let total = |point: &Point| point.loss + price * point.bytes;
        all.min_by(|a, b| total(&a.1).total_cmp(&total(&b.1)))
            .expect("a weight of rank 2 and more has a grouping")
    }

    /// The best bitwidth of each group at a price.
    fn at(&self, candidate: &Candidate, price: f64) -> Point {
        let len = candidate.grouping.len() as f64;
        let width_bits = f64::from(usize::BITS - candidate.max_bits.leading_zeros());
        let basis = len / 8.0 + self.coordinate;
        let mut point = Point {
            bytes: candidate.groups() as f64 * width_bits / 8.0,
            ..Point::default()
        };
        for losses in candidate.losses.chunks_exact(candidate.max_bits + 1) {
            let mut best = (f64::INFINITY, 0);
            for (bits, loss) in losses.iter().enumerate() {
                let total = loss + price * basis * bits as f64;
                if total < best.0 {
                    best = (total, bits);
                }
            }
            let bits = best.1 as f64;
            point.base_bits += bits * len;
            point.bytes += bits * basis;
            point.loss += losses[best.1];
        }
        point
    }

    /// The lowest price at which all weights together meet the target.
    fn price(&self, weights: &[&[Candidate]], schedule: &ScheduleConfig) -> f64 {
        let any = weights.iter().filter_map(|candidates| candidates.first());
        let sizes = any.map(|c| (c.groups() * c.grouping.len(), c.max_bits));
        let numbers: usize = sizes.clone().map(|(len, _)| len).sum();
        let start: usize = sizes.map(|(len, max_bits)| len * max_bits).sum();
        let met = |price: f64| {
            let points = weights
                .iter()
                .map(|candidates| self.best(candidates, price).1);
            let (bits, bytes) = points.fold((0.0, 0.0), |(bits, bytes), point| {
                (bits + point.base_bits, bytes + point.bytes)
            });
            match schedule.target {
                Target::Bits(target) => bits <= target * numbers as f64,
                Target::Bytes(target) => bytes <= target as f64,
                Target::Ratio(ratio) => {
                    bits <= start as f64 * libm::pow(1.0 - ratio, schedule.rounds as f64)
                }
            }
        };
        let (mut low, mut high) = (1e-20, 1e20);
        for _ in 0..HALVINGS {
            let middle = f64::sqrt(low * high);
            if met(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    }
}
