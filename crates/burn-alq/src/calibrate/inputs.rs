//! What the inputs of layers say, one layer after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use burn_core::module::{Module, ParamId};
use burn_core::tensor::Tensor;

use crate::nn::watch::{Seen, watch};
use crate::quantize::{Hessians, Lacking, Measured, PlannedWeight};
use crate::weight::{read_f32, walk};

/// How much of a weight there is to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// Nothing that is worth a pass.
    Blind,
    /// Gradients.
    Gradients,
    /// What its layer multiplies it with; `once` in a forward pass, so that a pass may end there.
    Inputs { once: bool },
}

/// Weights that are quantized together.
pub(super) struct Stage {
    pub weights: Vec<PlannedWeight>,
    pub view: View,
}

impl Stage {
    /// Whether a path is one of them.
    pub fn has(&self, path: &str) -> bool {
        self.weights.iter().any(|weight| weight.path == path)
    }

    /// The same weights of another model of this kind, whose ids may be others.
    pub fn in_model<M: Module>(&self, model: &M) -> Vec<PlannedWeight> {
        let found = walk(model).into_iter();
        let ids: BTreeMap<_, ParamId> = found.map(|found| (found.path, found.id)).collect();
        let weights = self.weights.iter().map(|weight| PlannedWeight {
            id: ids[&weight.path],
            ..weight.clone()
        });
        weights.collect()
    }

    /// What passes through their layers, up to the last of them.
    fn see<T>(&self, weights: &[PlannedWeight], forward: impl FnOnce() -> T) -> Vec<(usize, Seen)> {
        let ends = self.view == View::Inputs { once: true };
        let last = ends.then_some(weights.len());
        let ids = weights.iter().map(|weight| weight.id).collect();
        let place = |id| weights.iter().position(|weight| weight.id == id);
        let seen = watch(ids, last, forward).into_iter();
        let placed = seen.filter_map(|seen| Some((place(seen.weight)?, seen)));
        placed.collect()
    }
}

/// The planned weights in the order in which a model uses them; and those whose inputs cannot be seen.
pub(super) fn in_order<M: Module, I, const D: usize>(
    model: &M,
    planned: Vec<PlannedWeight>,
    sample: &I,
    forward: impl Fn(&M, &I) -> Tensor<D>,
) -> (Vec<Stage>, Vec<PlannedWeight>) {
    let ids: BTreeSet<ParamId> = planned.iter().map(|weight| weight.id).collect();
    let seen = watch(ids, None, || forward(model, sample));
    let mut uses = BTreeMap::new();
    for seen in &seen {
        *uses.entry(seen.weight).or_insert(0) += 1;
    }
    let mut unseen = planned;
    let mut stages: Vec<Stage> = Vec::new();
    let mut last = (Vec::new(), Vec::new());
    for Seen { weight, inputs, .. } in seen {
        let [_, count] = inputs.dims();
        // A group of several outputs has no one of their curvature.
        let fits = |planned: &PlannedWeight| count.is_multiple_of(planned.grouping.len());
        let place = unseen
            .iter()
            .position(|planned| planned.id == weight && fits(planned));
        let Some(place) = place else {
            continue;
        };
        let planned = unseen.remove(place);
        let once = uses[&weight] == 1;
        let input = (inputs.dims().to_vec(), read_f32(inputs));
        match stages.last_mut().filter(|_| input == last) {
            Some(stage) => {
                stage.weights.push(planned);
                stage.view = View::Inputs {
                    once: once && stage.view == View::Inputs { once: true },
                };
            }
            None => stages.push(Stage {
                weights: Vec::from([planned]),
                view: View::Inputs { once },
            }),
        }
        last = input;
    }
    (stages, unseen)
}

/// Measures what the inputs of a stage say in a model of which others are quantized already, and what its
/// layers lack of what those of the float model give.
pub(super) fn observe<M: Module, I, E, const D: usize>(
    [float, model]: [&M; 2],
    stage: &Stage,
    samples: &[&I],
    forward: impl Fn(&M, &I) -> Tensor<D>,
    mut progress: impl FnMut() -> Result<(), E>,
) -> Result<Hessians, E> {
    let [float_weights, weights] = [float, model].map(|model| stage.in_model(model));
    let mut measured = Hessians::default();
    for sample in samples {
        let taught = stage.see(&float_weights, || forward(float, sample));
        let seen = stage.see(&weights, || forward(model, sample));
        // The same calls in the same order, unless `forward` decides by values.
        let mut pairs = taught.iter().zip(&seen);
        let follows = taught.len() == seen.len()
            && pairs.all(|((a, taught), (b, seen))| {
                a == b && taught.inputs.dims() == seen.inputs.dims()
            });
        let mut taught = taught.into_iter().map(|(_, taught)| taught.outputs);
        for (place, seen) in seen {
            let taught = taught.next().flatten().filter(|_| follows);
            add(&mut measured, &weights[place], seen, taught);
        }
        progress()?;
    }
    Ok(measured)
}

/// Adds one call.
fn add(measured: &mut Hessians, weight: &PlannedWeight, seen: Seen, taught: Option<Tensor<2>>) {
    let inputs = in_groups(weight, seen.inputs);
    let [rows, _] = inputs.dims();
    let lacks = taught
        .zip(seen.outputs)
        .map(|(taught, given)| taught - given);
    let lacking = lacks.map(|lacks| Lacking {
        products: lacks.clone().transpose().matmul(inputs.clone()),
        bias: seen.bias.map(|id| {
            let sum = |rows: Tensor<2>| rows.sum_dim(0).squeeze_dim::<1>(0);
            (id, sum(lacks), sum(inputs.clone()))
        }),
        rows,
    });
    let products = inputs.clone().transpose().matmul(inputs);
    let new = match measured.0.remove(&seen.weight) {
        None => Measured { products, lacking },
        Some(old) => Measured {
            products: old.products + products,
            lacking: old.lacking.zip(lacking).map(|(old, new)| Lacking {
                products: old.products + new.products,
                bias: old
                    .bias
                    .zip(new.bias)
                    .map(|((id, e, x), (_, f, y))| (id, e + f, x + y)),
                rows: old.rows + new.rows,
            }),
        },
    };
    measured.0.insert(seen.weight, new);
}

/// Inputs in the order of a weight's groups.
fn in_groups(weight: &PlannedWeight, inputs: Tensor<2>) -> Tensor<2> {
    let axes = weight.grouping.axes();
    let plain: Vec<usize> = (0..axes.len()).filter(|&axis| axis != axes[0]).collect();
    if axes[1..] == plain {
        return inputs;
    }
    let len = |axis: usize| weight.shape[axis];
    // How far apart neighbours of an axis are in the order of the weight's axes.
    let stride = |axis: usize| -> usize {
        let behind = plain.iter().filter(|&&other| other > axis);
        behind.map(|&other| len(other)).product()
    };
    let mut places = Vec::from([0]);
    for &axis in &axes[1..] {
        let along = |place: usize| (0..len(axis)).map(move |index| place + index * stride(axis));
        places = places.into_iter().flat_map(along).collect();
    }
    let places: Vec<i32> = places.into_iter().map(|place| place as i32).collect();
    let places = Tensor::from_ints(places.as_slice(), &inputs.device());
    inputs.select(1, places)
}
