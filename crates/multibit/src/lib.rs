//! Multi-bit weights as bits: how a weight tensor is cut into groups, how a group becomes a sum of
//! scaled ±1 vectors, how that is stored, and the arithmetic that trains and runs it.
//!
//! A group of `n` weights is `ŵ = B α = Σᵢ αᵢ bᵢ`, with `I` *bases* `bᵢ ∈ {−1, +1}ⁿ` and positive
//! *coordinates* `αᵢ`. The *bitwidth* `I` differs from group to group and may be 0, which makes
//! the whole group zero. The method is Adaptive Loss-aware Quantization (Qu, Zhou, Cheng, Thiele,
//! CVPR 2020). Nothing here knows a framework: weights are slices.
//!
//! # Two forms
//!
//! *Training form*, that the steps in [`fit`] work on: one small integer a weight. Bit `i` of a
//! code is the weight's sign on basis `i`; absent slots hold 0.
//!
//! ```text
//!               codes [groups, len] u8       coordinates [groups, max_bits]   widths [groups]
//! group 0   │ 0b011 0b000 0b110 0b101 │        │ 0.1  0.2  0.5  0  0  0 │         │ 3 │
//! group 1   │ 0b000 0b001 0b001 0b000 │        │ 0.7   0    0   0  0  0 │         │ 1 │
//! ```
//!
//! *Packed form*, that is stored and run ([`PackedWeight`]): one row of bits a basis, group after
//! group and basis after basis, so a pruned basis takes no room.
//!
//! ```text
//!              row = one basis of one group: `len` signs, padded to whole 64 bits
//!           word 0                        word 1
//! row 0  │ w31 ............ w2 w1 w0 │ 0 0 0 ... w34 w33 w32 │  group 0, basis 0   α = 0.1
//! row 1  │                           │ └ padding, always 0   │  group 0, basis 1   α = 0.2
//! row 2  │                           │                       │  group 0, basis 2   α = 0.5
//! row 3  │                           │                       │  group 1, basis 0   α = 0.7
//! ```
//!
//! Words are `u32`, least significant bit first. **Bit 0 stands for +1 and bit 1 for −1** in both
//! forms, so the dot product of two rows is `len − 2 · popcount(a ^ b)` and equal padding adds
//! nothing.
//!
//! # Architecture
//!
//! ```text
//! dense weight ─ Grouping ─► groups ─ fit::sketch ─► training form ─ fit: basis, coordinate, ste, prune
//!                                                        │ pack
//!              file ◄─ sections: encode, decode ─► PackedWeight ─► cpu, gpu: layers on the bits
//! ```
//!
//! - [`Grouping`]: permute the axes, cut into runs; [`GroupingRule`] is the only place that knows the
//!   groupings' names
//! - [`PackedWeight`]: the packed form, its sizes, its serialized sections
//! - [`report`]: what some packed weights take, layer by layer
//! - [`fit`]: sketching, with or without samples of the inputs, and the optimization steps, on the
//!   training form
//! - [`cpu`]: layers that compute from the packed form
//! - `gpu` (feature `cube`): the steps and the layers as CubeCL kernels, over the same bits
//! - `file` (feature `file`; deflated ones and the writer: `deflate`): packed files
//! - `runtime` (feature `runtime`): a file that holds its chain of layers, run without a framework
//! - `exports` (feature `exports`): the same as C functions, for a page
//!
//! Modules stand in one order, `bits`, `math`, `grouping`, `packed`, `report`, `fit`, `cpu`, `gpu`,
//! `file`, `runtime`, `exports`, and import from earlier ones alone.
//!
//! A kernel of [`cpu`] is written once, over a trait of vector operations, and compiled for each
//! instruction set: portable Rust, AVX2, AVX-512, NEON. `MULTIBIT_ISA` pins one. The definitions that
//! all are tested against are plain loops in [`cpu::reference`].
//!
//! # Unsafe code
//!
//! Everything else is safe Rust; each block says why it is sound.
//!
//! | where | what it relies on | who guarantees it |
//! |---|---|---|
//! | `cpu::x86_64`, `cpu::aarch64` | the processor has the instructions; loads and stores take references to whole vectors | `cpu::isa` asks the processor before it hands one out |
//! | `cpu::isa` | a function compiled for an instruction set is called where there is one | the same question |
//! | `cpu::threads`: a slice shared by tasks | parts given to tasks are disjoint and inside | whoever cuts the work: an output belongs to one block, a block to one task; bounds are asserted at every part |
//! | `cpu::generic`: unchecked reads in inner loops | offsets of all positions and taps lie inside the input | `run` of each kernel asserts the largest before the loop |
//! | `cpu::conv2d`, `linear`, `pool`, `planes`, `levels`, `activation`, `norm`, `attention` | as `threads` | as `threads` |
//! | `cpu::simd`: lines as numbers | a line is sixteen numbers and nothing else | its layout, whose size is asserted |
//! | `exports`: names that the linker sees | no other symbol has the name | the prefix `multibit_` |
//! | `exports`: the instance | one call at a time | a flag that a call takes and gives back |
//! | `math`: the square root on Arm's controllers | the processor has the instruction | its target, which passes floats in registers |
//! | `gpu` | shaders index inside their arrays | launches pass lengths that shaders compare with; CubeCL checks bounds unless told not to |
//!
//! Shown by `tests/guard.rs` (pages that trap at both ends of every input and output, on every
//! instruction set, every class of shapes), which `cargo test` runs; under AddressSanitizer with
//! `RUSTFLAGS=-Zsanitizer=address cargo +nightly test --target x86_64-unknown-linux-gnu -p multibit
//! --features rayon`; and for the portable paths under Miri, with
//! `MIRIFLAGS=-Zmiri-disable-isolation MULTIBIT_ISA=portable cargo +nightly miri test -p multibit --test guard`.

#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod bits;
pub mod cpu;
#[cfg(feature = "exports")]
pub mod exports;
#[cfg(feature = "file")]
pub mod file;
pub mod fit;
#[cfg(feature = "cube")]
pub mod gpu;
mod grouping;
mod math;
mod packed;
mod parts;
pub mod report;
#[cfg(feature = "chain")]
pub mod runtime;

pub use bits::MAX_BITS;
pub use grouping::{Grouping, GroupingError, GroupingRule, Layout};
pub use packed::{CoordinateType, DecodeError, EncodedBytes, PackError, PackedWeight};
