//! Why a weight could not be packed or decoded.

use core::fmt;

use super::CoordinateType;
use crate::{GroupingError, MAX_BITS};

/// Why a weight in training form could not be packed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum PackError {
    /// The grouping does not fit the shape.
    Grouping(GroupingError),
    /// The training form has no slots, or more than a code has bits.
    MaxBits {
        /// Slots of a group.
        max_bits: usize,
    },
    /// The number of codes is not the number of weights.
    CodeCount {
        /// Weights of the shape.
        expected: usize,
        /// Codes given.
        found: usize,
    },
    /// The number of coordinates is not `groups · max_bits`.
    CoordinateCount {
        /// Slots of all groups.
        expected: usize,
        /// Coordinates given.
        found: usize,
    },
    /// The number of widths is not the number of groups.
    WidthCount {
        /// Groups of the shape.
        expected: usize,
        /// Widths given.
        found: usize,
    },
    /// A group has more bases than slots.
    TooWide {
        /// The group.
        group: usize,
        /// Its width.
        width: u8,
        /// Slots of a group.
        max_bits: usize,
    },
    /// A code has bits for bases that its group does not have.
    StrayBits {
        /// The group.
        group: usize,
        /// The weight within the group.
        weight: usize,
        /// Its code.
        code: u8,
        /// The group's width.
        width: u8,
    },
    /// A live coordinate is NaN or infinite.
    NotFinite {
        /// The group.
        group: usize,
        /// The slot within the group.
        slot: usize,
        /// The coordinate.
        value: f32,
    },
    /// A live coordinate is zero or negative.
    NotPositive {
        /// The group.
        group: usize,
        /// The slot within the group.
        slot: usize,
        /// The coordinate.
        value: f32,
    },
    /// A coordinate is not a value of the type that it is to be stored with.
    Inexact {
        /// Its number, group after group.
        coordinate: usize,
        /// The coordinate.
        value: f32,
        /// The type.
        coordinate_type: CoordinateType,
    },
    /// A slot from the group's width on is not 0.
    NotAbsent {
        /// The group.
        group: usize,
        /// The slot within the group.
        slot: usize,
        /// The coordinate.
        value: f32,
    },
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grouping(source) => write!(f, "{source}"),
            Self::MaxBits { max_bits } => {
                write!(f, "{max_bits} slots a group; there must be 1 to {MAX_BITS}")
            }
            Self::CodeCount { expected, found } => {
                write!(f, "{found} codes for {expected} weights")
            }
            Self::CoordinateCount { expected, found } => {
                write!(f, "{found} coordinates for {expected} slots")
            }
            Self::WidthCount { expected, found } => {
                write!(f, "{found} widths for {expected} groups")
            }
            Self::TooWide {
                group,
                width,
                max_bits,
            } => write!(f, "group {group} has width {width}, but {max_bits} slots"),
            Self::StrayBits {
                group,
                weight,
                code,
                width,
            } => write!(
                f,
                "group {group}: the code {code:#b} of weight {weight} has bits above width {width}"
            ),
            Self::NotFinite { group, slot, value } => {
                write!(f, "group {group}: coordinate {slot} is {value}, not finite")
            }
            Self::NotPositive { group, slot, value } => write!(
                f,
                "group {group}: coordinate {slot} is {value}, not positive"
            ),
            Self::Inexact {
                coordinate,
                value,
                coordinate_type,
            } => write!(
                f,
                "coordinate {coordinate} is {value}, which {coordinate_type} does not hold; train \
                 the last phase with this type"
            ),
            Self::NotAbsent { group, slot, value } => write!(
                f,
                "group {group}: slot {slot} is beyond the width, but holds {value}"
            ),
        }
    }
}

impl core::error::Error for PackError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Grouping(source) => Some(source),
            _ => None,
        }
    }
}

/// Why a weight's serialized sections do not decode.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The grouping does not fit the shape.
    Grouping(GroupingError),
    /// A number of bits or bytes that the shape promises does not fit the address space.
    TooLarge {
        /// Groups of the shape.
        groups: usize,
        /// Weights of a group.
        len: usize,
    },
    /// The bits of a width are not those that the largest width needs.
    WidthBits {
        /// Bits that the largest width needs, at most 4.
        expected: u8,
        /// Bits promised.
        found: u8,
    },
    /// The section of widths has another length.
    WidthBytes {
        /// Bytes that the groups need.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A group has more bases than a code has bits.
    TooWide {
        /// The group.
        group: usize,
        /// Its width.
        width: u8,
    },
    /// The bits after the last width are not 0.
    WidthPadding,
    /// The number of coordinates is not the sum of the widths.
    CoordinateCount {
        /// The sum of the widths.
        expected: usize,
        /// Coordinates given.
        found: usize,
    },
    /// A coordinate is NaN or infinite.
    NotFinite {
        /// Its place among all coordinates.
        coordinate: usize,
        /// Its value.
        value: f32,
    },
    /// A coordinate is zero or negative.
    NotPositive {
        /// Its place among all coordinates.
        coordinate: usize,
        /// Its value.
        value: f32,
    },
    /// The section of bases has another length.
    BaseBytes {
        /// Bytes that the coordinates' rows need.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The bits after the last basis are not 0.
    BasePadding,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grouping(source) => write!(f, "{source}"),
            Self::TooLarge { groups, len } => {
                write!(f, "{groups} groups of {len} weights are too large")
            }
            Self::WidthBits { expected, found } => {
                write!(f, "{found} bits a width, but {expected} are needed")
            }
            Self::WidthBytes { expected, found } => {
                write!(f, "{found} bytes of widths, but {expected} are needed")
            }
            Self::TooWide { group, width } => {
                write!(f, "group {group} has width {width}; at most {MAX_BITS}")
            }
            Self::WidthPadding => write!(f, "bits after the last width are not 0"),
            Self::CoordinateCount { expected, found } => {
                write!(
                    f,
                    "{found} coordinates, but the widths add up to {expected}"
                )
            }
            Self::NotFinite { coordinate, value } => {
                write!(f, "coordinate {coordinate} is {value}, not finite")
            }
            Self::NotPositive { coordinate, value } => {
                write!(f, "coordinate {coordinate} is {value}, not positive")
            }
            Self::BaseBytes { expected, found } => {
                write!(f, "{found} bytes of bases, but {expected} are needed")
            }
            Self::BasePadding => write!(f, "bits after the last basis are not 0"),
        }
    }
}

impl core::error::Error for DecodeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Grouping(source) => Some(source),
            _ => None,
        }
    }
}
