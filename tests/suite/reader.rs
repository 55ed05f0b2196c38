//! A second reader of packed files, written from `FORMAT.md` alone: no crate of ours, no burn-pack.

use std::collections::BTreeMap;

use miniz_oxide::inflate::decompress_to_vec_with_limit;
use serde_json::Value;

/// A model as the page describes it.
#[derive(Debug, Default)]
pub struct Model {
    pub weights: Vec<Weight>,
    pub tensors: Vec<Plain>,
    pub config: BTreeMap<String, String>,
}

/// A multi-bit weight.
#[derive(Debug)]
pub struct Weight {
    pub path: String,
    pub shape: Vec<usize>,
    pub widths: Vec<u8>,
    /// Dense, row-major.
    pub values: Vec<f32>,
}

/// Any other tensor.
#[derive(Debug)]
pub struct Plain {
    pub path: String,
    pub shape: Vec<usize>,
    pub dtype: String,
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

    /// A value in CBOR (RFC 8949), of the kinds that the metadata has.
    fn cbor(&mut self) -> Result<Value> {
        let first = self.take(1)?[0];
        let argument = match first & 31 {
            small @ 0..24 => u64::from(small),
            long @ 24..28 => self
                .take(1 << (long - 24))?
                .iter()
                .fold(0, |value, &byte| value << 8 | u64::from(byte)),
            _ => return Err("a length that is not given".into()),
        };
        let count = argument as usize;
        Ok(match first >> 5 {
            0 => argument.into(),
            1 => (-1 - argument as i64).into(),
            3 => {
                let text = self.take(count)?.to_vec();
                String::from_utf8(text).map_err(|e| e.to_string())?.into()
            }
            4 => (0..count)
                .map(|_| self.cbor())
                .collect::<Result<Vec<Value>>>()?
                .into(),
            5 => {
                let mut map = serde_json::Map::new();
                for _ in 0..count {
                    let key = self.cbor()?;
                    let key = key.as_str().ok_or("a key that is no text")?.to_string();
                    map.insert(key, self.cbor()?);
                }
                map.into()
            }
            _ => return Err("a kind of value that no metadata has".into()),
        })
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

fn text(value: &Value, key: &str) -> Result<String> {
    let text = value[key].as_str().ok_or(format!("no {key}"))?;
    Ok(text.to_string())
}

fn number(value: &Value, key: &str) -> Result<usize> {
    let number = value[key].as_u64().ok_or(format!("no {key}"))?;
    Ok(number as usize)
}

fn numbers(value: &Value) -> Result<Vec<usize>> {
    let list = value.as_array().ok_or("no list")?.iter();
    let list = list.map(|value| value.as_u64().map(|number| number as usize));
    list.collect::<Option<_>>().ok_or("no number".into())
}

/// A file of any version.
pub fn read(bytes: &[u8]) -> Result<Model> {
    let mut input = Input(bytes);
    check(input.take(4)? == b"NRUB", "another kind of file")?;
    check(input.take(2)?[1] == 0, "a newer container")?;
    let length = input.u32()? as usize;
    let metadata = Input(input.take(length)?).cbor()?;
    let data = bytes
        .get((10 + length).div_ceil(256) * 256..)
        .unwrap_or(&[]);
    let mut tensors = BTreeMap::new();
    for (name, tensor) in metadata["tensors"].as_object().ok_or("no tensors")? {
        let range = numbers(&tensor["data_offsets"])?;
        let part = data.get(range[0]..range[1]).ok_or("data beyond the file")?;
        tensors.insert(name.as_str(), (tensor, part));
    }
    let Some(directory) = metadata["metadata"]["burn-alq.directory"].as_str() else {
        let (_, body) = tensors.get("burn-alq").ok_or("not a packed model")?;
        return compact(body);
    };
    let checksum = &metadata["scalars"]["burn-alq.directory.crc32"]["UInt"];
    check(
        *checksum == crc32(directory.as_bytes()),
        "a damaged directory",
    )?;
    let directory: Value = serde_json::from_str(directory).map_err(|e| e.to_string())?;
    check(directory["format"] == "burn-alq", "another format")?;
    let version = number(&directory, "version")?;
    check([1, 2, 4].contains(&version), "a newer version")?;
    let mut model = Model {
        config: config(&directory),
        ..Model::default()
    };
    let mut take = |entry: &Value| {
        let path = text(entry, "path")?;
        let (tensor, part) = tensors.remove(path.as_str()).ok_or("a missing tensor")?;
        check(entry["crc32"] == crc32(part), "a damaged tensor")?;
        Ok::<_, String>((path, tensor, part))
    };
    for entry in directory["weights"].as_array().ok_or("no weights")? {
        let (path, _, part) = take(entry)?;
        let [plain, stored] = lengths(entry)?;
        check(stored.iter().sum::<usize>() == part.len(), "other sections")?;
        model
            .weights
            .push(weight(path, entry, &mut Input(part), plain, stored)?);
    }
    for entry in directory["tensors"].as_array().ok_or("no tensors")? {
        let (path, tensor, part) = take(entry)?;
        if version == 4 {
            let same = entry["shape"] == tensor["shape"] && entry["dtype"] == tensor["dtype"];
            check(same, "another shape or type")?;
        }
        model.tensors.push(Plain {
            path,
            shape: numbers(&tensor["shape"])?,
            dtype: tensor["dtype"].to_string(),
            bytes: part.to_vec(),
        });
    }
    check(tensors.is_empty(), "a tensor of no entry")?;
    Ok(model)
}

fn config(directory: &Value) -> BTreeMap<String, String> {
    let pairs = directory["config"].as_object().into_iter().flatten();
    pairs
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_string()))
        .collect()
}

