//! Decoding takes memory in proportion to the sections, whatever the shape claims.

use multibit::{DecodeError, Grouping, PackedWeight};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The shape, the axes, and what the test harness itself prints meanwhile.
const SLACK: usize = 1 << 14;

/// Decodes, and returns the most memory that this took, and what was decoded.
fn decode(
    shape: &[usize],
    grouping: &Grouping,
    width_bits: u8,
    widths: &[u8],
    coordinates: &[f32],
    bases: &[u8],
) -> (usize, Result<PackedWeight, DecodeError>) {
    let grouping = grouping.clone();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let weight = PackedWeight::decode(shape, grouping, width_bits, widths, coordinates, bases);
    (MEMORY.peak_usage() - before, weight)
}

/// One test, since others beside it would be counted too.
#[test]
fn at_most_eight_bytes_for_each_of_the_sections() {
    const GROUPS: usize = 1 << 17;
    // Groups without rows: a width takes one bit in its section, a byte in memory.
    let grouping = Grouping::subchannelwise(&[GROUPS, 1], GROUPS).unwrap();
    let widths = vec![0; GROUPS / 8];
    let (taken, weight) = decode(&[GROUPS, 1], &grouping, 1, &widths, &[], &[]);
    assert_eq!(weight.unwrap().weights(), GROUPS);
    assert!(taken <= 8 * widths.len() + SLACK, "{taken}");
    assert!(taken >= 8 * widths.len(), "memory is counted");

    // Rows of one weight: 33 bits in the sections, 96 in memory.
    let (widths, coordinates) = (vec![0xFF; GROUPS / 8], vec![1.0; GROUPS]);
    let bases = widths.clone();
    let sections = 2 * widths.len() + size_of_val(coordinates.as_slice());
    let (taken, weight) = decode(&[GROUPS, 1], &grouping, 1, &widths, &coordinates, &bases);
    assert!(weight.is_ok());
    assert!(taken <= 8 * sections + SLACK, "{taken}");

    // Sections that promise more than there is.
    for (shape, widths, coordinates) in [
        ([1 << (usize::BITS - 24), 1], vec![], vec![]),
        ([8, 1], vec![0xFF], vec![]),
        ([8, 1 << 20], vec![0xFF; 1 << 20], vec![]),
    ] {
        let grouping = Grouping::subchannelwise(&shape, shape[0]).unwrap();
        let (taken, weight) = decode(&shape, &grouping, 1, &widths, &coordinates, &[]);
        assert!(weight.is_err());
        assert!(taken <= 8 * widths.len() + SLACK, "{taken} for {shape:?}");
    }
}
