//! Floats × bits by expansion, for many rows of inputs: the weights of a block become f32 in the
//! first cache, a panel at a time, and are multiplied while they are there.

use alloc::vec::Vec;

use crate::cpu::simd::{LANES, Line, Simd, Task};
use crate::cpu::tiles::Tiles;

/// Rows of inputs whose values lie next to each other.
pub(in crate::cpu) const ROWS: usize = 8;

/// Tiles of rows that meet a line of weights at once.
const WIDE: usize = 3;

/// Lines of a panel.
const PANEL: usize = 128;

/// One block of outputs × all rows of inputs.
pub(in crate::cpu) struct Dense<'a> {
    pub tiles: &'a Tiles,
    pub block: usize,
    /// `[rows / ROWS, inputs, ROWS]`.
    pub inputs: &'a [[f32; ROWS]],
    /// Receives the sums of a row, `[rows, lanes]`, on top of what is there; whole tiles of rows.
    pub output: &'a mut [Line<f32>],
}

impl Task for Dense<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let tiles = self.tiles;
        let width = tiles.groups * tiles.len;
        let mut panel = Panel {
            lines: Vec::with_capacity(PANEL),
            places: Vec::with_capacity(PANEL),
            inputs: self.inputs,
            width,
        };
        for chunk in 0..tiles.chunks() {
            let steps = tiles.steps(chunk, self.block);
            let mut first = steps.start;
            while first < steps.end {
                let group = tiles.group(first);
                let mut end = first + 1;
                while end < steps.end && tiles.group(end) == group {
                    end += 1;
                }
                for j in 0..tiles.len {
                    let mut weight = simd.f_splat(0.0);
                    for step in first..end {
                        let alpha = simd.f_load(tiles.coordinates(step));
                        let words = simd.load(&tiles.lines(step)[j / 32]);
                        let signed = simd.flip(alpha, words, j as u32 % 32);
                        weight = simd.f_add(weight, signed);
                    }
                    let mut line = Line([0.0; LANES]);
                    simd.f_store(weight, &mut line.0);
                    panel.lines.push(line);
                    panel.places.push(group * tiles.len + j);
                    if panel.lines.len() == PANEL {
                        panel.flush(simd, self.output);
                    }
                }
                first = end;
            }
        }
        panel.flush(simd, self.output);
    }
}

/// Some weights of 16 outputs, in f32.
struct Panel<'a> {
    lines: Vec<Line<f32>>,
    /// The input of each line.
    places: Vec<usize>,
    inputs: &'a [[f32; ROWS]],
    /// Inputs of a row.
    width: usize,
}

impl Panel<'_> {
    /// Multiplies with all rows, and forgets the lines.
    #[inline(always)]
    fn flush<S: Simd>(&mut self, simd: S, output: &mut [Line<f32>]) {
        let tiles = self.inputs.len() / self.width;
        let mut tile = 0;
        while tiles - tile >= WIDE {
            self.multiply::<S, WIDE>(simd, tile, output);
            tile += WIDE;
        }
        while tile < tiles {
            self.multiply::<S, 1>(simd, tile, output);
            tile += 1;
        }
        self.lines.clear();
        self.places.clear();
    }

    #[inline(always)]
    fn multiply<S: Simd, const T: usize>(&self, simd: S, tile: usize, output: &mut [Line<f32>]) {
        let output: &mut [[Line<f32>; ROWS]; T] = output.as_chunks_mut().0[tile..]
            .first_chunk_mut()
            .expect("whole tiles of rows");
        let mut sums = [[simd.f_splat(0.0); ROWS]; T];
        for (sums, lines) in sums.iter_mut().zip(output.iter()) {
            for (sum, line) in sums.iter_mut().zip(lines) {
                *sum = simd.f_load(&line.0);
            }
        }
        let inputs = &self.inputs[tile * self.width..][..T * self.width];
        for (line, &place) in self.lines.iter().zip(&self.places) {
            let weight = simd.f_load(&line.0);
            debug_assert!(place < self.width);
            for (t, sums) in sums.iter_mut().enumerate() {
                // SAFETY: `place` is the input of a weight, below `width`.
                let inputs = unsafe { inputs.get_unchecked(t * self.width + place) };
                for (sum, &x) in sums.iter_mut().zip(inputs) {
                    *sum = simd.f_fma(simd.f_splat(x), weight, *sum);
                }
            }
        }
        for (sums, lines) in sums.iter().zip(output) {
            for (&sum, line) in sums.iter().zip(lines) {
                simd.f_store(sum, &mut line.0);
            }
        }
    }
}
