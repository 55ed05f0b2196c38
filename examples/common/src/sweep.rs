//! A training down a list of targets: each starts from the multi-bit network of the one before.

use std::fmt::Display;
use std::path::Path;
use std::time::Instant;

use burn_alq::report::table;
use burn_alq::{ScheduleConfig, Target};
use clap::{ArgGroup, Args};
use serde::{Deserialize, Serialize};

use crate::cli::parse_positive;
use crate::document::{Document, write_json};
use crate::job::{Goal, Job, Models, Runner, fit};
use crate::origin::Origin;
use crate::page::Page;
use crate::plot::{self, Figure, FrontierPoint, Series};
use crate::report::Report;
use crate::say::say;
use crate::settings::Settings;
use crate::{Failure, Network, at, folder};

/// Flags of a sweep, beside those of a training.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Targets")]
#[command(group = ArgGroup::new("targets").required(true).args(["bits", "bytes"]))]
pub struct SweepFlags {
    /// Average bitwidths of the weights to stop at, each below the one before.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_positive)]
    pub bits: Vec<f64>,
    /// Sizes of all packed weights to stop at, in bytes, each below the one before.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub bytes: Vec<usize>,
    /// Rounds of basis, coordinate and pruning epochs to every target after the first [default: half
    /// of the preset's, which are for the first]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub next_rounds: Option<u16>,
}

impl SweepFlags {
    /// One goal for each target.
    ///
    /// # Errors
    /// If they do not fall.
    fn goals(&self, schedule: &ScheduleConfig, out: &Path) -> Result<Vec<Goal>, Failure> {
        let rounds = self.next_rounds.map(usize::from);
        let rounds = rounds.unwrap_or((schedule.rounds / 2).max(1));
        let mut goals: Vec<Goal> = Vec::new();
        let bits = falling("bits", &self.bits, Target::Bits)?;
        let bytes = falling("bytes", &self.bytes, Target::Bytes)?;
        let flag = if bits.is_empty() { "--bytes" } else { "--bits" };
        let mut reached = Vec::new();
        for (size, name, target) in bits.into_iter().chain(bytes) {
            let mut schedule = schedule.clone();
            schedule.target = target;
            let mut settings = Settings::default();
            if !goals.is_empty() {
                // What the rounds before the first target were stays a number of the preset.
                settings.set("--next-rounds", rounds);
                settings.set("rounds", schedule.rounds);
                schedule.rounds = rounds;
            }
            reached.push(size);
            settings.set(flag, reached.join(","));
            goals.push(Goal {
                out: out.join(&name),
                name: Some(name),
                schedule,
                settings,
            });
        }
        Ok(goals)
    }
}

/// Targets as they were given, with the names of their folders.
fn falling<T: PartialOrd + Display + Copy>(
    unit: &str,
    list: &[T],
    target: fn(T) -> Target,
) -> Result<Vec<(String, String, Target)>, Failure> {
    if let Some(pair) = list.windows(2).find(|pair| pair[0] <= pair[1]) {
        let [before, after] = [pair[0], pair[1]];
        return Err(
            format!("--{unit}: targets must fall, but {after} comes after {before}").into(),
        );
    }
    let targets = list.iter().map(|&size| {
        let name = format!("{size}-{unit}");
        (size.to_string(), name, target(size))
    });
    Ok(targets.collect())
}

/// One finished target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Point {
    /// The folder of its model and report, inside the sweep's.
    pub folder: String,
    /// Accuracy on the validation images after the last epoch, in percent.
    pub validation: f64,
    /// Accuracy of the packed file on the test images, in percent.
    pub test: f64,
    /// That of the float network, trained on for as many steps since the first target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<f64>,
    /// Average bitwidth of the weights by the paper.
    pub paper_bits: f64,
    /// Everything stored for a weight.
    pub effective_bits: f64,
    /// Bytes of the packed weights.
    pub weight_bytes: usize,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// The time from the target before.
    pub seconds: f64,
}

/// What a sweep has reached so far.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sweep {
    version: u32,
    network: String,
    #[serde(flatten)]
    origin: Origin,
    preset: String,
    /// The float network's accuracy on the test images, in percent.
    float: f64,
    /// Networks of others, with their sources.
    references: Vec<Reference>,
    /// What was reached, in the order of the targets.
    points: Vec<Point>,
}

/// A network that others have published.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reference {
    /// Its name in the legend.
    pub name: String,
    /// The source of its numbers, for the caption.
    pub source: String,
    /// Its accuracy at its size, in bytes of weights alone.
    #[serde(flatten)]
    pub point: FrontierPoint,
}

