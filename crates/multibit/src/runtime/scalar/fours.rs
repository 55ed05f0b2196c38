//! Convolutions by sums of four inputs, which outputs share: a word of signs over a row of outputs.

use super::conv2d::Call;
use super::taps::{Tap, Taps, WORD};
use crate::cpu::vector::{Strip, Vector};

/// Sums of four inputs.
pub(super) fn fours(
    call: &Call<'_>,
    output: usize,
    row: usize,
    input: &[u32],
    sums: &mut [u32],
    taps: &mut Taps,
) {
    let weight = call.weight;
    let out_width = call.conv.to[2].max(1);
    let stride = call.conv.options.stride[1];
    let channel = call.first_channel(output);
    call.each_word(output, row, taps, |bases, first, taps| {
        for (number, to) in sums.chunks_exact_mut(out_width).enumerate() {
            let out_row = call.rows.start + number;
            let mut inner = 0..out_width;
            for tap in taps {
                let [start, end] = tap.seen_from(call, out_row);
                inner.start = inner.start.max(start);
                inner.end = inner.end.min(end);
            }
            // Where a tap lies in the padding, one place after the other.
            let inner = inner.start..inner.end.max(inner.start);
            let parts = [
                (0..inner.start, false),
                (inner.clone(), true),
                (inner.end..out_width, false),
            ];
            for basis in bases.clone() {
                let signs = weight.word(basis, first / WORD);
                let mut strip = FoursOfRow {
                    call,
                    out_row,
                    input,
                    taps,
                    row: call.row(channel, out_row),
                    stride,
                    // Where the last sign of four is −, the other half of the table, negated.
                    signs: signs ^ (7 * (signs >> 3 & 0x1111_1111)),
                    alpha: weight.coordinate(basis),
                    is_inner: false,
                    sums: &mut *to,
                };
                for (places, is_inner) in parts.clone() {
                    strip.is_inner = is_inner;
                    strip.over(places, is_inner && stride == 1);
                }
            }
        }
    });
}

/// Sums of four inputs for a row of outputs, by a word of signs.
struct FoursOfRow<'a> {
    call: &'a Call<'a>,
    out_row: usize,
    input: &'a [u32],
    taps: &'a [Tap],
    /// What the row adds to the input's places.
    row: usize,
    stride: usize,
    signs: u32,
    alpha: f32,
    /// Whether all taps see the input at the places that come.
    is_inner: bool,
    sums: &'a mut [u32],
}

impl Strip for FoursOfRow<'_> {
    #[inline(always)]
    fn run<V: Vector>(&mut self, place: usize) {
        let mut signs = self.signs;
        let mut sum = V::splat(0.0);
        let at = self.row.wrapping_add(place * self.stride);
        for four in self.taps.chunks(4) {
            let mut x = [V::splat(0.0); 4];
            for (x, tap) in x.iter_mut().zip(four) {
                let seen = || tap.seen_from(self.call, self.out_row);
                if self.is_inner || (seen()[0]..seen()[1]).contains(&place) {
                    *x = V::load(&self.input[tap.first.wrapping_add(at)..]);
                }
            }
            let alpha = V::splat(self.alpha).signed(signs >> 3);
            sum = sum.add(alpha.mul(entry(x, signs)));
            signs >>= 4;
        }
        let sums = &mut self.sums[place..];
        sum.add(V::load(sums)).store(sums);
    }
}

/// `x₃ ± x₂ ± x₁ ± x₀` by the lowest three signs, in the kernels' order.
#[inline(always)]
fn entry<V: Vector>(x: [V; 4], signs: u32) -> V {
    let rest = x[3].add(x[2].signed(signs >> 2));
    let pair = x[0].add(x[1].signed(signs ^ signs >> 1));
    rest.add(pair.signed(signs))
}
