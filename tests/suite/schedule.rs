//! Epochs, rates, targets and paces of a schedule.

use burn_alq::CoordinateType;
use burn_alq::optim::prune::Budget;
use burn_alq::optim::{Phase, PhaseKind, Size};
use burn_alq::train::{Pace, Recovery, Schedule, ScheduleConfig, ScheduleError, Target};

fn start() -> Vec<Size> {
    let size = |groups, len| Size {
        groups,
        len,
        coordinates: groups * 6,
        widest: 6,
        frozen: false,
        stands_for: None,
    };
    vec![size(20, 25), size(1000, 25), size(1000, 400), size(10, 500)]
}

#[test]
fn epochs_and_rates_follow_the_paper() {
    let config = ScheduleConfig::new(Target::Ratio(0.5))
        .with_rounds(2)
        .with_basis_epochs(2)
        .with_coordinate_epochs(1)
        .with_ste_epochs(1)
        .with_final_epochs(1);
    let schedule = config.init(&start()).unwrap();
    let kinds: Vec<PhaseKind> = schedule.epochs().iter().map(|e| e.kind).collect();
    use PhaseKind::{Basis, Coordinate, Prune, Ste};
    let round = [Basis, Basis, Coordinate, Prune];
    assert_eq!(kinds, [&round[..], &round, &[Ste, Coordinate]].concat());
    let rates: Vec<f64> = schedule.epochs().iter().map(|e| e.lr * 1e3).collect();
    let expected = [
        0.8, 0.64, 0.512, 0.512, 0.8, 0.64, 0.512, 0.512, 0.95, 0.855,
    ];
    for (rate, expected) in rates.iter().zip(expected) {
        // A few multiplications of f64.
        assert!((rate - expected).abs() < 1e-12, "{rate} is not {expected}");
    }
}

#[test]
fn budgets_fall_to_the_target_and_end_on_it() {
    for (target, last) in [
        (Target::Ratio(0.5), 761.0),
        (Target::Bits(0.4), 0.4 * 430_500.0),
        (Target::Bytes(22_700), 22_700.0),
    ] {
        let schedule = ScheduleConfig::new(target).init(&start()).unwrap();
        let mut budgets = Vec::new();
        for epoch in schedule.epochs() {
            for iteration in 0..10 {
                if let Phase::Prune(budget) = epoch.phase(iteration, 10) {
                    budgets.push(budget.at_most);
                }
            }
        }
        assert_eq!(budgets.len(), 40);
        assert!(budgets.is_sorted_by(|a, b| a > b), "budgets fall");
        assert_eq!(budgets.last(), Some(&last));
    }
}

