//! Multi-bit weights as bits: grouping, fitting, packing and kernels, without a framework.
//!
//! A multi-bit weight is a sum of binary bases with a few floating coordinates in each group of
//! weights, `w ≈ Σ_i α_i b_i` with `b_i ∈ {-1,+1}ⁿ` and `α_i > 0`. A group has as many bases as it
//! needs; one without any is zero and costs nothing.
//!
//! # Packed layout
//!
//! [`PackedWeight`] holds one *row* per basis: the signs of its group's `len` weights, one bit each,
//! padded to whole 64-bit multiples.
//!
//! ```text
//! group 0, width 2            group 1, width 0    group 2, width 1
//! row 0 │ row 1               (nothing)           row 2
//! α₀    │ α₁                                      α₂
//!
//! word 0                  word 1
//! w31 ......... w2 w1 w0 │ 0 0 0 ... w34 w33 w32
//!                          └ padding, always 0
//! ```
//!
//! Bit 0 stands for +1 and bit 1 for −1, so a dot product of two rows is
//! `len − 2 · popcount(a ^ b)`, and equal padding adds nothing.
//!
//! # Map
//!
//! | module | what | uses |
//! |---|---|---|
//! | [`grouping`] | permute the axes, cut into runs | nothing |
//! | [`packed`] | the layout above, and the sections of a file | grouping |
//! | [`fit`] | sketching and the steps of ALQ on slices | packed |
//! | [`cpu`] | layers on packed weights | packed |

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

pub mod cpu;
pub mod fit;
pub mod grouping;
pub mod packed;

pub use grouping::{Grouping, GroupingError};
pub use packed::{DecodeError, MAX_BITS, PackError, PackedWeight};

#[cfg(test)]
pub(crate) mod testing;
