//! Sketches of the planned weights, put into a module.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use burn_core::module::{Module, ModuleMapper, Param, ParamId, Reparameterizer};
use burn_core::store::ModuleRecord;
use burn_core::tensor::{Tensor, TensorData};
use multibit::CoordinateType;

use super::{FoundActivation, FoundWeight, Hessians, Outcome, Planned, QuantizeReport, Survey};
use crate::weight::{
    Known, MultiBit, MultiBitData, Plan, Product, QuantizeError, Replacement, Size, Sketched,
    State, average_bits, load_record, not_finite, read_grouping, relative_error, resketch,
    restore_autodiff, tie, walk,
};

/// Loads the float record of a plain model, for example a checkpoint of Burn's own layers, into a
/// multi-bit module of the same structure: the weights that are multi-bit in the module are
/// sketched anew from the record, with the grouping and the bitwidth that they have; everything
/// else is loaded as it is. A packed module has no such weights. Coordinates are f32; for others, load
/// into float layers and convert with [`Quantizer::coordinate_type`](super::Quantizer::coordinate_type).
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
    let all = walk(&module);
    for found in all.iter().filter(|found| found.tied_to.is_none()) {
        let Some(state) = &found.state else {
            continue;
        };
        let arithmetic = state.arithmetic();
        let (path, plan) = match found.product.map(|place| &all[place]) {
            // Of a product, its second factor says all, `[rank, outputs]`.
            Some(product) if found.path == Product::path_of(&product.path, Product::FIELDS[1]) => {
                let plan = Plan::of_rank(&product.path, &product.shape, found.shape[0])?;
                (&product.path, Plan { arithmetic, ..plan })
            }
            Some(_) => continue,
            None => {
                let grouping = read_grouping(&state.layout.val(), &found.shape);
                let grouping = grouping.map_err(|source| QuantizeError::Grouping {
                    path: found.path.clone(),
                    source,
                })?;
                let plan = Plan {
                    grouping,
                    max_bits: state.coordinates.val().dims()[1],
                    coordinate_type: CoordinateType::F32,
                    arithmetic,
                    rank: None,
                };
                (&found.path, plan)
            }
        };
        let or_float = None;
        plans.insert(path.clone(), Planned { plan, or_float });
    }
    drop(all);
    if plans.is_empty() {
        return Err(QuantizeError::Nothing);
    }
    let module = load_record(module.materialize(), record).map_err(QuantizeError::Record)?;
    let mut report = report_of(&module, &plans);
    let module = convert(module, plans, Hessians::default(), &mut report)?;
    log::info!("loaded a float record: {}", report.summary());
    Ok((module, report))
}

/// Brings the bits of every multi-bit weight to its present value, with the bitwidths that its groups
/// have: after anything but [`AlqOptimizer`](crate::AlqOptimizer) has changed values, such as a moving
/// average of two models, clipping, or a record that was loaded in part. The values become what the
/// bits say; the report has the error that this leaves.
///
/// An average of models lies between the levels of both, so expect an error, and average before the
/// last phases of a schedule, or train on for some steps. Coordinates stay what f16 or bf16 holds
/// where all of a weight's are.
///
/// # Errors
/// If the module has no multi-bit weights, or a value is not finite.
pub fn refit<M: Module>(module: M) -> Result<(M, QuantizeReport), QuantizeError> {
    let mut plans = BTreeMap::new();
    let mut fitted = Vec::new();
    let mut replacement = Replacement::default();
    for found in walk(&module) {
        let (path, None, Some(old)) = (found.path.clone(), found.tied_to, &found.state) else {
            continue;
        };
        let state = MultiBitData::from_module(old, &found.shape);
        let state = state.map_err(|source| QuantizeError::Grouping {
            path: path.clone(),
            source,
        })?;
        let value: Vec<f32> = found.read().iter().collect();
        let coordinate_type = narrowest(&state.coordinates);
        let data = resketch(&path, &value, &state, coordinate_type)?;
        let reconstructed = data.reconstruct();
        let error = relative_error(&value, &reconstructed);
        let size = Size::new(&data.grouping, &data.widths);
        let bits = [average_bits(&[size]), size.effective_bits(coordinate_type)];
        fitted.push((path.clone(), bits, error));
        let device = found.device.clone().without_autodiff();
        let new = data.to_device(&device);
        let len = reconstructed.len();
        let flat = TensorData::new(reconstructed, [len]);
        let (floats, ints) = (&mut replacement.floats, &mut replacement.ints);
        floats.insert(found.id, Tensor::from_data(flat, &device));
        floats.insert(old.coordinates.id, new.coordinates.val().flatten(0, 1));
        ints.insert(old.codes.id, new.codes.val().flatten(0, 1));
        ints.insert(old.widths.id, new.widths.val());
        let plan = Plan {
            grouping: data.grouping,
            max_bits: data.max_bits,
            coordinate_type,
            arithmetic: data.arithmetic,
            rank: None,
        };
        let or_float = None;
        plans.insert(path, Planned { plan, or_float });
    }
    if plans.is_empty() {
        return Err(QuantizeError::Nothing);
    }
    let mut report = report_of(&module, &plans);
    for (path, bits, error) in fitted {
        report.fill(&path, bits, error);
    }
    Ok((tie(module.map(&mut replacement)), report))
}

