//! Float → multi-bit: structured sketching of one weight or of a whole module by path rules
//! (structured sketching, Qu et al., CVPR 2020).

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use burn_core::module::{Module, Param, ParamGroup, Reparameterizer};
use burn_core::tensor::Tensor;
use multibit::fit::{self, SketchError};
use multibit::{Grouping, GroupingError, MAX_BITS};

use crate::multibit::{Attach, MultiBit, MultiBitData, Replacement, quantized, read_f32};

/// How a weight is cut into groups, before its shape is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupingRule {
    /// All weights of one output; for a linear layer the same as `Subchannelwise(1)`.
    Channelwise,
    /// One 2-D kernel of a convolution.
    Kernelwise,
    /// One kernel position of a convolution, across its input channels.
    Pixelwise,
    /// One of `s` equal runs of an output's inputs, of a linear layer `[d_in, d_out]`.
    Subchannelwise(usize),
}

impl GroupingRule {
    /// The grouping of a weight of the given shape.
    ///
    /// A weight of rank 2 is taken as Burn's `Linear`, `[d_in, d_out]`; of rank 3 and more as a
    /// convolution, `[out, in, k…]`.
    ///
    /// # Errors
    /// If the rule does not fit the shape, for example if `s` does not divide `d_in`.
    pub fn grouping(&self, shape: &[usize]) -> Result<Grouping, GroupingError> {
        match (self, shape.len()) {
            (Self::Channelwise, 2) => Grouping::subchannelwise(shape, 1),
            (Self::Channelwise, _) => Grouping::channelwise(shape),
            (Self::Kernelwise, _) => Grouping::kernelwise(shape),
            (Self::Pixelwise, _) => Grouping::pixelwise(shape),
            (Self::Subchannelwise(s), _) => Grouping::subchannelwise(shape, *s),
        }
    }
}

/// Why a module could not be quantized.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum QuantizeError {
    /// A rule does not fit a weight.
    Grouping {
        /// Path of the weight.
        path: String,
        /// What does not fit.
        source: GroupingError,
    },
    /// A weight holds NaN or infinity.
    Weight {
        /// Path of the weight.
        path: String,
        /// Where.
        source: SketchError,
    },
    /// More bases were asked for than a code can hold, or none.
    MaxBits {
        /// Path of the weight.
        path: String,
        /// The number asked for.
        max_bits: usize,
    },
    /// No rule matched any weight of the module.
    Nothing,
    /// The module holds multi-bit weights already.
    Already {
        /// Path of the first.
        path: String,
    },
}

impl fmt::Display for QuantizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grouping { path, source } => write!(f, "{path}: {source}"),
            Self::Weight { path, source } => write!(f, "{path}: {source}"),
            Self::MaxBits { path, max_bits } => {
                write!(
                    f,
                    "{path}: max_bits is {max_bits}, but must be 1 to {MAX_BITS}"
                )
            }
            Self::Nothing => write!(f, "no rule matches any weight of rank 2 or more"),
            Self::Already { path } => write!(f, "{path} is a multi-bit weight already"),
        }
    }
}

