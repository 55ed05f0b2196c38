//! Down a list of targets: each starts from the multi-bit network of the one before.

use std::path::Path;
use std::time::Instant;

use burn_alq::report::plot::{self, Figure, Frontier, FrontierPoint, Series};
use burn_alq::report::table;
use burn_alq::{ScheduleConfig, Target};
use clap::{ArgGroup, Args};
use serde::{Deserialize, Serialize};

use crate::job::{CHECKPOINT, Goal, Interrupted, Job, Runner};
use crate::origin::Origin;
use crate::report::{Report, read_versioned, write_aside};
use crate::{Failure, Network, folder, html};

/// Flags of a sweep, beside those of a training.
#[derive(Args, Debug, Clone)]
#[command(group = ArgGroup::new("targets").required(true).args(["bits", "bytes"]))]
pub struct SweepFlags {
    /// Average bitwidths of the weights to stop at, each below the one before.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
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
    /// The targets by name.
    ///
    /// # Errors
    /// If they do not fall.
    fn targets(&self) -> Result<Vec<(String, Target)>, Failure> {
        fn falls<T: PartialOrd + std::fmt::Display>(flag: &str, list: &[T]) -> Result<(), Failure> {
            match list.windows(2).find(|pair| pair[0] <= pair[1]) {
                Some(pair) => Err(format!(
                    "{flag}: targets must fall, but {} comes after {}",
                    pair[1], pair[0]
                )
                .into()),
                None => Ok(()),
            }
        }
        falls("--bits", &self.bits)?;
        falls("--bytes", &self.bytes)?;
        let bits = self.bits.iter();
        let bits = bits.map(|&bits| (format!("{bits}-bits"), Target::Bits(bits)));
        let bytes = self.bytes.iter();
        let bytes = bytes.map(|&bytes| (format!("{bytes}-bytes"), Target::Bytes(bytes)));
        Ok(bits.chain(bytes).collect())
    }

    /// One goal for each target.
    fn goals(&self, schedule: &ScheduleConfig, out: &Path) -> Result<Vec<Goal>, Failure> {
        let rounds = self.next_rounds.map(usize::from);
        let rounds = rounds.unwrap_or((schedule.rounds / 2).max(1));
        let mut goals: Vec<Goal> = Vec::new();
        for (name, target) in self.targets()? {
            let mut schedule = schedule.clone();
            schedule.target = target;
            let mut after = String::new();
            if let Some(before) = goals.last() {
                schedule.rounds = rounds;
                after = format!(", after {:?}{}", before.schedule, before.after);
            }
            goals.push(Goal {
                out: out.join(name),
                schedule,
                after,
            });
        }
        Ok(goals)
    }
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
    /// Average bitwidth of the weights by the paper.
    pub paper_bits: f64,
    /// Everything stored for a weight.
    pub effective_bits: f64,
    /// Bytes of the packed weights.
    pub weight_bytes: usize,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// From the target before.
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
    /// Of the float network on the test images, in percent.
    float: f64,
    /// Networks of others, with their sources.
    references: Vec<Reference>,
    /// In the order of the targets.
    points: Vec<Point>,
}

/// A network that others have published.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reference {
    /// In the legend.
    pub name: String,
    /// In the caption.
    pub source: String,
    /// Average bitwidth of its weights.
    pub bits: f64,
    /// Bytes of its weights.
    pub bytes: f64,
    /// Accuracy in percent.
    pub accuracy: f64,
}

/// Another one where a reader of the old one would go wrong.
const VERSION: u32 = 1;

const JSON: &str = "sweep.json";
/// The page.
pub(crate) const HTML: &str = "sweep.html";