/// Trains, packs and evaluates at each target in turn; the table and the frontier are written anew
/// after each.
///
/// # Errors
/// If the targets do not fall or cannot be reached, or as [`train`](crate::job::train). Targets that
/// are finished are kept.
pub fn sweep<N: Network>(job: Job<'_, N>, flags: &SweepFlags) -> Result<(), Failure> {
    let (job, goals) = fit(job, |job| flags.goals(&job.plan.schedule, &job.flags.out))?;
    let out = &job.flags.out;
    let runner = Runner::new(&job, &goals)?;
    say!("data: {}", job.data.name);

    let mut report = Report::new(&job);
    let float = runner.float(&mut report)?;
    // As in a run to one target.
    let kept = float.valid();
    let mut sweep = Sweep {
        version: Sweep::VERSION,
        network: N::TITLE.to_string(),
        origin: Origin::new(job.flags.seed, &job.data.name),
        preset: job.preset.into(),
        float: 0.0,
        references: job.references.clone(),
        points: Vec::new(),
    };
    let mut start = job.start;
    let mut before: Option<Models<N>> = None;
    for goal in &goals {
        say!("\n{}", name(&goal.out));
        std::fs::create_dir_all(&goal.out).map_err(|error| at(&goal.out, error))?;
        folder::clear(&goal.out)?;
        let models = match before.take() {
            Some(models) => models,
            None => Models {
                quantized: runner.sketch(&float, &goal.schedule)?,
                control: runner.control()?,
            },
        };
        let (trained, reached) = runner.reach(models, &kept, goal, start, report)?;
        say!("{}", reached.result_line());
        sweep.push(goal, &reached);
        sweep.write(out)?;
        before = Some(trained);
        start = Instant::now();
        report = Report::new(&job);
    }
    if let Some(file) = &job.flags.json {
        write_json(file, &sweep)?;
    }
    say!("\n{}", sweep.to_markdown());
    say!("{}", out.join("sweep.html").display());
    Ok(())
}

/// The name of a target's folder.
fn name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

impl Sweep {
    fn push(&mut self, goal: &Goal, report: &Report) {
        let Some(model) = &report.model else {
            return;
        };
        let metrics = report.history.iter().rev();
        self.float = report.accuracies.float;
        self.points.push(Point {
            folder: name(&goal.out),
            validation: metrics
                .filter_map(|point| point.metric)
                .next()
                .unwrap_or(f64::NAN),
            test: report.accuracies.packed,
            control: report.accuracies.control,
            paper_bits: model.paper_bits,
            effective_bits: model.effective_bits,
            weight_bytes: model.weight_bytes(),
            file_bytes: report.file_bytes,
            seconds: report.seconds,
        });
    }

    fn rows(&self) -> Vec<[String; 9]> {
        let head = [
            "target",
            "validation",
            "test",
            "control",
            "paper bits",
            "effective bits",
            "bytes of weights",
            "bytes of the file",
            "minutes",
        ];
        let mut rows = vec![head.map(String::from)];
        rows.extend(self.points.iter().map(|point| {
            [
                point.folder.clone(),
                format!("{:.2} %", point.validation),
                format!("{:.2} %", point.test),
                point
                    .control
                    .map_or("-".into(), |control| format!("{control:.2} %")),
                format!("{:.4}", point.paper_bits),
                format!("{:.4}", point.effective_bits),
                point.weight_bytes.to_string(),
                point.file_bytes.to_string(),
                format!("{:.1}", point.seconds / 60.0),
            ]
        }));
        rows
    }

    /// The frontier, against bits and against bytes.
    fn frontier(&self) -> [Figure; 2] {
        let of_file = |point: &Point| FrontierPoint {
            bits: point.paper_bits,
            bytes: point.file_bytes as f64,
            accuracy: point.test,
        };
        let ours = Series {
            name: "this sweep".into(),
            points: self.points.iter().map(of_file).collect(),
        };
        let theirs = self.references.iter().map(|reference| Series {
            name: reference.name.clone(),
            points: vec![reference.point],
        });
        let sources = self
            .references
            .iter()
            .map(|Reference { name, source, .. }| {
                format!("{name}: {source}, bytes of weights alone.")
            });
        let sources = sources.collect::<Vec<_>>().join(" ");
        let caption = format!("On the test images; bytes are the whole file's. {sources}");
        let series: Vec<Series> = std::iter::once(ours).chain(theirs).collect();
        plot::frontier(&series, Some(self.float), &caption)
    }
}

impl Document for Sweep {
    const NAME: &'static str = "sweep";
    const VERSION: u32 = 1;

    fn to_markdown(&self) -> String {
        format!(
            "# {}, sweep, preset {}, seed {}\n\ndata: {}; machine: {}; float network {:.2} % on the test \
             images\n\n{}",
            self.network,
            self.preset,
            self.origin.seed,
            self.origin.data,
            self.origin.machine,
            self.float,
            table(&self.rows())
        )
    }

    fn page(&self) -> Page<'_> {
        let title = format!("{}, sweep, preset {}", self.network, self.preset);
        let (Origin { data, seed, .. }, float) = (&self.origin, self.float);
        let about = format!("On {data}, seed {seed}; float {float:.2} %");
        Page::new(title, about, &self.origin)
            .section("Frontier", self.frontier())
            .table("Targets", self.rows())
    }
}
