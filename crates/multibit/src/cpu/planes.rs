//! Activations that stay bits between two layers.

use super::generic::{MaxPoolPlanes, PackChannels, Unpack};
use super::reference::named;
use super::threads::{self, Shared};
use super::{Isa, Levels, Pool2dOptions, assert_len, product};

/// Channels of a word.
const WORD: usize = 32;

/// Multi-bit activations `[batch, channels, height, width]` as bits.
///
/// Bit `c % 32` of a word is the sign of `γⱼ` in channel `c`, set where it is subtracted; bits past
/// the last channel are 0.
///
/// # Shapes
/// - `words`: `[batch, ⌈channels / 32⌉, bits, height, width]`, see [`Planes::len`]
#[derive(Clone, Copy, Debug)]
pub struct Planes<'a> {
    words: &'a [u32],
    shape: [usize; 4],
    levels: &'a Levels,
}

impl<'a> Planes<'a> {
    /// Activations in words that [`pack`](Self::pack) or a layer has written.
    ///
    /// # Panics
    /// If there are not [`len`](Self::len) words.
    pub fn new(words: &'a [u32], shape: [usize; 4], levels: &'a Levels) -> Self {
        let expected = Self::len(shape, levels);
        assert_eq!(
            words.len(),
            expected,
            "planes: {} words, but {:?} with {} bits need {expected}",
            words.len(),
            named(shape),
            levels.bits()
        );
        Self {
            words,
            shape,
            levels,
        }
    }

    /// The words of activations of a shape.
    ///
    /// # Panics
    /// If the shape is too large.
    pub fn len(shape: [usize; 4], levels: &Levels) -> usize {
        let [batch, channels, height, width] = shape;
        let sizes = [batch, channels.div_ceil(WORD), levels.bits(), height, width];
        product(sizes).unwrap_or_else(|| panic!("planes: {:?} is too large", named(shape)))
    }

    /// `[batch, channels, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The levels.
    pub fn levels(&self) -> &'a Levels {
        self.levels
    }

    /// `[batch, ⌈channels / 32⌉, bits, height, width]`.
    pub fn words(&self) -> &'a [u32] {
        self.words
    }

    /// Puts values at their levels, as bits; NaN takes the lowest.
    ///
    /// # Shapes
    /// - `values`: `shape`, `[batch, channels, height, width]`
    /// - `words`: [`len`](Self::len), written whole
    ///
    /// # Panics
    /// If a slice has another length.
    pub fn pack(
        isa: Isa,
        values: &[f32],
        shape: [usize; 4],
        levels: &'a Levels,
        words: &'a mut [u32],
    ) -> Self {
        assert_len("planes", "values", values.len(), &named(shape));
        let [_, channels, height, width] = shape;
        pack(isa, values, channels, height * width, levels, words);
        Self::new(words, shape, levels)
    }

    /// The levels as f32.
    ///
    /// # Shapes
    /// - `values`: `[batch, channels, height, width]`, written whole
    ///
    /// # Panics
    /// If `values` has another length.
    pub fn unpack(&self, isa: Isa, values: &mut [f32]) {
        assert_len("planes", "values", values.len(), &named(self.shape));
        if values.is_empty() {
            return;
        }
        let [.., height, width] = self.shape;
        let pixels = height * width;
        let len = self.levels.bits() * pixels;
        let cost = values.len() / 4;
        let shared = Shared::new(values);
        self.each_word(cost, |word, first, count| {
            isa.run(Unpack {
                words: &self.words[word * len..][..len],
                pixels,
                levels: self.levels,
                // SAFETY: each word has channels of its own.
                output: unsafe { shared.part(first * pixels, count * pixels) },
            });
        });
    }

    /// Max pooling of activations: the highest level of each window; the lowest of all levels if
    /// all of its places are padding.
    ///
    /// # Shapes
    /// - `words`: [`len`](Self::len) of `[batch, channels, height_out, width_out]` by
    ///   [`Pool2dOptions::output_size`], written whole
    ///
    /// # Panics
    /// If `words` has another length, or as [`Pool2dOptions::output_size`].
    pub fn max_pool2d<'b>(
        &self,
        isa: Isa,
        options: &Pool2dOptions,
        words: &'b mut [u32],
    ) -> Planes<'b>
    where
        'a: 'b,
    {
        let [batch, channels, height, width] = self.shape;
        let out_size = options.output_size([height, width]);
        let shape = [batch, channels, out_size[0], out_size[1]];
        assert_eq!(
            words.len(),
            Self::len(shape, self.levels),
            "planes: as many words as the pooled activations need"
        );
        let (len, out_len) = (
            self.levels.bits() * height * width,
            self.levels.bits() * out_size[0] * out_size[1],
        );
        let shared = Shared::new(words);
        self.each_word(self.words.len() / 4, |word, _, count| {
            isa.run(MaxPoolPlanes {
                words: &self.words[word * len..][..len],
                size: [height, width],
                options,
                out_size,
                levels: self.levels,
                channels: u32::MAX >> (WORD - count),
                // SAFETY: each task has a word of its own.
                output: unsafe { shared.part(word * out_len, out_len) },
            });
        });
        Planes::new(words, shape, self.levels)
    }

    /// Calls `task` with each word of an image, its first channel of all images and their number.
    fn each_word(&self, cost: usize, task: impl Fn(usize, usize, usize) + Sync + Send) {
        let [batch, channels, ..] = self.shape;
        let words = channels.div_ceil(WORD);
        threads::for_each(batch * words, cost, |number| {
            let (image, word) = (number / words, number % words);
            let count = WORD.min(channels - word * WORD);
            task(number, image * channels + word * WORD, count);
        });
    }
}

/// Packs images of some channels: `[image, word, plane, pixel]`. The images may be groups of
/// channels.
pub(super) fn pack(
    isa: Isa,
    values: &[f32],
    channels: usize,
    pixels: usize,
    levels: &Levels,
    output: &mut [u32],
) {
    let (words, len) = (channels.div_ceil(WORD), levels.bits() * pixels);
    if len == 0 || output.is_empty() {
        return;
    }
    let tasks = output.len() / len;
    let shared = Shared::new(output);
    threads::for_each(tasks, values.len(), |task| {
        let (image, word) = (task / words, task % words);
        let first = image * channels + word * WORD;
        let count = WORD.min(channels - word * WORD);
        isa.run(PackChannels {
            input: &values[first * pixels..][..count * pixels],
            pixels,
            levels,
            // SAFETY: each task has words of its own.
            output: unsafe { shared.part(task * len, len) },
        });
    });
}
