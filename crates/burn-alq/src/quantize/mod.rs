//! Float → multi-bit: a whole module by path rules, and what became of each parameter.

mod conversion;
mod convert;
#[cfg(feature = "store")]
mod float_file;
mod hessians;
mod report;
mod rules;
#[cfg(feature = "store")]
mod stream;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use burn_core::module::{Module, ParamId, Reparameterization};
use burn_core::tensor::{DType, Device};
use multibit::CoordinateType;
use multibit::cpu::{Arithmetic, MAX_ACTIVATION_BITS};

pub(crate) use self::conversion::{Conversion, PlannedWeight};
pub use self::convert::{load_float, refit};
#[cfg(feature = "store")]
pub use self::float_file::FloatFile;
pub(crate) use self::hessians::{Hessians, Lacking, Measured};
pub use self::report::{Outcome, QuantizeReport, QuantizedWeight};
pub use self::rules::{
    Action, ActivationRule, PathPattern, RuleError, Rules, Selector, WeightRule,
};
#[cfg(feature = "store")]
pub use self::stream::ConvertFileError;
pub use crate::weight::{GroupingRule, Layout, ProductError, QuantizeError, sketch};

use crate::nn::{MultiBitActivation, Packed, table};
use crate::weight::{Found, MultiBit, Plan, Product, Replacement, walk_initialized};

/// Turns the weights of any Burn module into multi-bit weights, by path rules.
///
/// The module's own type does not change; each matched parameter gets its sketch
/// ([`multibit::fit::sketch`]) as its value and a [`MultiBit`] state beside it. Parameters of rank 0
/// and 1, which are biases and norms, are never touched. What is no layer's weight (masks, tables of
/// positions, a module's own parameters) is converted only by a rule that names its path exactly, or
/// says its layout. Tied weights, one parameter in several places, are converted once. Rules come from
/// code, or from a file as [`Rules`].
///
/// # Without training
///
/// Training is for few bits. From about 5 bits on a model may be packed as it was converted, its
/// coordinates in two bytes too ([`coordinate_type`](Self::coordinate_type)). With a group for each
/// output, what is left of the weights of a transformer (MiniLM-L6), `‖w − ŵ‖ / ‖w‖`, is 0.7 % at
/// 8 bits, 2.8 at 6, 5.4 at 5, 10 at 4, 19 at 3; the report says it for each weight. Smaller groups
/// leave less, and cost more coordinates. Where that is not enough, train
/// ([`ScheduleConfig`](crate::ScheduleConfig)).
///
/// ```
/// use burn_alq::{GroupingRule, PathPattern, Quantizer};
///
/// let quantizer = Quantizer::new(6)
///     .rule(PathPattern::glob("conv*.weight"), GroupingRule::Kernelwise)
///     .rule(PathPattern::exact("fc1.weight"), GroupingRule::Subchannelwise(2))
///     .keep_float(PathPattern::glob("head.**"))
///     .activations(PathPattern::glob("**relu*"), 2);
/// ```
#[derive(Debug, Clone)]
pub struct Quantizer {
    rules: Vec<(Selector, Action)>,
    activations: Vec<(PathPattern, usize)>,
    max_bits: usize,
    coordinate_type: CoordinateType,
}

impl From<Rules> for Quantizer {
    fn from(rules: Rules) -> Self {
        let weights = rules.weights.into_iter();
        let activations = rules.activations.into_iter();
        Self {
            rules: weights
                .map(|rule| (rule.pattern.into(), rule.action))
                .collect(),
            activations: activations.map(|rule| (rule.pattern, rule.bits)).collect(),
            max_bits: rules.max_bits,
            coordinate_type: rules.coordinate_type,
        }
    }
}

impl Quantizer {
    /// A quantizer without rules. `max_bits` is the largest bitwidth of a group, at most
    /// [`MAX_BITS`](multibit::MAX_BITS).
    pub fn new(max_bits: usize) -> Self {
        Self {
            rules: Vec::new(),
            activations: Vec::new(),
            max_bits,
            coordinate_type: CoordinateType::F32,
        }
    }

