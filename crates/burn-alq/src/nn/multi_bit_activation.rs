//! Multi-bit activations: what takes ReLU's place (Qu et al., CVPR 2020, section 5).

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use burn_core as burn;
use burn_core::config::Config;
use burn_core::module::{
    Content, DisplaySettings, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
    ModuleVisitor, RunningState,
};
#[cfg(feature = "train")]
use burn_core::tensor::TensorData;
use burn_core::tensor::activation::relu;
use burn_core::tensor::{DType, Device, Tensor};
use multibit::cpu::{Levels, MAX_ACTIVATION_BITS};

use super::Quantized;
use crate::weight::{Kept, read_f32};

/// Configuration to create a [`MultiBitActivation`] with [`init`](Self::init).
///
/// [`MultiBitActivation::off`] makes one that is a ReLU until a rule switches it on.
#[derive(Config, Debug)]
pub struct MultiBitActivationConfig {
    /// Bits of an activation, 1 to 4.
    pub bits: usize,
    /// What is kept of the levels at each step of training.
    #[config(default = 0.9)]
    pub keep: f64,
}

/// The length of the state: bits, reference, coordinates.
const STATE_LEN: usize = 2 + MAX_ACTIVATION_BITS;

/// What is kept of the levels if nothing else is said.
const KEEP: f64 = 0.9;

/// A step function with `2^bits` levels in the place of a ReLU,
/// `x̂ = x_ref + Σ ±γⱼ`, the level nearest to the activation.
///
/// In training (on an autodiff device) the levels are fitted to `max(x, 0)` by least squares at
/// each call and blended with those of before; the first call starts from levels at equal distances.
/// Gradients pass straight through where the activation lies in the range of the levels, and are 0
/// elsewhere. In evaluation the levels are what they are.
///
/// Switched [off](Self::off), it is a ReLU; a rule of a
/// [`Quantizer`](crate::Quantizer::activations) switches it on.
///
/// Should be created with [`MultiBitActivationConfig`]. Bits and levels are recorded with the model,
/// in a tensor whose shape does not depend on them. Like batch norm's statistics they belong to one
/// thread: train without shards.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct MultiBitActivation {
    state: State,
    /// What is kept of the levels at each step of training.
    pub keep: f64,
}

impl MultiBitActivationConfig {
    /// An activation whose levels are not fitted yet.
    ///
    /// # Panics
    /// If `bits` or `keep` is out of range.
    pub fn init(&self, device: &Device) -> MultiBitActivation {
        if let Err(error) = Levels::uniform(self.bits, 1.0) {
            panic!("MultiBitActivationConfig: {error}");
        }
        assert!(
            (0.0..=1.0).contains(&self.keep),
            "MultiBitActivationConfig: `keep` is {}, not between 0 and 1",
            self.keep
        );
        MultiBitActivation {
            state: State::new(to_tensor(self.bits, None, device)),
            keep: self.keep,
        }
    }
}

impl MultiBitActivation {
    /// How a module's walk names this type.
    #[cfg(feature = "train")]
    pub(crate) const CONTAINER: &str = "Struct:MultiBitActivation";
    /// The name of the field with the state.
    pub(crate) const STATE: &str = "state";

    /// An activation that is a ReLU until it is switched on.
    pub fn off(device: &Device) -> Self {
        Self {
            state: State::new(to_tensor(0, None, device)),
            keep: KEEP,
        }
    }

    /// An activation with given levels.
    pub fn with_levels(levels: &Levels, device: &Device) -> Self {
        let bits = levels.coordinates().len();
        Self {
            state: State::new(to_tensor(bits, Some(levels), device)),
            keep: KEEP,
        }
    }

    /// Bits of an activation; 0 for a ReLU.
    pub fn bits(&self) -> usize {
        self.state.get().0
    }

    /// The levels; none of a ReLU, or before they are fitted.
    pub fn levels(&self) -> Option<Levels> {
        self.state.get().1
    }

    /// The bits that a state says.
    #[cfg(feature = "train")]
    pub(crate) fn bits_of(state: &TensorData) -> usize {
        state.iter::<f32>().next().unwrap_or(0.0) as usize
    }

