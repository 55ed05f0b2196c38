//! What a step does with multi-bit weights.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::prune::Budget;

/// What the optimizer does with multi-bit weights. Everything else trains in every phase.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Phase {
    /// They stay as they are.
    Fixed,
    /// Bases move, then coordinates ([`step::basis`](super::step::basis)).
    Basis,
    /// Coordinates move ([`step::coordinate`](super::step::coordinate)).
    Coordinate,
    /// Coordinates are dropped until the budget is met ([`step::importance`](super::step::importance),
    /// [`prune::select`](super::prune::select)); the others stay.
    Prune(Budget),
    /// A full-precision copy moves and bases and coordinates follow ([`step::ste`](super::step::ste)).
    Ste,
}

impl Phase {
    /// What happens in it, without numbers.
    pub fn kind(&self) -> PhaseKind {
        match self {
            Self::Fixed => PhaseKind::Fixed,
            Self::Basis => PhaseKind::Basis,
            Self::Coordinate => PhaseKind::Coordinate,
            Self::Prune(_) => PhaseKind::Prune,
            Self::Ste => PhaseKind::Ste,
        }
    }
}

/// The phase of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhaseKind {
    /// Multi-bit weights, if there are any, stay fixed.
    #[serde(rename = "float")]
    Fixed,
    /// Bases move.
    Basis,
    /// Coordinates move.
    Coordinate,
    /// Coordinates are dropped.
    Prune,
    /// The full-precision copy moves.
    Ste,
}

impl fmt::Display for PhaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fixed => "float",
            Self::Basis => "basis",
            Self::Coordinate => "coordinate",
            Self::Prune => "prune",
            Self::Ste => "ste",
        })
    }
}