    /// What will hold the coordinates, f32 if not said. Each weight is sketched for coordinates of
    /// this type, so that what is converted without training can be packed with
    /// [`PackedModel::with_coordinate_type`](crate::PackedModel::with_coordinate_type). A training
    /// moves them in f32 and rounds them at its end
    /// ([`ScheduleConfig::coordinate_type`](crate::ScheduleConfig::coordinate_type)).
    pub fn coordinate_type(mut self, coordinate_type: CoordinateType) -> Self {
        self.coordinate_type = coordinate_type;
        self
    }

    /// What will hold the coordinates.
    pub(crate) fn coordinates(&self) -> CoordinateType {
        self.coordinate_type
    }

    /// Quantizes every weight of rank 2 or more that `selector` matches. Of several matching rules
    /// the last one counts, as in Burn's optimizer groups.
    pub fn rule(self, selector: impl Into<Selector>, grouping: GroupingRule) -> Self {
        self.with(
            selector,
            Action::Quantize {
                grouping,
                max_bits: None,
                layout: None,
                or_float: false,
                arithmetic: None,
            },
        )
    }

    /// Like [`rule`](Self::rule), with a bitwidth of its own.
    pub fn rule_with_bits(
        self,
        selector: impl Into<Selector>,
        grouping: GroupingRule,
        max_bits: usize,
    ) -> Self {
        self.with(
            selector,
            Action::Quantize {
                grouping,
                max_bits: Some(max_bits),
                layout: None,
                or_float: false,
                arithmetic: None,
            },
        )
    }

    /// Turns every weight of rank 2 or more that `selector` matches into a [`Product`] of two weights of one
    /// bit, of the largest rank at which it takes no more than `bits` bits a weight, all that is stored
    /// counted: signs, coordinates, widths and scales.
    ///
    /// From about one bit a weight on downwards that leaves less than sums of bases do, for more time
    /// (`POST_TRAINING.md`). It is for linear layers, which run on the bits once packed, and for convolutions,
    /// which unpack it once. The [budget](crate::Calibrator::budget) of a calibration leaves such weights as
    /// they are.
    pub fn product(self, selector: impl Into<Selector>, bits: f64) -> Self {
        self.with(
            selector,
            Action::Product {
                bits,
                or_float: false,
                arithmetic: None,
            },
        )
    }

    /// Keeps a weight float where the last rule added does not fit it, or it is not finite; the report
    /// says why. Otherwise either is an error.
    pub fn or_float(mut self) -> Self {
        if let Some((_, Action::Quantize { or_float, .. } | Action::Product { or_float, .. })) =
            self.rules.last_mut()
        {
            *or_float = true;
        }
        self
    }

    /// Says how layers compute with the weights of the last rule added, once these are packed; otherwise
    /// that is left to the layer, which is exact if it has no choice of its own. The packed file holds it.
    pub fn arithmetic(mut self, said: Arithmetic) -> Self {
        if let Some((_, Action::Quantize { arithmetic, .. } | Action::Product { arithmetic, .. })) =
            self.rules.last_mut()
        {
            *arithmetic = Some(said);
        }
        self
    }

    /// Leaves every weight that `selector` matches in float.
    pub fn keep_float(self, selector: impl Into<Selector>) -> Self {
        self.with(selector, Action::KeepFloat)
    }

    /// A rule with all that can be said.
    pub fn with(mut self, selector: impl Into<Selector>, action: Action) -> Self {
        self.rules.push((selector.into(), action));
        self
    }

    /// Switches on every [`MultiBitActivation`] whose path matches, with `bits` bits, 1 to 4. Of
    /// several matching rules the last one counts.
    pub fn activations(mut self, pattern: PathPattern, bits: usize) -> Self {
        self.activations.push((pattern, bits));
        self
    }

