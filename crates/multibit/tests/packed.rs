//! Packing loses nothing; decoding refuses everything that packing does not make.

mod support;

use multibit::{CoordinateType, DecodeError, Grouping, GroupingError, PackError, PackedWeight};
use support::{Random, State};

/// Random training forms of a shape under all its groupings; all groups empty in some.
fn cases(shape: &[usize]) -> Vec<(Grouping, State)> {
    let mut random = Random::new(shape.iter().product::<usize>() as u64);
    let mut cases = Vec::new();
    for grouping in Grouping::examples(shape) {
        for widest in [0, 1, 3, 6, 8] {
            let groups = grouping.groups(shape);
            let widths: Vec<u8> = (0..groups)
                .map(|_| random.below(widest + 1) as u8)
                .collect();
            let state = State::random(&mut random, grouping.len(), 8, &widths);
            cases.push((grouping.clone(), state));
        }
    }
    cases
}

fn pack(shape: &[usize], grouping: &Grouping, state: &State) -> Result<PackedWeight, PackError> {
    PackedWeight::pack(
        shape,
        grouping.clone(),
        state.max_bits,
        &state.codes,
        &state.coordinates,
        &state.widths,
    )
}

const SHAPES: [&[usize]; 5] = [
    &[12, 5],
    &[130, 3],
    &[3, 4, 5, 5],
    &[2, 65, 1, 1],
    &[4, 3, 7],
];

#[test]
fn packing_loses_nothing() {
    for shape in SHAPES {
        for (grouping, state) in cases(shape) {
            let packed = pack(shape, &grouping, &state).unwrap();
            let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let grouped = state.reconstruct();
            assert_eq!(bits(packed.unpack_grouped()), bits(grouped.clone()));
            let mut weight = vec![0.0; grouped.len()];
            grouping.scatter(shape, &grouped, &mut weight);
            assert_eq!(bits(packed.unpack()), bits(weight));
            let rows: f64 = state.widths.iter().map(|&width| f64::from(width)).sum();
            assert_eq!(packed.average_bits(), rows / state.widths.len() as f64);
            let (codes, coordinates, widths) = packed.to_training_form(8);
            assert_eq!(codes, state.codes);
            assert_eq!(coordinates, state.coordinates);
            assert_eq!(widths, state.widths);
        }
    }
}

#[test]
fn sections_decode_to_the_same_weight() {
    for shape in SHAPES {
        for (grouping, state) in cases(shape) {
            let packed = pack(shape, &grouping, &state).unwrap();
            let (bases, widths) = (packed.encode_bases(), packed.encode_widths());
            let sizes = packed.encoded_bytes();
            assert_eq!(sizes.bases, bases.len());
            assert_eq!(sizes.widths, widths.len());
            assert_eq!(sizes.coordinates, 4 * packed.coordinates().len());
            assert_eq!(
                sizes.total(),
                bases.len() + widths.len() + sizes.coordinates
            );
            let decoded = PackedWeight::decode(
                shape,
                grouping,
                packed.width_bits(),
                &widths,
                packed.coordinates(),
                &bases,
            );
            assert_eq!(decoded, Ok(packed));
        }
    }
}

#[test]
fn a_known_weight() {
    // Two outputs of three inputs: codes of output 0 are 01 10 00, of output 1 none.
    let grouping = Grouping::subchannelwise(&[3, 2], 1).unwrap();
    let packed = PackedWeight::pack(
        &[3, 2],
        grouping,
        3,
        &[0b01, 0b10, 0b00, 0, 0, 0],
        &[0.25, 0.5, 0.0, 0.0, 0.0, 0.0],
        &[2, 0],
    )
    .unwrap();
    assert_eq!(packed.words(), [0b001, 0, 0b010, 0]);
    assert_eq!(packed.row_words(), 2);
    assert_eq!(packed.widths(), [2, 0]);
    assert_eq!(packed.coordinates(), [0.25, 0.5]);
    assert_eq!(packed.unpack(), [0.25, 0.0, -0.25, 0.0, 0.75, 0.0]);
    assert_eq!(packed.encode_bases(), [0b010_001]);
    assert_eq!(packed.width_bits(), 2);
    assert_eq!(packed.encode_widths(), [0b00_10]);
    assert_eq!(packed.average_bits(), 1.0);
    assert_eq!(packed.paper_bits_total(), 2 * (3 + 32));
    assert_eq!(packed.memory_bytes(), 2 + 8 + 16);
}

