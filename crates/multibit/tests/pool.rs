//! Max pooling against its definition.

mod support;

use multibit::cpu::{Isa, Pool2dOptions, max_pool2d};
use support::Random;

/// The definition: each window on its own.
fn definition(x: &[f32], [planes, height, width]: [usize; 3], options: &Pool2dOptions) -> Vec<f32> {
    let [out_height, out_width] = options.output_size([height, width]);
    let mut y = Vec::new();
    for i in 0..planes * out_height * out_width {
        let (plane, row, column) = (
            i / out_width / out_height,
            i / out_width % out_height,
            i % out_width,
        );
        let mut largest = f32::NEG_INFINITY;
        for ky in 0..options.kernel[0] {
            for kx in 0..options.kernel[1] {
                let row = row * options.stride[0] + ky * options.dilation[0];
                let column = column * options.stride[1] + kx * options.dilation[1];
                let row = row
                    .checked_sub(options.padding[0])
                    .filter(|&row| row < height);
                let column = column
                    .checked_sub(options.padding[1])
                    .filter(|&column| column < width);
                if let (Some(row), Some(column)) = (row, column) {
                    let x = x[(plane * height + row) * width + column];
                    if x > largest || x.is_nan() {
                        largest = x;
                    }
                }
            }
        }
        y.push(largest);
    }
    y
}

#[test]
fn max_pool2d_equals_its_definition() {
    let mut random = Random::new(41);
    for isa in Isa::available() {
        for (kernel, stride, padding, dilation) in [
            ([2, 2], [2, 2], [0, 0], [1, 1]),
            ([3, 3], [2, 2], [1, 1], [1, 1]),
            ([3, 3], [1, 1], [1, 1], [1, 1]),
            ([2, 3], [3, 1], [1, 0], [1, 2]),
            ([3, 2], [1, 3], [0, 1], [2, 1]),
            ([1, 1], [1, 2], [0, 0], [1, 1]),
            // Some windows lie in the padding alone.
            ([2, 2], [1, 1], [2, 2], [1, 1]),
        ] {
            let options = Pool2dOptions {
                kernel,
                stride,
                padding,
                dilation,
            };
            for shape in [[0, 5, 5], [1, 5, 5], [3, 24, 24], [2, 9, 37], [2, 71, 75]] {
                let mut x = random.normals(shape.iter().product(), 1.0);
                if let Some(x) = x.get_mut(7) {
                    *x = f32::NAN;
                }
                let expected = definition(&x, shape, &options);
                let mut y = vec![0.0; expected.len()];
                max_pool2d(isa, &x, shape, &options, &mut y);
                let same = y
                    .iter()
                    .zip(&expected)
                    .all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{isa}: {options:?} {shape:?}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "the window reaches over 3 of width, but the padded input has 2")]
fn a_window_that_is_too_large_is_named() {
    let options = Pool2dOptions {
        kernel: [2, 3],
        stride: [1, 1],
        padding: [0, 0],
        dilation: [1, 1],
    };
    max_pool2d(Isa::best(), &[0.0; 4], [1, 2, 2], &options, &mut []);
}
