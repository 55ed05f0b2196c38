//! Activations that stay bits are what they would be as values.

mod support;

use std::sync::Arc;

use multibit::cpu::{
    Affine, Arithmetic, Conv2dInput, Conv2dKernel, Conv2dOptions, Isa, Levels, Mode, Planes,
    Pool2dOptions, conv2d_output_shape, max_pool2d,
};
use multibit::{Grouping, PackedWeight};
use support::{Random, affines, conv_options, isas, levels, modes, packed};

/// Words of one call, filled with what must not be left.
fn room(shape: [usize; 4], levels: &Levels) -> Vec<u32> {
    vec![0xDEAD_BEEF; Planes::len(shape, levels)]
}

fn unpacked(isa: Isa, planes: &Planes<'_>) -> Vec<f32> {
    let mut values = vec![f32::NAN; planes.shape().iter().product()];
    planes.unpack(isa, &mut values);
    values
}

fn quantized(levels: &Levels, values: &[f32]) -> Vec<f32> {
    values.iter().map(|&x| levels.quantize(x)).collect()
}

#[test]
fn packed_and_unpacked_is_quantized() {
    let mut random = Random::new(61);
    for shape in [[0, 3, 2, 2], [1, 1, 1, 1], [2, 33, 5, 7], [1, 70, 9, 8]] {
        let mut x = random.normals(shape.iter().product(), 1.0);
        if let Some(x) = x.first_mut() {
            *x = f32::NAN;
        }
        for levels in levels() {
            let expected = quantized(&levels, &x);
            for isa in isas() {
                let mut words = room(shape, &levels);
                let planes = Planes::pack(isa, &x, shape, &levels, &mut words);
                assert_eq!(unpacked(isa, &planes), expected, "{isa} {shape:?}");
                let used = u32::MAX >> (31 - (shape[1] - 1) % 32);
                let len = levels.bits() * shape[2] * shape[3];
                let last = words.chunks(len).skip(shape[1].div_ceil(32) - 1);
                let mut last = last.step_by(shape[1].div_ceil(32)).flatten();
                assert!(last.all(|word| word & !used == 0), "bits past the channels");
            }
        }
    }
}

#[test]
fn pooled_bits_are_pooled_values() {
    let mut random = Random::new(62);
    let shape = [2, 35, 9, 8];
    let x = random.normals(shape.iter().product(), 1.0);
    for (kernel, stride, padding, dilation) in [
        ([2, 2], [2, 2], [0, 0], [1, 1]),
        ([3, 3], [2, 2], [1, 1], [1, 1]),
        ([3, 3], [1, 1], [1, 1], [1, 1]),
        ([2, 3], [3, 1], [1, 0], [1, 2]),
        // Windows of padding alone.
        ([1, 1], [1, 3], [2, 1], [1, 1]),
    ] {
        let options = Pool2dOptions {
            kernel,
            stride,
            padding,
            dilation,
        };
        let [height, width] = options.output_size([shape[2], shape[3]]);
        let out_shape = [shape[0], shape[1], height, width];
        for levels in levels() {
            for isa in isas() {
                let mut pooled = vec![f32::NAN; out_shape.iter().product()];
                let planes = [shape[0] * shape[1], shape[2], shape[3]];
                max_pool2d(isa, &x, planes, &options, &mut pooled);
                let mut words = room(shape, &levels);
                let planes = Planes::pack(isa, &x, shape, &levels, &mut words);
                let mut words = room(out_shape, &levels);
                let planes = planes.max_pool2d(isa, &options, &mut words);
                assert_eq!(planes.shape(), out_shape);
                let what = format!("{isa} {options:?} {} bits", levels.bits());
                assert_eq!(
                    unpacked(isa, &planes),
                    quantized(&levels, &pooled),
                    "{what}"
                );
            }
        }
    }
}

