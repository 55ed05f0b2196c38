//! Kernels read and write nothing beside their slices: each lies between pages that trap.
//!
//! Buffers that kernels make for themselves are vectors; AddressSanitizer and Miri watch those.

mod support;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use multibit::cpu::{
    Activation, Affine, Attention, Conv2dKernel, Conv2dOptions, Isa, LinearKernel, Masks, Mode,
    Planes, Pool2dOptions, Rows, activate, conv2d_output_shape, layer_norm, max_pool2d, reference,
    softmax,
};
use multibit::fit::{StateMut, StepParams, basis, coordinate};
use multibit::{Grouping, PackedWeight};
use support::{Random, State, conv_options, levels, modes, packed};

/// Where a slice lies between the pages.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Its last element ends where a page begins that may not be touched.
    End,
    /// Its first element begins where such a page ends.
    Start,
    /// One element after that, so that no vector in it is aligned.
    Odd,
}

const PLACES: [Place; 3] = [Place::End, Place::Start, Place::Odd];

/// A slice with pages around it that trap.
#[cfg(all(unix, not(miri)))]
struct Guarded<T> {
    map: *mut libc::c_void,
    bytes: usize,
    first: *mut T,
    len: usize,
}

#[cfg(all(unix, not(miri)))]
impl<T: Copy> Guarded<T> {
    fn new(values: &[T], place: Place) -> Self {
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let size = size_of_val(values);
        let inside = (size + size_of::<T>()).div_ceil(page) * page;
        let bytes = inside + 2 * page;
        // SAFETY: a mapping of its own, anywhere.
        let map = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0)
        };
        assert_ne!(map, libc::MAP_FAILED);
        let offset = match place {
            Place::End => inside - size,
            Place::Start => 0,
            Place::Odd => size_of::<T>(),
        };
        // SAFETY: whole pages of the mapping; the slice lies inside them, aligned as a multiple of
        // its elements' size from the start or the end of a page, and is written before it is read.
        let first = unsafe {
            let start = map.add(page);
            let rights = libc::PROT_READ | libc::PROT_WRITE;
            assert_eq!(libc::mprotect(start, inside, rights), 0);
            let first = start.add(offset).cast::<T>();
            std::ptr::copy_nonoverlapping(values.as_ptr(), first, values.len());
            first
        };
        let len = values.len();
        Self {
            map,
            bytes,
            first,
            len,
        }
    }
}

#[cfg(all(unix, not(miri)))]
impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nothing borrows it any more.
        unsafe { libc::munmap(self.map, self.bytes) };
    }
}

#[cfg(all(unix, not(miri)))]
impl<T> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `new` has written all elements.
        unsafe { std::slice::from_raw_parts(self.first, self.len) }
    }
}

#[cfg(all(unix, not(miri)))]
impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; there is no other owner.
        unsafe { std::slice::from_raw_parts_mut(self.first, self.len) }
    }
}

/// Where there are no such pages: Miri sees every access beside a box.
#[cfg(not(all(unix, not(miri))))]
struct Guarded<T>(Box<[T]>);

#[cfg(not(all(unix, not(miri))))]
impl<T: Copy> Guarded<T> {
    fn new(values: &[T], _: Place) -> Self {
        Self(values.into())
    }
}

#[cfg(not(all(unix, not(miri))))]
impl<T> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

#[cfg(not(all(unix, not(miri))))]
impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

/// All of a list; under Miri, which takes a thousand times as long, the first few.
fn some<T>(list: impl IntoIterator<Item = T>, few: usize) -> Vec<T> {
    let most = if cfg!(miri) { few } else { usize::MAX };
    list.into_iter().take(most).collect()
}

/// The instruction sets to try: Miri knows the portable one.
fn isas() -> Vec<Isa> {
    if cfg!(miri) {
        return vec![Isa::named("portable").unwrap()];
    }
    Isa::available()
}

/// Compares with room for a share of the sums of absolute terms, as the tests of the kernels do.
fn assert_close(found: &[f32], expected: &[f32], room: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        let close = (found - expected).abs() <= 5e-7 * room;
        assert!(close, "{what}: {found} for {expected}");
    }
}

fn room(weight: &PackedWeight) -> f32 {
    let sum: f32 = weight.coordinates().iter().sum();
    4.0 + 24.0 * sum * weight.grouping().len() as f32
}

