//! Packed layers on a device.
//!
//! | arithmetic | few rows | many rows or a convolution |
//! |---|---|---|
//! | exact | signed sums along the words of a row | tiles unpacked in shared memory |
//! | int8 | the same, fours rounded | tiles, inputs rounded |
//! | bitwise | activations as bits in the order of the words, then XOR and popcount | the same |
//!
//! [`cpu::reference`](crate::cpu::reference) is the definition, up to the order of sums.

mod affine;
mod bitwise;
mod input;
mod levels;
mod lookup;
mod product;
mod rows;
mod weight;

use cubecl::ir::ElemType;
use cubecl::prelude::*;
use cubecl::server::Handle;

pub use self::weight::DeviceWeight;

use self::affine::affine;
use self::bitwise::Source;
use self::input::Input;
use self::levels::ActivationLevelsLaunch;
use self::product::{Rounding, SIDE, Tile};
use super::{UNITS, again, alone, buffer, check, cubes};
use crate::cpu::{Conv2dOptions, INT8_ROWS, Levels, Mode};

/// Positions from which on tiles are worth unpacking.
const MANY: usize = 8;

/// What a packed layer reads and writes.
pub struct Layer<'a> {
    /// Where it runs.
    pub client: &'a Client,
    /// Its weight.
    pub weight: &'a DeviceWeight,
    /// One factor an output.
    pub scale: Option<BufferArg>,
    /// One term an output.
    pub offset: Option<BufferArg>,
    /// The result, written whole.
    pub output: BufferArg,
}

/// Multi-bit activations of a layer.
pub enum Activations {
    /// Values that are put at the levels.
    Values(BufferArg),
    /// Bits, as [`Planes`](crate::cpu::Planes).
    Planes(BufferArg),
}

/// A buffer for an argument that is not read.
fn nothing(client: &Client) -> BufferArg {
    buffer(&client.empty(size_of::<u32>()), 1)
}

/// [`linear`](crate::cpu::reference::linear).
///
/// # Shapes
/// - `input`: `[batch, d_in]`
/// - output: `[batch, d_out]`
///
/// # Panics
/// If a buffer has another length, or there are 2³² inputs or outputs or more.
pub fn linear(layer: Layer<'_>, input: BufferArg, batch: usize, mode: &Mode) {
    check("input", &input, batch * layer.weight.inputs());
    check("output", &layer.output, batch * layer.weight.outputs());
    let shape = Input::linear(batch, layer.weight);
    if layer.output.is_empty() {
        return;
    }
    match mode {
        Mode::Exact if batch >= MANY => layer.product(input, &shape, None),
        Mode::Exact => layer.rows(input, batch, None),
        Mode::Int8 if batch >= INT8_ROWS => {
            let of_inputs = [batch, 1, layer.weight.inputs()];
            let scales = int8_scales(layer.client, again(&input), of_inputs, 1);
            layer.product(input, &shape, Some(scales));
        }
        Mode::Int8 => {
            let len = layer.weight.len();
            let of_fours = [batch, layer.weight.inputs() / len, len];
            let scales = int8_scales(layer.client, again(&input), of_fours, 4);
            layer.rows(input, batch, Some(scales));
        }
        Mode::Bitwise(levels) => layer.bitwise(Activations::Values(input), &shape, levels),
    }
}

/// [`conv2d`](crate::cpu::reference::conv2d).
///
/// # Shapes
/// - `input`: `input_shape`, `[batch, channels_in, height, width]`
/// - output: [`conv2d_output_shape`](crate::cpu::conv2d_output_shape)
///
/// # Panics
/// As [`linear`], or if the shapes do not fit.
pub fn conv2d(
    layer: Layer<'_>,
    input: BufferArg,
    input_shape: [usize; 4],
    options: &Conv2dOptions,
    mode: &Mode,
) {
    let shape = Input::conv2d(input_shape, layer.weight, options);
    check("input", &input, shape.len());
    check(
        "output",
        &layer.output,
        shape.positions() * layer.weight.outputs(),
    );
    if layer.output.is_empty() {
        return;
    }
    match mode {
        Mode::Exact => layer.product(input, &shape, None),
        Mode::Int8 => {
            let [batch, channels, height, width] = input_shape;
            let source = again(&input);
            let len = channels * height * width;
            let scales = int8_scales(layer.client, source, [batch, 1, len], 1);
            layer.product(input, &shape, Some(scales));
        }
        Mode::Bitwise(levels) => layer.bitwise(Activations::Values(input), &shape, levels),
    }
}

