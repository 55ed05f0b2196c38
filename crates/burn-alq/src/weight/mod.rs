//! A weight in a module: its state in training, its bits, its size, and the one walk that finds them.

mod error;
mod hollow;
mod made;
mod prepared;
mod product;
mod read;
#[cfg(feature = "train")]
mod record;
mod size;
mod sketch;
mod state;
#[cfg(feature = "train")]
mod tied;
mod walk;

pub use multibit::{GroupingRule, Layout};

#[cfg(feature = "train")]
pub use self::error::ProductError;
pub use self::error::QuantizeError;
#[cfg(feature = "train")]
pub(crate) use self::error::not_finite;
pub(crate) use self::hollow::{default_dtype, hollow, hollow_value, is_hollow, without_value};
pub(crate) use self::made::{Kept, Lazy};
pub use self::prepared::PreparedWeight;
pub use self::product::Product;
#[cfg(feature = "train")]
pub use self::read::DeviceLost;
#[cfg(feature = "train")]
pub(crate) use self::read::{read, try_read};
pub(crate) use self::read::{read_f32, read_u8};
#[cfg(feature = "train")]
pub(crate) use self::record::{in_rows, load_record};
#[cfg(feature = "train")]
pub(crate) use self::size::trained_numbers;
#[cfg(feature = "train")]
pub use self::size::{Cost, sizes, total};
pub use self::size::{Size, average_bits};
pub(crate) use self::sketch::attach;
#[cfg(feature = "train")]
pub use self::sketch::sketch;
#[cfg(feature = "train")]
pub(crate) use self::sketch::{Known, Means, Plan, Sketched, State, relative_error, resketch};
#[cfg(feature = "train")]
pub(crate) use self::state::ARITHMETICS;
pub(crate) use self::state::epsilon;
pub use self::state::{MultiBit, MultiBitData};
#[cfg(feature = "train")]
pub(crate) use self::state::{read_grouping, widened};
#[cfg(feature = "train")]
pub(crate) use self::tied::tie;
pub(crate) use self::walk::{Found, Replacement, restore_autodiff, value_shape, walk};
#[cfg(feature = "train")]
pub(crate) use self::walk::{MultiBitWeight, multi_bit_weights, walk_initialized};