/// Trains, packs and evaluates at each target in turn; the table and the frontier are written anew
/// after each.
///
/// # Errors
/// If the targets do not fall or cannot be reached, or as [`train`](crate::job::train). Targets that
/// are finished are kept.
pub fn sweep<N: Network>(
    job: Job<'_, N>,
    flags: &SweepFlags,
    references: Vec<Reference>,
) -> Result<(), Failure> {
    let job = job.configured();
    let (out, resume) = (&job.flags.out, job.flags.resume);
    let goals = flags.goals(&job.plan.schedule, out)?;
    let runner = Runner::new(&job)?;
    let start = runner.check()?;
    for goal in &goals {
        let checked = goal.schedule.init(&start);
        checked.map_err(|error| named(goal, error.into()))?;
    }
    folder::prepare(out, resume)?;
    println!("data: {}", job.data.name);

    let mut report = Report::new(&job);
    let float = runner.float(&mut report)?;
    // As in a run to one target.
    let kept = float.valid();
    let mut sweep = Sweep::new(&job, references);
    let mut start = job.start;
    let mut before: Option<N> = None;
    for goal in &goals {
        println!("\n{}", name(&goal.out));
        std::fs::create_dir_all(&goal.out)
            .map_err(|error| format!("{}: {error}", goal.out.display()))?;
        folder::clear(&goal.out)?;
        let model = match before.take() {
            Some(model) => model,
            None => runner.sketch(&float, &goal.schedule)?,
        };
        // Its checkpoint says whether it was made with these flags.
        let begun = resume && goal.out.join(CHECKPOINT).exists();
        let trained = runner
            .quantize(model, &kept, goal, &mut report)
            .map_err(|error| named(goal, error))?;
        // One that is finished was evaluated, and its test images are not looked at twice.
        let finished = match begun && Report::is_in(&goal.out) {
            true => Report::read(&goal.out)?,
            false => {
                runner.finish(&trained, &kept, goal, start, &mut report)?;
                report
            }
        };
        println!("{}", finished.result_line());
        sweep.push(goal, &finished);
        sweep.write(out)?;
        before = Some(trained);
        start = Instant::now();
        report = Report::new(&job);
    }
    if let Some(file) = &job.flags.json {
        write_aside(file, &serde_json::to_vec(&sweep)?)?;
    }
    println!("\n{}", sweep.to_markdown());
    println!("{}", out.join(HTML).display());
    Ok(())
}

/// A failure on the way to a target; a stop by the user is none.
fn named(goal: &Goal, error: Failure) -> Failure {
    match error.is::<Interrupted>() {
        true => error,
        false => format!("{}: {error}", name(&goal.out)).into(),
    }
}

/// Of a target's folder.
fn name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

impl Sweep {
    fn new<N: Network>(job: &Job<'_, N>, references: Vec<Reference>) -> Self {
        Self {
            version: VERSION,
            network: N::TITLE.to_string(),
            origin: Origin::new(job.flags.seed, &job.data.name),
            preset: job.preset.clone(),
            float: 0.0,
            references,
            points: Vec::new(),
        }
    }

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
            paper_bits: model.paper_bits,
            effective_bits: model.effective_bits,
            weight_bytes: model.weight_bytes(),
            file_bytes: report.file_bytes,
            seconds: report.seconds,
        });
    }

    /// Whether a folder is a sweep's.
    pub(crate) fn is_in(folder: &Path) -> bool {
        folder.join(JSON).exists()
    }

    /// Reads the sweep of a folder.
    ///
    /// # Errors
    /// If there is none, or one of another version.
    pub(crate) fn read(folder: &Path) -> Result<Self, Failure> {
        read_versioned(&folder.join(JSON), VERSION)
    }

    fn write(&self, out: &Path) -> Result<(), Failure> {
        write_aside(&out.join(JSON), &serde_json::to_vec(self)?)?;
        write_aside(&out.join("sweep.md"), self.to_markdown().as_bytes())?;
        write_aside(&out.join(HTML), self.page().as_bytes())
    }

    fn rows(&self) -> Vec<[String; 8]> {
        let head = [
            "target",
            "validation",
            "test",
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
                format!("{:.4}", point.paper_bits),
                format!("{:.4}", point.effective_bits),
                point.weight_bytes.to_string(),
                point.file_bytes.to_string(),
                format!("{:.1}", point.seconds / 60.0),
            ]
        }));
        rows
    }

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

    /// The frontier, against bits and against bytes.
    pub(crate) fn figures(&self) -> [Figure; 2] {
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
            points: vec![FrontierPoint {
                bits: reference.bits,
                bytes: reference.bytes,
                accuracy: reference.accuracy,
            }],
        });
        let sources = self.references.iter().map(|reference| {
            format!(
                "{}: {}, bytes of weights alone.",
                reference.name, reference.source
            )
        });
        let sources: Vec<String> = sources.collect();
        plot::frontier(&Frontier {
            series: std::iter::once(ours).chain(theirs).collect(),
            float: Some(self.float),
            caption: format!(
                "On the test images; bytes are the whole file's. {}",
                sources.join(" ")
            ),
        })
    }

    pub(crate) fn page(&self) -> String {
        let rows: Vec<Vec<String>> = self.rows().iter().map(|row| row.to_vec()).collect();
        let body = html::section("Frontier", &self.figures())
            + "<h2>Targets</h2>\n"
            + &html::table(&rows)
            + &html::origin(&self.origin, &[]);
        let title = format!("{}, sweep, preset {}", self.network, self.preset);
        let about = format!(
            "On {}, seed {}; float {:.2} %",
            self.origin.data, self.origin.seed, self.float
        );
        html::document(&title, &about, &body)
    }
}
