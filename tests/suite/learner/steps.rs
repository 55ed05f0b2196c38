//! Steps are counted by what happens: another number than planned, a training that ends before its target,
//! and copies of it.

use burn::optim::GradientsParams;
use burn_alq::train::Task;

use super::*;
use crate::support::panic_of;

fn alq_of(steps: usize) -> Alq<Net> {
    let net = net();
    let schedule = schedule(&net, Target::Bits(0.7));
    Alq::new(net, schedule, steps)
}

fn data() -> Arc<dyn DataLoader<Batch>> {
    loader(items(), Fit::BATCH, None, Stack::default())
}

/// 5 batches in an epoch, 3 steps by twos, 3 on two devices (of 30 items each, in batches of 12).
#[test]
fn a_wrong_number_of_steps_is_named_after_the_first_epoch() {
    let folder = tempfile::tempdir().unwrap();
    type Change = fn(SupervisedTraining<Alq<Net>>) -> SupervisedTraining<Alq<Net>>;
    let changes: [(Change, usize); 3] = [
        (|training| training, 5),
        (|training| training.grads_accumulation(2), 3),
        (
            |training| {
                let devices = vec![Device::flex().autodiff(); 2];
                let optim = MultiDeviceOptim::OptimMainDevice;
                training.with_training_strategy(ExecutionStrategy::multi(devices, optim).into())
            },
            3,
        ),
    ];
    for (change, right) in changes {
        let run = |steps| {
            let model = alq_of(steps);
            let monitor = model.monitor().clone();
            let result = launch(change(training(folder.path(), data())), model);
            assert_eq!(monitor.status().unwrap().epoch, EPOCHS - 1);
            result.model
        };
        // More, fewer, and one that divides it.
        for wrong in [7, 2 * right, 2, 1] {
            let text = panic_of(|| drop(run(wrong)));
            let expected = format!("epoch 1 had {right} steps of the optimizer");
            assert!(text.contains(&expected), "{wrong} for {right}: {text}");
            assert!(text.contains(&format!("was told {wrong}")), "{text}");
        }
        let net = run(right).finish().unwrap();
        assert!(average_bits(&sizes(&net)) <= 0.7);
    }
}

#[test]
fn nothing_is_finished_before_its_target() {
    let folder = tempfile::tempdir().unwrap();
    let finish = |epochs, train, model: Alq<Net>| {
        let short = training(folder.path(), train).num_epochs(epochs);
        launch(short, model).model.finish()
    };
    // Of 11 epochs, the eighth is the last that prunes.
    let error = finish(7, data(), alq(net())).unwrap_err();
    assert_eq!((error.steps, error.needed, error.epochs), (35, 40, 8));
    assert!(error.to_string().contains("35 of the 40 steps"), "{error}");
    finish(8, data(), alq(net())).unwrap();
    // No batches, no steps.
    let empty = loader(Vec::new(), Fit::BATCH, None, Stack::default());
    assert_eq!(finish(EPOCHS, empty, alq(net())).unwrap_err().steps, 0);
    // Coordinates that are stored in two bytes are rounded in the epoch after.
    let half = || {
        let net = net();
        let config = crate::model::short(Target::Bits(0.7));
        let config = config.with_coordinate_type(burn_alq::CoordinateType::F16);
        let schedule = config.init(&sizes(&net)).unwrap();
        Alq::new(net, schedule, Fit::BATCHES)
    };
    assert_eq!(finish(8, data(), half()).unwrap_err().needed, 45);
    finish(9, data(), half()).unwrap();
    // A float model's schedule has nothing to prune.
    let float = burn_alq::Schedule::float(3, 1e-3, 1.0);
    finish(1, data(), Alq::new(net(), float, Fit::BATCHES)).unwrap();
}

