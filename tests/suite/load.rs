//! Many threads, and long runs: the same answers, and no more memory at the end than at the start.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData};
use burn_alq::{PackedModel, Target};

use crate::model::{Fit, Net, bytes, finish, quantizer, start};
use crate::support::{Random, alone};

/// How long threads share a model: `cargo xtask load` asks for minutes.
fn duration() -> Duration {
    let seconds = std::env::var("BURN_ALQ_LOAD_SECONDS");
    let seconds = seconds.map_or(3, |text| text.parse().expect("a number of seconds"));
    Duration::from_secs(seconds)
}

/// Bytes of this process in memory.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// One network for all threads: nothing is copied, and what the kernels need is laid out once.
#[cfg(target_os = "linux")]
#[test]
fn threads_share_a_packed_model() {
    const THREADS: usize = 8;
    /// Around a block of the kernels, and one.
    const BATCHES: [usize; 6] = [1, 2, 7, 16, 33, 64];
    /// Buffers of eight threads come and go; a leak of one small batch a call would be gigabytes.
    const SLACK: usize = 24 << 20;

    if !alone("load::threads_share_a_packed_model") {
        return;
    }
    let device = Device::flex();
    let packed = PackedModel::pack(&quantizer().quantize(Net::new(&device)).unwrap().0).unwrap();
    let net = packed.apply(Net::new(&device)).unwrap();
    let mut random = Random::new(1);
    let cases = BATCHES.map(|batch| {
        let images = random.normals(batch * 36, 1.0);
        let images: Vec<f32> = images.iter().map(|&x| x as f32).collect();
        let data = TensorData::new(images, [batch, 1, 6, 6]);
        let answer = net
            .forward(Tensor::from_data(data.clone(), &device))
            .into_data();
        (data, answer)
    });
    let (calls, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let [mut early, mut late] = [0; 2];
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (net, cases, calls, stop, device) = (&net, &cases, &calls, &stop, &device);
            scope.spawn(move || {
                let mut random = Random::new(thread as u64);
                while !stop.load(Ordering::Relaxed) {
                    let (data, answer) = &cases[random.bits() as usize % cases.len()];
                    let images = Tensor::from_data(data.clone(), device);
                    let found = net.forward(images).into_data();
                    assert!(found.as_bytes() == answer.as_bytes(), "thread {thread}");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let begin = Instant::now();
        std::thread::sleep(duration() / 3);
        early = resident();
        while begin.elapsed() < duration() {
            std::thread::sleep(duration() / 20);
            late = late.max(resident());
        }
        stop.store(true, Ordering::Relaxed);
    });
    let calls = calls.into_inner();
    println!(
        "{calls} calls, {} KiB, then at most {} KiB",
        early >> 10,
        late >> 10
    );
    assert!(calls > 100 * THREADS, "{calls} calls");
    assert!(late < early + SLACK, "{early} bytes, then {late}");
}

/// A step leaves nothing behind.
#[cfg(target_os = "linux")]
#[test]
fn a_long_training_takes_no_more_memory() {
    /// Half of them to warm up.
    const STEPS: usize = 1000;
    /// A kilobyte a step would be half of it; a graph that is kept is far more.
    const SLACK: usize = 1 << 20;

    if !alone("load::a_long_training_takes_no_more_memory") {
        return;
    }
    let device = Device::flex().autodiff();
    let task = Fit::new(&device);
    let config = crate::model::short(Target::Bits(0.7))
        .with_basis_epochs(STEPS / Fit::BATCHES / 4)
        .with_coordinate_epochs(STEPS / Fit::BATCHES / 4);
    let mut run = crate::model::start_with(&device, &config);
    let mut early = 0;
    for step in 0..STEPS {
        run.advance(&task)
            .unwrap()
            .expect("a schedule of more steps");
        if step == STEPS / 2 {
            early = resident();
        }
    }
    let late = resident();
    println!(
        "{} KiB after {} steps, {} KiB after {STEPS}",
        early >> 10,
        STEPS / 2,
        late >> 10
    );
    assert!(late < early + SLACK, "{early} bytes, then {late}");
}

/// Threads share a tensor by rows, never a sum: any number of them gives the same bits.
#[test]
fn the_number_of_threads_changes_nothing() {
    let mut results = Vec::new();
    for threads in [1, 2, 3, 8] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        results.push(pool.build().unwrap().install(|| {
            let device = Device::flex().autodiff();
            let task = Fit::new(&device);
            bytes(&finish(start(&device, Target::Bits(0.7)), &task))
        }));
        assert!(
            results[0] == results[results.len() - 1],
            "{threads} threads"
        );
    }
}
