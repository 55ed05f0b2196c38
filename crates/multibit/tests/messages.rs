//! What errors say, and what lies behind them.

use std::error::Error;

use multibit::fit;
use multibit::{CoordinateType, DecodeError, Grouping, GroupingError, PackError};

#[test]
fn an_error_names_what_is_wrong() {
    let grouping = || Grouping::subchannelwise(&[10, 5], 3).unwrap_err();
    let not_finite = fit::greedy(&[1.0, f32::NAN], 1, 2).unwrap_err();
    let inexact = PackError::Inexact {
        coordinate: 3,
        value: 0.1,
        coordinate_type: CoordinateType::Bf16,
    };
    let bytes = DecodeError::BaseBytes {
        expected: 7,
        found: 6,
    };
    let cases: [(&dyn Error, &str); 6] = [
        (&grouping(), "10 inputs do not fall into 3 equal groups"),
        (&PackError::Grouping(grouping()), "10 inputs do not fall"),
        (&DecodeError::Grouping(grouping()), "10 inputs do not fall"),
        (&inexact, "coordinate 3 is 0.1, which bf16 does not hold"),
        (&bytes, "6 bytes of bases, but 7 are needed"),
        (&not_finite, "grouped weight 1 is not finite"),
    ];
    for (error, text) in cases {
        assert!(error.to_string().starts_with(text), "{error}");
    }
}

#[test]
fn the_cause_of_an_error_is_its_source() {
    let cause = GroupingError::EmptyRun;
    let outer: [&dyn Error; 2] = [
        &PackError::Grouping(cause.clone()),
        &DecodeError::Grouping(cause.clone()),
    ];
    for error in outer {
        let source = error.source().expect("a cause");
        assert_eq!(source.downcast_ref(), Some(&cause));
    }
    assert!(PackError::MaxBits { max_bits: 9 }.source().is_none());
    assert!(DecodeError::BasePadding.source().is_none());
}
