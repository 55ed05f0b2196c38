//! The part of CBOR (RFC 8949) that packed files use, read in one pass without memory: integers in
//! their shortest form, text, floats of 32 bits, arrays and maps of definite length.

use alloc::vec::Vec;

use super::{Flaw, Malformed};

const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

/// What the head of a float of 32 bits says.
const SINGLE: u8 = 26;

/// How deep what is skipped may be nested.
const DEPTH: usize = 16;

/// Items that have their room before they are read.
pub(super) const FEW: usize = 16;

/// That something is wrong: the reader [keeps](Reader::malformed) what, so that results fit registers.
#[derive(Debug)]
pub(super) struct Wrong;

pub(super) type Result<T> = core::result::Result<T, Wrong>;

/// Items that come next.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    malformed: Malformed,
}

/// A map whose keys are integers in ascending order.
pub(super) struct Keys {
    left: usize,
    next: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            malformed: Malformed {
                at: 0,
                flaw: Flaw::End,
            },
        }
    }

    /// The place of the next item.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// That something is wrong at a place.
    pub(super) fn wrong(&mut self, at: usize, flaw: Flaw) -> Wrong {
        self.malformed = Malformed { at, flaw };
        Wrong
    }

    /// What was wrong last.
    pub(super) fn malformed(&self) -> Malformed {
        self.malformed
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        match self.bytes[self.at..].get(..count) {
            Some(taken) => {
                self.at += count;
                Ok(taken)
            }
            None => Err(self.wrong(self.at, Flaw::End)),
        }
    }

    /// Kind and argument of the next item.
    fn head(&mut self) -> Result<(u8, u64)> {
        let start = self.at;
        let first = self.take(1)?[0];
        let short = first & 31;
        let count = match short {
            ..24 => return Ok((first >> 5, short.into())),
            24..28 => 1 << (short - 24),
            _ => return Err(self.wrong(start, Flaw::Indefinite)),
        };
        let bytes = self.take(count)?;
        let argument = bytes.iter().fold(0, |n, &byte| n << 8 | u64::from(byte));
        // The half of the bytes that a shorter form has, or the five bits of the head.
        let is_longer = match count {
            1 => argument < 24,
            _ => argument >> (4 * count) == 0,
        };
        if is_longer && first >> 5 != SIMPLE {
            return Err(self.wrong(start, Flaw::Longer));
        }
        Ok((first >> 5, argument))
    }

    /// The argument of an item of this kind.
    fn of(&mut self, kind: u8, otherwise: Flaw) -> Result<u64> {
        let start = self.at;
        match self.head()? {
            (found, argument) if found == kind => Ok(argument),
            _ => Err(self.wrong(start, otherwise)),
        }
    }

    /// As many bytes or items as follow; an item has a byte at least.
    fn within(&mut self, start: usize, count: u64) -> Result<usize> {
        match usize::try_from(count) {
            Ok(count) if count <= self.bytes.len() - self.at => Ok(count),
            _ => Err(self.wrong(start, Flaw::Length)),
        }
    }

    /// How many bytes or items follow.
    fn count(&mut self, kind: u8, otherwise: Flaw) -> Result<usize> {
        let start = self.at;
        let count = self.of(kind, otherwise)?;
        self.within(start, count)
    }

    /// An unsigned integer.
    pub(super) fn at_most(&mut self, most: usize) -> Result<usize> {
        let start = self.at;
        let number = self.of(UNSIGNED, Flaw::NoNumber)?;
        match usize::try_from(number) {
            Ok(number) if number <= most => Ok(number),
            _ => Err(self.wrong(start, Flaw::Large)),
        }
    }

    /// An unsigned integer that fits the address space.
    pub(super) fn size(&mut self) -> Result<usize> {
        self.at_most(usize::MAX)
    }

    /// A float of 32 bits.
    pub(super) fn f32(&mut self) -> Result<f32> {
        let start = self.at;
        if self.take(1)?[0] != SIMPLE << 5 | SINGLE {
            return Err(self.wrong(start, Flaw::NoFloat));
        }
        let bytes = self.take(4)?;
        let bits = bytes.iter().fold(0, |n, &byte| n << 8 | u32::from(byte));
        Ok(f32::from_bits(bits))
    }

    pub(super) fn text(&mut self) -> Result<&'a str> {
        let count = self.count(TEXT, Flaw::NoText)?;
        let start = self.at;
        let bytes = self.take(count)?;
        match core::str::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(_) => Err(self.wrong(start, Flaw::Utf8)),
        }
    }

    /// How many items of an array follow.
    pub(super) fn array(&mut self) -> Result<usize> {
        self.count(ARRAY, Flaw::NoArray)
    }

    /// The items of an array that is not empty.
    pub(super) fn items<T>(&mut self, item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let start = self.at;
        let items = self.any_items(item)?;
        match items.is_empty() {
            true => Err(self.wrong(start, Flaw::EmptyArray)),
            false => Ok(items),
        }
    }

    /// The items of an array.
    pub(super) fn any_items<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let count = self.array()?;
        // Few take their room once; of more, the file may only claim that it has them.
        let mut items = Vec::with_capacity(count.min(FEW));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    pub(super) fn sizes(&mut self) -> Result<Vec<usize>> {
        self.any_items(Self::size)
    }

    /// As many sizes as there is room.
    pub(super) fn exactly(&mut self, sizes: &mut [usize]) -> Result<()> {
        let start = self.at;
        if self.array()? != sizes.len() {
            return Err(self.wrong(start, Flaw::OtherLength));
        }
        for size in sizes {
            *size = self.size()?;
        }
        Ok(())
    }

    /// How many pairs of a map follow.
    pub(super) fn map(&mut self) -> Result<usize> {
        self.count(MAP, Flaw::NoMap)
    }

    pub(super) fn keys(&mut self) -> Result<Keys> {
        let left = self.map()?;
        Ok(Keys { left, next: 0 })
    }

    /// The next key of a map.
    pub(super) fn key(&mut self, keys: &mut Keys) -> Result<Option<usize>> {
        if keys.left == 0 {
            return Ok(None);
        }
        keys.left -= 1;
        let start = self.at;
        let key = self.of(UNSIGNED, Flaw::NoKey)?;
        // None is near the address space, and what is beyond it is as unknown as its end.
        let key = usize::try_from(key).unwrap_or(usize::MAX);
        if key < keys.next {
            return Err(self.wrong(start, Flaw::Misplaced));
        }
        keys.next = key.saturating_add(1);
        Ok(Some(key))
    }

    /// Leaves an item of any kind out.
    pub(super) fn skip(&mut self) -> Result<()> {
        self.skip_nested(DEPTH)
    }

    fn skip_nested(&mut self, depth: usize) -> Result<()> {
        let start = self.at;
        let Some(depth) = depth.checked_sub(1) else {
            return Err(self.wrong(start, Flaw::Deep));
        };
        let (kind, argument) = self.head()?;
        let items = match kind {
            BYTES | TEXT => {
                let count = self.within(start, argument)?;
                self.take(count)?;
                0
            }
            ARRAY => self.within(start, argument)?,
            MAP => 2 * self.within(start, argument)?,
            TAG => 1,
            _ => 0,
        };
        for _ in 0..items {
            self.skip_nested(depth)?;
        }
        Ok(())
    }

    /// That nothing follows.
    pub(super) fn end(&mut self) -> Result<()> {
        match self.at < self.bytes.len() {
            true => Err(self.wrong(self.at, Flaw::Behind)),
            false => Ok(()),
        }
    }
}

