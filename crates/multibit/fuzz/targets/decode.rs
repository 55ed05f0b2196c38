//! The sections of a packed weight. What decodes must encode to the same sections, and be the same
//! weight when packed from its training form.

#![no_main]

use libfuzzer_sys::fuzz_target;
use multibit::{CoordinateType, Grouping, PackedWeight};
use multibit_fuzz::bounded;

/// Takes bytes off the front; zeros after the end.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> usize {
        match self.0.split_first() {
            Some((&byte, rest)) => {
                self.0 = rest;
                usize::from(byte)
            }
            None => 0,
        }
    }

    /// Mostly small; now and then so large that products overflow.
    fn size(&mut self) -> usize {
        match self.byte() {
            255 => usize::MAX >> self.byte() % 64,
            byte => byte,
        }
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let rank = input.byte() % 5;
    let shape: Vec<usize> = (0..rank).map(|_| input.size()).collect();
    let axes = match input.byte() % 4 {
        0 => (0..rank).map(|_| input.byte() % 5).collect(),
        1 => (0..rank).rev().collect(),
        _ => (0..rank).collect(),
    };
    let Ok(grouping) = Grouping::new(axes, input.size()) else {
        return;
    };
    let width_bits = (input.byte() % 6) as u8;
    let (widths, coordinates) = (input.byte(), input.byte());
    let widths = input.take(widths);
    let kind = match input.byte() % 3 {
        0 => CoordinateType::F32,
        1 => CoordinateType::F16,
        _ => CoordinateType::Bf16,
    };
    let coordinates = kind.decode(input.take(coordinates));
    let bases = input.0;
    let len = bytes.len();
    let decoded = bounded(len, || {
        PackedWeight::decode(
            &shape,
            grouping.clone(),
            width_bits,
            widths,
            &coordinates,
            bases,
        )
    });
    let Ok(weight) = decoded else {
        return;
    };
    assert_eq!(weight.encode_widths(), widths);
    assert_eq!(weight.encode_bases(), bases);
    assert_eq!(weight.coordinates(), coordinates);
    assert_eq!(weight.width_bits(), width_bits);
    // A few bytes may be a large weight without any bit.
    if weight.weights() > 1 << 16 {
        return;
    }
    assert_eq!(weight.unpack().len(), weight.weights());
    let (codes, slots, widths) = weight.to_training_form(8);
    let again = PackedWeight::pack(&shape, grouping, 8, &codes, &slots, &widths);
    assert_eq!(again.expect("the same weight"), weight);
    let first = weight.first_rows();
    assert_eq!(first.last(), Some(&coordinates.len()));
    // Coordinates of this type were just decoded from it.
    assert!(weight.with_coordinate_type(kind).is_ok());
});
