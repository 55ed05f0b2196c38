//! Weights in training form for the crates under test and their image in the oracle; comparisons.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use burn::tensor::{Tensor, TensorData};
use burn_alq::Quantized;

use burn_alq_tests::Group;
use multibit::cpu::Levels;
use multibit::fit::{self, Moments, StateMut, StepParams};

use crate::devices::device;

/// Whether this process runs one test alone; if not, runs it so.
///
/// For what a process has one of: Flex has one generator, and other tests draw from it.
pub fn alone(test: &str) -> bool {
    const CHILD: &str = "BURN_ALQ_TEST_ALONE";
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let text = rerun(["--exact", test, "--nocapture"], (CHILD, "1"));
    assert!(text.contains(" 1 passed"), "{test} is not a test: {text}");
    print!("{text}");
    false
}

/// What this binary prints with other arguments and one more variable, where all tests pass.
pub fn rerun<'a>(args: impl IntoIterator<Item = &'a str>, (name, value): (&str, &str)) -> String {
    // What the device needs is for both.
    device();
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(args).env(name, value).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

/// A weight in training form with its moments, owned.
#[derive(Debug, Clone)]
pub struct State {
    pub len: usize,
    pub max_bits: usize,
    pub state: fit::State<Vec<u8>, Vec<f32>>,
}

impl State {
    /// The same groups as in the oracle, with zero moments.
    pub fn new(groups: &[Group], len: usize, max_bits: usize) -> Self {
        let slots = groups.len() * max_bits;
        let zeros = |count| Moments::default().map(|()| vec![0.0; count]);
        let mut state = fit::State {
            codes: Vec::new(),
            coordinates: vec![0.0; slots],
            widths: Vec::new(),
            weight: zeros(groups.len() * len),
            alpha: zeros(slots),
        };
        for (index, group) in groups.iter().enumerate() {
            state.widths.push(group.alpha.len() as u8);
            for (slot, a) in group.alpha.iter().enumerate() {
                state.coordinates[index * max_bits + slot] = *a as f32;
            }
            state.codes.extend((0..len).map(|j| {
                let bases = group.bases.iter().enumerate();
                bases.fold(0, |code, (i, basis)| code | u8::from(basis[j] < 0.0) << i)
            }));
        }
        Self {
            len,
            max_bits,
            state,
        }
    }

    /// Runs a kernel on the slices.
    pub fn with<T>(&mut self, run: impl FnOnce(&mut StateMut<'_>) -> T) -> T {
        run(&mut StateMut {
            len: self.len,
            max_bits: self.max_bits,
            state: self.state.as_mut().map(
                |codes| &mut codes[..],
                |widths| &mut widths[..],
                |floats| &mut floats[..],
            ),
        })
    }

    /// Group `index` in the oracle's form.
    pub fn group(&self, index: usize) -> Group {
        let width = usize::from(self.state.widths[index]);
        let weights = |x: &[f32]| widen(&x[index * self.len..][..self.len]);
        let slots = |x: &[f32]| widen(&x[index * self.max_bits..][..width]);
        let codes = &self.state.codes[index * self.len..][..self.len];
        let basis = |i: usize| {
            let signs = codes
                .iter()
                .map(|code| if code >> i & 1 == 0 { 1.0 } else { -1.0 });
            signs.collect()
        };
        let mut group = Group::new(
            self.len,
            (0..width).map(basis).collect(),
            slots(&self.state.coordinates),
        );
        let Moments { m, v, v_max } = &self.state.weight;
        (group.m, group.v, group.v_max) = (weights(m), weights(v), weights(v_max));
        let Moments { m, v, v_max } = &self.state.alpha;
        (group.m_alpha, group.v_alpha, group.v_max_alpha) = (slots(m), slots(v), slots(v_max));
        group
    }

    /// All groups in the oracle's form.
    pub fn groups(&self) -> Vec<Group> {
        (0..self.state.widths.len())
            .map(|index| self.group(index))
            .collect()
    }
}

/// f32 as f64.
pub fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// f64 rounded to f32.
pub fn narrow(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}

/// The numbers of a step.
pub fn params(lr: f64, t: u32, ridge: f64) -> StepParams {
    StepParams {
        lr,
        t,
        ridge,
        ..StepParams::default()
    }
}

/// A small generator with a fixed seed: splitmix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// In `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Near enough to a standard normal: a sum of 12 uniforms.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    pub fn normals(&mut self, count: usize, scale: f64) -> Vec<f64> {
        (0..count)
            .map(|_| f64::from((self.normal() * scale) as f32))
            .collect()
    }
}

