//! The structures, their errors, gathering and scattering.

use super::*;
use alloc::vec;

const CONV: [usize; 4] = [3, 4, 2, 5];

#[test]
fn the_structures_of_the_paper() {
    let cases = [
        (
            Grouping::channelwise(&CONV),
            vec![0, 1, 2, 3],
            40,
            3,
            "channelwise",
        ),
        (
            Grouping::kernelwise(&CONV),
            vec![0, 1, 2, 3],
            10,
            12,
            "kernelwise",
        ),
        (
            Grouping::pixelwise(&CONV),
            vec![0, 2, 3, 1],
            4,
            30,
            "pixelwise",
        ),
    ];
    for (grouping, axes, len, groups, name) in cases {
        let grouping = grouping.unwrap();
        assert_eq!(grouping.axes(), axes, "{name}");
        assert_eq!(grouping.len(), len, "{name}");
        assert_eq!(grouping.groups(&CONV), groups, "{name}");
        assert_eq!(grouping.groups_per_output(&CONV), groups / 3, "{name}");
        assert_eq!(grouping.describe(&CONV), name);
    }
    let linear = Grouping::subchannelwise(&[12, 5], 3).unwrap();
    assert_eq!((linear.axes(), linear.len()), ([1, 0].as_slice(), 4));
    assert_eq!(linear.groups(&[12, 5]), 15);
    assert_eq!(linear.describe(&[12, 5]), "subchannelwise(3)");
    let rows = Grouping::subchannelwise(&[12, 5], 3).unwrap().transposed();
    assert_eq!((rows.axes(), rows.len()), ([0, 1].as_slice(), 4));
    assert_eq!(rows.describe(&[5, 12]), "subchannelwise(3), transposed");
    let kernels = Grouping::pixelwise(&CONV).unwrap().transposed();
    assert_eq!(
        (kernels.axes(), kernels.len()),
        ([1, 2, 3, 0].as_slice(), 4)
    );
    assert_eq!(kernels.describe(&[4, 3, 2, 5]), "pixelwise, transposed");
    assert_eq!(kernels.check(&[4, 3, 2, 5]), Ok(()));
    let other = Grouping::new(vec![0, 3, 1, 2], 20).unwrap();
    assert_eq!(other.describe(&CONV), "axes [0, 3, 1, 2] runs of 20");
    let runs = Grouping::new(vec![0], 3).unwrap();
    assert_eq!(runs.clone().transposed(), runs);
    assert_eq!(runs.describe(&[6]), "axes [0] runs of 3");
}

#[test]
fn a_size_is_the_nearest_that_divides_an_output() {
    for (number, size, expected) in [
        (384, 64, 64),
        (12, 5, 6),
        // 4 is as many times smaller than 6 as 9 is larger.
        (36, 6, 6),
        (8, 3, 4),
        (383, 64, 383),
        (1, 64, 1),
        (100, 1, 1),
        (100, usize::MAX, 100),
    ] {
        assert_eq!(
            nearest_divisor(number, size),
            Some(expected),
            "{number}, {size}"
        );
    }
    assert_eq!(nearest_divisor(8, 0), None);
    let cut = |shape: &[usize], size| {
        let grouping = Grouping::groupwise(shape, size).unwrap();
        (grouping.axes().to_vec(), grouping.len())
    };
    assert_eq!(cut(&[384, 10], 64), (vec![1, 0], 64));
    assert_eq!(cut(&[7, 10], 64), (vec![1, 0], 7));
    assert_eq!(cut(&[8, 64, 3, 3], 64), (vec![0, 2, 3, 1], 64));
    assert_eq!(cut(&[8, 64, 1, 1], 16), (vec![0, 2, 3, 1], 16));
    assert_eq!(cut(&[8, 1, 3, 3], 64), (vec![0, 1, 2, 3], 9));
    assert_eq!(
        Grouping::groupwise(&[8], 4),
        Err(GroupingError::Low { rank: 1 })
    );
    assert_eq!(
        Grouping::groupwise(&[8, 2], 0),
        Err(GroupingError::EmptyRun)
    );
    // All kernel positions of half the channels.
    let half = Grouping::subchannelwise(&[8, 6, 3, 3], 2).unwrap();
    assert_eq!((half.axes(), half.len()), ([0, 1, 2, 3].as_slice(), 27));
}

#[test]
fn axes_that_are_one_run_become_one() {
    let merged = |axes: &[usize]| {
        let grouping = Grouping::new(axes.to_vec(), 1).unwrap();
        grouping.merged_axes(&[3, 4, 1, 5])
    };
    assert_eq!(merged(&[0, 1, 2, 3]), [(60, 1)]);
    assert_eq!(merged(&[0, 2, 3, 1]), [(3, 20), (5, 1), (4, 5)]);
    assert_eq!(merged(&[1, 3, 0, 2]), [(20, 1), (3, 20)]);
}

#[test]
fn examples_are_all_structures_and_one_without_a_name() {
    let names = |shape: &[usize]| -> Vec<String> {
        let examples = Grouping::examples(shape);
        examples
            .iter()
            .map(|grouping| grouping.describe(shape))
            .collect()
    };
    assert_eq!(
        names(&[4, 5]),
        [
            "subchannelwise(1)",
            "subchannelwise(2)",
            "subchannelwise(4)"
        ]
    );
    assert_eq!(
        names(&CONV),
        [
            "channelwise",
            "kernelwise",
            "pixelwise",
            "axes [0, 3, 2, 1] runs of 8"
        ]
    );
}

