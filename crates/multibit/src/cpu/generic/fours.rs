//! Convolution of floats with bits by sums of four inputs, for outputs that have groups in common.
//!
//! With the bits `b₀ … b₃` of their signs, four inputs add up to
//! ```text
//! T(b) = Σⱼ (−1)^bⱼ·xⱼ     and     T(¬b) = −T(b)
//! ```
//! so the eight sums with a positive last input, `b₃ = 0`, are enough: with `b₃ = 1`, the other three
//! bits are inverted and the sum is negated, together with its coordinate,
//! ```text
//! α·T(b₀, b₁, b₂, 1) = (−α)·T(¬b₀, ¬b₁, ¬b₂, 0)
//! ```
//! In a whole word, `b ^ 7·(b >> 3 & 0x1111_1111)` inverts the three bits of each nibble whose highest
//! bit is set: 7 times a nibble of 0 or 1 stays within the nibble. The lowest three bits then choose
//! the sum, the highest still chooses `α` or `−α`. Inputs behind the end of a group are 0.
//!
//! The eight sums of four inputs take 13 operations: `x₀ + x₁`, `x₀ − x₁` and `−x₂`, then for either
//! sign of `x₂` one for `x₃ ± x₂` and four for what is added to it. They are made for some positions
//! side by side and serve every row of their group: `r` rows take `13 + r` operations for four
//! inputs. Weights in f32 take 4 for each output, whose rows are one weight, so with `o` outputs
//! sums pay where `13 + r < 4·o`: with many outputs, of few bases each ([`Uses::pay`]).

use alloc::vec::Vec;

use super::expand::Offsets;
use crate::cpu::simd::{LANES, Line, Simd, Task};
use crate::packed::PackedWeight;

/// Vectors of positions that are worked on at once: the tables of a word and the sums of some
/// outputs stay in the first cache.
const WIDE: usize = 3;

/// Inputs of a word.
const WORD: usize = 32;

/// A row of bits.
#[derive(Clone, Copy)]
struct Use {
    /// Its first word in the packed weight.
    word: u32,
    /// The output that it belongs to.
    output: u32,
    alpha: f32,
}

/// The rows of each group.
pub(in crate::cpu) struct Uses {
    /// Where the rows of each group begin, and the end.
    starts: Vec<usize>,
    rows: Vec<Use>,
    /// Groups with a width above 0, of all outputs.
    outputs: usize,
}

impl Uses {
    /// The rows of some outputs, which are counted from the first and whose rows begin at
    /// `first_rows`.
    pub fn new(weight: &PackedWeight, first_output: usize, first_rows: &[usize]) -> Self {
        let groups = weight.grouping().groups_per_output(weight.shape());
        let mut next: Vec<usize> = first_rows.to_vec();
        let mut uses = Self {
            starts: Vec::with_capacity(groups + 1),
            rows: Vec::new(),
            outputs: 0,
        };
        for group in 0..groups {
            uses.starts.push(uses.rows.len());
            for (output, next) in next.iter_mut().enumerate() {
                let width = weight.widths()[(first_output + output) * groups + group];
                uses.outputs += usize::from(width > 0);
                for _ in 0..width {
                    uses.rows.push(Use {
                        word: u32::try_from(*next * weight.row_words()).expect("fewer words"),
                        output: output as u32,
                        alpha: weight.coordinates()[*next],
                    });
                    *next += 1;
                }
            }
        }
        uses.starts.push(uses.rows.len());
        uses
    }

    /// Whether sums of four inputs are faster than the weights in f32.
    pub fn pay(&self) -> bool {
        sums_pay(self.rows.len(), self.groups(), self.outputs)
    }

    #[inline(always)]
    fn groups(&self) -> usize {
        self.starts.len() - 1
    }

    #[inline(always)]
    fn of(&self, group: usize) -> &[Use] {
        &self.rows[self.starts[group]..self.starts[group + 1]]
    }
}

/// Rows of a group from which making sums of four inputs pays.
const FEW_USES: usize = 25;

/// Whether sums of four inputs are faster than the weights in f32: a group has some rows on average,
/// to pay for its sums, but no more than three for every two outputs that use it, whose weights in
/// f32 take all rows of an output at once.
pub(crate) fn sums_pay(rows: usize, groups: usize, uses: usize) -> bool {
    rows >= FEW_USES * groups && 2 * rows <= 3 * uses
}

/// All outputs of one image and group of channels at some positions in a row.
pub(in crate::cpu) struct Fours<'a> {
    /// The words of the packed weight.
    pub words: &'a [u32],
    pub uses: &'a Uses,
    /// Where the input of each weight begins, from the start of `image`.
    pub offsets: &'a Offsets,
    /// The f32 of the image from the first of the positions on.
    pub image: &'a [u32],
    pub outputs: usize,
    /// Receives the sums on top of what is there, `[vectors / WIDE, outputs, WIDE]`; the last vectors
    /// may be fewer.
    pub output: &'a mut [Line<f32>],
}