fn linear(random: &mut Random, weight: &PackedWeight, mode: &Mode, batch: usize) {
    let [d_in, d_out] = *weight.shape() else {
        unreachable!("a linear weight")
    };
    let x = random.normals(batch * d_in, 1.0);
    let numbers = random.normals(2 * d_out, 1.0);
    let (scale, offset) = numbers.split_at(d_out);
    let residual = random.normals(batch * d_out, 1.0);
    let affine = Affine {
        scale: Some(scale),
        offset: Some(offset),
        residual: Some(&residual),
        activation: Activation::Relu6,
    };
    let mut expected = vec![f32::NAN; batch * d_out];
    reference::linear(&x, batch, weight, mode, &affine, &mut expected);
    for isa in isas() {
        let kernel = LinearKernel::new(weight, mode.arithmetic())
            .unwrap()
            .on(isa);
        for place in some(PLACES, 1) {
            let residual = &residual[..];
            let [x, scale, offset, residual] =
                [&x[..], scale, offset, residual].map(|x| Guarded::new(x, place));
            let affine = Affine {
                scale: Some(&scale),
                offset: Some(&offset),
                residual: Some(&residual),
                ..affine
            };
            let mut y = Guarded::new(&vec![f32::NAN; batch * d_out], place);
            kernel.forward(mode, &x, batch, &affine, &mut y);
            let what = format!("{isa} {mode} [{d_in}, {d_out}] batch {batch} {place:?}");
            assert_close(&y, &expected, room(weight), &what);
        }
    }
}

#[test]
fn linear_layers_stay_inside() {
    let mut random = Random::new(71);
    let shapes = [[12, 5], [1, 1], [36, 17], [70, 16], [130, 33], [257, 3]];
    for [d_in, d_out] in some(shapes, 2) {
        for grouping in some(Grouping::examples(&[d_in, d_out]), 2) {
            for widest in some([2, 0, 8], 2) {
                let weight = packed(&mut random, &[d_in, d_out], grouping.clone(), widest);
                for mode in modes() {
                    for batch in some([1, 3, 9, 0], 2) {
                        linear(&mut random, &weight, &mode, batch);
                    }
                }
            }
        }
    }
}

fn conv(
    random: &mut Random,
    weight: &Arc<PackedWeight>,
    mode: &Mode,
    batch: usize,
    options: &Conv2dOptions,
) {
    let shape = weight.shape();
    let input = [batch, shape[1] * options.groups, 5, 7];
    let output = conv2d_output_shape(input, shape, options);
    let x = random.normals(input.iter().product(), 1.0);
    let residual = random.normals(output.iter().product(), 1.0);
    let affine = Affine {
        residual: Some(&residual),
        activation: Activation::HardSwish,
        ..Affine::default()
    };
    let mut expected = vec![f32::NAN; output.iter().product()];
    reference::conv2d(&x, input, weight, mode, &affine, options, &mut expected);
    for isa in isas() {
        let kernel = Conv2dKernel::new(weight.clone(), options.groups, mode.arithmetic());
        let kernel = kernel.unwrap().on(isa);
        for place in some(PLACES, 1) {
            let [x, residual] = [&x, &residual].map(|x| Guarded::new(x, place));
            let affine = Affine {
                residual: Some(&residual),
                ..affine
            };
            let mut y = Guarded::new(&vec![f32::NAN; expected.len()], place);
            kernel.forward(mode, &x, input, &affine, options, &mut y);
            let what = format!("{isa} {mode} {shape:?} {options:?} {place:?}");
            assert_close(&y, &expected, room(weight), &what);
        }
    }
}

#[test]
fn convolutions_stay_inside() {
    let mut random = Random::new(72);
    let shapes = [[4, 3, 3, 2], [2, 1, 1, 1], [18, 40, 1, 2], [20, 5, 3, 3]];
    for options in some(conv_options(), 2) {
        for shape in some(shapes, 1) {
            for grouping in some(Grouping::examples(&shape), 2) {
                let weight = Arc::new(packed(&mut random, &shape, grouping, 2));
                for mode in some(modes(), 3) {
                    for batch in some([1, 2], 1) {
                        conv(&mut random, &weight, &mode, batch, &options);
                    }
                }
            }
        }
    }
}

#[test]
fn activations_stay_inside() {
    let mut random = Random::new(73);
    for shape in some(
        [[1, 3, 5, 7], [2, 33, 4, 4], [1, 1, 1, 1], [1, 70, 3, 2]],
        2,
    ) {
        let values = random.normals(shape.iter().product(), 1.0);
        for levels in levels() {
            for isa in isas() {
                for place in some(PLACES, 1) {
                    let x = Guarded::new(&values, place);
                    let words = vec![0; Planes::len(shape, &levels)];
                    let mut words = Guarded::new(&words, place);
                    let planes = Planes::pack(isa, &x, shape, &levels, &mut words);
                    let mut found = Guarded::new(&vec![f32::NAN; values.len()], place);
                    planes.unpack(isa, &mut found);
                    let mut rounded = Guarded::new(&vec![f32::NAN; values.len()], place);
                    levels.quantize_all(&x, &mut rounded);
                    let same = found.iter().zip(&*rounded).all(|(a, b)| a == b);
                    assert!(same, "{isa} {shape:?} {place:?}");
                }
            }
        }
    }
}