/// A worker of a distributed training, with a fork of a model, to the end of the first round. `first` is the
/// batch that it begins with.
fn replica(model: &Alq<Net>, first: usize) -> Alq<Net> {
    let device = Device::flex().autodiff();
    let task = Fit::new(&device);
    let mut model = model.clone().fork(&device);
    let (mut optim, mut rates) = (adam(), model.rates());
    let mut rate = || burn::optim::lr_scheduler::LrScheduler::step(&mut rates);
    for step in model.steps()..4 * Fit::BATCHES {
        let batch = (first + step) % Fit::BATCHES;
        let loss = task.loss(model.model(), 0, batch, 0);
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = model.optimize(&mut optim, rate().into(), grads);
    }
    model
}

/// As the workers of a distributed training: forks of one model, also of a loaded checkpoint, which get
/// the same gradients. They prune the same and reach the same bytes.
#[test]
fn replicas_of_a_checkpoint_each_train_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let done = launch(training(folder.path(), data()).num_epochs(2), frozen());
    let record = done.model.into_record();
    let loaded = frozen().with_replicas(4).load_checkpoint(record).unwrap();
    let whole: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| bytes(replica(&loaded, 0).model())))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(whole[0] == whole[1] && whole[1] == whole[2]);
    let pruned = replica(&loaded, 0);
    assert!(average_bits(&sizes(pruned.model())) < average_bits(&sizes(loaded.model())));
    assert!(bytes(pruned.model()) == whole[0]);
    // Each can go on, and be recorded.
    assert_eq!(pruned.steps(), 20);
    pruned.into_record();
    loaded.into_record();
}

/// Where gradients were not reduced, replicas prune otherwise sooner or later; without a check the training
/// would go on with models that are no average of anything.
#[test]
fn a_replica_that_differs_stops_the_training() {
    let model = alq(net()).with_replicas(2);
    let first = replica(&model, 0);
    let text = panic_of(|| drop(replica(&model, 1)));
    assert!(text.contains("differs from the one on"), "{text}");
    assert!(text.contains("after epoch 4: groups of "), "{text}");
    // Who does not ask for it trains copies as he likes.
    let alone = alq(net());
    let [one, other] = [0, 1].map(|batch| replica(&alone, batch));
    assert!(bytes(one.model()) == bytes(first.model()));
    assert!(bytes(one.model()) != bytes(other.model()));
}

/// The model of another schedule is refused at once.
#[test]
fn a_schedule_of_another_model_is_refused() {
    let frozen = net().freeze_group(ParamGroup::from_path("conv.weight"));
    let schedule = schedule(&net(), Target::Bits(0.7));
    let text = panic_of(|| drop(Alq::new(frozen, schedule, 5)));
    assert!(
        text.contains("584 numbers") && text.contains("512"),
        "{text}"
    );
}

/// Pruning that cannot go on stops the training, whatever is left of the epoch.
#[test]
fn a_layer_without_gradient_stops_the_training() {
    let tight = schedule(&net(), Target::Bits(0.4));
    let mut model = Alq::new(net(), tight, Fit::BATCHES);
    let mut optim = adam();
    let device = Device::flex().autodiff();
    let text = panic_of(|| {
        loop {
            let input = Tensor::<2>::ones([2, 128], &device);
            let grads = model.model().fc.forward(input).mean().backward();
            let grads = GradientsParams::from_grads(grads, &model);
            model = model.clone().optimize(&mut optim, 1e-3.into(), grads);
        }
    });
    // The target is 233 bits of bases, of which the convolution keeps nearly all.
    assert!(text.contains("no gradient reaches conv.weight"), "{text}");
}

/// A record of a part of the model is none of its training.
#[test]
fn a_partial_record_is_refused() {
    let model = alq(net());
    let group = ParamGroup::from_predicate("fc");
    let part = model.clone().into_record_group(group).allow_partial(true);
    let error = model.load_checkpoint(part).unwrap_err();
    assert!(matches!(error, CheckpointError::NoPosition), "{error}");
}