/// Version 3.
fn compact(body: &[u8]) -> Result<Model> {
    let mut input = Input(body);
    check(input.u32()? == crc32(&body[4..]), "a damaged file")?;
    let (stored, plain) = (input.u32()? as usize, input.u32()? as usize);
    let directory = section(input.take(stored)?, plain)?;
    let directory: Value = serde_json::from_slice(&directory).map_err(|e| e.to_string())?;
    check(directory["version"] == 3, "another version")?;
    let mut model = Model {
        config: config(&directory),
        ..Model::default()
    };
    for entry in directory["weights"].as_array().ok_or("no weights")? {
        let [plain, stored] = lengths(entry)?;
        let path = text(entry, "path")?;
        model
            .weights
            .push(weight(path, entry, &mut input, plain, stored)?);
    }
    for entry in directory["tensors"].as_array().ok_or("no tensors")? {
        model.tensors.push(tensor(entry, &mut input)?);
    }
    check(input.0.is_empty(), "bytes of no tensor")?;
    Ok(model)
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

/// Bytes of the three sections, plain and as they are stored.
fn lengths(entry: &Value) -> Result<[Vec<usize>; 2]> {
    let (k, len) = (number(entry, "coordinates")?, number(entry, "len")?);
    let groups = numbers(&entry["shape"])?.iter().product::<usize>() / len;
    let coordinate = if entry["coordinate_type"].is_null() {
        4
    } else {
        2
    };
    let widths = groups * number(entry, "width_bits")?;
    let plain = vec![coordinate * k, (k * len).div_ceil(8), widths.div_ceil(8)];
    let stored = match entry["stored"].is_null() {
        true => plain.clone(),
        false => numbers(&entry["stored"])?,
    };
    Ok([plain, stored])
}

/// Bits from the lowest up.
fn bits(bytes: &[u8], start: usize, count: usize) -> usize {
    (0..count).fold(0, |value, i| {
        let bit = bytes[(start + i) / 8] >> ((start + i) % 8) & 1;
        value | usize::from(bit) << i
    })
}

/// A number in two bytes.
fn half(bytes: &[u8], kind: &str) -> f32 {
    let bits = u32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    if kind == "bf16" {
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

fn weight(
    path: String,
    entry: &Value,
    input: &mut Input<'_>,
    plain: Vec<usize>,
    stored: Vec<usize>,
) -> Result<Weight> {
    let mut sections = Vec::new();
    for (plain, stored) in plain.into_iter().zip(stored) {
        sections.push(section(input.take(stored)?, plain)?);
    }
    let (shape, axes) = (numbers(&entry["shape"])?, numbers(&entry["axes"])?);
    let (len, width_bits) = (number(entry, "len")?, number(entry, "width_bits")?);
    let count: usize = shape.iter().product();
    let kind = entry["coordinate_type"].as_str();
    let coordinates: Vec<f32> = match kind {
        None => sections[0]
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")))
            .collect(),
        Some(kind) => sections[0].chunks_exact(2).map(|b| half(b, kind)).collect(),
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
        path,
        shape,
        widths,
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

/// A tensor of version 3.
fn tensor(entry: &Value, input: &mut Input<'_>) -> Result<Plain> {
    let shape = numbers(&entry["shape"])?;
    let dtype = match entry["dtype"].is_null() {
        true => Value::from("F32").to_string(),
        false => entry["dtype"].to_string(),
    };
    let kind = entry["stored_type"].as_str();
    let size = match (kind, dtype.as_str()) {
        (Some(_), _) | (_, r#""F16""# | r#""BF16""#) => 2,
        (_, r#""F64""# | r#""I64""# | r#""U64""#) => 8,
        (_, r#""F32""# | r#""I32""# | r#""U32""# | r#"{"Bool":"U32"}"#) => 4,
        _ => 1,
    };
    let plain = shape.iter().product::<usize>() * size;
    let stored = match entry["stored"].is_null() {
        true => plain,
        false => number(entry, "stored")?,
    };
    let mut bytes = section(input.take(stored)?, plain)?;
    if let Some(kind) = kind {
        let values = bytes.chunks_exact(2).map(|bytes| half(bytes, kind));
        bytes = values.flat_map(f32::to_le_bytes).collect();
    }
    Ok(Plain {
        path: text(entry, "path")?,
        shape,
        dtype,
        bytes,
    })
}
