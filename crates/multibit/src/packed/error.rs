//! What can be wrong with a weight to pack, or with bytes to decode.

use core::fmt;

use crate::grouping::GroupingError;

/// Why a weight could not be packed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum PackError {
    /// The grouping does not fit the shape.
    Grouping(GroupingError),
    /// More bases than a code can hold, or none.
    MaxBits {
        /// The number asked for.
        max_bits: usize,
    },
    /// An argument has the wrong length.
    Length {
        /// The argument.
        name: &'static str,
        /// Its length.
        found: usize,
        /// What the shape and the grouping ask for.
        expected: usize,
    },
    /// A group has more bases than slots.
    TooWide {
        /// The group.
        group: usize,
        /// Its width.
        width: u8,
        /// Slots.
        max: usize,
    },
    /// A live coordinate is not positive and finite, or an absent one not 0.
    Coordinate {
        /// The group.
        group: usize,
        /// The slot.
        slot: usize,
        /// The coordinate.
        value: f32,
    },
    /// A code has a sign on a basis that its group does not have.
    Code {
        /// The group.
        group: usize,
        /// The weight in the group.
        weight: usize,
        /// The code.
        code: u8,
        /// Bases of the group.
        width: u8,
    },
}

impl From<GroupingError> for PackError {
    fn from(error: GroupingError) -> Self {
        Self::Grouping(error)
    }
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grouping(error) => error.fmt(f),
            Self::MaxBits { max_bits } => write!(f, "{max_bits} bases, but 1 to 8 are possible"),
            Self::Length {
                name,
                found,
                expected,
            } => write!(f, "{name} has {found} elements, not {expected}"),
            Self::TooWide { group, width, max } => {
                write!(
                    f,
                    "group {group} has {width} bases, but at most {max} are possible"
                )
            }
            Self::Coordinate { group, slot, value } => write!(
                f,
                "coordinate {slot} of group {group} is {value}; a live one must be positive and \
                 finite, an absent one 0"
            ),
            Self::Code {
                group,
                weight,
                code,
                width,
            } => write!(
                f,
                "weight {weight} of group {group} has code {code:#b} on {width} bases"
            ),
        }
    }
}

impl core::error::Error for PackError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Grouping(error) => Some(error),
            _ => None,
        }
    }
}

/// Why stored sections do not hold a weight.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The grouping does not fit the shape.
    Grouping(GroupingError),
    /// A width is stored with no bits, or with more than the largest possible one needs.
    WidthBits {
        /// Bits a width.
        width_bits: u8,
    },
    /// A section has the wrong length.
    Length {
        /// The section.
        name: &'static str,
        /// Its bytes, or elements of coordinates.
        found: usize,
        /// What it must have.
        expected: usize,
    },
    /// A group has more bases than possible.
    TooWide {
        /// The group.
        group: usize,
        /// Its width.
        width: u8,
    },
    /// The bits after the last one of a section are not 0.
    Tail {
        /// The section.
        name: &'static str,
    },
    /// A coordinate is not positive and finite.
    Coordinate {
        /// Its row.
        row: usize,
        /// The coordinate.
        value: f32,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grouping(error) => error.fmt(f),
            Self::WidthBits { width_bits } => {
                write!(f, "{width_bits} bits a width, but 1 to 4 are possible")
            }
            Self::Length {
                name,
                found,
                expected,
            } => write!(f, "section {name} has length {found}, not {expected}"),
            Self::TooWide { group, width } => {
                write!(
                    f,
                    "group {group} has {width} bases, but at most 8 are possible"
                )
            }
            Self::Tail { name } => write!(f, "section {name} has bits after its last one"),
            Self::Coordinate { row, value } => {
                write!(f, "coordinate {row} is {value}, not positive and finite")
            }
        }
    }
}

impl core::error::Error for DecodeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Grouping(error) => Some(error),
            _ => None,
        }
    }
}
