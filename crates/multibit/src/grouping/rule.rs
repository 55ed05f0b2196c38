//! The structures by name, before the shape of a weight is known: the only table of them.

use alloc::vec::Vec;
use core::fmt;

use super::{Grouping, GroupingError};

/// How a weight is cut into groups, before its shape is known.
///
/// A weight of rank 2 is taken as Burn's `Linear`, `[d_in, d_out]`; of rank 3 and more as a
/// convolution, `[out, in, k…]`. [`Layout`] says where the first two axes are swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum GroupingRule {
    /// All weights of one output; for a linear layer the same as `Subchannelwise(1)`.
    Channelwise,
    /// One kernel of a convolution.
    Kernelwise,
    /// One kernel position of a convolution, across its input channels.
    Pixelwise,
    /// One of `s` equal runs of an output's inputs, of a linear layer `[d_in, d_out]`, or of its input
    /// channels, of a convolution; of a row of an embedding.
    Subchannelwise(usize),
    /// About so many weights of an output: of the lengths that divide it, the nearest.
    Groupwise(usize),
}

/// What the first two axes of a weight mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum Layout {
    /// A linear layer `[d_in, d_out]` or a convolution `[out, in, k…]`.
    Direct,
    /// An embedding `[n_embedding, d_model]`, whose outputs are its rows, or a transposed
    /// convolution `[in, out, k…]`.
    Transposed,
}

/// One line of the table of structures.
struct Structure {
    name: &'static str,
    rule: Rule,
    /// Cuts a weight in direct layout, by the rule's number where it has one.
    cut: fn(&[usize], usize) -> Result<Grouping, GroupingError>,
}

/// A rule without its number, if it has one.
enum Rule {
    Plain(GroupingRule),
    /// The number of runs of an output.
    Runs(fn(usize) -> GroupingRule),
    /// The number of weights of a run.
    Size(fn(usize) -> GroupingRule),
}

impl Rule {
    fn with(&self, number: usize) -> GroupingRule {
        match self {
            Self::Plain(rule) => *rule,
            Self::Runs(rule) | Self::Size(rule) => rule(number),
        }
    }

    /// The rule that may have made a grouping of outputs into so many runs of this length.
    fn made(&self, runs: usize, len: usize) -> GroupingRule {
        self.with(match self {
            Self::Size(_) => len,
            _ => runs,
        })
    }
}

/// All structures. Of those that coincide for a weight, the first is tried as a candidate; for a linear
/// layer the last gives the name, for a convolution the last without a number.
const STRUCTURES: &[Structure] = &[
    Structure {
        name: "groupwise",
        rule: Rule::Size(GroupingRule::Groupwise),
        cut: Grouping::groupwise,
    },
    Structure {
        name: "channelwise",
        rule: Rule::Plain(GroupingRule::Channelwise),
        cut: |shape, _| match shape.len() {
            2 => Grouping::subchannelwise(shape, 1),
            _ => Grouping::channelwise(shape),
        },
    },
    Structure {
        name: "kernelwise",
        rule: Rule::Plain(GroupingRule::Kernelwise),
        cut: |shape, _| Grouping::kernelwise(shape),
    },
    Structure {
        name: "pixelwise",
        rule: Rule::Plain(GroupingRule::Pixelwise),
        cut: |shape, _| Grouping::pixelwise(shape),
    },
    Structure {
        name: "subchannelwise",
        rule: Rule::Runs(GroupingRule::Subchannelwise),
        cut: Grouping::subchannelwise,
    },
];

impl GroupingRule {
    /// The names of all structures, as [`name`](Self::name) gives them.
    pub const NAMES: [&str; STRUCTURES.len()] = {
        let mut names = [""; STRUCTURES.len()];
        let mut place = 0;
        while place < names.len() {
            names[place] = STRUCTURES[place].name;
            place += 1;
        }
        names
    };

    /// The rule of a name, with the number of runs for `subchannelwise`, the number of weights for
    /// `groupwise` and without one for the others. None if there is no such rule.
    pub fn named(name: &str, number: Option<usize>) -> Option<Self> {
        let structure = STRUCTURES.iter().find(|line| line.name == name)?;
        match (&structure.rule, number) {
            (Rule::Plain(rule), None) => Some(*rule),
            (Rule::Runs(rule) | Rule::Size(rule), Some(number)) => Some(rule(number)),
            _ => None,
        }
    }

    /// The name and the number, as [`named`](Self::named) takes them.
    pub fn name(&self) -> (&'static str, Option<usize>) {
        (self.structure().name, self.number())
    }