#[test]
fn outputs_unpack_one_by_one() {
    for shape in SHAPES {
        for (grouping, state) in cases(shape) {
            let packed = pack(shape, &grouping, &state).unwrap();
            let grouped = packed.unpack_grouped();
            let first = packed.first_rows();
            let outputs = shape[grouping.axes()[0]];
            assert_eq!(first.len(), outputs + 1);
            assert_eq!(first[outputs], packed.coordinates().len());
            for (output, expected) in grouped.chunks_exact(grouped.len() / outputs).enumerate() {
                let mut found = vec![f32::NAN; expected.len()];
                packed.unpack_output(output, first[output], &mut found);
                assert_eq!(found, expected, "output {output} of {shape:?}");
            }
        }
    }
}

#[test]
fn coordinates_are_stored_by_a_type_that_holds_them() {
    let (grouping, state) = small();
    let pack = |coordinates: [f32; 4]| {
        let mut state = state.clone();
        state.coordinates = coordinates.to_vec();
        pack(&[3, 2], &grouping, &state).unwrap()
    };
    assert_eq!(
        pack([0.5, 1.0, 0.1, 0.0]).coordinate_type(),
        CoordinateType::F32
    );
    // Eleven and eight significant bits.
    let (f16, bf16) = (1.0 + 1.0 / 1024.0, 1.0 + 1.0 / 128.0);
    let half = pack([0.5, f16, 0.25, 0.0]);
    let stored = half
        .clone()
        .with_coordinate_type(CoordinateType::F16)
        .unwrap();
    assert_eq!(stored.coordinate_type(), CoordinateType::F16);
    assert_eq!(stored.unpack(), half.unpack());
    let error = half.with_coordinate_type(CoordinateType::Bf16).unwrap_err();
    let inexact = PackError::Inexact {
        coordinate: 1,
        value: f16,
        coordinate_type: CoordinateType::Bf16,
    };
    assert_eq!(error, inexact);
    let wide = pack([bf16, 2f32.powi(100), 0.25, 0.0]);
    let stored = wide.clone().with_coordinate_type(CoordinateType::Bf16);
    assert_eq!(stored.unwrap().unpack(), wide.unpack());
    let stored = wide.with_coordinate_type(CoordinateType::F16);
    assert!(stored.is_err(), "2^100 is beyond f16");
}

#[test]
fn the_same_bits_in_another_shape() {
    let shape = [4, 3, 7];
    let two = [4, 3, 1, 7];
    let (grouping, state) = cases(&shape).pop().unwrap();
    let packed = pack(&shape, &grouping, &state).unwrap();
    let other = Grouping::new(vec![0, 3, 2, 1], 21).unwrap();
    let reshaped = packed.reshaped(&two, other.clone()).unwrap();
    assert_eq!((reshaped.shape(), reshaped.grouping()), (&two[..], &other));
    assert_eq!(reshaped.unpack(), packed.unpack());
    assert!(packed.reshaped(&[4, 21], other).is_err());
}

#[test]
fn padding_is_zero() {
    for (grouping, mut state) in cases(&[33, 4]) {
        let (len, state_mut) = (state.len, &mut state.state);
        for (group, codes) in state_mut.codes.chunks_mut(len).enumerate() {
            codes.fill(((1u16 << state_mut.widths[group]) - 1) as u8);
        }
        let packed = pack(&[33, 4], &grouping, &state).unwrap();
        for row in 0..packed.coordinates().len() {
            let ones: u32 = packed.row(row).iter().map(|word| word.count_ones()).sum();
            assert_eq!(ones as usize, grouping.len());
        }
    }
}

