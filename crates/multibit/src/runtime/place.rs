//! Where values lie: one buffer for all, in which those that live at a time are apart.

use alloc::vec::Vec;
use core::ops::Range;

use super::{Planned, Value, Work, scalar};
use crate::file::PackedFile;

/// The buffer.
#[derive(Debug)]
pub(super) struct Memory {
    /// Where each value begins.
    pub values: Vec<usize>,
    /// What each step works in.
    pub scratch: Vec<Range<usize>>,
    /// Words of all.
    pub words: usize,
}

/// Words that are needed from one step to another, both included.
struct Block {
    len: usize,
    first: usize,
    last: usize,
    place: Option<usize>,
}

impl Memory {
    /// Places everything; none if it does not fit the address space.
    pub(super) fn new(file: &PackedFile<'_>, steps: &[Planned], values: &[Value]) -> Option<Self> {
        let mut last_use: Vec<usize> = (0..values.len())
            .map(|value| value.saturating_sub(1))
            .collect();
        for (number, step) in steps.iter().enumerate() {
            last_use[step.input] = number;
            if let Work::Add(other) = step.work {
                last_use[other] = number;
            }
        }
        // The scores are read in the end.
        *last_use.last_mut()? = steps.len();
        // A block for each value, and one for what each step works in.
        let mut blocks: Vec<Block> = Vec::with_capacity(values.len() + steps.len());
        // The block of each value.
        let mut of: Vec<usize> = Vec::with_capacity(values.len());
        let new = |blocks: &mut Vec<Block>, value: usize, first: usize| {
            let len = values[value].shape.len()?;
            blocks.push(Block {
                len,
                first,
                last: last_use[value],
                place: None,
            });
            Some(blocks.len() - 1)
        };
        let first = new(&mut blocks, 0, 0)?;
        of.push(first);
        let mut scratch = Vec::with_capacity(steps.len());
        for (number, step) in steps.iter().enumerate() {
            let block = of[step.input];
            let shares = match step.work {
                Work::Nothing => true,
                Work::Activation(_) | Work::Levels(_) => blocks[block].last <= number,
                Work::Add(other) => blocks[block].last <= number && of[other] != block,
                _ => false,
            };
            if shares {
                blocks[block].last = blocks[block].last.max(last_use[number + 1]);
                of.push(block);
            } else {
                // A pool that follows is done at once, into a block of its size.
                let value = match &step.work {
                    Work::Conv2d(conv) if conv.pool.is_some() => number + 2,
                    _ => number + 1,
                };
                let block = new(&mut blocks, value, number)?;
                blocks[block].last = blocks[block].last.max(number);
                of.push(block);
            }
            let len = scalar::scratch(file, &step.work)?;
            blocks.push(Block {
                len,
                first: number,
                last: number,
                place: None,
            });
            scratch.push(blocks.len() - 1);
        }
        let words = place(&mut blocks)?;
        // In bytes it is a number too.
        words.checked_mul(size_of::<u32>())?;
        let start = |block: usize| blocks[block].place.unwrap_or(0);
        Some(Self {
            values: of.iter().map(|&block| start(block)).collect(),
            scratch: scratch
                .iter()
                .map(|&block| start(block)..start(block) + blocks[block].len)
                .collect(),
            words,
        })
    }
}

/// The largest first, each at the lowest place where none is that lives at the same time.
fn place(blocks: &mut [Block]) -> Option<usize> {
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
