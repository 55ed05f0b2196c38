//! One case, and how it is proven and timed.

use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::tensor::{Device, TensorData};

/// What a case is timed against.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The same computation by Burn in f32, on the same device.
    BurnF32,
    /// A step of Burn's Adam on the same weights.
    Adam,
}

/// Does some work once, and says how long that took.
pub type Run = Box<dyn FnMut() -> Duration>;

/// A run that is timed whole, to the end of what it started on the device.
pub fn timed<T>(device: &Device, mut work: impl FnMut() -> T + 'static) -> Run {
    let device = device.clone();
    Box::new(move || {
        let start = Instant::now();
        black_box(work());
        wait(&device);
        start.elapsed()
    })
}

/// Waits until the device has done all its work.
pub fn wait(device: &Device) {
    device.sync().expect("the device does its work");
}

/// What a device has to do at least.
#[derive(Clone, Copy, Default)]
pub struct Work {
    /// Read and written, by ours and by the other side.
    pub bytes: [f64; 2],
    /// Multiplications and additions of the dense computation, the same for both sides.
    pub operations: f64,
}

/// Two sides of the same work.
pub struct Case {
    pub ours: Run,
    pub other: Run,
    pub side: Side,
    /// What a device has to do at least; nothing where nobody asks.
    pub work: Work,
    /// Proves `ours`.
    pub check: Box<dyn FnOnce() -> Result<(), String>>,
}

impl Case {
    /// Runs the proof.
    pub fn verify(&mut self) -> Result<(), String> {
        std::mem::replace(&mut self.check, Box::new(|| Ok(())))()
    }
}

/// Whether two results are the same up to rounding, by the norm of their difference.
pub fn same(found: &[f32], expected: &[f32], room: f32) -> Result<(), String> {
    let norm = |values: &mut dyn Iterator<Item = f32>| {
        values
            .map(|x| f64::from(x) * f64::from(x))
            .sum::<f64>()
            .sqrt() as f32
    };
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    let error = difference / norm(&mut expected.iter().copied());
    if error <= room && found.len() == expected.len() {
        Ok(())
    } else {
        Err(format!("wrong by {error} of the norm, more than {room}"))
    }
}

/// The values of a tensor.
pub fn values(data: TensorData) -> Vec<f32> {
    data.try_into_vec().expect("f32")
}
