//! What the machine can do at best, for benchmarks: loops that do nothing else.

use alloc::vec;
use core::hint::black_box;

use super::Isa;
use super::simd::{LANES, Line, Simd, Tables, Task};

/// An operation in a loop in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// f32 multiplications and additions.
    F32,
    /// Products of unsigned and signed bytes, added in 32 bits.
    Int8,
    /// Weights by look-up in int8 tables.
    Int8Lookup,
    /// Weights by look-up in f32 tables.
    F32Lookup,
    /// Bits by XOR and popcount.
    Bits,
}

impl Operation {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::F32, "f32_fma"),
        (Self::Int8, "int8_dot"),
        (Self::Int8Lookup, "int8_lookup"),
        (Self::F32Lookup, "f32_lookup"),
        (Self::Bits, "xor_popcount"),
    ];

    /// Runs the operation `rounds` times on each of some registers; returns how many products of an
    /// input and a weight that were.
    pub fn run(self, isa: Isa, rounds: usize) -> f64 {
        let mut sums = 0;
        isa.run(Registers {
            operation: self,
            rounds,
            sums: &mut sums,
        });
        let products = match self {
            Self::F32 => 1,
            Self::Int8 => 4,
            Self::Int8Lookup => 16,
            Self::F32Lookup => 4,
            Self::Bits => 32,
        };
        (products * LANES * sums * rounds) as f64
    }
}

struct Registers<'a> {
    operation: Operation,
    rounds: usize,
    /// Receives how many sums were kept in registers.
    sums: &'a mut usize,
}

impl Task for Registers<'_> {
    const BYTES: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // As many as hide the latency of each operation, and leave registers for what it needs.
        match S::REGISTERS {
            32.. => self.keep::<S, 12>(simd),
            8.. => self.keep::<S, 4>(simd),
            _ => self.keep::<S, 2>(simd),
        }
    }
}

impl Registers<'_> {
    #[inline(always)]
    fn keep<S: Simd, const SUMS: usize>(self, simd: S) {
        *self.sums = SUMS;
        match self.operation {
            Operation::F32 | Operation::F32Lookup => self.floats::<S, SUMS>(simd),
            _ => self.words::<S, SUMS>(simd),
        }
    }

    #[inline(always)]
    fn floats<S: Simd, const SUMS: usize>(&self, simd: S) {
        let table = black_box(Line([0.5; LANES]));
        // Each is loaded, so that the compiler cannot know that lanes or sums are equal.
        let step = simd.load(&black_box(Line([0x0123_4567; LANES])));
        let mut word = simd.zero();
        let x = simd.f_splat(black_box(0.25));
        let mut sums = [simd.f_splat(0.0); SUMS];
        for sum in &mut sums {
            *sum = simd.f_load(&black_box([1.0; LANES]));
        }
        // The operation is chosen outside of the loop, whose time it would take.
        if self.operation == Operation::F32 {
            for _ in 0..self.rounds {
                for sum in &mut sums {
                    *sum = simd.f_fma(x, x, *sum);
                }
            }
        } else {
            for _ in 0..self.rounds {
                for sum in &mut sums {
                    *sum = simd.f_add(simd.entry(&table.0, word), *sum);
                    // Each look-up has another index, as in a kernel.
                    word = simd.add(word, step);
                }
            }
        }
        for sum in sums {
            let mut line = Line([0.0; LANES]);
            simd.f_store(sum, &mut line.0);
            black_box(line);
        }
    }

    #[inline(always)]
    fn words<S: Simd, const SUMS: usize>(&self, simd: S) {
        let tables = black_box(Tables([[1; LANES]; 4]));
        // Each is loaded, so that the compiler cannot know that lanes or sums are equal.
        let a = simd.load(&black_box(Line([0x1234_5678; LANES])));
        let mut sums = [simd.zero(); SUMS];
        for sum in &mut sums {
            *sum = simd.load(&black_box(Line([1; LANES])));
        }
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = match self.operation {
                    Operation::Int8 => simd.add_products(*sum, a, *sum),
                    Operation::Int8Lookup => simd.add_low(*sum, &tables, *sum),
                    _ => simd.add_differences(*sum, a, *sum),
                };
            }
        }
        for sum in sums {
            let mut line = Line([0; LANES]);
            simd.store(sum, &mut line);
            black_box(line);
        }
    }
}

/// Memory that is read from its beginning to its end.
pub struct Stream {
    lines: vec::Vec<Line<u32>>,
}

impl Stream {
    /// Memory of so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self {
            lines: vec![Line([1; LANES]); bytes / size_of::<Line<u32>>()],
        }
    }

    /// Reads it once; returns how many bytes that were.
    pub fn run(&self, isa: Isa) -> f64 {
        isa.run(Read { lines: &self.lines });
        size_of_val(self.lines.as_slice()) as f64
    }
}

struct Read<'a> {
    lines: &'a [Line<u32>],
}

impl Task for Read<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut sums = [simd.zero(); 4];
        for lines in self.lines.chunks_exact(4) {
            for (sum, line) in sums.iter_mut().zip(lines) {
                *sum = simd.add(*sum, simd.load(line));
            }
        }
        for sum in sums {
            let mut line = Line([0; LANES]);
            simd.store(sum, &mut line);
            black_box(line);
        }
    }
}
