//! Multi-bit activations: what takes ReLU's place (Qu et al., CVPR 2020, section 5).

use alloc::format;
use alloc::vec::Vec;

use burn_core as burn;
use burn_core::backend::Dispatch;
use burn_core::config::Config;
use burn_core::module::{Content, DisplaySettings, Module, ModuleDisplay, RunningState};
use burn_core::tensor::{Device, Int, Tensor};
use burn_nn::pool::MaxPool2d;
use multibit::cpu::{Levels, Pool2dOptions};

use crate::nn::padding_pairs;
use crate::ops::AlqOps;

/// Configuration to create a [`MultiBitActivation`] with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct MultiBitActivationConfig {
    /// Bits of an activation, 1 to 4.
    pub bits: usize,
    /// What is kept of the levels at each step of training.
    #[config(default = 0.9)]
    pub keep: f64,
}

/// A step function with `2^bits` levels in the place of a ReLU,
/// `x̂ = x_ref + Σ ±γⱼ`, the level nearest to the activation.
///
/// In training (on an autodiff device) the levels are fitted to `max(x, 0)` by least squares at
/// each call and blended with those of before; the first call starts from levels at equal distances.
/// Gradients pass straight through where the activation lies in the range of the levels, and are 0
/// elsewhere. In evaluation the levels are what they are.
///
/// Should be created with [`MultiBitActivationConfig`]. The levels are recorded with the model.
/// Like batch norm's statistics they belong to one thread: train without shards.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct MultiBitActivation {
    /// `x_ref` and `γ`, `[1 + bits]`; all 0 before the first call in training.
    pub levels: RunningState<Tensor<1>>,
    /// Bits of an activation.
    pub bits: usize,
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
            levels: RunningState::new(Tensor::zeros([1 + self.bits], device)),
            bits: self.bits,
            keep: self.keep,
        }
    }
}

impl MultiBitActivation {
    /// The levels of evaluation.
    ///
    /// # Panics
    /// If they were never fitted or loaded.
    pub(crate) fn fixed_levels(&self) -> Levels {
        to_levels(&self.levels.value()).expect(
            "MultiBitActivation: the levels are not fitted yet; train or load the model first",
        )
    }

    /// Quantizes activations; in training also fits the levels.
    ///
    /// # Shapes
    /// - `input`, result: any, the same
    ///
    /// # Panics
    /// In evaluation, if the levels were never fitted or loaded.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Quantized<D> {
        if !input.device().is_autodiff() {
            let levels = self.fixed_levels();
            return Quantized::new(input, Some(levels));
        }
        let detached = input.clone().detach();
        let levels = to_levels(&self.levels.value_sync());
        let first = levels.is_none();
        let levels = levels.unwrap_or_else(|| {
            // Of a Gaussian's positive half about what the highest level needs, but no level above
            // all activations: nothing would ever take it.
            let positive = detached.clone().clamp_min(0.0);
            let mean = positive.clone().mean().into_scalar::<f32>();
            let largest = positive.max().into_scalar::<f32>().min(4.0 * mean);
            let largest = if largest > 0.0 { largest } else { 1.0 };
            Levels::uniform(self.bits, largest).expect("the bits were checked")
        });
        let above = above(&detached, &levels);
        let fitted = fit(&levels, &detached, &above);
        let keep = if first { 0.0 } else { self.keep as f32 };
        let device = self.levels.value().device();
        self.levels
            .update(to_tensor(&levels.blend(&fitted, keep), &device));

        let quantized = quantize(&levels, &above);
        let (low, high) = range(&levels);
        let passed = input.clamp(low, high);
        let rest = quantized - passed.clone().detach();
        (passed + rest).into()
    }
}

