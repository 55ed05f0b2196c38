//! What makes a model smaller or better at its size: each lever by its definition, and whole runs.

use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use burn_alq::optim::{Cost, total};
use burn_alq::optim::{average_bits, sizes};
use burn_alq::train::{DistillError, DistillationConfig};
use burn_alq::train::{Pace, Recovery};
use burn_alq::{AlqOptimizerConfig, CoordinateType, PackedModel, Phase, ScheduleConfig, Target};

use crate::model::{Fit, Net, assert_consistent, bytes, finish, quantizer, short, start_with};

fn softmax(scores: &[f64], temperature: f64) -> Vec<f64> {
    let powers: Vec<f64> = scores.iter().map(|x| (x / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

const STUDENT: [[f64; 3]; 2] = [[1.0, 2.0, -1.0], [0.0, 0.5, 0.25]];
const TEACHER: [[f64; 3]; 2] = [[3.0, -2.0, 0.0], [0.0, 0.0, 4.0]];

#[test]
fn distillation_is_its_formula_and_moves_the_student_only() {
    let device = Device::flex().autodiff();
    let scores = |rows: [[f64; 3]; 2]| {
        Tensor::<2>::from_data(TensorData::from(rows), &device).require_grad()
    };
    for (weight, temperature) in [(0.0, 4.0), (0.3, 1.0), (0.5, 4.0), (1.0, 2.5)] {
        let config = DistillationConfig::new(weight).with_temperature(temperature);
        let divergence: f64 = STUDENT
            .iter()
            .zip(TEACHER)
            .map(|(student, teacher)| {
                let q = softmax(student, temperature);
                let p = softmax(&teacher, temperature);
                p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum::<f64>()
            })
            .sum::<f64>()
            / 2.0;
        let expected = (1.0 - weight) * 0.7 + weight * temperature * temperature * divergence;

        let (student, teacher) = (scores(STUDENT), scores(TEACHER).set_require_grad(false));
        let task = Tensor::from_floats([0.7], &device);
        let distillation = config.init().unwrap();
        // With autodiff or without it, the teacher is a constant.
        let plain = teacher.clone().without_autodiff();
        let loss = |teacher| distillation.loss(task.clone(), student.clone(), teacher);
        let [loss, same] = [teacher.clone(), plain].map(|teacher| loss(teacher).unwrap());
        let [found, same] = [loss.clone(), same].map(|loss| loss.into_scalar::<f32>());
        assert!(
            (f64::from(found) - expected).abs() < 1e-5,
            "{found} is not {expected}"
        );
        assert_eq!(found, same);
        let grads = loss.backward();
        let pull = student
            .grad(&grads)
            .unwrap()
            .abs()
            .sum()
            .into_scalar::<f32>();
        assert_eq!(pull > 0.0, weight > 0.0);
        let tracked = distillation.loss(task, student, scores(TEACHER));
        assert_eq!(tracked.unwrap_err(), DistillError::Tracked);
    }
}

#[test]
fn impossible_distillations_are_refused() {
    let device = Device::flex();
    let distillation = DistillationConfig::new(0.5).init().unwrap();
    let scores = |classes| Tensor::<2>::ones([2, classes], &device);
    let task = Tensor::from_floats([0.7], &device);
    let error = distillation
        .loss(task, scores(10), scores(1000))
        .unwrap_err();
    let outputs = DistillError::Outputs {
        teacher: vec![2, 1000],
        student: vec![2, 10],
    };
    assert_eq!(error, outputs);
    let text = "the teacher's outputs have shape [2, 1000], the network's [2, 10]";
    assert!(error.to_string().starts_with(text), "{error}");
    for (field, weight, temperature) in [
        ("weight", -0.1, 4.0),
        ("weight", 1.1, 4.0),
        ("weight", f64::NAN, 4.0),
        ("temperature", 0.5, 0.0),
        ("temperature", 0.5, f64::INFINITY),
    ] {
        let config = DistillationConfig::new(weight).with_temperature(temperature);
        let error = config.init().unwrap_err();
        let refused = matches!(error, DistillError::Value { field: found, .. } if found == field);
        assert!(refused, "{error}");
    }
}

/// Runs to the end, and again from checkpoints all along the way to the same bytes.
fn run_and_resume(config: &ScheduleConfig) -> Net {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::flex().autodiff();
    let task = Fit::new(&device);
    let file = |step: usize| folder.path().join(format!("{step}.bpk"));
    let mut run = start_with(&device, config);
    let mut steps = 0;
    loop {
        run.save(file(steps)).unwrap();
        if run.advance(&task).unwrap().is_none() {
            break;
        }
        steps += 1;
    }
    let net = run.into_model();
    let expected = bytes(&net);
    for step in (0..steps).step_by(4) {
        let run = start_with(&device, config);
        let run = run.resume(file(step), &device).unwrap();
        assert!(
            bytes(&finish(run, &task)) == expected,
            "stopped after {step} steps"
        );
    }
    net
}

/// Average bits that are the target, up to the last coordinate.
fn assert_on_target(net: &Net, bits: f64) {
    let after = sizes(net);
    // One coordinate costs at most the 32 weights of its group.
    let step = 32.0 / after.iter().map(|size| size.weights()).sum::<usize>() as f64;
    let found = average_bits(&after);
    assert!(found <= bits && found > bits - step, "{found} bits");
}

#[test]
fn recovery_steps_train_between_prunings() {
    for recovery in [Recovery::Coordinate, Recovery::Basis] {
        let config = short(Target::Bits(0.7))
            .with_prune_epochs(2)
            .with_recovery_steps(1)
            .with_recovery(recovery);
        assert_on_target(&run_and_resume(&config), 0.7);

        let device = Device::flex().autodiff();
        let task = Fit::new(&device);
        let mut run = start_with(&device, &config);
        let statistics = |net: &Net| net.norm.running_mean.value_sync().into_data();
        let mut bits = f64::INFINITY;
        let mut kinds = [0; 2];
        loop {
            let before = statistics(run.model());
            let (_, batch) = run.position();
            let Some(progress) = run.advance(&task).unwrap() else {
                break;
            };
            // Of five batches, the first and the third prune.
            let pruning_epoch = progress.plan.kind == burn_alq::optim::PhaseKind::Prune;
            let pruned = pruning_epoch && (batch == 0 || batch == 2);
            let changed = statistics(run.model()) != before;
            assert_eq!(changed, !pruned, "batch norm learns in recovery");
            assert_eq!(progress.bits < bits, pruned || bits.is_infinite());
            bits = progress.bits;
            kinds[usize::from(pruned)] += 1;
        }
        let steps: usize = run.timings().map(|(_, timing)| timing.steps).sum();
        let pruned = run.timings().find(|(phase, _)| *phase == "prune").unwrap();
        assert_eq!((pruned.1.steps, steps), (8, kinds[0] + kinds[1]));
    }
}

#[test]
fn every_pace_ends_on_the_target() {
    let paced = |pace| run_and_resume(&short(Target::Bits(0.7)).with_pace(pace));
    let nets = [Pace::Constant, Pace::Cubic, Pace::Loss].map(paced);
    for net in &nets {
        assert_on_target(net, 0.7);
    }
    let [constant, cubic, loss] = nets.map(|net| bytes(&net));
    assert!(constant != cubic && constant != loss && cubic != loss);
}

/// What trained is what the file holds, and it holds it in two bytes.
#[test]
fn coordinates_are_tuned_as_they_are_stored() {
    for coordinate_type in [CoordinateType::F16, CoordinateType::Bf16] {
        let config = short(Target::Bytes(120)).with_coordinate_type(coordinate_type);
        let net = run_and_resume(&config);
        assert_consistent(&net);
        let found = total(&sizes(&net), Cost::Bytes(coordinate_type));
        // A coordinate, its row, and a bit of every width.
        assert!(found <= 120 && found > 120 - 14, "{found} bytes");
        let packed = PackedModel::pack(&net).unwrap();
        let packed = packed.with_coordinate_type(coordinate_type).unwrap();
        let stored = packed.weights.iter();
        let stored = stored.map(|(_, weight)| weight.encoded_bytes().total());
        assert_eq!(stored.sum::<usize>(), found, "sizes foresee the file");
    }
}

/// Steps far smaller than what bf16 can tell apart add up.
#[test]
fn rounded_coordinates_go_on_from_their_masters() {
    let device = Device::flex().autodiff();
    let mut net = quantizer().quantize(Net::new(&device)).unwrap().0;
    let mut optimizer = AlqOptimizerConfig::new().init();
    optimizer.set_coordinate_type(CoordinateType::Bf16);
    let coordinates = |net: &Net| {
        let packed = PackedModel::pack(net).unwrap();
        packed.weights[1].1.coordinates().to_vec()
    };
    let mut step = |net: &mut Net, lr| {
        optimizer.set_phase(Phase::Coordinate);
        let input = Tensor::<2>::ones([2, 128], &device);
        let grads = net.fc.forward(input).mean().backward();
        let grads = GradientsParams::from_grads(grads, net);
        *net = optimizer.step(lr, net.clone(), grads);
    };
    step(&mut net, 1e-6);
    let start = coordinates(&net);
    let mut moved = Vec::new();
    for _ in 0..40 {
        let before = coordinates(&net);
        step(&mut net, 1e-5);
        let after = coordinates(&net);
        assert!(after.iter().all(|&a| CoordinateType::Bf16.holds(a)));
        moved.push(before != after);
    }
    assert!(moved.contains(&false) && moved.contains(&true), "{moved:?}");
    // 40 steps of at most the learning rate.
    for (start, end) in start.iter().zip(coordinates(&net)) {
        let ulp = start / 128.0;
        assert!((start - end).abs() <= 40.0 * 1e-5 + ulp, "{start} to {end}");
    }
}