/// [`conv2d`] in bitwise arithmetic of activations that are bits.
///
/// # Shapes
/// - `planes`: `[batch, ⌈channels / 32⌉, bits, height, width]`
///
/// # Panics
/// As [`conv2d`].
pub fn conv2d_planes(
    layer: Layer<'_>,
    planes: BufferArg,
    input_shape: [usize; 4],
    options: &Conv2dOptions,
    levels: &Levels,
) {
    let shape = Input::conv2d(input_shape, layer.weight, options);
    check(
        "planes",
        &planes,
        crate::cpu::Planes::len(input_shape, levels),
    );
    check(
        "output",
        &layer.output,
        shape.positions() * layer.weight.outputs(),
    );
    if !layer.output.is_empty() {
        layer.bitwise(Activations::Planes(planes), &shape, levels);
    }
}

/// The weights of some outputs in the grouping's order, for example rows of an embedding. Of an
/// output that is not there all weights are NaN: indices are not read back.
///
/// # Shapes
/// - `indices`: `[count]` of type `int`
/// - `output`: `[count, weights of an output]`
///
/// # Panics
/// If `output` has another length.
pub fn lookup(
    client: &Client,
    weight: &DeviceWeight,
    indices: BufferArg,
    int: ElemType,
    output: BufferArg,
) {
    let count = indices.len();
    let units = count * weight.inputs();
    check("output", &output, units);
    if units == 0 {
        return;
    }
    let (cubes, dim) = alone(units);
    // SAFETY: units beyond the output do nothing, and an index is compared with the outputs.
    unsafe {
        lookup::lookup::launch_unchecked(
            client,
            cubes,
            dim,
            indices,
            weight.bits(),
            output,
            count as u32,
            f32::NAN,
            int,
        );
    }
}

/// [`PackedWeight::unpack`](crate::PackedWeight::unpack), bit for bit.
///
/// # Shapes
/// - `output`: the weight's own
///
/// # Panics
/// If `output` has another length.
pub fn unpack_weight(client: &Client, weight: &DeviceWeight, output: BufferArg) {
    let units = weight.inputs() * weight.outputs();
    check("output", &output, units);
    let (cubes, dim) = alone(units);
    // SAFETY: units beyond the output do nothing; places are a permutation of its elements.
    unsafe {
        lookup::unpack::launch_unchecked(client, cubes, dim, weight.bits(), output, weight.order());
    }
}

/// Each value at the nearest level.
///
/// # Shapes
/// - `input`, `output`: any, the same
///
/// # Panics
/// If the lengths differ.
pub fn quantize(client: &Client, input: BufferArg, levels: &Levels, output: BufferArg) {
    let len = input.len();
    check("output", &output, len);
    if len == 0 {
        return;
    }
    let (cubes, dim) = alone(len);
    let levels = ActivationLevelsLaunch::from(levels);
    // SAFETY: units beyond the length do nothing.
    unsafe {
        levels::quantize::launch_unchecked(client, cubes, dim, input, levels, output, len as u32);
    }
}

/// [`Planes::pack`](crate::cpu::Planes::pack).
///
/// # Shapes
/// - `values`: `shape`, `[batch, channels, height, width]`
/// - `planes`: [`Planes::len`](crate::cpu::Planes::len)
///
/// # Panics
/// If a buffer has another length.
pub fn pack(
    client: &Client,
    values: BufferArg,
    shape: [usize; 4],
    levels: &Levels,
    planes: BufferArg,
) {
    check("values", &values, shape.iter().product());
    check("planes", &planes, crate::cpu::Planes::len(shape, levels));
    let bits = levels.bits();
    let units = planes.len() / bits;
    if units == 0 {
        return;
    }
    let (cubes, dim) = alone(units);
    let [images, channels, pixels] = image(shape);
    // SAFETY: units beyond the last image do nothing; channels are cut off at their number.
    unsafe {
        levels::pack::launch_unchecked(
            client,
            cubes,
            dim,
            values,
            levels.into(),
            planes,
            images,
            channels,
            pixels,
            bits,
        );
    }
}

/// [`Planes::unpack`](crate::cpu::Planes::unpack).
///
/// # Shapes
/// As [`pack`].
///
/// # Panics
/// As [`pack`].
pub fn unpack(
    client: &Client,
    planes: BufferArg,
    shape: [usize; 4],
    levels: &Levels,
    values: BufferArg,
) {
    check("values", &values, shape.iter().product());
    check("planes", &planes, crate::cpu::Planes::len(shape, levels));
    if values.is_empty() {
        return;
    }
    let (cubes, dim) = alone(values.len());
    let [images, channels, pixels] = image(shape);
    // SAFETY: units beyond the last image do nothing.
    unsafe {
        levels::unpack::launch_unchecked(
            client,
            cubes,
            dim,
            planes,
            levels.into(),
            values,
            images,
            channels,
            pixels,
            levels.bits(),
        );
    }
}

/// Images, channels and pixels of a shape.
fn image([batch, channels, height, width]: [usize; 4]) -> [u32; 3] {
    [batch, channels, height * width].map(|x| x as u32)
}