    /// The grouping of a weight whose axes mean what `layout` says.
    ///
    /// # Errors
    /// If the rule does not fit the shape, for example if `s` does not divide `d_in`.
    pub fn grouping(&self, layout: Layout, shape: &[usize]) -> Result<Grouping, GroupingError> {
        let cut = |shape: &[usize]| (self.structure().cut)(shape, self.number().unwrap_or(1));
        if layout == Layout::Direct || shape.len() < 2 {
            return cut(shape);
        }
        let mut direct = shape.to_vec();
        direct.swap(0, 1);
        Ok(cut(&direct)?.transposed())
    }

    /// All rules that fit a weight, with what they make of it; of rules that make the same, the
    /// first. `groupwise` is none of them.
    pub fn candidates(layout: Layout, shape: &[usize]) -> Vec<(Self, Grouping)> {
        let most = shape.iter().take(2).max().copied().unwrap_or(0);
        let mut found: Vec<(Self, Grouping)> = Vec::new();
        for Structure { rule, .. } in STRUCTURES {
            let numbers = match rule {
                Rule::Plain(_) => 1,
                Rule::Runs(_) => most,
                // A size is a choice among all of these.
                Rule::Size(_) => 0,
            };
            for rule in (1..=numbers).map(|number| rule.with(number)) {
                if let Ok(grouping) = rule.grouping(layout, shape)
                    && found.iter().all(|(_, other)| *other != grouping)
                {
                    found.push((rule, grouping));
                }
            }
        }
        found
    }

    /// The rule and the layout that make this grouping of a weight, if any do; of several, the last
    /// of the table.
    pub(super) fn of(grouping: &Grouping, shape: &[usize]) -> Option<(Self, Layout)> {
        grouping.check(shape).ok()?;
        let runs = grouping.groups_per_output(shape);
        [Layout::Direct, Layout::Transposed]
            .into_iter()
            .find_map(|layout| {
                // All rules begin with the outputs.
                let outputs = match shape.len() {
                    0 | 1 => 0,
                    rank => usize::from((rank == 2) == (layout == Layout::Direct)),
                };
                if grouping.axes()[0] != outputs {
                    return None;
                }
                let rules = STRUCTURES
                    .iter()
                    .map(|line| line.rule.made(runs, grouping.len()));
                let makes = |rule: &Self| rule.grouping(layout, shape).as_ref() == Ok(grouping);
                let made = rules.rev().filter(makes);
                let convolution = shape.len() > 2;
                // Of equals the first, which is the last of the table.
                let named = made.min_by_key(|rule| convolution && rule.number().is_some());
                Some((named?, layout))
            })
    }

    fn number(&self) -> Option<usize> {
        match *self {
            Self::Subchannelwise(number) | Self::Groupwise(number) => Some(number),
            _ => None,
        }
    }

    fn structure(&self) -> &'static Structure {
        let number = self.number().unwrap_or(1);
        let mut lines = STRUCTURES.iter();
        lines
            .find(|line| line.rule.with(number) == *self)
            .expect("every rule is in the table")
    }
}