impl core::error::Error for QuantizeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Grouping { source, .. } => Some(source),
            Self::Weight { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Sketches one weight.
///
/// # Arguments
/// - `weight`: the values in row-major order
/// - `shape`: of the weight
///
/// # Errors
/// If the grouping does not fit the shape, or a value is not finite.
pub fn sketch(
    path: &str,
    weight: &[f32],
    shape: &[usize],
    rule: GroupingRule,
    max_bits: usize,
) -> Result<MultiBitData, QuantizeError> {
    if !(1..=MAX_BITS).contains(&max_bits) {
        return Err(QuantizeError::MaxBits {
            path: path.to_string(),
            max_bits,
        });
    }
    let grouping = rule
        .grouping(shape)
        .map_err(|source| QuantizeError::Grouping {
            path: path.to_string(),
            source,
        })?;
    let mut grouped = alloc::vec![0.0; weight.len()];
    grouping.gather(shape, weight, &mut grouped);
    let sketch = fit::sketch(&grouped, grouping.len(), max_bits).map_err(|source| {
        QuantizeError::Weight {
            path: path.to_string(),
            source,
        }
    })?;
    Ok(MultiBitData {
        shape: shape.to_vec(),
        grouping,
        max_bits,
        codes: sketch.codes,
        coordinates: sketch.coordinates,
        widths: sketch.widths,
    })
}

#[derive(Debug, Clone)]
struct Rule {
    group: ParamGroup,
    grouping: GroupingRule,
    max_bits: Option<usize>,
}

/// Turns the weights of any Burn module into multi-bit weights, by path rules.
///
/// The module's own type does not change; each matched parameter gets its sketch as its value and
/// a [`MultiBit`] state beside it.
///
/// ```
/// use burn_alq::sketch::{GroupingRule, Quantizer};
/// use burn_core::module::ParamGroup;
///
/// let quantizer = Quantizer::new(6)
///     .rule(ParamGroup::from_predicate("conv"), GroupingRule::Kernelwise)
///     .rule(ParamGroup::from_path("fc1.weight"), GroupingRule::Subchannelwise(2))
///     .rule(ParamGroup::from_path("fc2.weight"), GroupingRule::Subchannelwise(1));
/// ```
#[derive(Debug, Clone)]
pub struct Quantizer {
    rules: Vec<Rule>,
    max_bits: usize,
}

impl Quantizer {
    /// A quantizer without rules. `max_bits` is the largest bitwidth of a group, at most
    /// [`MAX_BITS`].
    pub fn new(max_bits: usize) -> Self {
        Self {
            rules: Vec::new(),
            max_bits,
        }
    }

    /// Quantizes every weight of rank 2 or more that `group` matches. Of several matching rules the
    /// last one counts, as in Burn's optimizer groups.
    pub fn rule(mut self, group: ParamGroup, grouping: GroupingRule) -> Self {
        self.rules.push(Rule {
            group,
            grouping,
            max_bits: None,
        });
        self
    }

    /// Like [`rule`](Self::rule), with a bitwidth of its own.
    pub fn rule_with_bits(
        mut self,
        group: ParamGroup,
        grouping: GroupingRule,
        max_bits: usize,
    ) -> Self {
        self.rules.push(Rule {
            group,
            grouping,
            max_bits: Some(max_bits),
        });
        self
    }

    /// Sketches all matched weights of a module.
    ///
    /// # Errors
    /// If a rule does not fit a weight, a weight is not finite, nothing matches, or the module is
    /// quantized already. The first error counts.
    pub fn apply<M: Module>(&self, module: M) -> Result<M, QuantizeError> {
        if let Some(weight) = quantized(&module).into_iter().next() {
            return Err(QuantizeError::Already { path: weight.path });
        }
        let mut state = Apply {
            quantizer: self,
            result: Err(QuantizeError::Nothing),
        };
        let module = module.apply_reparameterization(&mut state);
        state.result.map(|()| module)
    }
}

struct Apply<'a> {
    quantizer: &'a Quantizer,
    /// `Err(Nothing)` until a weight was quantized; any other error stays.
    result: Result<(), QuantizeError>,
}

impl Reparameterizer for &mut Apply<'_> {
    type Reparam = MultiBit;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<MultiBit>) {
        let failed = matches!(&self.result, Err(error) if *error != QuantizeError::Nothing);
        let rules = &self.quantizer.rules;
        let rule = rules
            .iter()
            .rfind(|rule| rule.group.matches(&param.id, Some(path)));
        let Some(rule) = rule.filter(|_| D >= 2 && !failed) else {
            return (param, None);
        };
        let max_bits = rule.max_bits.unwrap_or(self.quantizer.max_bits);
        match sketch_param(path, param.clone(), rule.grouping, max_bits) {
            Ok((param, state)) => {
                self.result = Ok(());
                (param, Some(state))
            }
            Err(error) => {
                self.result = Err(error);
                (param, None)
            }
        }
    }
}

/// The parameter at its sketch's value, and the state to attach.
fn sketch_param<const D: usize>(
    path: &str,
    param: Param<Tensor<D>>,
    rule: GroupingRule,
    max_bits: usize,
) -> Result<(Param<Tensor<D>>, MultiBit), QuantizeError> {
    let value = param.val();
    let (device, shape) = (value.device(), value.dims());
    let data = sketch(path, &read_f32(value), &shape, rule, max_bits)?;
    let state = data.to_device(&device);
    let flat = Tensor::<1>::from_data(data.reconstruct().as_slice(), &device.without_autodiff());
    let mut replacement = Replacement::default();
    replacement.floats.insert(param.id, flat);
    Ok((Module::map(param, &mut replacement), state))
}

/// Sketches one parameter and attaches its state.
pub(crate) fn attach<const D: usize>(
    path: &str,
    param: Param<Tensor<D>>,
    rule: GroupingRule,
    max_bits: usize,
) -> Result<Param<Tensor<D>>, QuantizeError> {
    let (param, state) = sketch_param(path, param, rule, max_bits)?;
    Ok(param.apply_reparameterization(Attach(Some(state))))
}
