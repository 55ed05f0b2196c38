//! Arrays in another order of their axes.

use alloc::vec::Vec;

use crate::parts::{PART, each_part};

/// Size and stride of an axis.
pub(super) type Axis = (usize, usize);

/// Strides of axes in row-major order.
pub(super) fn strides(sizes: &[usize]) -> Vec<usize> {
    (1..=sizes.len())
        .map(|from| sizes[from..].iter().product())
        .collect()
}

/// Neighbours that are one run become one axis, and those of size 1 go.
pub(super) fn merged(axes: impl Iterator<Item = Axis>) -> Vec<Axis> {
    let mut merged: Vec<Axis> = Vec::new();
    for (size, stride) in axes.filter(|&(size, _)| size > 1) {
        match merged.last_mut() {
            Some(last) if last.1 == size * stride => *last = (last.0 * size, stride),
            _ => merged.push((size, stride)),
        }
    }
    merged
}

/// Rows, and columns, that are copied at a time: of a transposition, one side always jumps.
const TILE: usize = 16;

/// Fills `to` along axes that have strides in `from`.
pub(super) fn permute<T: Copy + Send + Sync>(axes: &[Axis], from: &[T], to: &mut [T]) {
    let (outer, rows, columns) = match axes {
        [] => (axes, (1, 0), (1, 1)),
        [columns] => (&[][..], (1, 0), *columns),
        [outer @ .., rows, columns] => (outer, *rows, *columns),
    };
    // Of a single block, the tiles of its rows.
    let tiles = [(rows.0.div_ceil(TILE), TILE * rows.1)];
    let (outer, block) = match outer {
        [] => (&tiles[..], TILE * columns.0),
        outer => (outer, rows.0 * columns.0),
    };
    let blocks = PART.div_ceil(block);
    each_part(to, blocks * block, from.len(), |part, to| {
        for (number, to) in to.chunks_mut(block).enumerate() {
            let from = &from[origin(outer, part * blocks + number)..];
            for (tile, to) in to.chunks_mut(TILE * columns.0).enumerate() {
                transpose(&from[tile * TILE * rows.1..], rows.1, to, columns);
            }
        }
    });
}

/// Where a block begins.
fn origin(axes: &[Axis], mut block: usize) -> usize {
    let mut origin = 0;
    for &(size, stride) in axes.iter().rev() {
        origin += block % size * stride;
        block /= size;
    }
    origin
}

/// Some rows of a block.
fn transpose<T: Copy>(from: &[T], row_stride: usize, to: &mut [T], (columns, stride): Axis) {
    let whole = to.len() == TILE * columns && row_stride == 1;
    for column in (0..columns).step_by(TILE) {
        let count = TILE.min(columns - column);
        if whole && count == TILE {
            square(&from[column * stride..], stride, &mut to[column..], columns);
            continue;
        }
        for (row, to) in to.chunks_exact_mut(columns).enumerate() {
            let from = from[row * row_stride + column * stride..].iter();
            let values = from.step_by(stride);
            for (to, &value) in to[column..][..count].iter_mut().zip(values) {
                *to = value;
            }
        }
    }
}

/// A tile of rows and columns, by way of one in between: so each line of the caches is touched once on either
/// side, where all lines of a tile may fall to one place of a cache.
fn square<T: Copy>(from: &[T], from_stride: usize, to: &mut [T], to_stride: usize) {
    let mut tile = [[from[0]; TILE]; TILE];
    for (column, from) in from.chunks(from_stride).take(TILE).enumerate() {
        for (tile, &value) in tile.iter_mut().zip(&from[..TILE]) {
            tile[column] = value;
        }
    }
    for (to, tile) in to.chunks_mut(to_stride).zip(tile) {
        to[..TILE].copy_from_slice(&tile);
    }
}