/// Appends items.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    fn head(&mut self, kind: u8, argument: u64) {
        let kind = kind << 5;
        match argument {
            ..24 => self.0.push(kind | argument as u8),
            24..0x100 => self.0.extend([kind | 24, argument as u8]),
            0x100..0x1_0000 => {
                self.0.push(kind | 25);
                self.0.extend((argument as u16).to_be_bytes());
            }
            0x1_0000..0x1_0000_0000 => {
                self.0.push(kind | 26);
                self.0.extend((argument as u32).to_be_bytes());
            }
            _ => {
                self.0.push(kind | 27);
                self.0.extend(argument.to_be_bytes());
            }
        }
    }

    pub(super) fn uint(&mut self, number: impl TryInto<u64>) {
        // Sizes have 64 bits at most.
        self.head(UNSIGNED, number.try_into().unwrap_or(u64::MAX));
    }

    pub(super) fn f32(&mut self, number: f32) {
        self.0.push(SIMPLE << 5 | SINGLE);
        self.0.extend(number.to_be_bytes());
    }

    pub(super) fn text(&mut self, text: &str) {
        self.head(TEXT, text.len() as u64);
        self.0.extend(text.as_bytes());
    }

    pub(super) fn array<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) {
        self.head(ARRAY, items.len() as u64);
        for each in items {
            item(self, each);
        }
    }

    pub(super) fn sizes(&mut self, sizes: &[usize]) {
        self.array(sizes, |writer, &size| writer.uint(size as u64));
    }

    /// A map of integers to what `fill` writes.
    pub(super) fn keys(&mut self, fill: impl FnOnce(&mut KeyWriter<'_>)) {
        let start = self.0.len();
        let mut keys = KeyWriter {
            writer: self,
            count: 0,
        };
        fill(&mut keys);
        let count = keys.count;
        assert!(count < 24, "the head of a map is a byte");
        self.0.insert(start, MAP << 5 | count);
    }

    /// The metadata of a container with one tensor of bytes.
    pub(super) fn tensor(&mut self, name: &str, bytes: usize) {
        self.head(MAP, 1);
        self.text("tensors");
        self.head(MAP, 1);
        self.text(name);
        self.head(MAP, 3);
        self.text("dtype");
        self.text("U8");
        self.text("shape");
        self.sizes(&[bytes]);
        self.text("data_offsets");
        self.sizes(&[0, bytes]);
    }

    pub(super) fn texts(&mut self, pairs: &[(&str, &str)]) {
        self.head(MAP, pairs.len() as u64);
        for (key, value) in pairs {
            self.text(key);
            self.text(value);
        }
    }
}