#[test]
fn pooling_stays_inside() {
    let mut random = Random::new(74);
    let options = Pool2dOptions {
        kernel: [3, 2],
        stride: [2, 1],
        padding: [1, 1],
        dilation: [1, 1],
    };
    for size in some([[5, 7], [4, 33], [3, 2]], 2) {
        let [height, width] = options.output_size(size);
        let planes = 3;
        let values = random.normals(planes * size[0] * size[1], 1.0);
        let mut results: Vec<Vec<f32>> = Vec::new();
        for isa in isas() {
            for place in some(PLACES, 1) {
                let x = Guarded::new(&values, place);
                let mut y = Guarded::new(&vec![f32::NAN; planes * height * width], place);
                max_pool2d(isa, &x, [planes, size[0], size[1]], &options, &mut y);
                results.push(y.to_vec());
                assert_eq!(results[0], results[results.len() - 1], "{isa} {place:?}");
            }
        }
        assert!(results[0].iter().all(|y| values.contains(y)));
    }
}

#[test]
fn rows_stay_inside() {
    let mut random = Random::new(76);
    for len in some([1, 5, 16, 33, 100], 2) {
        let values = random.normals(3 * len, 1.0);
        for isa in isas() {
            for place in some(PLACES, 1) {
                let x = Guarded::new(&values, place);
                let gamma = Guarded::new(&values[..len], place);
                let mut y = Guarded::new(&values, place);
                layer_norm(isa, &x, &gamma, Some(&gamma), 1e-5, &mut y);
                softmax(isa, &mut y, len, false);
                activate(isa, Activation::Gelu, &mut y);
                assert!(
                    y.iter().all(|&y| (0.0..=1.0).contains(&y)),
                    "{isa} {place:?}"
                );
            }
        }
    }
}

#[test]
fn attention_stays_inside() {
    let mut random = Random::new(77);
    for (queries, keys, width) in some([(1, 1, 1), (13, 33, 20), (5, 16, 32), (25, 7, 48)], 2) {
        let attention = Attention {
            batch: 2,
            heads: 2,
            queries,
            keys,
            width,
            scale: 0.3,
            min_float: -1e4,
            quiet: false,
        };
        let stride = 2 * width;
        let x = random.normals(2 * queries.max(keys) * stride, 1.0);
        let mut results: Vec<Vec<f32>> = Vec::new();
        for isa in isas() {
            for place in some(PLACES, 1) {
                let rows = [queries, keys, keys].map(|n| Guarded::new(&x[..2 * n * stride], place));
                let [pad, pairs] =
                    [2 * keys, 2 * queries * keys].map(|n| Guarded::new(&vec![0; n], place));
                let masks = Masks {
                    pad: Some(&pad),
                    pairs: Some(&pairs),
                };
                let [mut context, mut weights] = [2 * queries * stride, 4 * queries * keys]
                    .map(|n| Guarded::new(&vec![f32::NAN; n], place));
                let rows = rows.each_ref().map(|values| Rows { values, stride });
                attention.forward(isa, rows, &masks, &mut context, Some(&mut weights));
                results.push(context.to_vec());
                let what = format!("{isa} {queries} {keys} {width} {place:?}");
                assert_close(&context, &results[0], 8.0, &what);
                assert!(
                    weights.iter().all(|w| (0.0..=1.000_001).contains(w)),
                    "{what}"
                );
            }
        }
    }
}

/// The steps are safe code; their slices are guarded all the same.
#[test]
fn steps_stay_inside() {
    type Step = fn(&mut StateMut<'_>, &[f32], &StepParams, &mut [f32]);
    let mut random = Random::new(75);
    let params = StepParams {
        lr: 1e-3,
        t: 1,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        ridge: 1e-6,
    };
    let steps: [(&str, Step); 2] = [
        ("basis", |w, grad, params, out| {
            basis(w, None, grad, params, out);
        }),
        ("coordinate", coordinate),
    ];
    for len in some([1, 9, 33, 64], 2) {
        let widths = [0, 1, 3, 8, 2];
        let start = State::random(&mut random, len, 8, &widths);
        let grad = random.normals(len * widths.len(), 1.0);
        for (name, step) in steps {
            let mut expected = start.clone();
            let mut values = vec![f32::NAN; grad.len()];
            step(&mut expected.parts(), &grad, &params, &mut values);
            for place in some(PLACES, 1) {
                let grad = Guarded::new(&grad, place);
                let mut out = Guarded::new(&vec![f32::NAN; grad.len()], place);
                let mut guarded = start.state.clone().map(
                    |codes| Guarded::new(&codes, place),
                    |widths| Guarded::new(&widths, place),
                    |floats| Guarded::new(&floats, place),
                );
                let mut w = StateMut {
                    len,
                    max_bits: 8,
                    state: guarded
                        .as_mut()
                        .map(|x| &mut **x, |x| &mut **x, |x| &mut **x),
                };
                step(&mut w, &grad, &params, &mut out);
                assert_eq!(*out, *values, "{name} {len} {place:?}");
                assert_eq!(*guarded.codes, *expected.codes, "{name} {len} {place:?}");
            }
        }
    }
}
