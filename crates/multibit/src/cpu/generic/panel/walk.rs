//! The order in which a panel is filled.

use core::ops::Range;

use crate::cpu::integers::Components;
use crate::cpu::tiles::Tiles;

/// A walk through the pieces of the groups that one of some blocks has.
pub(super) struct Walk<'a, const N: usize> {
    tiles: &'a Tiles,
    all: &'a Components,
    blocks: Range<usize>,
    /// The next chunk.
    chunk: usize,
    /// The next groups of the chunk, and the steps of all of them in each block.
    groups: Range<usize>,
    steps: [Range<usize>; N],
    /// How many steps behind them about the same groups of the next chunk lie, or of the next blocks.
    pub ahead: [usize; N],
    pub group: usize,
    /// The group's bases in each block, and its first component.
    pub bases: [Range<usize>; N],
    pub first: [usize; N],
    /// Components that the group has in one of the blocks.
    components: usize,
    pub component: usize,
    pub piece: usize,
}

impl<'a, const N: usize> Walk<'a, N> {
    #[inline(always)]
    pub fn new(tiles: &'a Tiles, all: &'a Components, blocks: Range<usize>) -> Self {
        Self {
            tiles,
            all,
            blocks,
            chunk: 0,
            groups: 0..0,
            steps: [const { 0..0 }; N],
            ahead: [0; N],
            group: 0,
            bases: [const { 0..0 }; N],
            first: [0; N],
            components: 0,
            component: 0,
            piece: 0,
        }
    }

    /// Goes on to the next piece, if the last one is behind; returns whether there is one.
    ///
    /// A component has `together` bases, and `pieces` pieces.
    #[inline(always)]
    pub fn find(&mut self, together: usize, pieces: usize) -> bool {
        if self.piece == pieces {
            self.piece = 0;
            self.component += 1;
        }
        while self.component == self.components {
            for (first, bases) in self.first.iter_mut().zip(&self.bases) {
                *first += bases.len().div_ceil(together);
            }
            if self.groups.is_empty() {
                if self.chunk == self.tiles.chunks() {
                    return false;
                }
                let (chunk, chunks) = (self.chunk, self.tiles.chunks());
                let last_block = self.tiles.blocks() - 1;
                for (n, block) in self.blocks.clone().enumerate() {
                    self.steps[n] = self.tiles.steps(chunk, block);
                    self.first[n] = self.all.first(chunk, block, self.tiles);
                    let next = if chunk + 1 < chunks {
                        self.tiles.steps(chunk + 1, block)
                    } else {
                        self.tiles.steps(0, last_block.min(block + N))
                    };
                    self.ahead[n] = next.start.wrapping_sub(self.steps[n].start);
                }
                self.groups = self.tiles.chunk_groups(chunk);
                self.chunk += 1;
            }
            self.group = self.groups.start;
            self.groups.start += 1;
            let mut widest = 0;
            for (bases, steps) in self.bases.iter_mut().zip(&mut self.steps) {
                *bases = steps.start..self.tiles.group_end(steps.clone(), self.group);
                steps.start = bases.end;
                widest = widest.max(bases.len());
            }
            self.components = widest.div_ceil(together);
            self.component = 0;
        }
        true
    }
}
