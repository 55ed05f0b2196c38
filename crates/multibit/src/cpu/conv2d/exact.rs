//! Exact mode: images × bits.
//!
//! Many small images lie side by side, one a lane ([`batched`](super::batched)). Others are taken one
//! after the other ([`matrix`](super::matrix)), and each weight in f32 meets all places of one; or
//! where many outputs share them, so do sums of four inputs.

use alloc::vec;
use alloc::vec::Vec;

use super::Call;
use super::matrix::{Laid, MatrixWeight};
use crate::cpu::generic::{Expand, FinishTile, Fours, Offsets, Row, Single, Uses};
use crate::cpu::simd::{LANES, Line};
use crate::cpu::threads;
use crate::packed::PackedWeight;

/// Outputs of a task.
pub(super) const OUTPUTS: usize = 4;

/// Vectors of positions of a task.
const STRIP: usize = 32;

/// What is known of the packed weight.
pub(super) struct Rows {
    pub matrix: MatrixWeight,
    /// The rows of each group of channels by their inputs, where sums of four inputs pay.
    uses: Option<Vec<Uses>>,
}

impl Rows {
    pub(super) fn new(weight: &PackedWeight, groups: usize) -> Self {
        let matrix = MatrixWeight::exact(weight);
        let first = &matrix.first;
        let outputs = first.len() - 1;
        let part = outputs / groups;
        let uses = first[..outputs].chunks(part).enumerate();
        let uses: Vec<Uses> = uses
            .map(|(group, rows)| Uses::new(weight, group * part, rows))
            .collect();
        let pay = uses.iter().all(Uses::pay);
        Self {
            matrix,
            uses: pay.then_some(uses),
        }
    }
}

impl Call<'_> {
    pub(super) fn exact(&self, rows: &Rows) {
        let batch = self.input_shape[0];
        let mut whole = 0;
        while self.fits_lanes(batch.saturating_sub(whole * LANES)) {
            whole += 1;
        }
        let cost = whole * self.positions() * self.kernel.row_weights();
        threads::for_each(whole, cost, |part| {
            self.batched(rows, part * LANES..batch.min((part + 1) * LANES));
        });
        let start = whole * LANES;
        if start < batch {
            self.one_by_one::<Single>(&rows.matrix, start, rows.uses.as_deref());
        }
    }

    /// Some images by sums of four inputs.
    pub(super) fn fours(&self, first: usize, laid: &Laid<'_>, offsets: &Offsets, uses: &[Uses]) {
        let [_, channels_out, out_height, out_width] = self.output_shape;
        let group_out = channels_out / self.options.groups;
        let flat = (out_height - 1) * laid.columns + out_width;
        let strips = flat.div_ceil(STRIP * LANES);
        let count = laid.images();
        let room = || vec![Line([0.0; LANES]); group_out * STRIP];
        let cost = count * self.kernel.row_weights() / 4 * flat / LANES;
        threads::for_each_with(count * uses.len() * strips, cost, room, |sums, task| {
            let (strip, part) = (task % strips, task / strips);
            let (group, image) = (part % uses.len(), part / uses.len());
            let start = strip * STRIP * LANES;
            let vectors = (flat - start).div_ceil(LANES).min(STRIP);
            let sums = &mut sums[..group_out * vectors];
            sums.fill(Line([0.0; LANES]));
            self.kernel.isa.run(Fours {
                words: self.kernel.weight.words(),
                uses: &uses[group],
                offsets,
                image: &laid.part(image, group)[start..],
                outputs: group_out,
                output: sums,
            });
            let mut place = start;
            for sums in Fours::tiles(sums, group_out) {
                let lines = sums.len() / group_out;
                self.kernel.isa.run(FinishTile {
                    // A place of a channel of an image belongs to one task.
                    rows: self.to_rows(first + image, 1.0, laid.columns),
                    first: place,
                    output: group * group_out,
                    sums,
                    lines,
                });
                place += lines * LANES;
            }
        });
    }

    /// The weights of an output, whose rows of bits begin at `first`.
    pub(super) fn row(&self, output: usize, first: usize) -> Row {
        let weight = &self.kernel.weight;
        let mut row = Row::new(weight);
        self.kernel.isa.run(Expand {
            weight,
            output,
            first,
            row: &mut row,
        });
        row
    }
}
