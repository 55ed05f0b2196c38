//! Bitwidths of a convolution's groups, laid out by output.

use std::string::String;
use std::vec::Vec;

use multibit::PackedWeight;
use serde::{Deserialize, Serialize};

use crate::file::PackedModel;

/// Bitwidths of the groups of one weight as a map: a row for each output, a column for each group
/// of an output, in the order of the weight.
///
/// Weights with more than [`MAX_CELLS`](Self::MAX_CELLS) of either are scaled down to blocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelMap {
    /// Path of the weight.
    pub path: String,
    /// What a column is: `input` for kernelwise groups, `position` for pixelwise ones, else `group`.
    pub column: String,
    /// Outputs.
    pub outputs: usize,
    /// Groups of an output.
    pub groups: usize,
    /// Outputs and groups in a cell; `[1, 1]` if nothing was scaled down.
    pub block: [usize; 2],
    /// Mean bitwidth of each cell, row after row.
    pub bits: Vec<Vec<f64>>,
}

impl KernelMap {
    /// The most cells in a row or column.
    pub const MAX_CELLS: usize = 64;

    /// The maps of all convolutions of a model, which are its weights of rank 3 and above.
    pub fn of_convolutions(model: &PackedModel) -> Vec<Self> {
        let weights = model.weights.iter();
        let convolutions = weights.filter(|(_, weight)| weight.shape().len() > 2);
        convolutions
            .map(|(path, weight)| Self::new(path, weight))
            .collect()
    }

    /// The map of a weight.
    pub fn new(path: &str, weight: &PackedWeight) -> Self {
        let groups = weight.grouping().groups_per_output(weight.shape());
        let grouping = weight.grouping().describe(weight.shape());
        let column = match grouping.split(',').next() {
            Some("kernelwise") => "input",
            Some("pixelwise") => "position",
            _ => "group",
        };
        let outputs = weight.widths().len() / groups;
        let block = [outputs, groups].map(|count| count.div_ceil(Self::MAX_CELLS));
        Self {
            path: path.into(),
            column: column.into(),
            outputs,
            groups,
            block,
            bits: block_means(weight.widths(), groups, block),
        }
    }
}

/// Means of the blocks of a matrix with rows of `columns` values; those at its far edges may be cut.
fn block_means(values: &[u8], columns: usize, [height, width]: [usize; 2]) -> Vec<Vec<f64>> {
    let bands = values.chunks(columns * height);
    bands
        .map(|band| {
            let starts = (0..columns).step_by(width);
            starts
                .map(|start| {
                    let end = (start + width).min(columns);
                    let rows = band.chunks(columns).map(|row| &row[start..end]);
                    let sum: usize = rows.flatten().map(|&value| usize::from(value)).sum();
                    sum as f64 / (band.len() / columns * (end - start)) as f64
                })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use multibit::Grouping;

    #[test]
    fn blocks_at_the_edge_are_means_of_what_they_hold() {
        let values = [
            1, 1, 4, //
            1, 1, 2, //
            0, 2, 6,
        ];
        let means = block_means(&values, 3, [2, 2]);
        assert_eq!(means, [[1.0, 3.0], [1.0, 6.0]]);
    }

    #[test]
    fn a_large_kernelwise_weight_is_scaled_down() {
        let shape = [130, 3, 2, 2];
        let grouping = Grouping::kernelwise(&shape).unwrap();
        // Even outputs have one bit, odd ones are pruned.
        let widths: Vec<u8> = (0..390).map(|group| u8::from(group / 3 % 2 == 0)).collect();
        let coordinates: Vec<f32> = widths.iter().map(|&width| width.into()).collect();
        let weight =
            PackedWeight::pack(&shape, grouping, 1, &[0; 130 * 12], &coordinates, &widths).unwrap();
        let map = KernelMap::new("conv.weight", &weight);
        assert_eq!((map.outputs, map.groups, map.block), (130, 3, [3, 1]));
        assert_eq!(map.column, "input");
        assert_eq!((map.bits.len(), map.bits[0].len()), (44, 3));
        assert_eq!(map.bits[0], [2.0 / 3.0; 3]);
        // The last cell holds one output.
        assert_eq!(map.bits[43], [0.0; 3]);
    }
}