/// Random groups of the given widths.
pub fn random_groups(random: &mut Random, len: usize, widths: &[usize]) -> Vec<Group> {
    let group = |&width: &usize| {
        let mut sign = || if random.bits() & 1 == 0 { 1.0 } else { -1.0 };
        let bases = (0..width)
            .map(|_| (0..len).map(|_| sign()).collect())
            .collect();
        let alpha = (0..width)
            .map(|i| f64::from(((0.05 + 0.1 * random.uniform()) * (i + 1) as f64) as f32));
        let alpha = alpha.collect();
        Group::new(len, bases, alpha)
    };
    widths.iter().map(group).collect()
}

/// Compares groups with the oracle's: bases exactly, the rest within what f32 allows.
///
/// # Panics
/// If they differ.
pub fn assert_groups(found: &[Group], expected: &[Group], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: groups");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = |name: &str, a: &[f64], b: &[f64], relative: f64, absolute: f64| {
            assert_eq!(a.len(), b.len(), "{what}, group {index}: number of {name}");
            for (a, b) in a.iter().zip(b) {
                let error = (a - b).abs();
                assert!(
                    error <= absolute + relative * b.abs(),
                    "{what}, group {index}: {name} {a} is not {b}"
                );
            }
        };
        assert_eq!(
            found.bases, expected.bases,
            "{what}: bases of group {index}"
        );
        close("α", &found.alpha, &expected.alpha, 0.0, tolerance);
        close(
            "ŵ",
            &found.reconstruct(),
            &expected.reconstruct(),
            0.0,
            tolerance,
        );
        close("m", &found.m, &expected.m, 1e-5, 1e-7);
        close("v", &found.v, &expected.v, 1e-5, 1e-9);
        close("v̂", &found.v_max, &expected.v_max, 1e-5, 1e-9);
        close("m_α", &found.m_alpha, &expected.m_alpha, 1e-5, 2e-6);
        close("v_α", &found.v_alpha, &expected.v_alpha, 2e-5, 1e-9);
        close("v̂_α", &found.v_max_alpha, &expected.v_max_alpha, 2e-5, 1e-9);
    }
}

/// Compares what small layers give.
///
/// # Panics
/// If they differ.
pub fn assert_close(found: TensorData, expected: TensorData, what: &str) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let pairs = found.iter::<f64>().zip(expected.iter::<f64>());
    for (index, (found, expected)) in pairs.enumerate() {
        // Sums of up to some hundred products near 1, in another order.
        let room = 1e-4;
        assert!(
            (found - expected).abs() <= room,
            "{what}: {found} is not {expected} at {index}"
        );
    }
}

/// What is in a tensor, in f32.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data_as::<f32>().try_into_vec().unwrap()
}

/// Compares numbers near 1 that sums in another order have led to; the caller knows how many.
///
/// # Panics
/// If they differ by more than `room`.
pub fn assert_near(found: &[f32], expected: &[f32], room: f32) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= room,
            "{found} is not {expected} at {index}"
        );
    }
}

/// What a call panics with.
///
/// # Panics
/// If it does not.
pub fn panic_of<T>(call: impl FnOnce() -> T) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(call)) else {
        panic!("it did not panic");
    };
    let text = panic.downcast_ref::<String>().cloned();
    text.unwrap_or_else(|| (*panic.downcast_ref::<&str>().expect("a text")).to_string())
}

/// # Panics
/// If `text` lacks one of the words.
pub fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word} is not said: {text}");
    }
}

/// Activations are at the levels of the values `before`, which are known up to `room` of each index:
/// only next to a threshold may a device take the other side of it.
///
/// # Panics
/// If they are not.
pub fn assert_at_levels(
    found: Quantized<4>,
    before: &[f64],
    levels: &Levels,
    room: impl Fn(usize) -> f64,
    what: &str,
) {
    let found: Vec<f32> = found.into_tensor().into_data().try_into_vec().unwrap();
    assert_eq!(found.len(), before.len(), "{what}");
    // A level is a sum of a few numbers.
    let sum: f32 = levels.coordinates().iter().sum();
    let rounding = 1e-6 * (levels.reference().abs() + sum);
    for (index, (found, before)) in found.iter().zip(before).enumerate() {
        let level = |x: f64| levels.quantize(x as f32);
        let range = [level(before - room(index)), level(before + room(index))];
        assert!(
            (range[0] - rounding..=range[1] + rounding).contains(found),
            "{what}: {found} at {index} is no level of {before}, {range:?}"
        );
    }
}
