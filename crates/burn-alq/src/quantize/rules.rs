//! Path rules as data: which weights become multi-bit and how, which activations are switched on.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use burn_core::module::{ParamGroup, ParamId};
use multibit::CoordinateType;
use multibit::cpu::Arithmetic;
use regex_lite::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::weight::{ARITHMETICS, GroupingRule, Layout};

/// Why a rule is not valid.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum RuleError {
    /// A regular expression does not parse.
    #[error("regex `{pattern}`: {source}")]
    Regex {
        /// The expression.
        pattern: String,
        /// Where and why.
        source: Box<regex_lite::Error>,
    },
    /// A rule has not exactly one of `path`, `glob` and `regex`.
    #[error("a rule needs exactly one of `path`, `glob` and `regex`")]
    Pattern,
    /// A rule does not choose exactly one of a grouping, a product and float, or has keys that do not go with it.
    #[error(
        "rule {rule}: needs one of `grouping`, `product` and `keep_float = true`; `product` goes with \
         `or_float` and `arithmetic`, and `keep_float` without any other key"
    )]
    Action {
        /// The rule's pattern.
        rule: String,
    },
    /// `subchannels` without `grouping = "subchannelwise"`, `group_size` without `grouping =
    /// "groupwise"`, or the reverse.
    #[error(
        "rule {rule}: `subchannels` and `grouping = \"subchannelwise\"` go together, and `group_size` \
         and `grouping = \"groupwise\"`"
    )]
    Number {
        /// The rule's pattern.
        rule: String,
    },
    /// There is no arithmetic of this name.
    #[error("unknown arithmetic `{name}`, expected one of exact, int8, bitwise")]
    Arithmetic {
        /// The name.
        name: String,
    },
    /// There is no grouping of this name.
    #[error("unknown grouping `{name}`, expected one of {}", GroupingRule::NAMES.join(", "))]
    Grouping {
        /// The name.
        name: String,
    },
}

/// Bytes that a compiled regular expression may take, and more for each byte of its text: a file of
/// rules cannot ask for memory out of proportion.
const SIZE_OF_A_REGEX: usize = 8 << 10;
const SIZE_OF_A_CHARACTER: usize = 64;

/// Which paths a rule is for.
#[derive(Debug, Clone)]
pub struct PathPattern {
    kind: Kind,
    text: String,
    /// None for an exact path.
    regex: Option<Regex>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exact,
    Glob,
    Regex,
}

impl PathPattern {
    /// The path itself, `layer1.0.conv1.weight`.
    pub fn exact(path: impl Into<String>) -> Self {
        Self {
            kind: Kind::Exact,
            text: path.into(),
            regex: None,
        }
    }

    /// A pattern for whole paths: `*` stands for any characters within one name, `**` also across
    /// the dots between names, `?` for one character of a name.
    pub fn glob(pattern: impl Into<String>) -> Self {
        let text = pattern.into();
        let mut regex = String::from("^");
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '*' if rest.next_if_eq(&'*').is_some() => regex.push_str(".*"),
                '*' => regex.push_str("[^.]*"),
                '?' => regex.push_str("[^.]"),
                c => regex.push_str(&regex_lite::escape(&c.to_string())),
            }
        }
        regex.push('$');
        let mut builder = RegexBuilder::new(&regex);
        // What it takes grows with its text alone.
        let regex = builder.size_limit(usize::MAX).build();
        let regex = regex.expect("everything else is escaped");
        Self {
            kind: Kind::Glob,
            text,
            regex: Some(regex),
        }
    }

    /// A regular expression in the syntax of `regex-lite`, found anywhere in a path; `^` and `$`
    /// anchor it.
    ///
    /// # Errors
    /// If it does not parse, or repeats so much that it would take far more memory than its text.
    pub fn regex(pattern: impl Into<String>) -> Result<Self, RuleError> {
        let text = pattern.into();
        let size = SIZE_OF_A_REGEX + SIZE_OF_A_CHARACTER * text.len();
        match RegexBuilder::new(&text).size_limit(size).build() {
            Ok(regex) => Ok(Self {
                kind: Kind::Regex,
                text,
                regex: Some(regex),
            }),
            Err(source) => Err(RuleError::Regex {
                pattern: text,
                source: source.into(),
            }),
        }
    }

    /// Whether a path is meant.
    pub fn matches(&self, path: &str) -> bool {
        match &self.regex {
            Some(regex) => regex.is_match(path),
            None => self.text == path,
        }
    }
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, &self.text) == (other.kind, &other.text)
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Exact => "path",
            Kind::Glob => "glob",
            Kind::Regex => "regex",
        };
        write!(f, "{kind} `{}`", self.text)
    }
}

/// What a rule of code selects: a [`PathPattern`], or a group of Burn's.
#[derive(Debug, Clone)]
pub enum Selector {
    /// What has such a path.
    Path(PathPattern),
    /// What Burn's own matcher selects.
    Group(ParamGroup),
}

