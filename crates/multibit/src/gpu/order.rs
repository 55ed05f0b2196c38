//! Where a weight of the grouped order lies in its tensor.

use cubecl::prelude::*;

use crate::grouping::Grouping;

/// The grouped order as sizes and strides, outermost first; one kernel serves all of a rank.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Order {
    sizes: Sequence<u32>,
    strides: Sequence<u32>,
}

#[cube]
impl Order {
    /// The place in the tensor of a position in the groups.
    pub fn place(&self, position: usize) -> usize {
        let rank = self.sizes.len();
        let mut rest = position as u32;
        let mut place = 0u32;
        #[unroll]
        for i in 0..rank {
            let axis = comptime!(rank - 1 - i);
            let size = self.sizes[axis];
            place += (rest % size) * self.strides[axis];
            rest /= size;
        }
        place as usize
    }
}

/// The order of a grouping as kernel arguments.
pub(super) fn order(grouping: &Grouping, shape: &[usize]) -> OrderLaunch {
    let axes = grouping.merged_axes(shape);
    let number = |x: usize| u32::try_from(x).expect("a weight of fewer than 2³² elements");
    OrderLaunch::new(
        axes.iter().map(|&(size, _)| number(size)).collect(),
        axes.iter().map(|&(_, stride)| number(stride)).collect(),
    )
}
