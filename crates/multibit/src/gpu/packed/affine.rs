//! What happens to a sum at the end of a layer.

use alloc::boxed::Box;

use cubecl::prelude::*;

use crate::gpu::check;

/// `scale·y + offset`, each of them if it is there.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Affine {
    scale: Box<[f32]>,
    offset: Box<[f32]>,
    #[cube(comptime)]
    has_scale: bool,
    #[cube(comptime)]
    has_offset: bool,
}

#[cube]
impl Affine {
    pub fn apply(&self, y: f32, output: u32) -> f32 {
        let mut y = y;
        if comptime!(self.has_scale) {
            y *= self.scale[output as usize];
        }
        if comptime!(self.has_offset) {
            y += self.offset[output as usize];
        }
        y
    }
}

/// Scale and offset as a kernel takes them; `any` stands in for one that is not there.
///
/// # Panics
/// If one has another length than the outputs.
pub(super) fn affine(
    scale: Option<BufferArg>,
    offset: Option<BufferArg>,
    outputs: usize,
    any: impl Fn() -> BufferArg,
) -> AffineLaunch {
    for (name, buffer) in [("scale", &scale), ("offset", &offset)] {
        if let Some(buffer) = buffer {
            check(name, buffer, outputs);
        }
    }
    let (has_scale, has_offset) = (scale.is_some(), offset.is_some());
    AffineLaunch::new(
        scale.unwrap_or_else(&any),
        offset.unwrap_or_else(&any),
        has_scale,
        has_offset,
    )
}