impl Fours<'_> {
    /// The sums of all outputs at some vectors of positions after the other.
    pub fn tiles(sums: &[Line<f32>], outputs: usize) -> impl Iterator<Item = &[Line<f32>]> {
        sums.chunks(WIDE * outputs)
    }
}

impl Task for Fours<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let vectors = self.output.len() / self.outputs;
        assert!(
            self.offsets.highest() + vectors * LANES <= self.image.len(),
            "a weight lies outside of the image"
        );
        let mut first = 0;
        while first < vectors {
            first += match vectors - first {
                1 => self.groups::<S, 1>(simd, first),
                2 => self.groups::<S, 2>(simd, first),
                _ => self.groups::<S, WIDE>(simd, first),
            };
        }
    }
}

/// The sums of four inputs with a positive last one, by the signs of the others.
type Table<const V: usize> = [[Line<f32>; V]; 8];

impl Fours<'_> {
    #[inline(always)]
    fn groups<S: Simd, const V: usize>(&mut self, simd: S, first: usize) -> usize {
        let image = &self.image[first * LANES..];
        let output = &mut self.output[first * self.outputs..][..V * self.outputs];
        let output = output.as_chunks_mut::<V>().0;
        let mut tables = [[[Line([0.0; LANES]); V]; 8]; WORD / 4];
        for group in 0..self.uses.groups() {
            let rows = self.uses.of(group);
            if rows.is_empty() {
                continue;
            }
            let offsets = self.offsets.group(group);
            for (word, offsets) in offsets.chunks(WORD).enumerate() {
                let fours = offsets.chunks(4);
                let count = fours.len();
                for (table, offsets) in tables.iter_mut().zip(fours) {
                    make::<S, V>(simd, image, offsets, table);
                }
                let tables = &tables[..count];
                let (fours, rest) = rows.as_chunks::<4>();
                for rows in fours {
                    add::<S, V, 4>(simd, self.words, word, tables, rows, output);
                }
                let (pairs, rest) = rest.as_chunks::<2>();
                for rows in pairs {
                    add::<S, V, 2>(simd, self.words, word, tables, rows, output);
                }
                for row in rest {
                    add::<S, V, 1>(simd, self.words, word, tables, &[*row], output);
                }
            }
        }
        V
    }
}

/// The table of up to four inputs.
#[inline(always)]
fn make<S: Simd, const V: usize>(simd: S, image: &[u32], offsets: &[usize], table: &mut Table<V>) {
    let minus = simd.f_splat(-1.0);
    for v in 0..V {
        let mut x = [simd.f_splat(0.0); 4];
        for (x, &offset) in x.iter_mut().zip(offsets) {
            // SAFETY: `run` has asserted that the vectors lie inside from every offset on.
            *x = simd.as_floats(
                simd.load_words(unsafe { &*image.as_ptr().add(offset + v * LANES).cast() }),
            );
        }
        let sum = simd.f_add(x[0], x[1]);
        let difference = simd.f_fma(x[1], minus, x[0]);
        let (halves, _) = table.as_chunks_mut::<4>();
        for (half, third) in halves.iter_mut().zip([x[2], simd.f_mul(x[2], minus)]) {
            let rest = simd.f_add(x[3], third);
            let entries = [
                simd.f_add(rest, sum),
                simd.f_fma(difference, minus, rest),
                simd.f_add(rest, difference),
                simd.f_fma(sum, minus, rest),
            ];
            for (to, entry) in half.iter_mut().zip(entries) {
                simd.f_store(entry, &mut to[v].0);
            }
        }
    }
}

/// Adds what one word of each of some rows chooses.
#[inline(always)]
fn add<S: Simd, const V: usize, const R: usize>(
    simd: S,
    bits: &[u32],
    word: usize,
    tables: &[Table<V>],
    rows: &[Use; R],
    output: &mut [[Line<f32>; V]],
) {
    let mut words = [0; R];
    let mut signed = [[0.0; 2]; R];
    let mut sums = [[simd.f_splat(0.0); V]; R];
    for (r, row) in rows.iter().enumerate() {
        let bits = bits[row.word as usize + word];
        // Where the last sign is −, the other half of the table, negated.
        words[r] = bits ^ (7 * (bits >> 3 & 0x1111_1111));
        signed[r] = [row.alpha, -row.alpha];
    }
    for table in tables {
        for r in 0..R {
            let entry = &table[words[r] as usize & 7];
            let alpha = simd.f_splat(signed[r][words[r] as usize >> 3 & 1]);
            words[r] >>= 4;
            for (sum, entry) in sums[r].iter_mut().zip(entry) {
                *sum = simd.f_fma(alpha, simd.f_load(&entry.0), *sum);
            }
        }
    }
    for (sums, row) in sums.iter().zip(rows) {
        for (&sum, line) in sums.iter().zip(&mut output[row.output as usize]) {
            simd.f_store(simd.f_add(sum, simd.f_load(&line.0)), &mut line.0);
        }
    }
}