impl fmt::Display for GroupingRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            (name, None) => f.write_str(name),
            (name, Some(number)) => write!(f, "{name}({number})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use GroupingRule::{Channelwise, Groupwise, Kernelwise, Pixelwise, Subchannelwise};
    use alloc::string::ToString;

    const RULES: [GroupingRule; 5] = [
        Groupwise(64),
        Channelwise,
        Kernelwise,
        Pixelwise,
        Subchannelwise(3),
    ];

    #[test]
    fn a_name_is_one_rule() {
        let names = RULES.map(|rule| rule.name().0);
        assert_eq!(names, GroupingRule::NAMES);
        for rule in RULES {
            let (name, runs) = rule.name();
            assert_eq!(GroupingRule::named(name, runs), Some(rule));
            let other = if runs.is_none() { Some(2) } else { None };
            assert_eq!(GroupingRule::named(name, other), None, "{rule}");
        }
        assert_eq!(GroupingRule::named("rowwise", None), None);
        let texts = RULES.map(|rule| rule.to_string());
        let expected = [
            "groupwise(64)",
            "channelwise",
            "kernelwise",
            "pixelwise",
            "subchannelwise(3)",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_rule_cuts_by_the_layout() {
        let cases = [
            (Channelwise, Grouping::channelwise(&[4, 3, 2, 5])),
            (Kernelwise, Grouping::kernelwise(&[4, 3, 2, 5])),
            (Pixelwise, Grouping::pixelwise(&[4, 3, 2, 5])),
        ];
        for (rule, direct) in cases {
            let direct = direct.unwrap();
            let found = rule.grouping(Layout::Direct, &[4, 3, 2, 5]);
            assert_eq!(found.as_ref(), Ok(&direct));
            let found = rule.grouping(Layout::Transposed, &[3, 4, 2, 5]);
            assert_eq!(found, Ok(direct.transposed()));
        }
        let three = Grouping::subchannelwise(&[12, 5], 3).unwrap();
        let found = Subchannelwise(3).grouping(Layout::Direct, &[12, 5]);
        assert_eq!(found.as_ref(), Ok(&three));
        let found = Subchannelwise(3).grouping(Layout::Transposed, &[5, 12]);
        assert_eq!(found, Ok(three.transposed()));
        let whole = Channelwise.grouping(Layout::Direct, &[12, 5]);
        assert_eq!(whole, Grouping::subchannelwise(&[12, 5], 1));
    }

    #[test]
    fn a_rule_that_does_not_fit_says_why() {
        for layout in [Layout::Direct, Layout::Transposed] {
            let refused = |rule: GroupingRule, shape: &[usize]| rule.grouping(layout, shape);
            let rank = GroupingError::NotAConvolution { rank: 2 };
            assert_eq!(refused(Pixelwise, &[4, 4]), Err(rank));
            let rank = GroupingError::Low { rank: 1 };
            assert_eq!(refused(Subchannelwise(2), &[4]), Err(rank));
            let runs = GroupingError::Subchannels { inputs: 10, s: 0 };
            assert_eq!(refused(Subchannelwise(0), &[10, 10]), Err(runs));
        }
    }

    #[test]
    fn candidates_are_all_that_fit_and_each_once() {
        let rules = |layout, shape: &[usize]| -> Vec<GroupingRule> {
            let candidates = GroupingRule::candidates(layout, shape);
            candidates
                .into_iter()
                .map(|(rule, grouping)| {
                    assert_eq!(rule.grouping(layout, shape), Ok(grouping), "{rule}");
                    rule
                })
                .collect()
        };
        let linear = [
            Channelwise,
            Subchannelwise(2),
            Subchannelwise(3),
            Subchannelwise(6),
        ];
        assert_eq!(rules(Layout::Direct, &[6, 4]), linear);
        assert_eq!(rules(Layout::Transposed, &[4, 6]), linear);
        let conv = [Channelwise, Kernelwise, Pixelwise];
        assert_eq!(rules(Layout::Direct, &[4, 3, 2, 5]), conv);
        assert_eq!(rules(Layout::Transposed, &[3, 4, 2, 5]), conv);
        // As many runs as channels are the kernels.
        let halves = [&conv[..], &[Subchannelwise(2)]].concat();
        assert_eq!(rules(Layout::Direct, &[3, 4, 2, 5]), halves);
        for layout in [Layout::Direct, Layout::Transposed] {
            assert_eq!(rules(layout, &[4]), []);
            assert_eq!(rules(layout, &[0, 2]), []);
        }
        // One input channel: a kernel is all that an output has.
        assert_eq!(
            rules(Layout::Direct, &[4, 1, 3, 3]),
            [Channelwise, Pixelwise]
        );
    }

    #[test]
    fn a_grouping_is_named_by_the_last_rule_that_makes_it() {
        let of = |layout, shape: &[usize], rule: GroupingRule| {
            GroupingRule::of(&rule.grouping(layout, shape).unwrap(), shape)
        };
        let direct = |shape: &[usize], rule| of(Layout::Direct, shape, rule);
        for rule in [Channelwise, Kernelwise, Pixelwise] {
            assert_eq!(direct(&[4, 3, 2, 5], rule), Some((rule, Layout::Direct)));
            let transposed = of(Layout::Transposed, &[4, 3, 2, 5], rule);
            assert_eq!(transposed, Some((rule, Layout::Transposed)));
        }
        let kernelwise = Some((Kernelwise, Layout::Direct));
        assert_eq!(direct(&[4, 1, 3, 3], Channelwise), kernelwise);
        let whole = Some((Subchannelwise(1), Layout::Direct));
        assert_eq!(direct(&[12, 5], Channelwise), whole);
        // A size of its own name only where no other rule makes it.
        let sized = |shape: &[usize], size, rule| {
            assert_eq!(direct(shape, Groupwise(size)), Some((rule, Layout::Direct)));
        };
        sized(&[12, 5], 4, Subchannelwise(3));
        sized(&[4, 3, 2, 5], 3, Pixelwise);
        sized(&[4, 6, 1, 1], 3, Groupwise(3));
        sized(&[4, 3, 2, 5], 100, Channelwise);
        assert_eq!(
            direct(&[4, 6, 3, 3], Subchannelwise(2)),
            Some((Subchannelwise(2), Layout::Direct))
        );
        let other = Grouping::new(alloc::vec![0, 3, 1, 2], 20).unwrap();
        assert_eq!(GroupingRule::of(&other, &[3, 4, 2, 5]), None);
        assert_eq!(GroupingRule::of(&other, &[3, 4]), None, "another rank");
    }
}
