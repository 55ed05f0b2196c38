//! An example as a program.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use burn_alq::calibrate::CalibrateError;
use burn_alq::{PathPattern, Quantizer, Target};
use clap::{Args, CommandFactory, FromArgMatches, Parser};

use crate::cli::{Cli, Command, DemoArgs, Setup};
use crate::document::remake_report;
use crate::job::{self, Interrupted, Job};
use crate::network::ACT_BITS;
use crate::packed::{eval, inspect};
use crate::quantize::quantize;
use crate::sensitivity::sensitivity;
use crate::stop::STOPPED;
use crate::sweep::sweep;
use crate::time::time;
use crate::{DataFlags as _, Demo, Example, Failure, say};

/// The whole program: reads the command line and does what it says. The exit code is 130 if the user
/// stopped a training or a calibration.
pub fn main<E: Example>() -> ExitCode {
    exit_code(run::<E>())
}

/// What a program's work came to. Says on the standard error what went wrong.
pub fn exit_code(result: Result<(), Failure>) -> ExitCode {
    match result.and_then(|()| say::check()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::complain(format_args!("error: {error}"));
            let calibration = error.downcast_ref::<CalibrateError>();
            let stopped = matches!(calibration, Some(CalibrateError::Stopped));
            if error.is::<Interrupted>() || stopped {
                ExitCode::from(STOPPED)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn run<E: Example>() -> Result<(), Failure> {
    let mut command = Cli::<E>::command().name(E::PROGRAM).about(E::ABOUT);
    if E::TOP5 {
        let about = "Evaluate a packed model on the test images, top-1 and top-5";
        command = command.mut_subcommand("eval", |eval| eval.about(about));
    }
    if let Some(demo) = &E::DEMO {
        // The first in the list.
        let first = clap::Command::new("demo").display_order(0);
        command = command.subcommand(DemoArgs::augment_args(first).about(demo.about));
    }
    let matches = command.get_matches();
    let cli = match (matches.subcommand(), &E::DEMO) {
        (Some(("demo", matches)), Some(demo)) => {
            let args = DemoArgs::from_arg_matches(matches)?;
            Cli::<E>::try_parse_from(demo_training(demo, args))?
        }
        _ => Cli::<E>::from_arg_matches(&matches)?,
    };
    match &cli.command {
        Command::Train { setup, target } => job::train(job(setup, target.target())?),
        Command::Sweep {
            setup,
            sweep: targets,
        } => sweep(job(setup, None)?, targets),
        Command::Quantize(args) => quantize(args),
        Command::Sensitivity {
            data,
            network,
            flags,
        } => {
            let config = E::config(network);
            let data = data.load(&config)?;
            let quantizer = quantizer::<E>(flags.max_bits.into(), 0);
            sensitivity::<E>(flags, &config, &quantizer, &data)
        }
        Command::Eval(args) => eval(args),
        Command::Inspect { model, json } => inspect(model, *json),
        Command::Time(args) => time::<E>(args),
        Command::Report { run, png } => remake_report(run, png.as_deref()),
    }
}

/// The command line of a demo's training.
fn demo_training(demo: &Demo, args: DemoArgs) -> Vec<OsString> {
    let out = args.out.unwrap_or_else(|| {
        let numbered = (2..).map(|number| PathBuf::from(format!("runs/demo-{number}")));
        let mut names = std::iter::once(PathBuf::from("runs/demo")).chain(numbered);
        names.find(|out| !out.exists()).expect("names do not end")
    });
    let mut words: Vec<OsString> = vec!["demo".into(), "train".into()];
    words.extend(demo.flags.iter().map(OsString::from));
    words.extend(["--seed".into(), args.seed.to_string().into()]);
    words.extend(["--out".into(), out.into()]);
    if let Some(file) = args.json {
        words.extend(["--json".into(), file.into()]);
    }
    words
}

fn job<E: Example>(setup: &Setup<E>, target: Option<Target>) -> Result<Job<'_, E>, Failure> {
    let start = Instant::now();
    let mut config = E::config(&setup.network);
    let data = setup.data.load(&config)?;
    let flags = &setup.flags;
    if let Some(bits) = flags.act_bits {
        config.insert(ACT_BITS.into(), bits.to_string());
    }
    let plan = setup.preset.plan.clone().with(flags, target);
    let mut job = Job {
        start,
        flags,
        quantizer: quantizer::<E>(plan.max_bits, flags.activation_bits()),
        preset: setup.preset.name,
        plan,
        config,
        data,
        shards: 1,
        pretrained: None,
        part: None,
        references: E::references(),
    };
    E::adjust(&mut job, &setup.training)?;
    Ok(job)
}

/// The example's groupings; activations get so many bits, with 0 they stay ReLUs.
fn quantizer<E: Example>(max_bits: usize, act_bits: usize) -> Quantizer {
    let quantizer = E::quantizer(max_bits);
    match (act_bits, E::ACTIVATIONS) {
        (1.., Some(paths)) => quantizer.activations(PathPattern::glob(paths), act_bits),
        _ => quantizer,
    }
}
