//! Why a weight could not be packed or decoded.

use thiserror::Error;

use super::CoordinateType;
use crate::MAX_BITS;
use crate::grouping::GroupingError;

/// Why a weight in training form could not be packed.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum PackError {
    /// The grouping does not fit the shape.
    #[error("{0}")]
    Grouping(#[source] GroupingError),
    /// The training form has no slots, or more than a code has bits.
    #[error("{max_bits} slots a group; there must be 1 to {MAX_BITS}")]
    MaxBits {
        /// Slots of a group.
        max_bits: usize,
    },
    /// The number of codes is not the number of weights.
    #[error("{found} codes for {expected} weights")]
    CodeCount {
        /// Weights of the shape.
        expected: usize,
        /// Codes given.
        found: usize,
    },
    /// The number of coordinates is not `groups · max_bits`.
    #[error("{found} coordinates for {expected} slots")]
    CoordinateCount {
        /// Slots of all groups.
        expected: usize,
        /// Coordinates given.
        found: usize,
    },
    /// The number of widths is not the number of groups.
    #[error("{found} widths for {expected} groups")]
    WidthCount {
        /// Groups of the shape.
        expected: usize,
        /// Widths given.
        found: usize,
    },
    /// A group has more bases than slots.
    #[error("group {group} has width {width}, but {max_bits} slots")]
    TooWide {
        /// The group.
        group: usize,
        /// Its width.
        width: u8,
        /// Slots of a group.
        max_bits: usize,
    },
    /// A code has bits for bases that its group does not have.
    #[error("group {group}: the code {code:#b} of weight {weight} has bits above width {width}")]
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
    #[error("group {group}: coordinate {slot} is {value}, not finite")]
    NotFinite {
        /// The group.
        group: usize,
        /// The slot within the group.
        slot: usize,
        /// The coordinate.
        value: f32,
    },
    /// A live coordinate is zero or negative.
    #[error("group {group}: coordinate {slot} is {value}, not positive")]
    NotPositive {
        /// The group.
        group: usize,
        /// The slot within the group.
        slot: usize,
        /// The coordinate.
        value: f32,
    },
    /// A coordinate is not a value of the type that it is to be stored with.
    #[error(
        "coordinate {coordinate} is {value}, which {coordinate_type} does not hold; train the last \
         phase with this type"
    )]
    Inexact {
        /// Its number, group after group.
        coordinate: usize,
        /// The coordinate.
        value: f32,
        /// The type.
        coordinate_type: CoordinateType,
    },
    /// A slot from the group's width on is not 0.
    #[error("group {group}: slot {slot} is beyond the width, but holds {value}")]
    NotAbsent {
        /// The group.
        group: usize,
        /// The slot within the group.
        slot: usize,
        /// The coordinate.
        value: f32,
    },
}

/// Why a weight's serialized sections do not decode.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The grouping does not fit the shape.
    #[error("{0}")]
    Grouping(#[source] GroupingError),
    /// A number of bits or bytes that the shape promises does not fit the address space.
    #[error("{groups} groups of {len} weights are too large")]
    TooLarge {
        /// Groups of the shape.
        groups: usize,
        /// Weights of a group.
        len: usize,
    },
    /// The bits of a width are not those that the largest width needs.
    #[error("{found} bits a width, but {expected} are needed")]
    WidthBits {
        /// Bits that the largest width needs, at most 4.
        expected: u8,
        /// Bits promised.
        found: u8,
    },
    /// The section of widths has another length.
    #[error("{found} bytes of widths, but {expected} are needed")]
    WidthBytes {
        /// Bytes that the groups need.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A group has more bases than a code has bits.
    #[error("group {group} has width {width}; at most {MAX_BITS}")]
    TooWide {
        /// The group.
        group: usize,
        /// Its width.
        width: u8,
    },
    /// The bits after the last width are not 0.
    #[error("bits after the last width are not 0")]
    WidthPadding,
    /// The number of coordinates is not the sum of the widths.
    #[error("{found} coordinates, but the widths add up to {expected}")]
    CoordinateCount {
        /// The sum of the widths.
        expected: usize,
        /// Coordinates given.
        found: usize,
    },
    /// A coordinate is NaN or infinite.
    #[error("coordinate {coordinate} is not finite")]
    NotFinite {
        /// Its place among all coordinates.
        coordinate: usize,
        /// Its value.
        value: f32,
    },
    /// A coordinate is zero or negative.
    #[error("coordinate {coordinate} is not positive")]
    NotPositive {
        /// Its place among all coordinates.
        coordinate: usize,
        /// Its value.
        value: f32,
    },
    /// The section of bases has another length.
    #[error("{found} bytes of bases, but {expected} are needed")]
    BaseBytes {
        /// Bytes that the coordinates' rows need.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The bits after the last basis are not 0.
    #[error("bits after the last basis are not 0")]
    BasePadding,
}
