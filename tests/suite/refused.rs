//! What cannot be trained on, or measured: named at the start.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use burn::module::{Module, ParamGroup};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use burn_alq::analysis::{LocalModel, Sensitivity};
use burn_alq::quantize::QuantizeError;
use burn_alq::train::{DistillError, DistillationConfig, Run, Task, TrainError};
use burn_alq::{
    AlqOptimizerConfig, GroupingRule, MultiBitActivation, MultiBitActivationConfig, PathPattern,
    Quantizer, Schedule,
};

use crate::MEMORY;
use crate::devices::device;
use crate::model::{Fit, Net};
use crate::support::alone;
use crate::trainable::{Pair, Regression, WIDTH, data, four_bits, one_bit, rows, run, square};

#[test]
fn an_epoch_without_batches_is_named() {
    let device = device().autodiff();
    let task = Regression {
        batches: 0,
        ..Regression::new()
    };
    let mut run = run(Pair::quantized(&device), &one_bit());
    let error = run.advance(&task).unwrap_err();
    assert!(matches!(error, TrainError::NoBatches), "{error}");
    let error = LocalModel::measure(&Pair::new(&device), &task, 1, 1e-3).unwrap_err();
    assert!(matches!(error, TrainError::NoBatches), "{error}");
    let steps = std::panic::catch_unwind(|| Schedule::float(1, 1e-3, 1.0).steps(0).count());
    assert!(steps.is_err());
}

/// Each loss is forgotten once it is read: no graph of it stays.
#[test]
fn a_sensitivity_takes_no_more_memory_with_every_loss() {
    if !alone("refused::a_sensitivity_takes_no_more_memory_with_every_loss") {
        return;
    }
    struct Watched {
        task: Regression,
        losses: AtomicUsize,
        early: AtomicUsize,
        late: AtomicUsize,
        tracked: AtomicBool,
    }

    impl Task for Watched {
        type Model = Pair;

        fn batches(&self) -> usize {
            4
        }

        fn loss(&self, model: &Pair, epoch: usize, batch: usize, shard: usize) -> Tensor<1> {
            let count = self.losses.fetch_add(1, Ordering::SeqCst);
            let used = MEMORY.current_usage();
            match count {
                // After the local model's.
                11 => self.early.store(used, Ordering::SeqCst),
                _ => self.late.store(used, Ordering::SeqCst),
            }
            let loss = self.task.loss(model, epoch, batch, shard);
            if count > 10 && loss.is_tracked() {
                self.tracked.store(true, Ordering::SeqCst);
            }
            loss
        }

        fn evaluate(&self, _: &Pair) -> f64 {
            0.0
        }
    }

    let task = Watched {
        task: Regression {
            rows: 4096,
            ..Regression::new()
        },
        losses: AtomicUsize::new(0),
        early: AtomicUsize::new(0),
        late: AtomicUsize::new(0),
        tracked: AtomicBool::new(false),
    };
    let model = Pair::new(&device().autodiff());
    let measured = Sensitivity::measure(&model, &task, &four_bits(), 8, 1e-3, |_, _| {}).unwrap();
    assert_eq!(measured.weights.len(), 10);
    assert_eq!(task.losses.into_inner(), 8 + 1 + 80);
    let (early, late) = (task.early.into_inner(), task.late.into_inner());
    // 70 graphs would hold the activations of 4,096 rows, 256 KiB a layer each.
    assert!(late < early + (256 << 10), "{early} to {late} bytes");
    assert!(!task.tracked.into_inner());
    assert!(
        model.first.weight.val().is_require_grad(),
        "the caller's model trains on"
    );
}

/// A network that is its own teacher has no slope: what is left is rounding.
#[test]
fn a_loss_at_its_minimum_is_refused() {
    struct SelfTaught {
        teacher: Pair,
        device: Device,
        /// How far away the teacher is.
        away: f64,
    }

    impl Task for SelfTaught {
        type Model = Pair;

        fn batches(&self) -> usize {
            2
        }

        fn loss(&self, model: &Pair, _: usize, _: usize, _: usize) -> Tensor<1> {
            let (x, _) = data(&self.device);
            // The same function, summed in another order.
            let joined = self
                .teacher
                .first
                .weight
                .val()
                .matmul(self.teacher.second.weight.val());
            let taught = x.clone().inner().matmul(joined.inner()) * (1.0 + self.away);
            square(model.forward(x) - Tensor::from_inner(taught))
        }

        fn evaluate(&self, _: &Pair) -> f64 {
            0.0
        }
    }

    let device = device().autodiff();
    let model = Pair::new(&device);
    let mut task = SelfTaught {
        teacher: model.clone(),
        device,
        away: 0.0,
    };
    let error = LocalModel::measure(&model, &task, 2, 1e-3).unwrap_err();
    let TrainError::Minimum { loss, change } = error else {
        panic!("{error}");
    };
    assert!(loss < 1e-10 && change > 0.3, "{loss}, {change}");
    let error = Sensitivity::measure(&model, &task, &four_bits(), 1, 1e-3, |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("its own teacher"), "{error}");
    // A thousandth beside it, there is a slope.
    task.away = 1e-3;
    LocalModel::measure(&model, &task, 2, 1e-3).unwrap();
    // Exactly at the minimum, nothing is left at all.
    let zero = Pair {
        first: model.first.clone(),
        second: Linear {
            weight: model
                .second
                .weight
                .clone()
                .map(|w| w.zeros_like().require_grad()),
            ..model.second.clone()
        },
    };
    let task = Slope;
    let error = LocalModel::measure(&zero, &task, 1, 1e-3).unwrap_err();
    assert!(
        matches!(error, TrainError::Minimum { change: 1.0, .. }),
        "{error}"
    );
}

/// `Σ w²` of the second layer.
struct Slope;

