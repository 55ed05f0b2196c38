//! The inputs of an output, cut into blocks that fit the first cache.

use alloc::vec::Vec;
use core::ops::Range;

/// Steps of a block at most.
pub(in crate::cpu) const BLOCK: usize = 64;

/// Signs that are unpacked at once: pieces of a group begin at whole multiples.
pub(super) const SIGNS: usize = 64;

/// Some steps of one group. A step is the inputs that one instruction takes.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Piece {
    pub group: usize,
    /// Which bases of the group, if not all are taken at once.
    pub component: usize,
    /// The first step, counted in its group.
    pub first: usize,
    /// The first step, counted from the first group.
    pub place: usize,
    pub steps: usize,
}

/// All groups of an output in pieces, and these in blocks.
pub(in crate::cpu) struct Depth {
    pub pieces: Vec<Piece>,
    /// The first piece of each block, and the end.
    starts: Vec<usize>,
    /// Steps of all groups.
    pub steps: usize,
}

impl Depth {
    /// Groups of so many steps and components each, of so many inputs a step.
    pub fn new(groups: impl Iterator<Item = [usize; 2]>, inputs: usize) -> Self {
        let (mut pieces, mut starts) = (Vec::new(), Vec::new());
        let (mut place, mut room) = (0, 0);
        for (group, [steps, components]) in groups.enumerate() {
            let parts = steps.div_ceil(BLOCK);
            let part = steps.div_ceil(parts).next_multiple_of(SIGNS / inputs);
            for first in (0..steps).step_by(part) {
                let steps = part.min(steps - first);
                for component in 0..components {
                    if room < steps {
                        starts.push(pieces.len());
                        room = BLOCK;
                    }
                    room -= steps;
                    pieces.push(Piece {
                        group,
                        component,
                        first,
                        place: place + first,
                        steps,
                    });
                }
            }
            place += steps;
        }
        if starts.is_empty() {
            starts.push(0); // A block of nothing, whose sums are 0.
        }
        starts.push(pieces.len());
        Self {
            pieces,
            starts,
            steps: place,
        }
    }

    pub fn blocks(&self) -> usize {
        self.starts.len() - 1
    }

    /// The pieces of a block.
    pub fn block(&self, block: usize) -> Range<usize> {
        self.starts[block]..self.starts[block + 1]
    }
}
