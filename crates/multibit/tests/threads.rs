//! The number of threads never changes a result.
#![cfg(feature = "rayon")]

mod support;

use std::sync::Arc;

use multibit::cpu::{
    Affine, Conv2dInput, Conv2dKernel, Conv2dOptions, Isa, Levels, LinearKernel, Mode, Planes,
    Pool2dOptions, conv2d_output_shape, max_pool2d,
};
use multibit::{CoordinateType, Grouping, fit};
use support::{Random, conv_options, levels, modes, packed};

/// Runs in pools of several sizes; all must give the bits of the first.
fn same_bits<T: PartialEq + Send>(what: &str, run: impl Fn() -> Vec<T> + Sync) {
    let in_pool = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(&run)
    };
    let alone = in_pool(1);
    let sizes: &[usize] = if cfg!(miri) { &[3] } else { &[2, 3, 8] };
    for &threads in sizes {
        assert!(in_pool(threads) == alone, "{what} on {threads} threads");
    }
}

fn bits(values: Vec<f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

/// Some of the cases; Miri takes the first few, of small size.
fn some<T>(cases: Vec<T>, under_miri: usize) -> Vec<T> {
    let count = if cfg!(miri) { under_miri } else { cases.len() };
    cases.into_iter().take(count).collect()
}

#[test]
fn calibration() {
    let (d, outputs) = if cfg!(miri) { (20, 4) } else { (80, 37) };
    let mut random = Random::new(81);
    let samples: Vec<_> = (0..50).map(|_| random.normals(d, 1.0)).collect();
    let sum = |i: usize, k: usize| -> f64 {
        let each = samples.iter();
        each.map(|x| f64::from(x[i] * x[k])).sum()
    };
    let h: Vec<f64> = (0..d * d).map(|e| sum(e / d, e % d)).collect();
    let weights = random.normals(outputs * d, 0.1);
    same_bits("calibration", || {
        let hessian = fit::Hessian::new(&h, d, 0.01).unwrap();
        let kind = CoordinateType::F16;
        let widths = vec![3; weights.len() / 10];
        let found = fit::calibrate(&weights, &hessian, 10, &widths, kind, 3).unwrap();
        let mut all: Vec<u64> = bits(found.coordinates).into_iter().map(u64::from).collect();
        all.extend(found.codes.into_iter().map(u64::from));
        all
    });
}

#[test]
fn sketches() {
    let mut random = Random::new(80);
    for (groups, len) in some(vec![(5, 9), (300, 25), (37, 200), (3, 5000)], 1) {
        let weights = random.normals(groups * len, 0.1);
        same_bits(&format!("{groups} groups of {len}"), || {
            let sketch = fit::sketch(&weights, len, 5, CoordinateType::F16).unwrap();
            let codes = sketch.codes.into_iter().chain(sketch.widths);
            let all = codes.map(u32::from).chain(bits(sketch.coordinates));
            all.collect()
        });
    }
}

#[test]
fn linear_layers() {
    let mut random = Random::new(81);
    let shape = if cfg!(miri) { [20, 35] } else { [2400, 70] };
    let grouping = Grouping::subchannelwise(&shape, 2).unwrap();
    let weight = packed(&mut random, &shape, grouping, 3);
    // Look-up, expansion; with as much work as several threads are used for.
    for batch in some(vec![2, 5, 33], 2) {
        let x = random.normals(batch * shape[0], 1.0);
        for mode in some(modes(), 3) {
            let kernel = LinearKernel::new(&weight, mode.arithmetic()).unwrap();
            same_bits(&format!("{mode} of {batch} rows"), || {
                let mut y = vec![0.0; batch * shape[1]];
                kernel.forward(&mode, &x, batch, &Affine::default(), &mut y);
                bits(y)
            });
        }
    }
}

#[test]
fn convolutions() {
    let mut random = Random::new(82);
    let (shape, size) = if cfg!(miri) {
        ([4, 2, 2, 2], [4, 5])
    } else {
        ([70, 16, 3, 3], [13, 12])
    };
    for grouping in some(Grouping::examples(&shape), 1) {
        let weight = Arc::new(packed(&mut random, &shape, grouping, 3));
        for options in some(conv_options(), 1) {
            // One after the other, and side by side.
            for batch in some(vec![3, 18], 1) {
                let input = [batch, shape[1] * options.groups, size[0], size[1]];
                let output = conv2d_output_shape(input, &shape, &options);
                let x = random.normals(input.iter().product(), 1.0);
                for mode in some(modes(), 3) {
                    let kernel =
                        Conv2dKernel::new(weight.clone(), options.groups, mode.arithmetic());
                    let kernel = kernel.unwrap();
                    same_bits(&format!("{mode} {options:?} of {batch}"), || {
                        let mut y = vec![0.0; output.iter().product()];
                        kernel.forward(&mode, &x, input, &Affine::default(), &options, &mut y);
                        bits(y)
                    });
                }
            }
        }
    }
}

#[test]
fn activations_as_bits() {
    let mut random = Random::new(83);
    let (shape, size) = if cfg!(miri) {
        ([4, 2, 1, 2], [3, 5])
    } else {
        ([70, 40, 3, 3], [20, 21])
    };
    let weight = packed(&mut random, &shape, Grouping::pixelwise(&shape).unwrap(), 2);
    let (weight, options) = (Arc::new(weight), Conv2dOptions::default());
    let input = [5, shape[1], size[0], size[1]];
    let output = conv2d_output_shape(input, &shape, &options);
    let x = random.normals(input.iter().product(), 1.0);
    let pool = Pool2dOptions {
        kernel: [2, 2],
        stride: [1, 2],
        padding: [1, 0],
        dilation: [1, 1],
    };
    let [height, width] = pool.output_size([output[2], output[3]]);
    let pooled = [output[0], output[1], height, width];
    for levels in some(levels(), 2) {
        let mode = Mode::Bitwise(levels.clone());
        let kernel = Conv2dKernel::new(weight.clone(), 1, mode.arithmetic()).unwrap();
        let isa = Isa::best();
        same_bits("a convolution between bits, pooled", || {
            let room = |shape| vec![0; Planes::len(shape, &levels)];
            let (mut packed, mut convolved, mut words) = (room(input), room(output), room(pooled));
            let planes = Planes::pack(isa, &x, input, &levels, &mut packed);
            let input = Conv2dInput::Planes(planes);
            let affine = Affine::default();
            let planes =
                kernel.forward_to_planes(&input, &affine, &options, None, &levels, &mut convolved);
            let planes = planes.max_pool2d(isa, &pool, &mut words);
            let mut y = vec![0.0; pooled.iter().product()];
            planes.unpack(isa, &mut y);
            bits(y)
        });
    }
}

#[test]
fn pooling_and_levels() {
    let mut random = Random::new(84);
    let shape = if cfg!(miri) { [5, 4, 3] } else { [50, 70, 71] };
    let x = random.normals(shape.iter().product(), 1.0);
    let options = Pool2dOptions {
        kernel: [3, 2],
        stride: [1, 1],
        padding: [1, 1],
        dilation: [1, 1],
    };
    let [height, width] = options.output_size([shape[1], shape[2]]);
    same_bits("max pooling", || {
        let mut y = vec![0.0; shape[0] * height * width];
        max_pool2d(Isa::best(), &x, shape, &options, &mut y);
        bits(y)
    });
    let levels = Levels::new(0.9, &[0.6, 0.3]).unwrap();
    same_bits("levels", || {
        let mut y = vec![0.0; x.len()];
        levels.quantize_all(&x, &mut y);
        bits(y)
    });
}