impl Task for Slope {
    type Model = Pair;

    fn batches(&self) -> usize {
        1
    }

    fn loss(&self, model: &Pair, _: usize, _: usize, _: usize) -> Tensor<1> {
        model.second.weight.val().square().sum()
    }

    fn evaluate(&self, _: &Pair) -> f64 {
        0.0
    }
}

/// Each shard would see statistics of its own.
#[test]
fn shards_are_refused_where_layers_keep_statistics() {
    #[derive(Module, Debug)]
    struct Stepped {
        fc: Linear,
        step: MultiBitActivation,
    }

    struct Sharded<M>(std::marker::PhantomData<fn() -> M>, Device);

    impl Task for Sharded<Stepped> {
        type Model = Stepped;

        fn batches(&self) -> usize {
            1
        }

        fn shards(&self) -> usize {
            2
        }

        fn loss(&self, model: &Stepped, _: usize, _: usize, _: usize) -> Tensor<1> {
            let (x, _) = data(&self.1);
            square(model.step.forward(model.fc.forward(x)).into_tensor())
        }

        fn evaluate(&self, _: &Stepped) -> f64 {
            0.0
        }
    }

    impl Task for Sharded<Net> {
        type Model = Net;

        fn batches(&self) -> usize {
            1
        }

        fn shards(&self) -> usize {
            2
        }

        fn loss(&self, model: &Net, epoch: usize, batch: usize, _: usize) -> Tensor<1> {
            Fit::new(&self.1).loss(model, epoch, batch, 0)
        }

        fn evaluate(&self, _: &Net) -> f64 {
            0.0
        }
    }

    let device = device().autodiff();
    fn advance<T: Task>(model: T::Model, task: &T) -> Result<(), TrainError> {
        let schedule = Schedule::float(1, 1e-3, 1.0);
        let mut run = Run::new(model, AlqOptimizerConfig::new().init(), schedule, "test");
        run.advance(task).map(|_| ())
    }

    let task = Sharded::<Net>(Default::default(), device.clone());
    let net = Net::new(&device);
    let error = advance(net.clone(), &task).unwrap_err();
    let TrainError::Shards { path, shards: 2 } = &error else {
        panic!("{error}");
    };
    assert_eq!(path, "norm.running_mean");
    let frozen = net.freeze_group(ParamGroup::from_predicate("norm"));
    advance(frozen, &task).unwrap();

    let task = Sharded::<Stepped>(Default::default(), device.clone());
    let fc = LinearConfig::new(WIDTH, WIDTH).init(&device);
    let step = MultiBitActivationConfig::new(2).init(&device);
    let error = advance(
        Stepped {
            fc: fc.clone(),
            step,
        },
        &task,
    )
    .unwrap_err();
    assert!(
        error.to_string().starts_with("step.state keeps statistics"),
        "{error}"
    );
    let step = MultiBitActivation::off(&device);
    advance(Stepped { fc, step }, &task).unwrap();
    // Parameters that are frozen are no statistics.
    let pair = Pair::quantized(&device).no_grad();
    let task = Regression {
        shards: 2,
        ..Regression::new()
    };
    let trained = Pair {
        second: Pair::quantized(&device).second,
        ..pair
    };
    advance(trained, &task).unwrap();
}

/// By the axes of the weight, not by its place in the groups.
#[test]
fn a_number_that_is_not_finite_is_named_by_its_index() {
    let device = device().autodiff();
    let broken = |place: usize, number: f32| {
        let mut net = Net::new(&device);
        net.conv.weight = net.conv.weight.map(|weight| {
            let mut values: Vec<f32> = weight.to_data().try_into_vec().unwrap();
            values[place] = number;
            Tensor::from_data(TensorData::new(values, weight.dims()), &device).require_grad()
        });
        let pixelwise =
            Quantizer::new(3).rule(PathPattern::exact("conv.weight"), GroupingRule::Pixelwise);
        pixelwise.quantize(net).unwrap_err()
    };
    // [8, 1, 3, 3]
    for (place, number, expected) in [
        (0, f32::NAN, [0, 0, 0, 0]),
        (5 * 9 + 2 * 3 + 1, f32::INFINITY, [5, 0, 2, 1]),
        (71, f32::NEG_INFINITY, [7, 0, 2, 2]),
    ] {
        let error = broken(place, number);
        let text = format!("conv.weight: the number at {expected:?} is not finite");
        assert_eq!(error.to_string(), text);
        let QuantizeError::Weight { index, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(index, expected);
    }
}

/// A teacher with gradients would leave a graph in memory at every step, so it is refused; one without them
/// may be on any device.
#[test]
fn a_teacher_keeps_no_graph() {
    if !alone("refused::a_teacher_keeps_no_graph") {
        return;
    }
    let device = device().autodiff();
    let (teacher, student) = (Pair::new(&device), Pair::quantized(&device));
    let distillation = DistillationConfig::new(0.5).init().unwrap();
    let step = |teacher: &Pair| {
        let (x, y) = rows(&device, 2048);
        let scores = student.forward(x.clone());
        let task = square(scores.clone() - y);
        let loss = distillation.loss(task, scores, teacher.forward(x))?;
        let grads = loss.backward();
        assert!(student.first.weight.val().grad(&grads).is_some());
        Ok::<usize, DistillError>(MEMORY.current_usage())
    };
    assert_eq!(step(&teacher).unwrap_err(), DistillError::Tracked);
    let teacher = teacher.no_grad();
    let used: Vec<usize> = (0..60).map(|_| step(&teacher).unwrap()).collect();
    // A forward pass of the teacher holds 128 KiB a layer.
    let grown = used[59].saturating_sub(used[9]);
    assert!(grown < 128 << 10, "{grown} bytes more, {used:?}");
}