/// The scales of rows `[rows, groups, len]` in int8 arithmetic, where so many are rounded together.
fn int8_scales(
    client: &Client,
    input: BufferArg,
    [rows, groups, len]: [usize; 3],
    together: usize,
) -> Handle {
    let scales = client.empty(rows * size_of::<f32>());
    // SAFETY: a cube has a row or does nothing; inputs are cut off at `len`.
    unsafe {
        rows::int8_scales::launch_unchecked(
            client,
            cubes(rows),
            CubeDim::new_1d(rows::LANES as u32),
            input,
            buffer(&scales, rows),
            rows as u32,
            groups as u32,
            len as u32,
            f32::NAN,
            together,
        );
    }
    scales
}

impl Layer<'_> {
    fn scales(&self, scales: Option<&Handle>, rows: usize) -> BufferArg {
        match scales {
            Some(scales) => buffer(scales, rows),
            None => nothing(self.client),
        }
    }

    fn product(self, input: BufferArg, shape: &Input, scales: Option<Handle>) {
        let Self { client, weight, .. } = self;
        let group_out = weight.outputs() / shape.groups;
        let tile = Tile::new(group_out, shape.positions());
        let tiles = group_out.div_ceil(SIDE * tile.outputs)
            * shape.positions().div_ceil(SIDE * tile.positions);
        let rounding = match scales {
            Some(_) => Rounding::Int8,
            None => Rounding::None,
        };
        let scales = self.scales(scales.as_ref(), shape.shape[0]);
        let any = || nothing(client);
        // SAFETY: outputs, positions, groups and weights of a group are compared with their number
        // before anything is read for them or written; a place in the padding is not read.
        unsafe {
            product::product::launch_unchecked(
                client,
                cubes(tiles * shape.groups),
                CubeDim::new_2d(SIDE as u32, SIDE as u32),
                input,
                weight.bits(),
                weight.patch(),
                scales,
                affine(self.scale, self.offset, weight.outputs(), any),
                self.output,
                shape.window(weight),
                shape.groups as u32,
                tile,
                shape.conv,
                rounding,
            );
        }
    }

    fn rows(self, input: BufferArg, batch: usize, scales: Option<Handle>) {
        let Self { client, weight, .. } = self;
        let vector = [4, 2, 1]
            .into_iter()
            .find(|&vector| weight.len().is_multiple_of(vector))
            .expect("1 divides every length");
        let int8 = scales.is_some();
        let scales = self.scales(scales.as_ref(), batch);
        let any = || nothing(client);
        // SAFETY: rows and outputs are compared with their number; a vector starts below the length
        // of its group, which it divides.
        unsafe {
            rows::rows::launch_unchecked(
                client,
                cubes(weight.outputs().div_ceil(rows::OUTPUTS) * batch),
                CubeDim::new_1d(rows::LANES as u32),
                vector,
                input,
                weight.bits(),
                scales,
                affine(self.scale, self.offset, weight.outputs(), any),
                self.output,
                batch as u32,
                int8,
            );
        }
    }

    fn bitwise(self, activations: Activations, shape: &Input, levels: &Levels) {
        let Self { client, weight, .. } = self;
        let (positions, groups, bits) = (shape.positions(), shape.groups, levels.bits());
        let units = groups * weight.items() * positions;
        let words = units * (bits + 1);
        let patches = client.empty(words * size_of::<u32>());
        let (source, values, planes) = match activations {
            Activations::Values(values) => (Source::Values, values, nothing(client)),
            Activations::Planes(planes) => (Source::Planes, nothing(client), planes),
        };
        let (cubes_alone, dim) = alone(units);
        // SAFETY: units beyond the last group do nothing; weights are cut off at `len`, and a place
        // in the padding is not read.
        unsafe {
            bitwise::gather::launch_unchecked(
                client,
                cubes_alone,
                dim,
                values,
                planes,
                levels.into(),
                weight.patch(),
                buffer(&patches, words),
                shape.window(weight),
                groups as u32,
                (weight.inputs() / weight.len()) as u32,
                weight.len() as u32,
                bits,
                source,
                shape.conv,
            );
        }
        // A unit for each position, or a cube if there are too few of them.
        let lanes = if positions < UNITS / 4 { UNITS } else { 1 };
        let rows = UNITS / lanes;
        let tiles = (weight.outputs() / groups).div_ceil(bitwise::OUTPUTS);
        let any = || nothing(client);
        // SAFETY: positions, groups and outputs are compared with their number before anything is
        // written; units without work read the first patch.
        unsafe {
            bitwise::product::launch_unchecked(
                client,
                cubes(positions.div_ceil(rows) * tiles * groups),
                CubeDim::new_2d(lanes as u32, rows as u32),
                buffer(&patches, words),
                weight.bits(),
                levels.into(),
                affine(self.scale, self.offset, weight.outputs(), any),
                self.output,
                shape.window(weight),
                groups as u32,
                bits,
                lanes,
            );
        }
    }
}
