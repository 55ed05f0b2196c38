//! A weight in a module: its state in training, its bits, its size, and the one walk that finds them.

mod error;
mod prepared;
mod size;
mod sketch;
mod state;
mod walk;

pub use multibit::{GroupingRule, Layout};

pub use self::error::QuantizeError;
pub use self::prepared::{Packed, PreparedWeight};
#[cfg(feature = "train")]
pub(crate) use self::size::trained_numbers;
#[cfg(feature = "train")]
pub use self::size::{Cost, sizes, total};
pub use self::size::{Size, average_bits};
pub(crate) use self::sketch::attach;
#[cfg(feature = "train")]
pub use self::sketch::sketch;
#[cfg(feature = "train")]
pub(crate) use self::sketch::{Plan, Sketched, relative_error};
#[cfg(feature = "train")]
pub(crate) use self::state::read_grouping;
pub use self::state::{MultiBit, MultiBitData};
pub(crate) use self::state::{read_f32, read_u8};
#[cfg(feature = "train")]
pub(crate) use self::walk::{Found, MultiBitWeight, multi_bit_weights, walk_initialized};
pub(crate) use self::walk::{Replacement, walk};