#[test]
fn pixelwise_takes_one_position_across_the_channels() {
    let shape = [2, 3, 2];
    let weight: Vec<u32> = (0..12).collect();
    let mut grouped = vec![0; 12];
    let grouping = Grouping::pixelwise(&shape).unwrap();
    grouping.gather(&shape, &weight, &mut grouped);
    assert_eq!(grouped, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
}

#[test]
fn every_permutation_gathers_by_its_definition_and_scatters_back() {
    let shapes: [&[usize]; 8] = [
        &[40, 70],
        &[70, 33],
        &[1, 6],
        &[3, 4, 2, 5],
        &[5, 40, 3, 3],
        &[2, 3, 1, 4, 2],
        // Of many parts, on all threads.
        &[301, 250],
        &[70, 20, 60],
    ];
    for shape in shapes {
        for axes in permutations(shape.len()) {
            let weights: usize = shape.iter().product();
            let weight: Vec<usize> = (0..weights).collect();
            let grouping = Grouping::new(axes.clone(), 1).unwrap();
            let mut grouped = vec![0; weights];
            grouping.gather(shape, &weight, &mut grouped);
            for (i, &value) in grouped.iter().enumerate() {
                // The definition: split i along the permuted axes, one division an axis.
                let (mut rest, mut place) = (i, 0);
                for &axis in axes.iter().rev() {
                    let stride: usize = shape[axis + 1..].iter().product();
                    place += rest % shape[axis] * stride;
                    rest /= shape[axis];
                }
                assert_eq!(value, place, "{shape:?} by {axes:?} at {i}");
            }
            let mut back = vec![0; weights];
            grouping.scatter(shape, &grouped, &mut back);
            assert_eq!(back, weight, "{shape:?} by {axes:?}");
        }
    }
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![vec![]];
    }
    let mut all = Vec::new();
    for shorter in permutations(n - 1) {
        for place in 0..n {
            let mut longer = shorter.clone();
            longer.insert(place, n - 1);
            all.push(longer);
        }
    }
    all
}

#[test]
fn every_error() {
    use GroupingError as E;
    let new = |axes: &[usize], len| Grouping::new(axes.to_vec(), len).unwrap_err();
    assert_eq!(new(&[0, 2], 1), E::NotAPermutation { axes: vec![0, 2] });
    assert_eq!(new(&[0, 0], 1), E::NotAPermutation { axes: vec![0, 0] });
    assert_eq!(new(&[], 1), E::NotAPermutation { axes: vec![] });
    assert_eq!(new(&[1, 0], 0), E::EmptyRun);
    for structure in [
        Grouping::channelwise,
        Grouping::kernelwise,
        Grouping::pixelwise,
    ] {
        assert_eq!(structure(&[4, 5]), Err(E::NotAConvolution { rank: 2 }));
        assert_eq!(structure(&[4, 5, 0]), Err(E::EmptyAxis { axis: 2 }));
        let shape = [usize::MAX, 2, 2];
        let too_large = E::TooLarge {
            shape: shape.to_vec(),
        };
        assert_eq!(structure(&shape), Err(too_large));
    }
    let sub = Grouping::subchannelwise;
    assert_eq!(sub(&[4], 2), Err(E::Low { rank: 1 }));
    assert_eq!(sub(&[10, 5], 3), Err(E::Subchannels { inputs: 10, s: 3 }));
    assert_eq!(sub(&[10, 5], 0), Err(E::Subchannels { inputs: 10, s: 0 }));
    assert_eq!(sub(&[10, 0], 2), Err(E::EmptyAxis { axis: 1 }));
    let grouping = Grouping::new(vec![1, 0], 4).unwrap();
    let rank = E::Rank {
        expected: 2,
        found: 3,
    };
    assert_eq!(grouping.check(&[2, 2, 2]), Err(rank));
    let indivisible = E::Indivisible {
        weights: 10,
        len: 4,
    };
    assert_eq!(grouping.check(&[10, 4]), Err(indivisible));
}

#[test]
#[should_panic(expected = "does not fit shape [2, 3]: 2 weights of one output")]
fn a_shape_that_does_not_fit_is_named() {
    let grouping = Grouping::new(vec![1, 0], 3).unwrap();
    grouping.gather(&[2, 3], &[0.0; 6], &mut [0.0; 6]);
}

#[test]
#[should_panic(expected = "`grouped` holds 5 values, but shape [2, 3] needs 6")]
fn a_short_slice_is_named() {
    let grouping = Grouping::subchannelwise(&[2, 3], 1).unwrap();
    grouping.gather(&[2, 3], &[0.0; 6], &mut [0.0; 5]);
}

/// A file may claim any shape; its grouping has a name at once.
#[test]
fn a_name_is_not_searched_for() {
    let size: usize = 1 << (usize::BITS - 8);
    for (shape, axes, len, name) in [
        ([size, 1], [1, 0], size, "subchannelwise(1)"),
        ([size, 1], [1, 0], size / 2, "subchannelwise(2)"),
        ([size - 1, 3], [0, 1], 3, "subchannelwise(1), transposed"),
        ([1, size - 5], [1, 0], 1, "subchannelwise(1)"),
    ] {
        let grouping = Grouping::new(axes.to_vec(), len).unwrap();
        assert_eq!(grouping.describe(&shape), name);
    }
    let other = Grouping::new(vec![2, 0, 1], 3).unwrap();
    assert_eq!(
        other.describe(&[3, 5, size - 1]),
        "axes [2, 0, 1] runs of 3"
    );
}
