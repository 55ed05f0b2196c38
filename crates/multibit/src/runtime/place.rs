//! Where values lie: one buffer for all, in which those that live at a time are apart.

use alloc::vec::Vec;
use core::ops::Range;

use super::{Planned, Value, Work, scalar};
use crate::file::PackedFile;

/// Words that are needed from one step to another, both included.
struct Block {
    len: usize,
    first: usize,
    last: usize,
    place: Option<usize>,
}

impl Block {
    /// A block that was placed.
    fn range(&self) -> Range<usize> {
        let start = self.place.unwrap_or(0);
        start..start + self.len
    }
}

/// Places everything; the words of all, none if they do not fit the address space.
pub(super) fn place(
    file: &PackedFile<'_>,
    steps: &mut [Planned<'_>],
    values: &[Value],
    places: &mut Vec<Range<usize>>,
) -> Option<usize> {
    // The blocks of the values; those that the steps work in follow.
    let mut blocks: Vec<Block> = Vec::with_capacity(values.len() + steps.len());
    for (value, Value { shape, .. }) in values.iter().enumerate() {
        let first = value.saturating_sub(1);
        blocks.push(Block {
            len: shape.len()?,
            first,
            last: first,
            place: None,
        });
    }
    for (number, step) in steps.iter().enumerate() {
        blocks[step.input].last = number;
        if let Work::Add(other) = step.work {
            blocks[other].last = number;
        }
    }
    // The scores are read in the end.
    blocks.last_mut()?.last = steps.len();
    // The block of each value.
    let mut of: Vec<usize> = (0..values.len()).collect();
    for (number, step) in steps.iter().enumerate() {
        let (block, made) = (of[step.input], number + 1);
        let dies = blocks[block].last <= number;
        let shares = match step.work {
            Work::Nothing => true,
            Work::Activation(_) | Work::Levels(_) => dies,
            Work::Add(other) => dies && of[other] != block,
            _ => false,
        };
        if shares {
            blocks[block].last = blocks[block].last.max(blocks[made].last);
            blocks[made].len = 0;
            of[made] = block;
        }
        // A pool that follows is done at once, into a block of its size.
        if let Work::Conv2d(conv) = &step.work
            && conv.pool.is_some()
        {
            blocks[made].len = values[made + 1].shape.len()?;
        }
        blocks.push(Block {
            len: scalar::scratch(file, &step.work)?,
            first: number,
            last: number,
            place: None,
        });
    }
    let words = apart(&mut blocks)?;
    // In bytes it is a number too.
    words.checked_mul(size_of::<u32>())?;
    for (value, &block) in of.iter().enumerate() {
        let start = blocks[block].range().start;
        places.push(start..start + values[value].shape.size());
    }
    for (step, block) in steps.iter_mut().zip(&blocks[values.len()..]) {
        step.scratch = block.range();
    }
    Some(words)
}

/// The largest first, each at the lowest place where none is that lives at the same time.
fn apart(blocks: &mut [Block]) -> Option<usize> {
    let mut words = 0;
    loop {
        let left = (0..blocks.len()).filter(|&block| blocks[block].place.is_none());
        let Some(largest) = left.max_by_key(|&block| (blocks[block].len, usize::MAX - block))
        else {
            return Some(words);
        };
        let Block {
            len, first, last, ..
        } = blocks[largest];
        let mut start = 0usize;
        loop {
            let end = start.checked_add(len)?;
            let meets = blocks.iter().find_map(|other| {
                let place = other.place?;
                let lives = other.first <= last && first <= other.last;
                let behind = place + other.len;
                (lives && place < end && start < behind).then_some(behind)
            });
            match meets {
                Some(behind) => start = behind,
                None => break,
            }
        }
        blocks[largest].place = Some(start);
        words = words.max(start.checked_add(len)?);
    }
}