/// Bit for bit: sums are made in the same order, and rounded at the same places.
fn check_conv(
    random: &mut Random,
    weight: &Arc<PackedWeight>,
    size: [usize; 2],
    batch: usize,
    options: &Conv2dOptions,
) {
    let [c_out, c_in, ..] = *weight.shape() else {
        unreachable!("a convolution")
    };
    let input = [batch, c_in * options.groups, size[0], size[1]];
    let output = conv2d_output_shape(input, weight.shape(), options);
    let x = random.normals(input.iter().product(), 1.0);
    let residual = random.normals(output.iter().product(), 1.0);
    let numbers = random.normals(2 * c_out, 1.0);
    let (scale, offset) = numbers.split_at(c_out);
    for mode in modes() {
        for (affine, isa) in affines(scale, offset)
            .into_iter()
            .flat_map(|affine| isas().into_iter().map(move |isa| (affine, isa)))
        {
            let kernel = Conv2dKernel::new(weight.clone(), options.groups, mode.arithmetic());
            let kernel = kernel.unwrap().on(isa);
            let mut expected = vec![f32::NAN; output.iter().product()];
            kernel.forward(&mode, &x, input, &affine, options, &mut expected);

            let name = weight.grouping().describe(weight.shape());
            let what = format!("{isa} {mode} {:?} {name} {options:?}", weight.shape());
            let mut words;
            let values = Conv2dInput::Values(&mode, &x, input);
            let mut inputs = vec![values];
            if let Mode::Bitwise(levels) = &mode {
                words = room(input, levels);
                let planes = Planes::pack(isa, &x, input, levels, &mut words);
                let mut found = vec![f32::NAN; expected.len()];
                kernel.forward_planes(&planes, &affine, options, &mut found);
                assert_eq!(found, expected, "{what}");
                inputs.push(Conv2dInput::Planes(planes));
            }

            for (levels_out, is_added) in levels().iter().zip([false, true, true, false]) {
                let added_levels = &levels()[1];
                let mut words = room(output, added_levels);
                let added = Planes::pack(isa, &residual, output, added_levels, &mut words);
                let added = is_added.then_some(&added);
                let mut expected = expected.clone();
                if is_added {
                    for (y, &x) in expected.iter_mut().zip(&residual) {
                        *y += added_levels.quantize(x);
                    }
                }
                let expected = quantized(levels_out, &expected);
                for input in &inputs {
                    let mut words = room(output, levels_out);
                    let found = kernel
                        .forward_to_planes(input, &affine, options, added, levels_out, &mut words);
                    assert_eq!(unpacked(isa, &found), expected, "{what}, to planes");
                }
            }
        }
    }
}

#[test]
fn convolutions_from_bits_to_bits() {
    let mut random = Random::new(63);
    for options in conv_options() {
        for [c_out, c_in, kh, kw] in [[2, 1, 1, 1], [18, 40, 1, 2], [70, 5, 3, 3]] {
            let shape = [c_out, c_in, kh, kw];
            for grouping in Grouping::examples(&shape) {
                // Widths that differ move outputs within their words.
                let weight = Arc::new(packed(&mut random, &shape, grouping, 3));
                check_conv(&mut random, &weight, [6, 7], 2, &options);
            }
        }
    }
    let shape = [33, 33, 3, 3];
    let weight = packed(&mut random, &shape, Grouping::pixelwise(&shape).unwrap(), 1);
    let options = Conv2dOptions::default();
    check_conv(&mut random, &Arc::new(weight), [6, 7], 0, &options);
}

#[test]
fn pixelwise_convolutions_take_bits_as_they_are() {
    let mut random = Random::new(64);
    let shape = [8, 40, 3, 3];
    for (grouping, expected) in [
        (Grouping::pixelwise(&shape).unwrap(), true),
        (Grouping::channelwise(&shape).unwrap(), true),
        (Grouping::kernelwise(&shape).unwrap(), false),
    ] {
        let weight = Arc::new(packed(&mut random, &shape, grouping, 2));
        let kernel = Conv2dKernel::new(weight, 1, Arithmetic::Bitwise).unwrap();
        assert_eq!(kernel.takes_planes(), expected);
    }
}

#[test]
#[should_panic(expected = "`residual` has shape [1, 1, 2, 2], the output [1, 1, 1, 1]")]
fn a_residual_of_another_shape_is_named() {
    let shape = [1, 1, 2, 2];
    let grouping = Grouping::pixelwise(&shape).unwrap();
    let weight = PackedWeight::pack(&shape, grouping, 1, &[0; 4], &[0.5; 4], &[1; 4]).unwrap();
    let kernel = Conv2dKernel::new(Arc::new(weight), 1, Arithmetic::Bitwise).unwrap();
    let levels = Levels::uniform(1, 1.0).unwrap();
    let planes = Planes::new(&[0; 4], shape, &levels);
    let input = Conv2dInput::Planes(planes);
    let (affine, options) = (Affine::default(), Conv2dOptions::default());
    kernel.forward_to_planes(&input, &affine, &options, Some(&planes), &levels, &mut [0]);
}

#[test]
#[should_panic(expected = "planes: 3 words, but")]
fn a_missing_word_is_named() {
    Planes::new(&[0; 3], [1, 1, 2, 2], &Levels::uniform(1, 1.0).unwrap());
}