impl Selector {
    pub(super) fn matches(&self, id: &ParamId, path: &str) -> bool {
        match self {
            Self::Path(pattern) => pattern.matches(path),
            Self::Group(group) => group.matches(id, Some(path)),
        }
    }

    /// Whether it names one path.
    pub(super) fn is_exact(&self) -> bool {
        matches!(self, Self::Path(pattern) if pattern.kind == Kind::Exact)
    }

    /// How errors and reports name rule `index`.
    pub(super) fn name(&self, index: usize) -> String {
        match self {
            Self::Path(pattern) => format!("{} ({pattern})", index + 1),
            Self::Group(_) => format!("{}", index + 1),
        }
    }
}

impl From<PathPattern> for Selector {
    fn from(pattern: PathPattern) -> Self {
        Self::Path(pattern)
    }
}

impl From<ParamGroup> for Selector {
    fn from(group: ParamGroup) -> Self {
        Self::Group(group)
    }
}

/// What becomes of a matched weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Action {
    /// It stays float.
    KeepFloat,
    /// It becomes multi-bit.
    Quantize {
        /// How it is cut into groups.
        grouping: GroupingRule,
        /// Bases of a group, if not as many as everywhere.
        max_bits: Option<usize>,
        /// What its axes mean, if the layer that holds it does not say so.
        layout: Option<Layout>,
        /// Whether it stays float where the grouping does not fit it, or it is not finite.
        or_float: bool,
        /// How the layer that holds it computes once it is packed, if that is not left to the layer.
        arithmetic: Option<Arithmetic>,
    },
    /// It becomes a product of two weights of one bit.
    Product {
        /// Bits that a weight takes at most, all that is stored counted.
        bits: f64,
        /// Whether it stays float where it cannot be a product of so few bits, or it is not finite.
        or_float: bool,
        /// How the layer that holds it computes once it is packed, if that is not left to the layer.
        arithmetic: Option<Arithmetic>,
    },
}

/// One rule for weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WeightEntry", into = "WeightEntry")]
pub struct WeightRule {
    /// Which paths.
    pub pattern: PathPattern,
    /// What to do with them.
    pub action: Action,
}

/// One rule for activations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ActivationEntry", into = "ActivationEntry")]
pub struct ActivationRule {
    /// Which paths, of the [`MultiBitActivation`](crate::MultiBitActivation) itself.
    pub pattern: PathPattern,
    /// Bits of an activation, 1 to 4.
    pub bits: usize,
}

/// The rules of a whole conversion, as they stand in a file.
///
/// ```
/// use burn_alq::quantize::{Quantizer, Rules};
///
/// let rules: Rules = toml::from_str(r#"
/// max_bits = 6
///
/// [[weights]]
/// glob = "**.weight"
/// grouping = "channelwise"
///
/// [[weights]]
/// regex = '^layer\d+\..*conv\d\.weight$'
/// grouping = "pixelwise"
/// max_bits = 4
///
/// [[weights]]
/// path = "fc.weight"
/// grouping = "subchannelwise"
/// subchannels = 2
///
/// [[weights]]
/// glob = "encoder.**.weight"
/// grouping = "groupwise"
/// group_size = 64
/// or_float = true
/// arithmetic = "int8"
///
/// [[weights]]
/// glob = "decoder.**.weight"
/// product = 0.8
///
/// [[weights]]
/// glob = "head.**"
/// keep_float = true
///
/// [[activations]]
/// glob = "**.relu*"
/// bits = 2
/// "#)?;
/// let quantizer = Quantizer::from(rules);
/// # let _ = quantizer;
/// # Ok::<(), toml::de::Error>(())
/// ```
///
/// Of several rules that match, the last one counts. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Bases of a group where a rule does not say it, 1 to 8.
    #[serde(default = "default_max_bits")]
    pub max_bits: usize,
    /// What will hold the coordinates, as in
    /// [`Quantizer::coordinate_type`](super::Quantizer::coordinate_type): `f32` (where nothing is
    /// said), `f16` or `bf16`.
    #[serde(default)]
    pub coordinate_type: CoordinateType,
    /// Rules for weights of rank 2 or more.
    #[serde(default)]
    pub weights: Vec<WeightRule>,
    /// Rules for activations.
    #[serde(default)]
    pub activations: Vec<ActivationRule>,
}

fn default_max_bits() -> usize {
    6
}

/// A rule for weights as written: flat, one key a choice.
#[derive(Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightEntry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    glob: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    regex: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grouping: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subchannels: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group_size: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    product: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_bits: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layout: Option<Layout>,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    or_float: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arithmetic: Option<String>,
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    keep_float: bool,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActivationEntry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    glob: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    regex: Option<String>,
    bits: usize,
}

