//! Convolutions of bits with bits: the levels under the kernel as words, once for each place, then
//! XOR and counts for each output.

use super::conv2d::{Call, into_windows};
use super::{LayerView, Levels, windows};
use crate::cpu::MAX_ACTIVATION_BITS;
use crate::file::FileWeight;

/// Bits of a word.
const WORD: usize = 32;

/// Words of the bits under a kernel; each group begins a word.
pub(super) fn words(weight: &FileWeight<'_>) -> usize {
    let grouping = weight.grouping();
    // A group has no fewer weights than words.
    grouping.groups_per_output(weight.shape()) * grouping.len().div_ceil(WORD)
}

/// The bits under a kernel at a place.
struct Under<'s> {
    /// Which are of the input, not of its padding.
    seen: &'s mut [u32],
    /// The signs of the levels, `[planes, words]`.
    planes: &'s mut [u32],
}

impl Under<'_> {
    fn fill(
        &mut self,
        call: &Call<'_>,
        levels: &Levels,
        input: &[u32],
        channel: usize,
        [row, column]: [usize; 2],
    ) {
        self.seen.fill(0);
        self.planes.fill(0);
        let [_, height, width] = call.conv.from;
        let words = self.seen.len();
        let group_words = call.len.div_ceil(WORD);
        for j in 0..call.groups * call.len {
            let [c, y, x] = call.patch.place(j);
            let (Some(y), Some(x)) = (call.under(0, row, y), call.under(1, column, x)) else {
                continue;
            };
            let (group, j) = (j / call.len, j % call.len);
            let (word, bit) = (group * group_words + j / WORD, j % WORD);
            let value = f32::from_bits(input[((channel + c) * height + y) * width + x]);
            let code = levels.ladder.codes[levels.ladder.rank(value)];
            self.seen[word] |= 1 << bit;
            for (plane, planes) in self.planes.chunks_exact_mut(words).enumerate() {
                planes[word] |= u32::from(code >> plane & 1) << bit;
            }
        }
    }
}

/// A layer over one image.
pub(super) fn run(
    call: &Call<'_>,
    layer: &LayerView<'_, '_>,
    levels: &Levels,
    input: &[u32],
    output: &mut [u32],
    scratch: &mut [u32],
) {
    let [outputs, height, width] = call.conv.to;
    let size = output.len() / outputs.max(1);
    let pool = call.conv.pool;
    if pool.is_some() {
        output.fill(f32::NEG_INFINITY.to_bits());
    }
    let pooled = pool.map(|pool| [windows(pool, 0, height), windows(pool, 1, width)]);
    let words = words(call.weight);
    let (seen, planes) = scratch.split_at_mut(words);
    let mut under = Under { seen, planes };
    let part = outputs / call.conv.options.groups;
    let mut first_row = 0;
    for channels in 0..call.conv.options.groups {
        let outputs = channels * part..(channels + 1) * part;
        let channel = call.first_channel(outputs.start);
        let mut end = first_row;
        for position in 0..height * width {
            let place = [position / width, position % width];
            under.fill(call, levels, input, channel, place);
            let mut row = first_row;
            for output_channel in outputs.clone() {
                let (sum, next) = sum(call, levels, &under, output_channel, row);
                row = next;
                let (factor, offset) = layer.affine(output_channel);
                let y = factor * sum + offset;
                let to = &mut output[output_channel * size..][..size];
                match (pool, pooled) {
                    (Some(options), Some(size)) => into_windows(options, place, size, y, to),
                    _ => to[position] = y.to_bits(),
                }
            }
            end = row;
        }
        first_row = end;
    }
}

/// The sum of an output whose rows of bits begin at `first`, and where the next one's do.
fn sum(
    call: &Call<'_>,
    levels: &Levels,
    under: &Under<'_>,
    output: usize,
    first: usize,
) -> (f32, usize) {
    let weight = call.weight;
    let words = under.seen.len();
    let group_words = call.len.div_ceil(WORD);
    let gammas = &levels.gammas[..levels.bits];
    let steps = |step: &mut dyn FnMut(usize, usize, usize)| {
        let mut row = first;
        for group in 0..call.groups {
            let width = weight.width(output * call.groups + group);
            let word = group * group_words;
            let count = match width {
                0 => 0,
                _ => {
                    let seen = &under.seen[word..][..group_words];
                    seen.iter().map(|word| word.count_ones() as usize).sum()
                }
            };
            for row in row..row + width {
                // What sees only padding adds nothing, not even a zero.
                if count > 0 {
                    step(row, word, count);
                }
            }
            row += width;
        }
        row
    };
    let mut y = 0.0;
    // What does not depend on the input.
    steps(&mut |row, word, count| {
        let seen = &under.seen[word..][..group_words];
        let negative: u32 = seen
            .iter()
            .enumerate()
            .map(|(i, seen)| (weight.word(row, i) & seen).count_ones())
            .sum();
        let signs = count as i32 - 2 * negative as i32;
        let alpha = weight.coordinate(row);
        y += alpha * levels.reference * signs as f32;
        for &gamma in gammas {
            y += alpha * gamma * (count % 2) as f32;
        }
    });
    let next = steps(&mut |row, word, count| {
        let seen = &under.seen[word..][..group_words];
        let mut different = [0u32; MAX_ACTIVATION_BITS];
        for (i, seen) in seen.iter().enumerate() {
            let signs = weight.word(row, i) & seen;
            for (plane, different) in different[..levels.bits].iter_mut().enumerate() {
                let plane = under.planes[plane * words + word + i];
                *different += (signs ^ plane).count_ones();
            }
        }
        let alpha = weight.coordinate(row);
        for (&gamma, &different) in gammas.iter().zip(&different) {
            // Half a count, so that it is a whole number.
            let half = different as i32 - (count / 2) as i32;
            y += alpha * gamma * -2.0 * half as f32;
        }
    });
    (y, next)
}