#[test]
fn impossible_targets_are_refused() {
    let config = || ScheduleConfig::new(Target::Bits(0.4));
    let without_last = config().with_ste_epochs(0).with_final_epochs(0);
    for (config, expected) in [
        (
            ScheduleConfig::new(Target::Bits(6.0)),
            "the target of 6 bits per weight is not below the start of 6.0000 bits per weight",
        ),
        (
            ScheduleConfig::new(Target::Bytes(1 << 30)),
            "the target of 1073741824 bytes is not below",
        ),
        (ScheduleConfig::new(Target::Bits(0.0)), "cannot be reached"),
        (ScheduleConfig::new(Target::Bits(-1.0)), "cannot be reached"),
        (ScheduleConfig::new(Target::Bytes(1)), "cannot be reached"),
        (ScheduleConfig::new(Target::Bits(f64::NAN)), "not be NaN"),
        (
            ScheduleConfig::new(Target::Ratio(1.0)),
            "ratio must not be 1",
        ),
        (config().with_rounds(0), "at least one round"),
        (config().with_lr(f64::NAN), "lr must not be NaN"),
        (
            without_last.with_coordinate_type(CoordinateType::F16),
            "coordinates in f16 need at least one STE or coordinate epoch",
        ),
    ] {
        let error = config.init(&start()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(config().init(&[]), Err(ScheduleError::NoWeights));
}

/// All budgets of a schedule, in epochs of `iterations`.
fn budgets(config: &ScheduleConfig, iterations: usize) -> Vec<Budget> {
    let schedule = config.init(&start()).unwrap();
    let epochs = schedule.epochs().iter();
    let phases = epochs.flat_map(|e| (0..iterations).map(|i| e.phase(i, iterations)));
    phases
        .filter_map(|phase| match phase {
            Phase::Prune(budget) => Some(budget),
            _ => None,
        })
        .collect()
}

#[test]
fn the_cubic_pace_is_its_formula_over_all_rounds() {
    let config = ScheduleConfig::new(Target::Bits(0.4))
        .with_pace(Pace::Cubic)
        .with_prune_epochs(2);
    let budgets = budgets(&config, 5);
    assert_eq!(budgets.len(), 40);
    let (start, target) = (6.0 * 430_500.0, 0.4 * 430_500.0);
    for (step, budget) in budgets.iter().enumerate() {
        let to_go = 1.0 - (step + 1) as f64 / 40.0;
        let expected = target + (start - target) * f64::powi(to_go, 3);
        // A few operations of f64 on numbers of millions.
        assert!((budget.at_most - expected).abs() < 1e-6, "step {step}");
        assert_eq!(budget.loss_share, 1.0);
    }
    assert_eq!(budgets[39].at_most, target);
}

#[test]
fn the_pace_of_the_loss_shares_what_a_round_has_to_go() {
    let config = ScheduleConfig::new(Target::Bits(0.4)).with_prune_epochs(2);
    let constant = budgets(&config, 3);
    let loss = budgets(&config.with_pace(Pace::Loss), 3);
    for (round, budgets) in loss.chunks_exact(6).enumerate() {
        let left: Vec<f64> = budgets.iter().map(|b| 1.0 / b.loss_share).collect();
        assert_eq!(left, [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]);
        let end = constant[round * 6 + 5].at_most;
        assert!(budgets.iter().all(|budget| budget.at_most == end));
    }
}

#[test]
fn recovery_follows_every_pruning_step_and_fills_the_epoch() {
    for (steps, iterations, expected) in [
        (0, 3, "PPP"),
        (2, 10, "PccPccPccc"),
        (2, 6, "PccPcc"),
        (9, 4, "Pccc"),
        (usize::MAX, 2, "Pc"),
    ] {
        let config = ScheduleConfig::new(Target::Bits(0.4)).with_recovery_steps(steps);
        for (recovery, letter) in [(Recovery::Coordinate, 'c'), (Recovery::Basis, 'b')] {
            let schedule = config
                .clone()
                .with_recovery(recovery)
                .init(&start())
                .unwrap();
            let mut epochs = schedule.epochs().iter();
            let epoch = epochs.rfind(|e| e.kind == PhaseKind::Prune).unwrap();
            let phases = (0..iterations).map(|i| epoch.phase(i, iterations));
            let mut last = 0.0;
            let found: String = phases
                .map(|phase| match phase {
                    Phase::Prune(budget) => {
                        last = budget.at_most;
                        'P'
                    }
                    Phase::Coordinate => 'c',
                    Phase::Basis => 'b',
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(found, expected.replace('c', &letter.to_string()));
            assert_eq!(
                last,
                0.4 * 430_500.0,
                "the target is met whatever is between"
            );
        }
    }
}

#[test]
fn one_cycle_rises_and_falls_in_every_step() {
    let schedule = Schedule::one_cycle(6, 0.3, 2);
    let rates: Vec<f64> = schedule.steps(5).map(|step| step.lr).collect();
    assert_eq!(rates.len(), 30);
    // 10 steps up, 20 down, each in its middle.
    for (step, rate) in rates.iter().enumerate() {
        let at = step as f64 + 0.5;
        let expected = if step < 10 {
            at / 10.0
        } else {
            (30.0 - at) / 20.0
        };
        assert!((rate - 0.3 * expected).abs() < 1e-12, "step {step}: {rate}");
    }
    assert_eq!(schedule.step(6, 0, 5).lr, 0.0, "after the end");
    // Without warm-up it falls at once; warm-up alone ends at the peak.
    let first = |epochs, warm_up| Schedule::one_cycle(epochs, 1.0, warm_up).step(0, 0, 2).lr;
    assert_eq!((first(1, 0), first(1, 3)), (0.75, 0.25));
    assert!(Schedule::one_cycle(0, 1.0, 2).epochs().is_empty());
}

#[test]
fn a_control_has_the_steps_and_rates_of_what_it_is_compared_with() {
    let schedule = ScheduleConfig::new(Target::Bits(0.4))
        .init(&start())
        .unwrap();
    let control = schedule.control();
    let rates = |schedule: &Schedule| schedule.steps(3).map(|step| step.lr).collect::<Vec<_>>();
    assert_eq!(rates(&control), rates(&schedule));
    assert!(control.steps(3).all(|step| step.phase == Phase::Fixed));
}