fn pattern(
    path: Option<String>,
    glob: Option<String>,
    regex: Option<String>,
) -> Result<PathPattern, RuleError> {
    match (path, glob, regex) {
        (Some(path), None, None) => Ok(PathPattern::exact(path)),
        (None, Some(glob), None) => Ok(PathPattern::glob(glob)),
        (None, None, Some(regex)) => PathPattern::regex(regex),
        _ => Err(RuleError::Pattern),
    }
}

/// The inverse of [`pattern`].
fn keys(pattern: PathPattern) -> [Option<String>; 3] {
    let text = Some(pattern.text);
    match pattern.kind {
        Kind::Exact => [text, None, None],
        Kind::Glob => [None, text, None],
        Kind::Regex => [None, None, text],
    }
}

/// The number of a rule under its keys, `subchannels` and `group_size`.
#[derive(PartialEq)]
struct Numbers(Option<usize>, Option<usize>);

impl Numbers {
    fn of(rule: &GroupingRule) -> Self {
        match *rule {
            GroupingRule::Groupwise(size) => Self(None, Some(size)),
            rule => Self(rule.name().1, None),
        }
    }
}

impl TryFrom<WeightEntry> for WeightRule {
    type Error = RuleError;

    fn try_from(entry: WeightEntry) -> Result<Self, RuleError> {
        let pattern = pattern(entry.path.clone(), entry.glob.clone(), entry.regex.clone())?;
        let rule = || pattern.to_string();
        let arithmetic = |name: &Option<String>| match name {
            None => Ok(None),
            Some(name) => {
                let mut known = ARITHMETICS.into_iter();
                let found = known.find(|arithmetic| arithmetic.to_string() == *name);
                let unknown = || RuleError::Arithmetic { name: name.clone() };
                found.ok_or_else(unknown).map(Some)
            }
        };
        // An action that goes with no other keys than those that it is written with.
        let bare = |action: Action| {
            let pattern = pattern.clone();
            match entry == WeightEntry::from(Self { pattern, action }) {
                true => Ok(action),
                false => Err(RuleError::Action { rule: rule() }),
            }
        };
        let action = match (&entry.grouping, entry.product, entry.keep_float) {
            (None, None, true) => bare(Action::KeepFloat)?,
            (None, Some(bits), false) => bare(Action::Product {
                bits,
                or_float: entry.or_float,
                arithmetic: arithmetic(&entry.arithmetic)?,
            })?,
            (Some(name), None, false) => {
                if !GroupingRule::NAMES.contains(&name.as_str()) {
                    return Err(RuleError::Grouping { name: name.clone() });
                }
                let number = match (entry.subchannels, entry.group_size) {
                    (Some(_), Some(_)) => None,
                    (subchannels, size) => subchannels.or(size),
                };
                // The same rule with its number under the key of its name.
                let grouping = GroupingRule::named(name, number).filter(|rule| {
                    Numbers::of(rule) == Numbers(entry.subchannels, entry.group_size)
                });
                Action::Quantize {
                    arithmetic: arithmetic(&entry.arithmetic)?,
                    grouping: grouping.ok_or_else(|| RuleError::Number { rule: rule() })?,
                    max_bits: entry.max_bits,
                    layout: entry.layout,
                    or_float: entry.or_float,
                }
            }
            _ => return Err(RuleError::Action { rule: rule() }),
        };
        Ok(Self { pattern, action })
    }
}

impl From<WeightRule> for WeightEntry {
    fn from(rule: WeightRule) -> Self {
        let [path, glob, regex] = keys(rule.pattern);
        let entry = Self {
            path,
            glob,
            regex,
            ..Self::default()
        };
        let name = |arithmetic: Option<Arithmetic>| arithmetic.map(|said| said.to_string());
        match rule.action {
            Action::KeepFloat => Self {
                keep_float: true,
                ..entry
            },
            Action::Product {
                bits,
                or_float,
                arithmetic,
            } => Self {
                product: Some(bits),
                or_float,
                arithmetic: name(arithmetic),
                ..entry
            },
            Action::Quantize {
                grouping,
                max_bits,
                layout,
                or_float,
                arithmetic,
            } => {
                let Numbers(subchannels, group_size) = Numbers::of(&grouping);
                Self {
                    grouping: Some(grouping.name().0.into()),
                    subchannels,
                    group_size,
                    max_bits,
                    layout,
                    or_float,
                    arithmetic: name(arithmetic),
                    ..entry
                }
            }
        }
    }
}

impl TryFrom<ActivationEntry> for ActivationRule {
    type Error = RuleError;

    fn try_from(entry: ActivationEntry) -> Result<Self, RuleError> {
        Ok(Self {
            pattern: pattern(entry.path, entry.glob, entry.regex)?,
            bits: entry.bits,
        })
    }
}

impl From<ActivationRule> for ActivationEntry {
    fn from(rule: ActivationRule) -> Self {
        let [path, glob, regex] = keys(rule.pattern);
        Self {
            path,
            glob,
            regex,
            bits: rule.bits,
        }
    }
}