/// Activations, quantized or about to be.
///
/// Between an activation and a layer, values may be moved and chosen, but not computed with: since
/// the levels ascend with the activations, the largest of some activations has the largest level, so
/// pooling before quantizing is the same. A packed layer in bitwise arithmetic turns values to bits
/// itself, once; those that several layers take are better turned to bits before, by
/// [`pack`](Quantized::pack), as [`MultiBitConv2d::forward_act`](crate::MultiBitConv2d::forward_act)
/// does. All others compute with [`into_tensor`](Self::into_tensor).
#[derive(Clone, Debug)]
pub struct Quantized<const D: usize> {
    state: State<D>,
}

#[derive(Clone, Debug)]
enum State<const D: usize> {
    /// Values, and the levels that they are to take.
    Values(Tensor<D>, Option<Levels>),
    /// Of rank 4 alone.
    Planes(BitPlanes),
}

/// Activations `[batch, channels, height, width]` as bits.
#[derive(Clone, Debug)]
pub(crate) struct BitPlanes {
    /// `[batch, ⌈channels / 32⌉, bits, height, width]`.
    pub words: Tensor<5, Int>,
    pub channels: usize,
    pub levels: Levels,
}

impl<const D: usize> From<Tensor<D>> for Quantized<D> {
    /// Plain values, without levels.
    fn from(values: Tensor<D>) -> Self {
        let state = State::Values(values, None);
        Self { state }
    }
}

impl From<BitPlanes> for Quantized<4> {
    fn from(planes: BitPlanes) -> Self {
        let state = State::Planes(planes);
        Self { state }
    }
}

impl<const D: usize> Quantized<D> {
    fn new(values: Tensor<D>, levels: Option<Levels>) -> Self {
        let state = State::Values(values, levels);
        Self { state }
    }

    /// The activations at their levels.
    pub fn into_tensor(self) -> Tensor<D> {
        match self.into_parts() {
            (values, Some(levels)) => Tensor::from_dispatch(<Dispatch as AlqOps>::alq_quantize(
                values.into_dispatch(),
                levels,
            )),
            (values, None) => values,
        }
    }

    /// The values, and the levels that they are to take; of bits, the levels that they are.
    pub fn into_parts(self) -> (Tensor<D>, Option<Levels>) {
        match self.state {
            State::Values(values, levels) => (values, levels),
            State::Planes(BitPlanes {
                words,
                channels,
                levels,
            }) => {
                let values = <Dispatch as AlqOps>::alq_planes_values(
                    words.into_dispatch(),
                    channels,
                    levels.clone(),
                );
                (Tensor::from_dispatch(values), Some(levels))
            }
        }
    }

    /// Where they are.
    pub(crate) fn device(&self) -> Device {
        match &self.state {
            State::Values(values, _) => values.device(),
            State::Planes(planes) => planes.words.device(),
        }
    }

    /// The shape.
    pub fn dims(&self) -> [usize; D] {
        match &self.state {
            State::Values(values, _) => values.dims(),
            State::Planes(planes) => {
                let [batch, _, _, height, width] = planes.words.dims();
                let dims = [batch, planes.channels, height, width];
                core::array::from_fn(|axis| dims[axis])
            }
        }
    }

    /// Moves or chooses values: reshape, flatten, slice, select, maximum.
    ///
    /// `f` must not compute with them.
    pub fn map<const E: usize>(self, f: impl FnOnce(Tensor<D>) -> Tensor<E>) -> Quantized<E> {
        let (values, levels) = self.into_parts();
        Quantized::new(f(values), levels)
    }
}

impl Quantized<4> {
    /// The activations as bits, for more than one packed layer; in training, and if there are no
    /// levels, the same as before.
    #[must_use]
    pub fn pack(self) -> Self {
        match self.into_planes() {
            Ok(planes) => planes.into(),
            Err(other) => other,
        }
    }

