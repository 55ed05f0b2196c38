//! Float → multi-bit: a whole module by path rules, and what became of each parameter.

mod report;
mod rules;

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use burn_core::module::{Module, Param, ParamId, Reparameterization, Reparameterizer};
use burn_core::store::ModuleRecord;
use burn_core::tensor::{Device, Tensor};
use multibit::CoordinateType;
use multibit::cpu::MAX_ACTIVATION_BITS;

pub use self::report::{Outcome, QuantizeReport, QuantizedWeight, table};
pub use self::rules::{
    Action, ActivationRule, PathPattern, RuleError, Rules, Selector, WeightRule,
};
pub use crate::weight::{GroupingRule, Layout, QuantizeError, sketch};

use crate::nn::MultiBitActivation;
use crate::nn::table::layout_of;
use crate::weight::{
    MultiBit, Packed, Plan, Replacement, Sketched, multi_bit_weights, read_grouping,
    walk_initialized,
};

/// Turns the weights of any Burn module into multi-bit weights, by path rules.
///
/// The module's own type does not change; each matched parameter gets its sketch
/// ([`multibit::fit::sketch`]) as its value and a [`MultiBit`] state beside it. Parameters of rank 0
/// and 1, which are biases and norms, are never touched. Rules come from code, or from a file as
/// [`Rules`].
///
/// # Without training
///
/// Training is for few bits. From about 5 bits on a model may be packed as it was converted, its
/// coordinates in two bytes too ([`coordinate_type`](Self::coordinate_type)). With a group for each
/// output, what is left of the weights of a transformer (MiniLM-L6), `‖w − ŵ‖ / ‖w‖`, is 0.7 % at
/// 8 bits, 2.8 at 6, 5.4 at 5, 10 at 4, 19 at 3; the report says it for each weight. A pretrained
/// mobile CNN of depthwise and 1×1 convolutions kept a top-1 of 87.8 % at 8 bits, 86.3 at 6, 81.8 at
/// 5 and 45.0 at 4, of 86.9 in float. Smaller groups leave less, and cost more coordinates. Where
/// that is not enough, train ([`ScheduleConfig`](crate::ScheduleConfig)).
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

    /// Quantizes every weight of rank 2 or more that `selector` matches. Of several matching rules
    /// the last one counts, as in Burn's optimizer groups.
    pub fn rule(self, selector: impl Into<Selector>, grouping: GroupingRule) -> Self {
        self.with(
            selector,
            Action::Quantize {
                grouping,
                max_bits: None,
                layout: None,
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
            },
        )
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
        let found = Survey::new(&module);
        let mut report = QuantizeReport::default();
        let plans = self.plan_weights(&found.weights, &mut report)?;
        let mut switched = self.plan_activations(&found.activations, &mut report)?;
        if plans.is_empty() && switched.floats.is_empty() {
            return Err(QuantizeError::Nothing);
        }
        let module = convert(module, plans, &mut report)?;
        Ok((module.map(&mut switched), report))
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
                grouping, max_bits, ..
            } = plans.remove(&weight.path)?;
            let mut rules = self.rules.iter();
            let rule = rules.rfind(|(selector, _)| selector.matches(&weight.id, &weight.path));
            let layout = match rule {
                Some((_, Action::Quantize { layout, .. })) => *layout,
                _ => None,
            };
            Some(PlannedWeight {
                layout: layout.unwrap_or(weight.layout),
                path: weight.path,
                grouping,
                max_bits,
            })
        });
        Ok(planned.collect())
    }

    fn plan_weights(
        &self,
        weights: &[FoundWeight],
        report: &mut QuantizeReport,
    ) -> Result<BTreeMap<String, Plan>, QuantizeError> {
        let mut plans = BTreeMap::new();
        let mut used = alloc::vec![false; self.rules.len()];
        for weight in weights {
            let FoundWeight {
                path,
                shape,
                layout,
                ..
            } = weight;
            if let Some(name) = &weight.carries
                && (name == MultiBit::NAME || name == Packed::NAME)
            {
                return Err(QuantizeError::Already { path: path.clone() });
            }
            if shape.len() < 2 {
                report.push(path, shape, Outcome::LowRank);
                continue;
            }
            let mut last = None;
            for (index, (selector, action)) in self.rules.iter().enumerate() {
                if selector.matches(&weight.id, path) {
                    used[index] = true;
                    last = Some((index, selector, action));
                }
            }
            let Some((index, selector, action)) = last else {
                report.push(path, shape, Outcome::NoRule);
                continue;
            };
            let rule = selector.name(index);
            let &Action::Quantize {
                grouping,
                max_bits,
                layout: said,
            } = action
            else {
                report.push(path, shape, Outcome::KeptFloat { rule });
                continue;
            };
            if let Some(by) = &weight.carries {
                return Err(QuantizeError::Reparameterized {
                    path: path.clone(),
                    by: by.clone(),
                });
            }
            let layout = said.unwrap_or(*layout);
            let max_bits = max_bits.unwrap_or(self.max_bits);
            let mut plan = Plan::new(path, shape, grouping, layout, max_bits)?;
            plan.coordinate_type = self.coordinate_type;
            report.push(path, shape, plan.outcome(shape, rule));
            plans.insert(path.clone(), plan);
        }
        let unused = used.iter().position(|used| !used);
        match unused {
            Some(index) => Err(QuantizeError::Unmatched {
                rule: self.rules[index].0.name(index),
            }),
            None => Ok(plans),
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

/// A weight that rules quantize, and how.
pub(crate) struct PlannedWeight {
    pub path: String,
    pub layout: Layout,
    pub grouping: multibit::Grouping,
    pub max_bits: usize,
}

impl Plan {
    fn outcome(&self, shape: &[usize], rule: String) -> Outcome {
        Outcome::Quantized(QuantizedWeight {
            rule,
            grouping: self.grouping.describe(shape),
            groups: self.grouping.groups(shape),
            max_bits: self.max_bits,
            average_bits: 0.0,
            relative_error: 0.0,
        })
    }
}

/// Loads the float record of a plain model, for example a checkpoint of Burn's own layers, into a
/// multi-bit module of the same structure: the weights that are multi-bit in the module are
/// sketched anew from the record, with the grouping and the bitwidth that they have; everything
/// else is loaded as it is. A packed module has no such weights. Coordinates are f32; for others, load
/// into float layers and convert with [`Quantizer::coordinate_type`].
///
/// The report says what was converted; [`log`] repeats it in one line.
///
/// # Errors
/// If a tensor of the record is missing, left over or of another shape, or the module has no
/// multi-bit weights ([`Module::load_record`] loads into those), or a weight is not finite.
pub fn load_float<M: Module>(
    module: M,
    record: ModuleRecord,
) -> Result<(M, QuantizeReport), QuantizeError> {
    let mut plans = BTreeMap::new();
    for weight in multi_bit_weights(&module) {
        let grouping = read_grouping(&weight.state.layout.val(), &weight.shape);
        let grouping = grouping.map_err(|source| QuantizeError::Grouping {
            path: weight.path.clone(),
            source,
        })?;
        let max_bits = weight.state.coordinates.val().dims()[1];
        let plan = Plan {
            grouping,
            max_bits,
            coordinate_type: CoordinateType::F32,
        };
        plans.insert(weight.path, plan);
    }
    if plans.is_empty() {
        return Err(QuantizeError::Nothing);
    }
    let module = module.materialize().try_load_record(record);
    let module = module.map_err(QuantizeError::Record)?;
    let found = Survey::new(&module);
    let mut report = QuantizeReport::default();
    for FoundWeight { path, shape, .. } in &found.weights {
        let outcome = match plans.get(path) {
            Some(plan) => plan.outcome(shape, "of the module".into()),
            None if shape.len() < 2 => Outcome::LowRank,
            None => Outcome::NoRule,
        };
        report.push(path, shape, outcome);
    }
    for FoundActivation { path, bits, .. } in found.activations {
        report.push(&path, &[], Outcome::Activation { bits });
    }
    let module = convert(module, plans, &mut report)?;
    log::info!("loaded a float record: {}", report.summary());
    Ok((module, report))
}

/// Sketches the planned weights; bits and errors go into the report.
fn convert<M: Module>(
    module: M,
    plans: BTreeMap<String, Plan>,
    report: &mut QuantizeReport,
) -> Result<M, QuantizeError> {
    let mut state = Convert {
        plans,
        report,
        error: None,
    };
    let module = module.apply_reparameterization(&mut state);
    let Convert { plans, error, .. } = state;
    if let Some(error) = error {
        return Err(error);
    }
    // A running state is mapped like a parameter, but drops what is attached to it.
    let kept = multi_bit_weights(&module);
    let lost = plans
        .into_keys()
        .filter(|path| kept.iter().all(|weight| weight.path != *path))
        .min();
    match lost {
        Some(path) => Err(QuantizeError::RunningState { path }),
        None => Ok(module),
    }
}

struct Convert<'a> {
    plans: BTreeMap<String, Plan>,
    report: &'a mut QuantizeReport,
    /// The first.
    error: Option<QuantizeError>,
}

impl Reparameterizer for &mut Convert<'_> {
    type Reparam = MultiBit;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<MultiBit>) {
        let plan = self.plans.get(path).filter(|_| self.error.is_none());
        let Some(plan) = plan else {
            return (param, None);
        };
        match plan.apply(path, param.clone()) {
            Ok(Sketched {
                param,
                state,
                average_bits,
                relative_error,
            }) => {
                self.report.fill(path, average_bits, relative_error);
                (param, Some(state))
            }
            Err(error) => {
                self.error = Some(error);
                (param, None)
            }
        }
    }
}

/// A float parameter of a module.
pub(crate) struct FoundWeight {
    pub path: String,
    pub id: ParamId,
    pub shape: Vec<usize>,
    pub layout: Layout,
    /// Name of the reparameterization on it.
    carries: Option<String>,
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
        let mut survey = Self::default();
        for found in walk_initialized(module) {
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
                    layout: layout_of(&found.container),
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