/// Six weights in two groups, widths 2 and 1.
fn small() -> (Grouping, State) {
    let grouping = Grouping::subchannelwise(&[3, 2], 1).unwrap();
    let state = State::random(&mut Random::new(7), 3, 2, &[2, 1]);
    (grouping, state)
}

fn pack_error(change: impl FnOnce(&mut State)) -> PackError {
    let (grouping, mut state) = small();
    change(&mut state);
    pack(&[3, 2], &grouping, &state).unwrap_err()
}

#[test]
fn every_pack_error() {
    let (grouping, state) = small();
    let rank = GroupingError::Rank {
        expected: 2,
        found: 1,
    };
    assert_eq!(
        pack(&[6], &grouping, &state).unwrap_err(),
        PackError::Grouping(rank)
    );
    assert_eq!(
        pack_error(|state| state.max_bits = 9),
        PackError::MaxBits { max_bits: 9 }
    );
    assert_eq!(
        pack_error(|state| state.max_bits = 0),
        PackError::MaxBits { max_bits: 0 }
    );
    assert_eq!(
        pack_error(|state| state.codes.truncate(5)),
        PackError::CodeCount {
            expected: 6,
            found: 5
        }
    );
    assert_eq!(
        pack_error(|state| state.coordinates.push(0.0)),
        PackError::CoordinateCount {
            expected: 4,
            found: 5
        }
    );
    assert_eq!(
        pack_error(|state| state.widths.push(0)),
        PackError::WidthCount {
            expected: 2,
            found: 3
        }
    );
    assert_eq!(
        pack_error(|state| state.widths[1] = 3),
        PackError::TooWide {
            group: 1,
            width: 3,
            max_bits: 2
        }
    );
    assert_eq!(
        pack_error(|state| state.codes[4] = 0b10),
        PackError::StrayBits {
            group: 1,
            weight: 1,
            code: 0b10,
            width: 1
        }
    );
    for value in [f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(
            pack_error(|state| state.coordinates[1] = value),
            PackError::NotFinite {
                group: 0,
                slot: 1,
                value
            }
        );
    }
    let nan = pack_error(|state| state.coordinates[2] = f32::NAN);
    assert!(matches!(
        nan,
        PackError::NotFinite {
            group: 1,
            slot: 0,
            ..
        }
    ));
    for value in [0.0, -0.5] {
        assert_eq!(
            pack_error(|state| state.coordinates[1] = value),
            PackError::NotPositive {
                group: 0,
                slot: 1,
                value
            }
        );
    }
    assert_eq!(
        pack_error(|state| state.coordinates[3] = 0.5),
        PackError::NotAbsent {
            group: 1,
            slot: 1,
            value: 0.5
        }
    );
}

/// The sections of a weight, to be damaged one at a time.
#[derive(Clone)]
struct Sections {
    shape: Vec<usize>,
    grouping: Grouping,
    width_bits: u8,
    widths: Vec<u8>,
    coordinates: Vec<f32>,
    bases: Vec<u8>,
}

impl Sections {
    /// Six groups of five, widths 3 0 1 2 3 1: 10 rows, 50 bits of bases, 12 bits of widths.
    fn new() -> Self {
        let shape = vec![10, 3];
        let grouping = Grouping::subchannelwise(&shape, 2).unwrap();
        let state = State::random(&mut Random::new(8), 5, 3, &[3, 0, 1, 2, 3, 1]);
        Self::of(&pack(&shape, &grouping, &state).unwrap())
    }

    fn of(packed: &PackedWeight) -> Self {
        Self {
            shape: packed.shape().to_vec(),
            grouping: packed.grouping().clone(),
            width_bits: packed.width_bits(),
            widths: packed.encode_widths(),
            coordinates: packed.coordinates().to_vec(),
            bases: packed.encode_bases(),
        }
    }

