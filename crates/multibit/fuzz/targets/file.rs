//! Packed files, checksums aside: what is read decodes to weights that encode to the same sections, what
//! has a plan runs in the memory that the plan names, and gives the scores of the kernels.

#![no_main]

use libfuzzer_sys::fuzz_target;
use multibit::cpu::Isa;
use multibit::file::PackedFile;
use multibit::runtime::{Plan, Prepared};
use multibit_fuzz::{allocated, bounded};

fuzz_target!(|bytes: &[u8]| {
    let read = bounded(bytes.len(), || PackedFile::read(bytes));
    let check = bounded(bytes.len(), || PackedFile::check(bytes));
    assert_eq!(check.is_ok_and(|check| check.is_whole()), read.is_ok());
    let Ok(file) = read else {
        return;
    };
    // A few bytes may be a large weight without any bit.
    let sizes = file.weights().iter().map(|weight| weight.shape().iter().product::<usize>());
    if sizes.fold(0, usize::saturating_add) > 1 << 14 {
        return;
    }
    for weight in file.weights() {
        let decoded = weight.decode();
        assert_eq!(decoded.coordinates().len(), weight.rows());
        assert!(!weight.grouping().describe(weight.shape()).is_empty());
        let first: Vec<usize> = (0..weight.rows()).collect();
        for row in first {
            assert_eq!(decoded.row(row)[0], weight.word(row, 0));
            assert_eq!(decoded.coordinates()[row].to_bits(), weight.coordinate(row).to_bits());
        }
    }
    let Ok(plan) = bounded(bytes.len(), || Plan::new(&file)) else {
        return;
    };
    if plan.words() > 1 << 11 || file.about().chain.len() > 16 {
        return;
    }
    let mut buffer = vec![0xAAAA_AAAA; plan.words()];
    let [mut found, mut expected] = [0; 2].map(|_| vec![0.0; plan.scores()]);
    let input: Vec<f32> = (0..plan.input().len()).map(|i| (i % 13) as f32 - 6.0).collect();
    let taken = allocated(|| plan.run(&input, &mut buffer, &mut found).unwrap());
    assert_eq!(taken, 0, "a run takes no memory");
    let prepared = Prepared::new(&plan, Isa::PORTABLE);
    prepared.run(&input, 1, &mut expected).unwrap();
    // What is not finite may differ in form.
    if expected.iter().chain(&found).all(|score| score.is_finite()) {
        assert_eq!(found, expected);
    }
});