/// The type of the fewest bytes that holds all of some coordinates.
fn narrowest(coordinates: &[f32]) -> CoordinateType {
    let mut narrow = [CoordinateType::F16, CoordinateType::Bf16].into_iter();
    let held = narrow.find(|kind| coordinates.iter().all(|&value| kind.holds(value)));
    held.unwrap_or(CoordinateType::F32)
}

/// What is known before weights of a module, which it has chosen itself, are sketched.
fn report_of<M: Module>(module: &M, plans: &BTreeMap<String, Planned>) -> QuantizeReport {
    let found = Survey::new(module);
    let mut report = QuantizeReport::default();
    // Factors are reported, each by itself.
    for weight in found.weights.iter().filter(|weight| !weight.is_product()) {
        let FoundWeight { path, shape, .. } = weight;
        let outcome = match (plans.get(path), &weight.tied_to) {
            (Some(planned), _) => planned.outcome(weight, "of the module".into()),
            (None, Some(to)) => Outcome::Tied { to: to.clone() },
            (None, None) if shape.len() < 2 => Outcome::LowRank,
            (None, None) => Outcome::NoRule,
        };
        report.push(path, shape, outcome);
    }
    for FoundActivation { path, bits, .. } in found.activations {
        report.push(&path, &[], Outcome::Activation { bits });
    }
    report
}

/// Sketches the planned weights; bits and errors go into the report.
pub(super) fn convert<M: Module>(
    module: M,
    plans: BTreeMap<String, Planned>,
    hessians: Hessians,
    report: &mut QuantizeReport,
) -> Result<M, QuantizeError> {
    let mut work = Work::new(plans, hessians, report);
    let module = module.apply_reparameterization(&mut Convert::<MultiBit>::new(&mut work));
    let module = module.apply_reparameterization(&mut Convert::<Product>::new(&mut work));
    let Work {
        plans,
        mut offsets,
        error,
        ..
    } = work;
    if let Some(error) = error {
        return Err(error);
    }
    let module = module.map(&mut offsets);
    check_kept(&module, &plans)?;
    Ok(tie(module))
}

/// Whether all planned weights carry something: a running state is mapped like a parameter, but drops what
/// is attached to it.
pub(super) fn check_kept<M: Module>(
    module: &M,
    plans: &BTreeMap<String, Planned>,
) -> Result<(), QuantizeError> {
    let kept = walk(module);
    let kept = kept.iter().filter(|found| found.carries.is_some());
    let kept: BTreeSet<&str> = kept.map(|found| found.path.as_str()).collect();
    let lost = plans.keys().find(|path| !kept.contains(path.as_str()));
    match lost {
        Some(path) => Err(QuantizeError::RunningState { path: path.clone() }),
        None => Ok(()),
    }
}