    fn decode(&self) -> Result<PackedWeight, DecodeError> {
        PackedWeight::decode(
            &self.shape,
            self.grouping.clone(),
            self.width_bits,
            &self.widths,
            &self.coordinates,
            &self.bases,
        )
    }

    fn error(change: impl FnOnce(&mut Self)) -> DecodeError {
        let mut sections = Self::new();
        change(&mut sections);
        sections.decode().unwrap_err()
    }
}

/// Found by fuzzing: a weight without a bit, of so many weights that no memory has room for them.
#[test]
fn a_weight_that_no_memory_holds_is_refused() {
    let decode = |groups: usize, len: usize| {
        let grouping = Grouping::new(vec![0, 1], len).unwrap();
        PackedWeight::decode(&[groups, len], grouping, 1, &[0], &[], &[])
    };
    // The bits of a dense weight are the largest number that is asked for.
    let most = usize::MAX / 32;
    for (groups, len) in [(1, usize::MAX / 8), (1, most + 1), (2, most / 2 + 1)] {
        assert_eq!(
            decode(groups, len),
            Err(DecodeError::TooLarge { groups, len })
        );
    }
    assert_eq!(decode(1, most).unwrap().weights(), most);
}

#[test]
fn every_decode_error() {
    type E = DecodeError;
    assert!(Sections::new().decode().is_ok());
    let indivisible = GroupingError::Indivisible { weights: 9, len: 5 };
    assert_eq!(
        Sections::error(|s| s.shape[0] = 9),
        E::Grouping(indivisible)
    );
    assert_eq!(
        Sections::error(|s| s.width_bits = 5),
        E::WidthBits {
            expected: 4,
            found: 5
        }
    );
    assert_eq!(
        Sections::error(|s| s.width_bits = 0),
        E::WidthBits {
            expected: 1,
            found: 0
        }
    );
    assert_eq!(
        Sections::error(|s| s.widths[1] |= 0b1_0000),
        E::WidthPadding
    );
    assert_eq!(
        Sections::error(|s| s.widths[0] ^= 0b11),
        E::CoordinateCount {
            expected: 7,
            found: 10
        }
    );
    assert_eq!(
        Sections::error(|s| s.coordinates[4] = 0.0),
        E::NotPositive {
            coordinate: 4,
            value: 0.0
        }
    );
    assert_eq!(
        Sections::error(|s| s.coordinates[9] = f32::INFINITY),
        E::NotFinite {
            coordinate: 9,
            value: f32::INFINITY
        }
    );
    let nan = Sections::error(|s| s.coordinates[0] = f32::NAN);
    assert!(matches!(nan, E::NotFinite { coordinate: 0, .. }));
    assert_eq!(
        Sections::error(|s| s.bases.push(0)),
        E::BaseBytes {
            expected: 7,
            found: 8
        }
    );
    assert_eq!(
        Sections::error(|s| s.bases[6] |= 0b100),
        E::BasePadding,
        "bit 50 is the first of the padding"
    );
}

#[test]
fn a_width_above_the_largest_is_refused() {
    let grouping = Grouping::subchannelwise(&[1, 2], 1).unwrap();
    let decoded = PackedWeight::decode(&[1, 2], grouping, 4, &[0x91], &[1.0; 10], &[0, 0]);
    assert_eq!(decoded, Err(DecodeError::TooWide { group: 1, width: 9 }));
}

#[test]
fn widths_take_as_many_bits_as_the_largest_needs() {
    let grouping = Grouping::subchannelwise(&[1, 2], 1).unwrap();
    let decoded = PackedWeight::decode(&[1, 2], grouping, 2, &[0b0101], &[1.0; 2], &[0]);
    let error = DecodeError::WidthBits {
        expected: 1,
        found: 2,
    };
    assert_eq!(decoded, Err(error));
}

