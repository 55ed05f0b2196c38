//! A second reader of packed files, written from `FORMAT.md` alone: no crate of ours, no burn-pack.

use std::collections::BTreeMap;

use ciborium::Value;
use miniz_oxide::inflate::decompress_to_vec_with_limit;

/// A model as the page describes it.
#[derive(Debug, Default)]
pub struct Model {
    pub weights: Vec<Weight>,
    pub tensors: Vec<Plain>,
    pub config: BTreeMap<String, String>,
    pub tied: BTreeMap<String, String>,
}

/// A multi-bit weight.
#[derive(Debug)]
pub struct Weight {
    pub path: String,
    pub shape: Vec<usize>,
    pub widths: Vec<u8>,
    /// By its code.
    pub arithmetic: Option<u64>,
    /// Dense, row-major.
    pub values: Vec<f32>,
}

/// Any other tensor.
#[derive(Debug)]
pub struct Plain {
    pub path: String,
    pub shape: Vec<usize>,
    /// By its code.
    pub dtype: u64,
    pub bytes: Vec<u8>,
}

type Result<T> = std::result::Result<T, String>;

fn check(holds: bool, what: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(what.to_string()) }
}

/// Bytes with a place to read on from.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("the bytes end")?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    }

    fn u64(&mut self) -> Result<usize> {
        let bytes = self.take(8)?.try_into().expect("eight bytes");
        usize::try_from(u64::from_le_bytes(bytes)).map_err(|e| e.to_string())
    }
}

/// CRC-32 of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// A value in CBOR that takes all of the bytes.
fn cbor(mut bytes: &[u8]) -> Result<Value> {
    let value = ciborium::from_reader(&mut bytes).map_err(|e| e.to_string())?;
    check(bytes.is_empty(), "bytes behind the value")?;
    Ok(value)
}

/// The value of a key, if the map has it.
fn get(map: &Value, key: impl Into<Value>) -> Option<&Value> {
    let key = key.into();
    let mut pairs = map.as_map()?.iter();
    pairs
        .find(|(other, _)| *other == key)
        .map(|(_, value)| value)
}

fn field(map: &Value, key: u64) -> Result<&Value> {
    get(map, key).ok_or(format!("no {key}"))
}

fn text(value: &Value) -> Result<String> {
    Ok(value.as_text().ok_or("no text")?.to_string())
}

fn number(value: &Value) -> Result<u64> {
    let number = value.as_integer().ok_or("no number")?;
    u64::try_from(number).map_err(|e| e.to_string())
}

fn length(value: &Value) -> Result<usize> {
    usize::try_from(number(value)?).map_err(|e| e.to_string())
}

fn list(value: &Value) -> Result<&[Value]> {
    Ok(value.as_array().ok_or("no list")?)
}

fn lengths(value: &Value) -> Result<Vec<usize>> {
    list(value)?.iter().map(length).collect()
}

/// A number that is 0 where it is left out.
fn code(map: &Value, key: u64) -> Result<u64> {
    get(map, key).map_or(Ok(0), number)
}

/// A file.
pub fn read(bytes: &[u8]) -> Result<Model> {
    let mut input = Input(bytes);
    check(input.take(4)? == b"NRUB", "another kind of file")?;
    check(input.take(2)?[1] == 0, "a newer container")?;
    let metadata = input.u32()? as usize;
    let start = (10 + metadata).div_ceil(256) * 256;
    let metadata = cbor(input.take(metadata)?)?;
    let tensors = get(&metadata, "tensors").ok_or("no tensors")?;
    let place = get(tensors, "burn-alq").ok_or("not a packed model")?;
    let range = lengths(get(place, "data_offsets").ok_or("no place")?)?;
    let body = bytes.get(start + range[0]..start + range[1]);
    let body = body.ok_or("data beyond the file")?;

    let mut input = Input(body);
    let checksum = input.u32()?;
    check(input.take(2)? == [1, 0], "another version")?;
    let plain_file = match input.take(2)? {
        [0, 0] => true,
        [1, 0] => false,
        _ => return Err("another coding".into()),
    };
    let (stored, plain) = (input.u64()?, input.u64()?);
    let directory = input.take(stored)?;
    let end = 24 + stored;
    let covered = if plain_file { end } else { body.len() };
    check(checksum == crc32(&body[4..covered]), "a damaged file")?;
    let directory = cbor(&section(directory, plain)?)?;
    let mut data = Data {
        body,
        end,
        plain_file,
    };
    let mut model = Model::default();
    for entry in list(field(&directory, 0)?)? {
        model.weights.push(weight(entry, &mut data)?);
    }
    for entry in list(field(&directory, 1)?)? {
        model.tensors.push(tensor(entry, &mut data)?);
    }
    for (key, texts) in [(2, &mut model.config), (3, &mut model.tied)] {
        let map = get(&directory, key).and_then(Value::as_map);
        for (key, value) in map.into_iter().flatten() {
            texts.insert(text(key)?, text(value)?);
        }
    }
    check(data.end == body.len(), "bytes of no tensor")?;
    Ok(model)
}

/// Sections, one after the other.
struct Data<'a> {
    body: &'a [u8],
    end: usize,
    plain_file: bool,
}

