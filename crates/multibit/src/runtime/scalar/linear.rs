//! Linear layers: sums of four inputs, chosen by four signs.

use super::super::{INT8, LayerView};
use crate::cpu::vector::{Strip, Vector};
use crate::cpu::{Arithmetic, inverse, scale};
use crate::file::FileWeight;

/// Signs that choose a sum.
const FOURS: usize = 16;

/// Bytes of a word.
const BYTES: usize = size_of::<u32>();

/// Words of tables of sums, a byte each; in int8.
pub(super) fn scratch(weight: &FileWeight<'_>, arithmetic: Arithmetic) -> Option<usize> {
    if arithmetic != Arithmetic::Int8 {
        return Some(0);
    }
    let len = weight.grouping().len();
    let groups = weight.shape()[0] / len;
    groups
        .checked_mul(len.div_ceil(4))?
        .checked_mul(FOURS / BYTES)
}

/// A layer over one row of inputs.
pub(in crate::runtime) fn linear(
    layer: &LayerView<'_, '_>,
    [d_in, d_out]: [usize; 2],
    input: &[u32],
    output: &mut [u32],
    tables: &mut [u32],
) {
    let weight = layer.weight;
    let len = weight.grouping().len();
    let groups = d_in / len;
    let int8 = INT8 && layer.weights.arithmetic == Arithmetic::Int8;
    let scale = if int8 { scale(input, len) } else { 1.0 };
    if int8 {
        make_tables(input, len, inverse(scale), tables);
    }
    let words = len.div_ceil(4) * (FOURS / BYTES);
    let mut row = 0;
    for (output, to) in output.iter_mut().enumerate().take(d_out) {
        let mut y = 0.0;
        for group in 0..groups {
            for _ in 0..weight.width(output * groups + group) {
                let sum = match int8 {
                    true => looked_up(weight, row, &tables[group * words..][..words]),
                    false => added(weight, row, &input[group * len..][..len]),
                };
                y += weight.coordinate(row) * sum;
                row += 1;
            }
        }
        let (factor, offset) = layer.affine(output);
        *to = (factor * (scale * y) + offset).to_bits();
    }
}

/// The sum of all inputs of a group with the signs of a row.
fn added(weight: &FileWeight<'_>, row: usize, inputs: &[u32]) -> f32 {
    let mut sum = 0.0;
    for (word, inputs) in inputs.chunks(32).enumerate() {
        let signs = weight.word(row, word);
        let mut fours = Fours { inputs, signs, sum };
        let whole = inputs.len() / 4;
        fours.over(0..whole, true);
        if inputs.len() % 4 > 0 {
            fours.run::<f32>(whole);
        }
        sum = fours.sum;
    }
    sum
}

/// Adds sums of four inputs with the signs of a word.
struct Fours<'a> {
    inputs: &'a [u32],
    signs: u32,
    sum: f32,
}

impl Strip for Fours<'_> {
    #[inline(always)]
    fn run<V: Vector>(&mut self, four: usize) {
        let sums = V::sums_of_four(&self.inputs[4 * four..], self.signs >> (4 * four));
        self.sum = sums.add_to(self.sum);
    }
}

/// The sixteen sums of each four inputs, in multiples of the scale.
fn make_tables(input: &[u32], len: usize, inverse: f32, tables: &mut [u32]) {
    let fours = input.chunks(len).flat_map(|group| group.chunks(4));
    for (four, table) in fours.zip(tables.as_chunks_mut::<{ FOURS / BYTES }>().0) {
        for (word, to) in table.iter_mut().enumerate() {
            let sum = |byte: usize| {
                let signs = (word * BYTES + byte) as u32;
                crate::math::round(f32::sums_of_four(four, signs) * inverse) as i8 as u8
            };
            *to = u32::from_le_bytes([sum(0), sum(1), sum(2), sum(3)]);
        }
    }
}

/// The sum of what the signs of a row choose.
fn looked_up(weight: &FileWeight<'_>, row: usize, tables: &[u32]) -> f32 {
    let mut sum = 0i32;
    for (word, tables) in tables.chunks(8 * FOURS / BYTES).enumerate() {
        let mut signs = weight.word(row, word);
        for table in tables.as_chunks::<{ FOURS / BYTES }>().0 {
            let [word, byte] = [signs >> 2 & 3, signs & 3];
            sum += i32::from((table[word as usize] >> (8 * byte)) as i8);
            signs >>= 4;
        }
    }
    sum as f32
}