    /// Sketches all matched weights of a module, switches on its matched activations, and says what
    /// became of every parameter.
    ///
    /// # Errors
    /// If a rule matches nothing or does not fit a weight, a weight is not finite, or the module is
    /// quantized already. Everything but the values is checked before the first weight is touched.
    pub fn quantize<M: Module>(&self, module: M) -> Result<(M, QuantizeReport), QuantizeError> {
        let mut conversion = self.begin(&module)?;
        let module = conversion.convert(module, |_| true, Hessians::default())?;
        let module = conversion.finish(module);
        Ok((module, conversion.into_report()))
    }

    /// Checks everything but the values.
    pub(crate) fn begin<M: Module>(&self, module: &M) -> Result<Conversion, QuantizeError> {
        self.begin_on(&Survey::new(module))
    }

    fn begin_on(&self, found: &Survey) -> Result<Conversion, QuantizeError> {
        let mut report = QuantizeReport::default();
        let plans = self.plan_weights(&found.weights, &mut report)?;
        let switched = self.plan_activations(&found.activations, &mut report)?;
        if plans.is_empty() && switched.floats.is_empty() {
            return Err(QuantizeError::Nothing);
        }
        Ok(Conversion::new(plans, switched, report))
    }

    /// The weights that would be quantized, in the order of the module tree.
    pub(crate) fn planned<M: Module>(
        &self,
        module: &M,
    ) -> Result<Vec<PlannedWeight>, QuantizeError> {
        let found = Survey::new(module);
        let mut plans = self.plan_weights(&found.weights, &mut QuantizeReport::default())?;
        let planned = found.weights.into_iter().filter_map(|weight| {
            let Plan {
                grouping,
                max_bits,
                rank,
                ..
            } = plans.remove(&weight.path)?.plan;
            let mut rules = self.rules.iter();
            let rule = rules.rfind(|(selector, _)| selector.matches(&weight.id, &weight.path));
            let (layout, arithmetic, own_bits) = match rule {
                Some((
                    _,
                    Action::Quantize {
                        layout,
                        arithmetic,
                        max_bits,
                        ..
                    },
                )) => (*layout, *arithmetic, *max_bits),
                _ => (None, None, None),
            };
            Some(PlannedWeight {
                id: weight.id,
                arithmetic,
                layout: layout.unwrap_or(weight.layout),
                shape: weight.shape,
                path: weight.path,
                grouping,
                max_bits,
                has_own_bits: own_bits.is_some() || rank.is_some(),
                is_product: rank.is_some(),
            })
        });
        Ok(planned.collect())
    }

    fn plan_weights(
        &self,
        weights: &[FoundWeight],
        report: &mut QuantizeReport,
    ) -> Result<BTreeMap<String, Planned>, QuantizeError> {
        let mut plans = BTreeMap::new();
        let mut used = alloc::vec![false; self.rules.len()];
        for weight in weights {
            let path = &weight.path;
            if let Some(name) = &weight.carries
                && [MultiBit::NAME, Product::NAME, Packed::NAME].contains(&name.as_str())
            {
                return Err(QuantizeError::Already { path: path.clone() });
            }
            let mut last = None;
            for (index, (selector, action)) in self.rules.iter().enumerate() {
                if weight.shape.len() > 1 && selector.matches(&weight.id, path) {
                    used[index] |= weight.is_meant(selector, action);
                    last = Some((index, selector, action));
                }
            }
            let (mut outcome, plan) = self.decide(weight, last)?;
            let Some(first) = &weight.tied_to else {
                report.push(path, &weight.shape, outcome);
                plans.extend(plan.map(|plan| (path.clone(), plan)));
                continue;
            };
            let kept = |outcome: &Outcome| matches!(outcome, Outcome::KeptFloat { .. });
            let other = report.outcome_mut(first).expect("it came first");
            let converted = plans.contains_key(first);
            if (converted && kept(&outcome)) || (plan.is_some() && kept(other)) {
                let (path, first) = (path.clone(), first.clone());
                return Err(QuantizeError::Tied { path, first });
            }
            if let Some(plan) = plan.filter(|_| !converted) {
                plans.insert(first.clone(), plan);
                core::mem::swap(other, &mut outcome);
            }
            let to = first.clone();
            report.push(path, &weight.shape, Outcome::Tied { to });
        }
        let unused = used.iter().position(|used| !used);
        match unused {
            Some(index) => Err(QuantizeError::Unmatched {
                rule: self.rules[index].0.name(index),
            }),
            None => Ok(plans),
        }
    }