    /// The state of an activation of `bits` bits that is not fitted yet.
    #[cfg(feature = "train")]
    pub(crate) fn switched(bits: usize, device: &Device) -> Tensor<1> {
        to_tensor(bits, None, device)
    }
}

impl MultiBitActivation {
    /// The levels of evaluation; none of a ReLU.
    ///
    /// # Panics
    /// If they were never fitted or loaded.
    pub(crate) fn fixed_levels(&self) -> Option<Levels> {
        let (bits, levels) = self.state.get();
        (bits > 0).then(|| {
            levels.expect(
                "MultiBitActivation: the levels are not fitted yet; train or load the model first",
            )
        })
    }

    /// Quantizes activations; in training also fits the levels. Switched off, a ReLU without levels.
    ///
    /// # Shapes
    /// - `input`, result: any, the same
    ///
    /// # Panics
    /// In evaluation, if the levels were never fitted or loaded.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Quantized<D> {
        if !input.device().is_autodiff() {
            return match self.fixed_levels() {
                Some(levels) => Quantized::new(input, Some(levels)),
                None => relu(input).into(),
            };
        }
        let (bits, levels) = self.state.synced();
        if bits == 0 {
            return relu(input).into();
        }
        // Sums and counts are beyond what half a float holds.
        let detached = input.clone().detach().cast(DType::F32);
        let first = levels.is_none();
        let levels = levels.unwrap_or_else(|| {
            // About what the highest level of a Gaussian's positive half needs, but no level above
            // all activations: nothing would ever take it.
            let positive = detached.clone().clamp_min(0.0);
            let mean = positive.clone().mean().into_scalar::<f32>();
            let largest = positive.max().into_scalar::<f32>().min(4.0 * mean);
            let largest = if largest > 0.0 { largest } else { 1.0 };
            Levels::uniform(bits, largest).expect("the bits were checked")
        });
        let above = above(&detached, &levels);
        let fitted = fit(&levels, &detached, &above);
        let keep = if first { 0.0 } else { self.keep as f32 };
        let blended = levels.blend(&fitted, keep);
        self.state.update(bits, &blended);

        let quantized = quantize(&levels, &above).cast(input.dtype());
        let (low, high) = range(&levels);
        let passed = input.clamp(low, high);
        let rest = quantized - passed.clone().detach();
        (passed + rest).into()
    }
}

/// 1 where an activation is above a threshold, one tensor a threshold.
fn above<const D: usize>(values: &Tensor<D>, levels: &Levels) -> Vec<Tensor<D>> {
    let thresholds = levels.thresholds().iter();
    thresholds
        .map(|&threshold| {
            let above = values.clone().greater_elem(threshold).float();
            above.cast(values.dtype())
        })
        .collect()
}

/// The levels that were reached.
fn quantize<const D: usize>(levels: &Levels, above: &[Tensor<D>]) -> Tensor<D> {
    let (lowest, _) = range(levels);
    let steps = levels.values().windows(2).map(|pair| pair[1] - pair[0]);
    let mut terms = above.iter().zip(steps);
    let (first, step) = terms.next().expect("two levels at least");
    let sum = first.clone() * step + lowest;
    terms.fold(sum, |sum, (above, step)| sum + above.clone() * step)
}

/// The lowest and the highest level.
fn range(levels: &Levels) -> (f32, f32) {
    let values = levels.values();
    (values[0], values[values.len() - 1])
}

/// Levels fitted to the positive part of the values.
fn fit<const D: usize>(levels: &Levels, values: &Tensor<D>, above: &[Tensor<D>]) -> Levels {
    let positive = values.clone().clamp_min(0.0);
    let counts = above.iter().map(|above| above.clone().sum());
    let sums = above
        .iter()
        .map(|above| (above.clone() * positive.clone()).sum());
    let sums = core::iter::once(positive.clone().sum()).chain(sums);
    let data = read_f32(Tensor::cat(counts.chain(sums).collect(), 0));
    let (counts, sums) = data.split_at(above.len());
    let total = values.shape().num_elements() as f64;
    let counts = core::iter::once(total).chain(counts.iter().map(|&count| f64::from(count)));
    let sums = sums.iter().map(|&sum| f64::from(sum));
    levels.refit(&differences(counts), &differences(sums))
}