impl Data<'_> {
    /// The sections of an entry, inflated.
    fn sections(
        &mut self,
        entry: &Value,
        plain: &[usize],
        stored: &[usize],
    ) -> Result<Vec<Vec<u8>>> {
        let (mut all, mut sections) = (Vec::new(), Vec::new());
        for (&plain, &stored) in plain.iter().zip(stored) {
            let boundary = if self.plain_file { 64 } else { 1 };
            let start = self.end.div_ceil(boundary) * boundary;
            let bytes = self
                .body
                .get(start..start + stored)
                .ok_or("the bytes end")?;
            all.extend_from_slice(bytes);
            sections.push(section(bytes, plain)?);
            self.end = start + stored;
        }
        if self.plain_file {
            let checksum = number(field(entry, 2)?)?;
            check(checksum == u64::from(crc32(&all)), "a damaged tensor")?;
        }
        Ok(sections)
    }
}

/// A section of `plain` bytes, deflated if it has fewer.
fn section(stored: &[u8], plain: usize) -> Result<Vec<u8>> {
    if stored.len() == plain {
        return Ok(stored.to_vec());
    }
    check(stored.len() < plain, "a section that is too long")?;
    let inflated = decompress_to_vec_with_limit(stored, plain).map_err(|e| e.to_string())?;
    check(inflated.len() == plain, "a section of another length")?;
    Ok(inflated)
}

/// Bits from the lowest up.
fn bits(bytes: &[u8], start: usize, count: usize) -> usize {
    (0..count).fold(0, |value, i| {
        let bit = bytes[(start + i) / 8] >> ((start + i) % 8) & 1;
        value | usize::from(bit) << i
    })
}

/// A number in two bytes, of a stored type.
fn half(bytes: &[u8], kind: u64) -> f32 {
    let bits = u32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    if kind == 2 {
        return f32::from_bits(bits << 16);
    }
    let (sign, exponent, fraction) = (bits >> 15, bits >> 10 & 31, bits & 1023);
    let sign = if sign == 1 { -1.0 } else { 1.0 };
    sign * match (exponent, fraction) {
        (31, 0) => f32::INFINITY,
        (31, _) => f32::NAN,
        (0, _) => fraction as f32 * 2.0_f32.powi(-24),
        _ => (1024 + fraction) as f32 * 2.0_f32.powi(exponent as i32 - 25),
    }
}

fn weight(entry: &Value, data: &mut Data<'_>) -> Result<Weight> {
    let (shape, axes) = (lengths(field(entry, 1)?)?, lengths(field(entry, 3)?)?);
    let (len, k) = (length(field(entry, 4)?)?, length(field(entry, 5)?)?);
    let (width_bits, kind) = (length(field(entry, 6)?)?, code(entry, 8)?);
    let count: usize = shape.iter().product();
    let size = if kind == 0 { 4 } else { 2 };
    let widths = count / len * width_bits;
    let plain = [size * k, (k * len).div_ceil(8), widths.div_ceil(8)];
    let stored = get(entry, 9).map_or(Ok(plain.to_vec()), lengths)?;
    let sections = data.sections(entry, &plain, &stored)?;
    let coordinates = sections[0].chunks_exact(size);
    let coordinates: Vec<f32> = if kind == 0 {
        let four = coordinates.map(|b| b.try_into().expect("four bytes"));
        four.map(f32::from_le_bytes).collect()
    } else {
        coordinates.map(|b| half(b, kind)).collect()
    };
    let widths = (0..count / len).map(|group| bits(&sections[2], group * width_bits, width_bits));
    let widths: Vec<u8> = widths.map(|width| width as u8).collect();
    // In the order of the permuted axes, run after run.
    let mut values = vec![0.0_f32; count];
    let mut row = 0;
    for (group, &width) in widths.iter().enumerate() {
        for place in 0..len {
            let mut sum = 0.0_f32;
            for basis in 0..usize::from(width) {
                let negative = bits(&sections[1], (row + basis) * len + place, 1) == 1;
                let coordinate = coordinates[row + basis];
                sum += if negative { -coordinate } else { coordinate };
            }
            values[unpermuted(group * len + place, &shape, &axes)] = sum;
        }
        row += usize::from(width);
    }
    check(row == coordinates.len(), "other widths")?;
    Ok(Weight {
        path: text(field(entry, 0)?)?,
        shape,
        widths,
        arithmetic: get(entry, 10).map(number).transpose()?,
        values,
    })
}

/// Where in a row-major tensor of this shape the element is that is `index`-th when the axes are in
/// another order.
fn unpermuted(mut index: usize, shape: &[usize], axes: &[usize]) -> usize {
    let mut place = 0;
    for &axis in axes.iter().rev() {
        let stride: usize = shape[axis + 1..].iter().product();
        place += index % shape[axis] * stride;
        index /= shape[axis];
    }
    place
}

/// Bytes of a number, by the code of its type.
const SIZES: [usize; 16] = [4, 8, 4, 2, 2, 8, 4, 2, 1, 8, 4, 2, 1, 1, 1, 4];

fn tensor(entry: &Value, data: &mut Data<'_>) -> Result<Plain> {
    let shape = lengths(field(entry, 1)?)?;
    let (dtype, kind) = (code(entry, 7)?, code(entry, 8)?);
    let size = SIZES.get(dtype as usize).ok_or("quantized by Burn")?;
    let size = if kind == 0 { *size } else { 2 };
    let plain = shape.iter().product::<usize>() * size;
    let stored = get(entry, 9).map_or(Ok(plain), length)?;
    let mut bytes = data.sections(entry, &[plain], &[stored])?.remove(0);
    if kind != 0 {
        let values = bytes.chunks_exact(2).map(|bytes| half(bytes, kind));
        bytes = values.flat_map(f32::to_le_bytes).collect();
    }
    Ok(Plain {
        path: text(field(entry, 0)?)?,
        shape,
        dtype,
        bytes,
    })
}