    /// What becomes of a weight by the last rule that matches it.
    fn decide(
        &self,
        weight: &FoundWeight,
        rule: Option<(usize, &Selector, &Action)>,
    ) -> Result<(Outcome, Option<Planned>), QuantizeError> {
        let FoundWeight { path, shape, .. } = weight;
        if shape.len() < 2 {
            return Ok((Outcome::LowRank, None));
        }
        let Some((index, selector, action)) = rule else {
            return Ok((Outcome::NoRule, None));
        };
        let rule = selector.name(index);
        let Some((plan, or_float)) = self.plan(weight, action) else {
            return Ok((Outcome::KeptFloat { rule }, None));
        };
        if !weight.is_meant(selector, action) {
            return Ok((Outcome::NoLayer { rule }, None));
        }
        if let Some(by) = &weight.carries {
            return Err(QuantizeError::Reparameterized {
                path: path.clone(),
                by: by.clone(),
            });
        }
        if matches!(weight.dtype, DType::QFloat(_)) {
            return Err(QuantizeError::BurnsOwn { path: path.clone() });
        }
        match plan {
            Ok(plan) => {
                let or_float = or_float.then(|| rule.clone());
                let planned = Planned { plan, or_float };
                Ok((planned.outcome(weight, rule), Some(planned)))
            }
            Err(error) => {
                let reason = match &error {
                    QuantizeError::Grouping { source, .. } => source.to_string(),
                    QuantizeError::Product { source, .. } => source.to_string(),
                    _ => return Err(error),
                };
                match or_float {
                    true => Ok((Outcome::Unfit { rule, reason }, None)),
                    false => Err(error),
                }
            }
        }
    }

    /// How an action sketches a weight, and whether it may stay float; none if it shall.
    fn plan(
        &self,
        FoundWeight {
            path,
            shape,
            layout: found,
            ..
        }: &FoundWeight,
        action: &Action,
    ) -> Option<(Result<Plan, QuantizeError>, bool)> {
        let coordinate_type = self.coordinate_type;
        match *action {
            Action::KeepFloat => None,
            Action::Quantize {
                grouping,
                max_bits,
                layout,
                or_float,
                arithmetic,
            } => {
                let layout = layout.unwrap_or(*found);
                let max_bits = max_bits.unwrap_or(self.max_bits);
                let plan = Plan::new(path, shape, grouping, layout, max_bits);
                let plan = plan.map(|plan| Plan {
                    coordinate_type,
                    arithmetic,
                    ..plan
                });
                Some((plan, or_float))
            }
            Action::Product {
                bits,
                or_float,
                arithmetic,
            } => {
                let plan = match arithmetic {
                    Some(Arithmetic::Bitwise) => Err(QuantizeError::Product {
                        path: path.clone(),
                        source: ProductError::Bitwise,
                    }),
                    _ => Plan::product(path, shape, *found, bits, coordinate_type),
                };
                Some((plan.map(|plan| Plan { arithmetic, ..plan }), or_float))
            }
        }
    }

    /// New states for the activations that are switched on.
    fn plan_activations(
        &self,
        activations: &[FoundActivation],
        report: &mut QuantizeReport,
    ) -> Result<Replacement<'static>, QuantizeError> {
        for (pattern, bits) in &self.activations {
            let rule = || pattern.to_string();
            if !(1..=MAX_ACTIVATION_BITS).contains(bits) {
                return Err(QuantizeError::ActivationBits {
                    rule: rule(),
                    bits: *bits,
                });
            }
            if !activations.iter().any(|found| pattern.matches(&found.path)) {
                return Err(QuantizeError::UnmatchedActivation { rule: rule() });
            }
        }
        let mut switched = Replacement::default();
        for FoundActivation {
            path,
            id,
            bits: on,
            device,
        } in activations
        {
            let mut rules = self.activations.iter();
            let rule = rules.rfind(|(pattern, _)| pattern.matches(path));
            let outcome = match rule {
                Some(_) if *on > 0 => return Err(QuantizeError::Already { path: path.clone() }),
                Some(&(_, bits)) => {
                    let device = device.clone().without_autodiff();
                    let state = MultiBitActivation::switched(bits, &device);
                    switched.floats.insert(*id, state);
                    Outcome::SwitchedOn { bits }
                }
                None => Outcome::Activation { bits: *on },
            };
            report.push(path, &[], outcome);
        }
        Ok(switched)
    }
}