    /// Bits, or what has none.
    pub(crate) fn into_planes(self) -> Result<BitPlanes, Self> {
        match self.state {
            State::Planes(planes) => Ok(planes),
            State::Values(values, Some(levels)) if !values.device().is_autodiff() => {
                let [_, channels, ..] = values.dims();
                let words =
                    <Dispatch as AlqOps>::alq_planes(values.into_dispatch(), levels.clone());
                Ok(BitPlanes {
                    words: Tensor::from_dispatch(words),
                    channels,
                    levels,
                })
            }
            state => Err(Self { state }),
        }
    }

    /// The bits, if they are there.
    pub(crate) fn planes(&self) -> Option<&BitPlanes> {
        match &self.state {
            State::Planes(planes) => Some(planes),
            State::Values(..) => None,
        }
    }

    /// Max pooling of the activations, exact; `pool.forward` for plain values, but in evaluation on
    /// the CPU several times as fast.
    ///
    /// # Shapes
    /// - `self`: `[batch, channels, height, width]`
    /// - result: `[batch, channels, height_out, width_out]`
    ///
    /// # Panics
    /// If the window is larger than the padded input.
    pub fn max_pool2d(self, pool: &MaxPool2d) -> Self {
        let [.., height, width] = self.dims();
        let padding = padding_pairs(
            &pool.padding,
            [height, width],
            pool.kernel_size,
            pool.stride,
        );
        let symmetric = padding.iter().all(|(before, after)| before == after);
        if pool.ceil_mode || !symmetric {
            return self.map(|values| pool.forward(values));
        }
        let options = Pool2dOptions {
            kernel: pool.kernel_size,
            stride: pool.stride,
            padding: padding.map(|(before, _)| before),
            dilation: pool.dilation,
        };
        match self.state {
            State::Planes(planes) => {
                let words = <Dispatch as AlqOps>::alq_planes_max_pool2d(
                    planes.words.into_dispatch(),
                    planes.channels,
                    planes.levels.clone(),
                    options,
                );
                let words = Tensor::from_dispatch(words);
                BitPlanes { words, ..planes }.into()
            }
            State::Values(values, levels) if values.device().is_autodiff() => {
                Self::new(pool.forward(values), levels)
            }
            State::Values(values, levels) => {
                let values = values.into_dispatch();
                let values = <Dispatch as AlqOps>::alq_max_pool2d(values, options);
                Self::new(Tensor::from_dispatch(values), levels)
            }
        }
    }
}

/// 1 where an activation is above a threshold, one tensor a threshold.
fn above<const D: usize>(values: &Tensor<D>, levels: &Levels) -> Vec<Tensor<D>> {
    let thresholds = levels.thresholds().iter();
    thresholds
        .map(|&threshold| values.clone().greater_elem(threshold).float())
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
    let data = Tensor::cat(counts.chain(sums).collect(), 0).into_data();
    let data: Vec<f32> = data
        .convert::<f32>()
        .try_into_vec()
        .expect("converted to f32");
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

/// None if they are not fitted yet.
fn to_levels(tensor: &Tensor<1>) -> Option<Levels> {
    let data = tensor.clone().into_data_as::<f32>();
    let values: Vec<f32> = data.try_into_vec().expect("converted to f32");
    if values.iter().all(|&value| value == 0.0) {
        return None;
    }
    let levels = Levels::new(values[0], &values[1..]);
    Some(levels.unwrap_or_else(|error| panic!("MultiBitActivation: {error}")))
}

fn to_tensor(levels: &Levels, device: &Device) -> Tensor<1> {
    let values: Vec<f32> = core::iter::once(levels.reference())
        .chain(levels.coordinates().iter().copied())
        .collect();
    Tensor::from_floats(values.as_slice(), device)
}

impl ModuleDisplay for MultiBitActivation {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let levels = match to_levels(&self.levels.value()) {
            Some(levels) => format!("{:?}", levels.values()),
            None => "not fitted".into(),
        };
        content
            .add("bits", &self.bits)
            .add("levels", &levels)
            .optional()
    }
}