/// Appends to a map.
pub(super) struct KeyWriter<'a> {
    writer: &'a mut Writer,
    count: u8,
}

impl KeyWriter<'_> {
    /// The place for a key's value. Keys ascend.
    pub(super) fn at(&mut self, key: u8) -> &mut Writer {
        self.count += 1;
        self.writer.uint(key);
        self.writer
    }

    /// The value of a key, if there is one.
    pub(super) fn maybe<T>(
        &mut self,
        key: u8,
        value: Option<T>,
        write: impl FnOnce(&mut Writer, T),
    ) {
        if let Some(value) = value {
            write(self.at(key), value);
        }
    }

    /// The value of a key, unless it is what is left out.
    pub(super) fn unless<T: PartialEq>(
        &mut self,
        none: T,
        key: u8,
        value: T,
        write: impl FnOnce(&mut Writer, T),
    ) {
        if value != none {
            write(self.at(key), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_in_their_shortest_form() {
        let numbers = [0, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX)];
        for number in numbers.into_iter().chain([1 << 32, u64::MAX]) {
            let mut writer = Writer::default();
            writer.uint(number);
            let found = Reader::new(&writer.0).of(UNSIGNED, Flaw::NoNumber).unwrap();
            assert_eq!(found, number);
        }
        for long in [&b"\x18\x17"[..], b"\x19\0\xff", b"\x1a\0\0\xff\xff"] {
            let mut reader = Reader::new(long);
            assert!(reader.size().is_err());
            assert_eq!(reader.malformed().flaw, Flaw::Longer, "{long:?}");
        }
        for open in [&b"\x1f"[..], b"\x1c", b"\x9f", b"\xff"] {
            assert!(Reader::new(open).skip().is_err());
        }
    }

    #[test]
    fn everything_can_be_skipped_but_what_never_ends() {
        let whole = b"\xa2\x61a\x82\x01\xfb\0\0\0\0\0\0\0\0\xd9\x01\x02\x41x\xf6\x00";
        let mut reader = Reader::new(whole);
        reader.skip().unwrap();
        assert_eq!(reader.at, whole.len() - 1);
        for cut in 0..whole.len() - 1 {
            assert!(Reader::new(&whole[..cut]).skip().is_err(), "{cut}");
        }
        let deep = [0x81; 100];
        assert!(Reader::new(&deep).skip().is_err());
        assert!(
            Reader::new(b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff")
                .skip()
                .is_err()
        );
    }

    #[test]
    fn keys_ascend() {
        let keys = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            let mut keys = reader.keys()?;
            let mut found = Vec::new();
            while let Some(key) = reader.key(&mut keys)? {
                found.push(key);
            }
            Ok::<_, Wrong>(found)
        };
        assert_eq!(keys(b"\xa2\x00\x05").unwrap(), [0, 5]);
        for wrong in [&b"\xa2\x05\x05"[..], b"\xa2\x05\x00", b"\xa1\x61a"] {
            assert!(keys(wrong).is_err());
        }
    }
}