/// How a weight is to be sketched, and the rule by which it stays float if it cannot be.
#[derive(Debug, Clone)]
struct Planned {
    plan: Plan,
    or_float: Option<String>,
}

impl Planned {
    fn outcome(&self, weight: &FoundWeight, rule: String) -> Outcome {
        let Plan {
            grouping,
            max_bits,
            rank,
            ..
        } = &self.plan;
        let outputs = grouping.groups(&weight.shape);
        let (grouping, groups) = match rank {
            Some(rank) => (format!("product, rank {rank}"), rank + outputs),
            None => (grouping.describe(&weight.shape), outputs),
        };
        Outcome::Quantized(QuantizedWeight {
            rule,
            grouping,
            groups,
            max_bits: *max_bits,
            float_bits: 8 * weight.dtype.size(),
            average_bits: 0.0,
            effective_bits: 0.0,
            relative_error: 0.0,
        })
    }
}

/// A float parameter of a module.
pub(crate) struct FoundWeight {
    pub path: String,
    pub id: ParamId,
    pub shape: Vec<usize>,
    pub layout: Layout,
    /// Whether it is a layer's, ours or Burn's.
    is_layers: bool,
    /// The path where the same parameter was met first.
    tied_to: Option<String>,
    dtype: DType,
    /// Name of the reparameterization on it.
    carries: Option<String>,
}

impl FoundWeight {
    /// Whether it is a product, and has no value of its own.
    fn is_product(&self) -> bool {
        self.carries.as_deref() == Some(Product::NAME)
    }

    /// Whether a rule that matches its path is for it.
    fn is_meant(&self, selector: &Selector, action: &Action) -> bool {
        let said = match action {
            Action::KeepFloat => true,
            Action::Product { .. } => false,
            Action::Quantize { layout, .. } => layout.is_some(),
        };
        self.is_layers || said || selector.is_exact()
    }
}

/// A multi-bit activation of a module.
struct FoundActivation {
    path: String,
    /// The id of its state.
    id: ParamId,
    /// 0 where it is off.
    bits: usize,
    device: Device,
}

/// Everything in a module that rules may be for.
#[derive(Default)]
pub(crate) struct Survey {
    pub weights: Vec<FoundWeight>,
    activations: Vec<FoundActivation>,
}

impl Survey {
    pub fn new<M: Module>(module: &M) -> Self {
        Self::of(walk_initialized(module))
    }

    /// What is not initialized counts as f32.
    fn of(all: Vec<Found>) -> Self {
        let mut survey = Self::default();
        let paths: Vec<String> = all.iter().map(|found| found.path.clone()).collect();
        for found in all {
            if found.container == MultiBitActivation::CONTAINER {
                let path = found.path.rsplit_once('.').map_or("", |(path, _)| path);
                survey.activations.push(FoundActivation {
                    path: path.to_string(),
                    bits: MultiBitActivation::bits_of(&found.read()),
                    id: found.id,
                    device: found.device,
                });
            } else if found.is_float {
                survey.weights.push(FoundWeight {
                    layout: table::layout_of(&found.container),
                    is_layers: table::of(&found.container).is_some(),
                    tied_to: found.tied_to.map(|first| paths[first].clone()),
                    dtype: found.dtype.unwrap_or(DType::F32),
                    path: found.path,
                    id: found.id,
                    shape: found.shape,
                    carries: found.carries,
                });
            }
        }
        survey
    }
}