/// What is at each level, from what is above each threshold.
fn differences(above: impl Iterator<Item = f64>) -> Vec<f64> {
    let above: Vec<f64> = above.chain([0.0]).collect();
    above.windows(2).map(|pair| pair[0] - pair[1]).collect()
}

/// The bits, 0 for a ReLU, and the levels once they are fitted.
type BitsAndLevels = (usize, Option<Levels>);

/// Bits and levels as a model records them, and as layers compute with them.
#[derive(Clone, Debug)]
struct State {
    /// `[6]`: the bits; `x_ref`; and `γ`, as many as bits, then zeros. All levels are 0 before the
    /// first call in training.
    recorded: RunningState<Tensor<1>>,
    /// What the recorded value says; shared by clones, as that is.
    read: Arc<Kept<BitsAndLevels>>,
}

impl State {
    fn new(value: Tensor<1>) -> Self {
        RunningState::new(value).into()
    }

    fn get(&self) -> BitsAndLevels {
        let read = || to_levels(&self.recorded.value());
        self.read.get_or_make(read)
    }

    /// The same with all updates.
    fn synced(&self) -> BitsAndLevels {
        self.recorded.value_sync();
        self.read.clear();
        self.get()
    }

    fn update(&self, bits: usize, levels: &Levels) {
        let device = self.recorded.value().device();
        self.recorded.update(to_tensor(bits, Some(levels), &device));
    }

    /// Changes the value, of clones too.
    fn change(
        self,
        change: impl FnOnce(RunningState<Tensor<1>>) -> RunningState<Tensor<1>>,
    ) -> Self {
        let recorded = change(self.recorded);
        self.read.clear();
        Self { recorded, ..self }
    }
}

impl From<RunningState<Tensor<1>>> for State {
    fn from(recorded: RunningState<Tensor<1>>) -> Self {
        let read = Arc::default();
        Self { recorded, read }
    }
}

impl Module for State {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        self.recorded.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.change(|recorded| recorded.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.change(|recorded| recorded.to_device(device))
    }

    /// Takes updates in first, of clones too, and then has a value of its own.
    fn train(self) -> Self {
        let recorded = self.recorded.train();
        self.read.clear();
        recorded.into()
    }

    /// As [`train`](Self::train).
    fn valid(&self) -> Self {
        let recorded = self.recorded.valid();
        self.read.clear();
        recorded.into()
    }

    fn materialize(self) -> Self {
        self.change(Module::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.recorded.visit(visitor);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        self.change(|recorded| recorded.map(mapper))
    }
}

impl ModuleDisplayDefault for State {
    fn content(&self, content: Content) -> Option<Content> {
        self.recorded.content(content)
    }
}

impl ModuleDisplay for State {}

fn to_levels(state: &Tensor<1>) -> BitsAndLevels {
    let values = read_f32(state.clone());
    let bits = values[0] as usize;
    let levels = &values[1..];
    if levels.iter().all(|&value| value == 0.0) {
        return (bits, None);
    }
    let levels = Levels::new(levels[0], &levels[1..1 + bits.min(MAX_ACTIVATION_BITS)]);
    let levels = levels.unwrap_or_else(|error| panic!("MultiBitActivation: {error}"));
    (bits, Some(levels))
}

fn to_tensor(bits: usize, levels: Option<&Levels>, device: &Device) -> Tensor<1> {
    let mut values = [0.0; STATE_LEN];
    values[0] = bits as f32;
    if let Some(levels) = levels {
        values[1] = levels.reference();
        values[2..2 + bits].copy_from_slice(levels.coordinates());
    }
    Tensor::from_data(values, (device, DType::F32))
}

impl ModuleDisplay for MultiBitActivation {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let (bits, levels) = self.state.get();
        let levels = match levels {
            Some(levels) => format!("{:?}", levels.values()),
            None if bits == 0 => "off".into(),
            None => "not fitted".into(),
        };
        content.add("bits", &bits).add("levels", &levels).optional()
    }
}
