//! The part of CBOR (RFC 8949) that packed files use, read in one pass without memory: integers in
//! their shortest form, text, floats of 32 bits, arrays and maps of definite length.

use alloc::vec::Vec;

use super::Malformed;

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
const FEW: usize = 16;

type Result<T> = core::result::Result<T, Malformed>;

/// Items that come next.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A map whose keys are integers in ascending order.
pub(super) struct Keys {
    left: usize,
    next: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// That something is wrong here.
    pub(super) fn wrong(&self, reason: &'static str) -> Malformed {
        Malformed {
            at: self.at,
            reason,
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count).ok_or(self.wrong("it ends here"))?;
        self.at += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// Kind and argument of the next item.
    fn head(&mut self) -> Result<(u8, u64)> {
        let start = self.clone();
        let first = self.byte()?;
        let short = first & 31;
        let count = match short {
            ..24 => return Ok((first >> 5, short.into())),
            24..28 => 1 << (short - 24),
            _ => return Err(start.wrong("an item without a definite length")),
        };
        let bytes = self.take(count)?;
        let argument = bytes.iter().fold(0, |n, &byte| n << 8 | u64::from(byte));
        let least = match count {
            1 => 24,
            2 => 1 << 8,
            4 => 1 << 16,
            _ => 1 << 32,
        };
        if argument < least && first >> 5 != SIMPLE {
            return Err(start.wrong("a number that is longer than it must be"));
        }
        Ok((first >> 5, argument))
    }

    /// The argument of an item of this kind.
    fn of(&mut self, kind: u8, otherwise: &'static str) -> Result<u64> {
        let start = self.clone();
        match self.head()? {
            (found, argument) if found == kind => Ok(argument),
            _ => Err(start.wrong(otherwise)),
        }
    }

    /// How many bytes or items follow; an item has a byte at least.
    fn count(&mut self, kind: u8, otherwise: &'static str) -> Result<usize> {
        let start = self.clone();
        let count = self.of(kind, otherwise)?;
        match usize::try_from(count) {
            Ok(count) if count <= self.bytes.len() - self.at => Ok(count),
            _ => Err(start.wrong("a length beyond the end")),
        }
    }

    /// An unsigned integer that fits the address space.
    pub(super) fn size(&mut self) -> Result<usize> {
        let start = self.clone();
        let number = self.of(UNSIGNED, "not an unsigned integer")?;
        usize::try_from(number).map_err(|_| start.wrong("a number beyond the address space"))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        let start = self.clone();
        let number = self.of(UNSIGNED, "not an unsigned integer")?;
        u32::try_from(number).map_err(|_| start.wrong("a number beyond 32 bits"))
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        let start = self.clone();
        let number = self.of(UNSIGNED, "not an unsigned integer")?;
        u8::try_from(number).map_err(|_| start.wrong("a number beyond 8 bits"))
    }

    /// A float of 32 bits.
    pub(super) fn f32(&mut self) -> Result<f32> {
        let start = self.clone();
        if self.byte()? != SIMPLE << 5 | SINGLE {
            return Err(start.wrong("not a float of 32 bits"));
        }
        let bits = self.take(4)?;
        Ok(f32::from_be_bytes(bits.try_into().expect("four bytes")))
    }

    pub(super) fn text(&mut self) -> Result<&'a str> {
        let count = self.count(TEXT, "not a text")?;
        let start = self.clone();
        core::str::from_utf8(self.take(count)?).map_err(|_| start.wrong("text that is not UTF-8"))
    }

    /// How many items of an array follow.
    pub(super) fn array(&mut self) -> Result<usize> {
        self.count(ARRAY, "not an array")
    }

    /// The items of an array that is not empty.
    pub(super) fn items<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let empty = self.wrong("an empty array, which is left out");
        let items = self.any_items(&mut item)?;
        if items.is_empty() {
            Err(empty)
        } else {
            Ok(items)
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

    /// As many sizes as are expected.
    pub(super) fn exactly<const N: usize>(&mut self) -> Result<[usize; N]> {
        let start = self.clone();
        if self.array()? != N {
            return Err(start.wrong("an array of another length"));
        }
        let mut sizes = [0; N];
        for size in &mut sizes {
            *size = self.size()?;
        }
        Ok(sizes)
    }

    /// How many pairs of a map follow.
    pub(super) fn map(&mut self) -> Result<usize> {
        self.count(MAP, "not a map")
    }

    pub(super) fn keys(&mut self) -> Result<Keys> {
        let left = self.map()?;
        Ok(Keys { left, next: 0 })
    }

    /// The next key of a map.
    pub(super) fn key(&mut self, keys: &mut Keys) -> Result<Option<u64>> {
        if keys.left == 0 {
            return Ok(None);
        }
        keys.left -= 1;
        let start = self.clone();
        let key = self.of(UNSIGNED, "a key that is not an unsigned integer")?;
        if key < keys.next {
            return Err(start.wrong("a misplaced key"));
        }
        keys.next = key.saturating_add(1);
        Ok(Some(key))
    }

    /// Leaves an item of any kind out.
    pub(super) fn skip(&mut self) -> Result<()> {
        self.skip_nested(DEPTH)
    }

    fn skip_nested(&mut self, depth: usize) -> Result<()> {
        let start = self.clone();
        let Some(depth) = depth.checked_sub(1) else {
            return Err(start.wrong("nested too deep"));
        };
        let (kind, argument) = self.head()?;
        let count = usize::try_from(argument).ok();
        let count = count.filter(|&count| count <= self.bytes.len() - self.at);
        let too_long = start.wrong("a length beyond the end");
        let items = match kind {
            BYTES | TEXT => {
                self.take(count.ok_or(too_long)?)?;
                0
            }
            ARRAY => count.ok_or(too_long)?,
            MAP => 2 * count.ok_or(too_long)?,
            TAG => 1,
            _ => 0,
        };
        for _ in 0..items {
            self.skip_nested(depth)?;
        }
        Ok(())
    }

    /// That nothing follows.
    pub(super) fn end(&self) -> Result<()> {
        if self.at < self.bytes.len() {
            return Err(self.wrong("bytes behind the end"));
        }
        Ok(())
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
            let found = Reader::new(&writer.0).of(UNSIGNED, "").unwrap();
            assert_eq!(found, number);
        }
        for long in [&b"\x18\x17"[..], b"\x19\0\xff", b"\x1a\0\0\xff\xff"] {
            let error = Reader::new(long).size().unwrap_err();
            assert!(error.reason.contains("longer"), "{error:?}");
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
            Ok::<_, Malformed>(found)
        };
        assert_eq!(keys(b"\xa2\x00\x05").unwrap(), [0, 5]);
        for wrong in [&b"\xa2\x05\x05"[..], b"\xa2\x05\x00", b"\xa1\x61a"] {
            assert!(keys(wrong).is_err());
        }
    }
}