#[test]
fn a_shape_that_no_section_backs_takes_no_memory() {
    let decode = |shape: &[usize], width_bits| {
        let grouping = Grouping::subchannelwise(shape, shape[0]).unwrap();
        PackedWeight::decode(shape, grouping, width_bits, &[], &[], &[]).unwrap_err()
    };
    let huge = [1 << (usize::BITS / 2), 1 << (usize::BITS / 2 - 6)];
    let groups = huge[0] * huge[1];
    let expected = groups / 8;
    assert_eq!(
        decode(&huge, 1),
        DecodeError::WidthBytes { expected, found: 0 }
    );
    let huge = [1 << (usize::BITS / 2), 1 << (usize::BITS / 2 - 1)];
    let groups = huge[0] * huge[1];
    assert_eq!(
        decode(&huge, 4),
        DecodeError::TooLarge { groups, len: 1 },
        "the number of bits overflows"
    );
}

#[test]
fn every_truncation_is_an_error() {
    let whole = Sections::new();
    for len in 0..whole.bases.len() {
        let mut cut = whole.clone();
        cut.bases.truncate(len);
        assert!(cut.decode().is_err(), "{len} bytes of bases");
    }
    for len in 0..whole.widths.len() {
        let mut cut = whole.clone();
        cut.widths.truncate(len);
        assert!(cut.decode().is_err(), "{len} bytes of widths");
    }
    for len in 0..whole.coordinates.len() {
        let mut cut = whole.clone();
        cut.coordinates.truncate(len);
        assert!(cut.decode().is_err(), "{len} coordinates");
    }
}

/// One section of a weight, damaged a little.
fn damage(random: &mut Random, sections: &mut Sections) {
    let byte = random.next() as u8;
    let flip = |random: &mut Random, bytes: &mut Vec<u8>| match random.below(4) {
        0 => bytes.push(byte),
        1 => drop(bytes.pop()),
        _ if bytes.is_empty() => {}
        _ => {
            let place = random.below(bytes.len());
            bytes[place] ^= 1 << (byte % 8);
        }
    };
    match random.below(8) {
        0 => sections.width_bits = byte % 8,
        1 => {
            let axis = random.below(sections.shape.len());
            sections.shape[axis] = random.below(9);
        }
        2 | 3 => flip(random, &mut sections.widths),
        4 => sections.coordinates.resize(random.below(16), 0.5),
        5 => {
            let bits = f32::from_bits(random.next() as u32);
            sections.coordinates.fill(bits);
        }
        _ => flip(random, &mut sections.bases),
    }
}

/// The property that `fuzz/` looks for faults in: what decodes is the one weight of its sections.
#[test]
fn damaged_sections_are_refused_or_another_weight() {
    let mut random = Random::new(9);
    let (mut decoded, mut refused) = (0, 0);
    // Under Miri a few; they are plain safe code.
    let each = if cfg!(miri) { 2 } else { 400 };
    for shape in SHAPES {
        for (grouping, state) in cases(shape) {
            let packed = pack(shape, &grouping, &state).unwrap();
            for _ in 0..each {
                let mut sections = Sections::of(&packed);
                for _ in 0..1 + random.below(3) {
                    damage(&mut random, &mut sections);
                }
                let Ok(weight) = sections.decode() else {
                    refused += 1;
                    continue;
                };
                decoded += 1;
                assert_eq!(weight.width_bits(), sections.width_bits);
                assert_eq!(weight.encode_bases(), sections.bases);
                assert_eq!(weight.encode_widths(), sections.widths);
                assert_eq!(weight.coordinates(), sections.coordinates);
                let (codes, coordinates, widths) = weight.to_training_form(8);
                let grouping = weight.grouping().clone();
                let again =
                    PackedWeight::pack(weight.shape(), grouping, 8, &codes, &coordinates, &widths);
                assert_eq!(again, Ok(weight));
            }
        }
    }
    assert!(decoded > each && refused > each, "{decoded} and {refused}");
}

#[test]
#[should_panic(expected = "a group has 2 bits, `max_bits` is 1")]
fn a_training_form_that_is_too_narrow_is_refused() {
    let (grouping, state) = small();
    pack(&[3, 2], &grouping, &state)
        .unwrap()
        .to_training_form(1);
}
