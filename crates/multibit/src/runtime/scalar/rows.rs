//! Convolutions by rows of outputs: what a word of signs adds to each, places side by side.

use super::conv2d::Call;
use super::taps::{Tap, Taps};
use crate::bits::signed;
use crate::cpu::vector::{Strip, Vector};

/// What an output takes under a word of signs.
#[derive(Clone, Copy)]
enum Term {
    /// The weights of the taps, one after the other.
    Floats,
    /// Sums of four inputs, which outputs share, by the signs of a basis.
    Fours { signs: u32, alpha: f32 },
}

/// Weights in f32.
pub(super) fn floats(
    call: &Call<'_>,
    output: usize,
    row: usize,
    input: &[u32],
    sums: &mut [u32],
    taps: &mut Taps,
) {
    let weight = call.weight;
    call.each_word(output, row, taps, |bases, word, taps| {
        for basis in bases.clone() {
            let (alpha, signs) = (weight.coordinate(basis), weight.word(basis, word));
            for (j, tap) in taps.iter_mut().enumerate() {
                let value = signed(alpha, signs >> j);
                tap.value = if basis == bases.start {
                    value
                } else {
                    tap.value + value
                };
            }
        }
        add(call, output, input, taps, Term::Floats, sums);
    });
}

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
    call.each_word(output, row, taps, |bases, word, taps| {
        for basis in bases {
            let signs = weight.word(basis, word);
            let term = Term::Fours {
                // Where the last sign of four is −, the other half of the table, negated.
                signs: signs ^ (7 * (signs >> 3 & 0x1111_1111)),
                alpha: weight.coordinate(basis),
            };
            add(call, output, input, taps, term, sums);
        }
    });
}

/// Adds a term to all rows of an output.
#[inline(never)]
fn add(call: &Call<'_>, output: usize, input: &[u32], taps: &[Tap], term: Term, sums: &mut [u32]) {
    let width = call.conv.to[2].max(1);
    let channel = call.first_channel(output);
    // Where all taps see the input along an axis: the outputs where the first and the last do.
    let whole = |axis: usize| {
        let places = || taps.iter().map(|tap| tap.place[axis]);
        let [first, last] = [places().min(), places().max()];
        let [first, last] = [first, last].map(|tap| call.seen(axis, tap.unwrap_or(0)).outputs);
        first.start.max(last.start)..first.end.min(last.end)
    };
    let (rows, columns) = (whole(0), whole(1));
    for (out_row, sums) in call.rows.clone().zip(sums.chunks_exact_mut(width)) {
        let end = if rows.contains(&out_row) {
            columns.end
        } else {
            0
        };
        let inner = columns.start..end.max(columns.start);
        let mut row = Row {
            call,
            taps,
            input,
            term,
            stride: call.conv.options.stride[1],
            out_row,
            first: call.row(channel, out_row),
            is_inner: false,
            sums,
        };
        // Where a tap lies in the padding, one place after the other.
        let parts = [
            (0..inner.start, false),
            (inner.clone(), true),
            (inner.end..width, false),
        ];
        for (places, is_inner) in parts {
            row.is_inner = is_inner;
            row.over(places, is_inner && row.stride == 1);
        }
    }
}

/// A row of outputs.
struct Row<'a> {
    call: &'a Call<'a>,
    taps: &'a [Tap],
    input: &'a [u32],
    term: Term,
    stride: usize,
    out_row: usize,
    /// What the row adds to the input's places.
    first: usize,
    /// Whether all taps see the input at the places that come.
    is_inner: bool,
    sums: &'a mut [u32],
}

impl Row<'_> {
    /// Whether a tap sees the input at a place.
    fn sees(&self, tap: &Tap, place: usize) -> bool {
        tap.sees(self.call, [self.out_row, place])
    }

    #[inline(always)]
    fn add<V: Vector, const INNER: bool>(&mut self, place: usize) {
        let at = self.first.wrapping_add(place * self.stride);
        let Self { taps, input, .. } = *self;
        let mut sum = V::load(self.sums, place);
        match self.term {
            Term::Floats => {
                for tap in taps {
                    if INNER || self.sees(tap, place) {
                        let x = V::load(input, tap.first.wrapping_add(at));
                        sum = V::splat(tap.value).mul(x).add(sum);
                    }
                }
            }
            Term::Fours { mut signs, alpha } => {
                let mut own = V::splat(0.0);
                for four in taps.chunks(4) {
                    let mut x = [V::splat(0.0); 4];
                    for (j, tap) in four.iter().enumerate() {
                        if INNER || self.sees(tap, place) {
                            x[j] = V::load(input, tap.first.wrapping_add(at));
                        }
                    }
                    let alpha = V::splat(alpha).signed(signs >> 3);
                    own = own.add(alpha.mul(entry(x, signs)));
                    signs >>= 4;
                }
                sum = own.add(sum);
            }
        }
        sum.store(self.sums, place);
    }
}

impl Strip for Row<'_> {
    #[inline(always)]
    fn run<V: Vector>(&mut self, place: usize) {
        if V::LEN > 1 || self.is_inner {
            self.add::<V, true>(place);
        } else {
            self.add::<V, false>(place);
        }
    }
}

/// `x₃ ± x₂ ± x₁ ± x₀` by the lowest three signs, in the kernels' order.
#[inline(always)]
fn entry<V: Vector>(x: [V; 4], signs: u32) -> V {
    let rest = x[3].add(x[2].signed(signs >> 2));
    let pair = x[0].add(x[1].signed(signs ^ signs >> 1));
    rest.add(pair.signed(signs))
}