/// Attaches states without bits to the planned weights, for a record to be loaded into.
pub(super) fn hollow<M: Module>(module: M, plans: &BTreeMap<String, Plan>) -> M {
    struct Hollow<'a, S> {
        plans: &'a BTreeMap<String, Plan>,
        done: BTreeMap<ParamId, S>,
    }

    impl<S: State> Reparameterizer for &mut Hollow<'_, S> {
        type Reparam = S;

        fn reparameterize<const D: usize>(
            &mut self,
            path: &str,
            param: Param<Tensor<D>>,
        ) -> (Param<Tensor<D>>, Option<S>) {
            if let Some(plan) = self.plans.get(path).filter(|plan| S::is_planned(plan)) {
                let state = S::hollow(plan, &param);
                self.done.insert(param.id, state);
            }
            let state = self.done.get(&param.id).cloned();
            (param, state)
        }
    }

    let mut sums = Hollow::<MultiBit> {
        plans,
        done: BTreeMap::new(),
    };
    let mut products = Hollow::<Product> {
        plans,
        done: BTreeMap::new(),
    };
    let module = module.apply_reparameterization(&mut sums);
    module.apply_reparameterization(&mut products)
}

/// A conversion.
pub(super) struct Work<'a> {
    pub plans: BTreeMap<String, Planned>,
    /// What the model's outputs say of each weight.
    hessians: Hessians,
    pub report: &'a mut QuantizeReport,
    /// What biases take of the errors.
    offsets: Offsets,
    /// The first.
    pub error: Option<QuantizeError>,
}

impl<'a> Work<'a> {
    pub fn new(
        plans: BTreeMap<String, Planned>,
        hessians: Hessians,
        report: &'a mut QuantizeReport,
    ) -> Self {
        Self {
            plans,
            hessians,
            report,
            offsets: Offsets::default(),
            error: None,
        }
    }
}

/// The part of a conversion that attaches states of one kind.
pub(super) struct Convert<'a, 'b, S> {
    work: &'a mut Work<'b>,
    /// What was converted: tied weights share one state.
    done: BTreeMap<ParamId, S>,
}

impl<'a, 'b, S> Convert<'a, 'b, S> {
    pub fn new(work: &'a mut Work<'b>) -> Self {
        let done = BTreeMap::new();
        Self { work, done }
    }
}

/// What is to be added to biases.
#[derive(Default)]
struct Offsets(BTreeMap<ParamId, Vec<f32>>);

impl ModuleMapper for Offsets {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let id = param.id;
        let Some(offset) = self.0.get(&id) else {
            return param;
        };
        param.map(|old| {
            let plain = old.clone().without_autodiff();
            let offset = TensorData::new(offset.clone(), plain.shape());
            let offset = Tensor::from_data(offset, (&plain.device(), plain.dtype()));
            restore_autodiff(&old, plain + offset, id)
        })
    }
}

impl<S: State> Reparameterizer for &mut Convert<'_, '_, S> {
    type Reparam = S;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<S>) {
        if let Some(state) = self.done.get(&param.id) {
            // The value of the first place comes with `tie`.
            return (param, Some(state.clone()));
        }
        let work = &mut *self.work;
        let planned = work.plans.get(path).filter(|_| work.error.is_none());
        let planned = planned.filter(|planned| S::is_planned(&planned.plan));
        let Some(planned) = planned else {
            return (param, None);
        };
        let wrong = |source| QuantizeError::Curvature {
            path: path.to_string(),
            source,
        };
        let known = work.hessians.take(param.id).map_err(wrong);
        let apply =
            |known: Option<Known>| S::sketch(&planned.plan, path, param.clone(), known.as_ref());
        match known.and_then(apply) {
            Ok(Sketched {
                param,
                state,
                average_bits,
                effective_bits,
                relative_error,
                offset,
            }) => {
                work.offsets.0.extend(offset);
                let bits = [average_bits, effective_bits];
                work.report.fill(path, bits, relative_error);
                self.done.insert(param.id, state.clone());
                (param, Some(state))
            }
            Err(QuantizeError::Weight { index, source, .. })
                if let Some(rule) = &planned.or_float =>
            {
                let (rule, reason) = (rule.clone(), not_finite(&index, &source));
                work.report.set(path, Outcome::Unfit { rule, reason });
                work.plans.remove(path);
                (param, None)
            }
            Err(error) => {
                work.error = Some(error);
                (param, None)
            }
        }
    }
}
