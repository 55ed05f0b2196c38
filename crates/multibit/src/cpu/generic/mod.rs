//! The fast algorithms, once for all instruction sets.

mod activate;
mod activations;
mod attention;
mod batch_norm;
mod batched;
mod bitwise;
mod depthwise;
mod elementary;
mod expand;
mod finish;
mod fours;
mod lookup;
mod matrix;
mod norm;
mod panel;
mod planes;
mod pool;
mod product;
mod words;

pub(super) use activate::Activate;
pub(super) use activations::{PackChannels, PackRows, Quantize};
pub(super) use attention::{AttendHead, Head};
pub(super) use batch_norm::{GradMoments, Moments, Planewise};
pub(super) use batched::{Batched, Interleave};
pub(super) use bitwise::{Bitwise, Class, Classes, Output};
pub(super) use depthwise::{Depthwise, Fill, InputMap, MOST_TAPS, Taps};
pub(super) use expand::{Expand, Offsets, Row};
pub(super) use finish::{Ends, Finish, FinishTile, Scatter, ToRows};
#[cfg(feature = "chain")]
pub(crate) use fours::sums_pay;
pub(super) use fours::{Fours, Uses};
pub(super) use lookup::{Entries, Exact, Int8, Lookup, MakeTables};
pub(crate) use lookup::{inverse, scale};
pub(super) use matrix::{
    BLOCK_WORDS, Bytes, Depth, Element, Input, LINES, Matrix, MatrixRows, OUTPUTS, Room, Single,
    Starts, Weights, task_unit,
};
pub(super) use norm::{LayerNorm, Softmax};
pub(super) use panel::{
    BLOCKS, PanelElement, PanelProduct, PanelRoom, Pieces, RoundRows, RowInputs, TILE,
};
pub(super) use planes::{BlockToPlanes, FEW as FEW_PLANES, MaxPoolPlanes, Residual, Unpack};
pub(super) use pool::MaxPool;
pub(super) use product::{Product, pack_panels, panels_len};
pub(super) use words::{Largest, ToWords};
