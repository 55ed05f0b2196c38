//! Sums of sixteen channels side by side → channels one after the other.

use crate::cpu::simd::{LANES, Line, Simd, Task};
use crate::cpu::threads::Shared;

/// `scale·sum + offset` of a block, at some places of its channels.
pub(in crate::cpu) struct Finish<'a> {
    /// `[positions, lanes]`.
    pub sums: &'a [Line<f32>],
    /// Scale and offset by lane.
    pub affine: [[f32; LANES]; 2],
    /// Where each lane's places begin in the output; none for a lane without channel.
    ///
    /// No other task may write these places.
    pub starts: [Option<usize>; LANES],
    pub output: &'a Shared<'a, f32>,
}

impl Task for Finish<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let [scale, offset] = self.affine;
        let (scale, offset) = (simd.f_load(&scale), simd.f_load(&offset));
        for (part, sums) in self.sums.chunks(LANES).enumerate() {
            let mut rows = [Line([0.0; LANES]); LANES];
            for (row, sum) in rows.iter_mut().zip(sums) {
                let y = simd.f_fma(scale, simd.f_load(&sum.0), offset);
                simd.f_store(y, &mut row.0);
            }
            simd.transpose(&mut rows);
            for (row, start) in rows.iter().zip(self.starts) {
                if let Some(start) = start {
                    // SAFETY: whoever made `starts` keeps tasks apart; lanes have channels of
                    // their own.
                    let to = unsafe { self.output.part(start + part * LANES, sums.len()) };
                    match to.first_chunk_mut() {
                        Some(to) => simd.f_store(simd.f_load(&row.0), to),
                        None => to.copy_from_slice(&row.0[..sums.len()]),
                    }
                }
            }
        }
    }
}
