//! Kernels for GPUs, in CubeCL: the same bits and the same arithmetic as on CPUs, on whatever
//! runtime the [`Client`] belongs to.
//!
//! Every function checks the lengths of its buffers and launches; nothing is read back. Buffers are
//! dense, in row-major order. Kernels use at most 16 KiB of shared memory and no operations across
//! the units of a plane, so that they run on every device that CubeCL knows.
//!
//! # Unsafe code
//! Launches are unchecked: the shader does not compare indices with lengths. Each launch says why
//! its indices are in bounds.

pub mod fit;
mod float;
mod order;
pub mod packed;
mod reduce;
mod smallest;

use cubecl::prelude::*;
use cubecl::server::Handle;

pub use cubecl;

pub use self::smallest::smallest;

/// Units of a cube where they work alone.
const UNITS: usize = 128;

/// `count` cubes, in as many dimensions as that takes.
fn cubes(count: usize) -> CubeCount {
    /// What every device can launch along one axis.
    const MOST: usize = 65_535;
    let rows = count.div_ceil(MOST).max(1);
    let columns = count.div_ceil(rows);
    let number = |x: usize| u32::try_from(x).expect("fewer than 2³² cubes");
    CubeCount::Static(number(columns), number(rows), 1)
}

/// Cubes and units for so many that work alone.
fn alone(units: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new_1d(UNITS as u32);
    (cubes(units.div_ceil(UNITS)), dim)
}

/// Panics with the name if a buffer has another length.
fn check(name: &str, buffer: &BufferArg, expected: usize) {
    let found = buffer.len();
    assert_eq!(
        found, expected,
        "`{name}` holds {found} elements, but {expected} are needed"
    );
}

/// A buffer of `len` elements of 32 bits.
fn buffer(handle: &Handle, len: usize) -> BufferArg {
    let held = handle.size_in_used() as usize / size_of::<u32>();
    assert!(len <= held, "a buffer of {held} elements, not {len}");
    // SAFETY: the buffer was just seen to be as long.
    unsafe { BufferArg::from_raw_parts(handle.clone(), len) }
}

/// The same buffer for another launch.
///
/// # Panics
/// If it is an alias, which belongs to one launch.
fn again(buffer: &BufferArg) -> BufferArg {
    let BufferArg::Handle { handle } = buffer else {
        panic!("an alias cannot be an argument of two launches");
    };
    // SAFETY: the same buffer with the same length.
    unsafe { BufferArg::from_raw_parts_binding(handle.handle.clone(), buffer.len()) }
}
