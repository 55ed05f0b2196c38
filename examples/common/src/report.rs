//! The report of a run: on screen, `report.md`, `report.json` and, drawn from that, `report.html`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn_alq::PackedModel;
use burn_alq::report::plot::Figure;
use burn_alq::report::{KernelMap, ModelReport, table};
use burn_alq::train::{Point, Run, Timing};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cli::ReportArgs;
use crate::job::Job;
use crate::origin::{Origin, peak_memory};
use crate::sweep::{self, Sweep};
use crate::{Failure, Network, html};

/// Accuracies on the test images, in percent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Accuracies {
    pub float: f64,
    pub trained: f64,
    pub packed: f64,
    /// Of the same three, the class among the five best, where that is reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top5: Option<[f64; 3]>,
    /// Predictions that differ between the packed file and the trained network.
    pub changed: usize,
    pub images: usize,
}

/// Of [`Report`]; another one where a reader of the old one would go wrong.
const VERSION: u32 = 1;

/// The version alone, which all reports have in common.
#[derive(Deserialize)]
struct Head {
    version: Option<u32>,
}

/// Everything that a run reports.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub version: u32,
    pub network: String,
    #[serde(flatten)]
    pub origin: Origin,
    pub preset: String,
    pub batch_size: usize,
    pub shards: usize,
    pub act_bits: usize,
    pub accuracies: Accuracies,
    pub model: Option<ModelReport>,
    /// Bytes of the packed file.
    pub file_bytes: u64,
    /// Bytes of the float network's parameters.
    pub float_bytes: usize,
    pub timings: BTreeMap<String, Timing>,
    /// Curves of the float training, then of the quantization, steps counted through.
    pub history: Vec<Point>,
    /// Bitwidths of the convolutions' groups.
    pub maps: Vec<KernelMap>,
    /// Of this process, evaluation included.
    pub seconds: f64,
    pub peak_memory_bytes: Option<u64>,
}

/// Adds a run's times and curves to the report.
pub fn add_run<N: Network>(report: &mut Report, run: &Run<N>) {
    for (phase, timing) in run.timings() {
        report.timings.insert(phase.to_string(), *timing);
    }
    let before = report.history.last().map_or(0, |point| point.step);
    report
        .history
        .extend(run.history().iter().map(|point| Point {
            step: before + point.step,
            ..*point
        }));
}

/// Reads a report of a version.
///
/// # Errors
/// If there is none, or one of another version; names the file.
pub(crate) fn read_versioned<T: DeserializeOwned>(file: &Path, version: u32) -> Result<T, Failure> {
    let named =
        |error: &dyn fmt::Display| -> Failure { format!("{}: {error}", file.display()).into() };
    let text = std::fs::read_to_string(file).map_err(|error| named(&error))?;
    let damaged = |error| named(&format!("not a report, or a damaged one: {error}"));
    let head: Head = serde_json::from_str(&text).map_err(damaged)?;
    if head.version != Some(version) {
        let found = head
            .version
            .map_or("none".into(), |version| version.to_string());
        return Err(named(&format!(
            "a report folder of another version: this program reads version {version}, \
             found {found}; use the program that made it, or train again"
        )));
    }
    serde_json::from_str(&text).map_err(damaged)
}

/// Makes the page of a run or of a sweep again from its JSON, and PNGs if asked for.
///
/// # Errors
/// If the folder holds no report or one of another version, a file cannot be written, or PNGs are
/// asked for from a program without them.
pub fn remake_report(args: &ReportArgs) -> Result<(), Failure> {
    let (page, html, figures) = match Sweep::is_in(&args.run) {
        true => {
            let sweep = Sweep::read(&args.run)?;
            (sweep::HTML, sweep.page(), sweep.figures().into())
        }
        false => {
            let report = Report::read(&args.run)?;
            let sections = html::sections(&report).into_iter();
            let figures: Vec<Figure> = sections.flat_map(|(_, figures)| figures).collect();
            (HTML, html::page(&report), figures)
        }
    };
    let page = args.run.join(page);
    write_aside(&page, html.as_bytes())?;
    println!("{}", page.display());
    if let Some(folder) = &args.png {
        for file in write_pngs(&figures, folder)? {
            println!("{}", file.display());
        }
    }
    Ok(())
}

const JSON: &str = "report.json";
const HTML: &str = "report.html";

impl Report {
    pub fn new<N: Network>(job: &Job<'_, N>) -> Self {
        Self {
            version: VERSION,
            network: N::TITLE.to_string(),
            origin: Origin::new(job.flags.seed, &job.data.name),
            preset: job.preset.clone(),
            batch_size: job.plan.batch_size,
            shards: job.shards,
            act_bits: job.flags.activation_bits(),
            accuracies: Accuracies::default(),
            model: None,
            file_bytes: 0,
            float_bytes: 0,
            timings: BTreeMap::new(),
            history: Vec::new(),
            maps: Vec::new(),
            seconds: 0.0,
            peak_memory_bytes: None,
        }
    }

    /// Adds what is known at the end.
    pub fn finish<N: Network>(
        &mut self,
        packed: &PackedModel,
        float: &N,
        file: &Path,
        elapsed: Duration,
    ) -> Result<(), Failure> {
        let weights = weights(float, packed);
        let model = ModelReport::new(packed, |path| weights.get(path).cloned());
        self.float_bytes = 4 * model.weights + model.other_bytes;
        self.model = Some(model);
        self.maps = KernelMap::of_convolutions(packed);
        self.file_bytes = std::fs::metadata(file)
            .map_err(|error| format!("{}: {error}", file.display()))?
            .len();
        self.seconds = elapsed.as_secs_f64();
        self.peak_memory_bytes = peak_memory();
        Ok(())
    }

    /// Writes `report.md`, `report.html` and, as the sign that all is done, `report.json` to the
    /// folder.
    pub fn write(&self, out: &Path) -> Result<(), Failure> {
        write_aside(&out.join("report.md"), self.to_markdown().as_bytes())?;
        write_aside(&out.join(HTML), html::page(self).as_bytes())?;
        self.write_json(&out.join(JSON))
    }

    /// Writes JSON to a file.
    pub fn write_json(&self, file: &Path) -> Result<(), Failure> {
        write_aside(file, &serde_json::to_vec(self)?)
    }

    /// Whether a folder has a finished run's report.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(JSON).exists()
    }

    /// Reads the report of a run's folder.
    pub fn read(folder: &Path) -> Result<Self, Failure> {
        read_versioned(&folder.join(JSON), VERSION)
    }

    pub fn to_markdown(&self) -> String {
        let Some(model) = &self.model else {
            return String::new();
        };
        let mut text = format!(
            "# {}, preset {}, seed {}\n\ndata: {}; machine: {}; batch size {}, {} shards, {}\n\n{}\n",
            self.network,
            self.preset,
            self.origin.seed,
            self.origin.data,
            self.origin.machine,
            self.batch_size,
            self.shards,
            match self.act_bits {
                0 => "ReLU in f32".to_string(),
                bits => format!("activations of {bits} bits"),
            },
            model.to_markdown(),
        );
        let kib = |bytes: f64| format!("{:.1} KiB", bytes / 1024.0);
        let accuracies = &self.accuracies;
        let mut rows = vec![["total", ""].map(String::from)];
        let mut row = |name: &str, value: String| rows.push([name.to_string(), value]);
        row("paper bits per weight", format!("{:.4}", model.paper_bits));
        row("paper storage, Σ I·(n+32)", kib(model.paper_bytes));
        row(
            "effective bits per weight",
            format!("{:.4}", model.effective_bits),
        );
        row(
            "weights in the file",
            format!(
                "{} bytes (bases {}, coordinates {}, widths {})",
                model.weight_bytes(),
                model.base_bytes,
                model.coordinate_bytes,
                model.width_bytes
            ),
        );
        row("biases", format!("{} bytes", model.other_bytes));
        row("file", format!("{} bytes", self.file_bytes));
        row(
            "compression against f32",
            format!(
                "{:.1}x the weights, {:.1}x the file",
                4.0 * model.weights as f64 / model.weight_bytes() as f64,
                self.float_bytes as f64 / self.file_bytes as f64
            ),
        );
        row("float accuracy", format!("{:.2} %", accuracies.float));
        row("trained accuracy", format!("{:.2} %", accuracies.trained));
        row("packed accuracy", format!("{:.2} %", accuracies.packed));
        if let Some([float, trained, packed]) = accuracies.top5 {
            row("float top-5", format!("{float:.2} %"));
            row("trained top-5", format!("{trained:.2} %"));
            row("packed top-5", format!("{packed:.2} %"));
        }
        row(
            "predictions changed by packing",
            format!("{} of {}", accuracies.changed, accuracies.images),
        );
        let memory = self.peak_memory_bytes;
        row(
            "peak memory",
            memory.map_or("unknown".into(), |bytes| format!("{} MiB", bytes >> 20)),
        );
        row("seconds", format!("{:.0}", self.seconds));
        text.push_str(&table(&rows));

        let head = [
            "phase",
            "steps",
            "seconds",
            "ms forward+backward",
            "ms optimizer",
            "ratio",
        ];
        let mut rows = vec![head.map(String::from)];
        for (phase, timing) in &self.timings {
            let a_step = |seconds: f64| 1e3 * seconds / timing.steps.max(1) as f64;
            rows.push([
                phase.clone(),
                timing.steps.to_string(),
                format!("{:.1}", timing.seconds()),
                format!("{:.2}", a_step(timing.forward_backward)),
                format!("{:.2}", a_step(timing.optimizer)),
                format!("{:.3}", timing.optimizer / timing.forward_backward),
            ]);
        }
        let _ = write!(text, "\n{}", table(&rows));
        text
    }

    /// One line for machines.
    pub fn result_line(&self) -> String {
        let bits = self.model.as_ref();
        format!(
            "result: paper_bits={:.4} effective_bits={:.4} file_bytes={} float_acc={:.2} \
             packed_acc={:.2} seconds={:.1}",
            bits.map_or(0.0, |model| model.paper_bits),
            bits.map_or(0.0, |model| model.effective_bits),
            self.file_bytes,
            self.accuracies.float,
            self.accuracies.packed,
            self.seconds
        )
    }
}

/// Figures as PNG.
#[cfg(feature = "png")]
fn write_pngs(figures: &[Figure], folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let files = figures.iter().map(|figure| {
        let file = folder.join(format!("{}.png", figure.name));
        write_aside(&file, &crate::png::render(&figure.svg)?)?;
        Ok(file)
    });
    files.collect()
}

#[cfg(not(feature = "png"))]
fn write_pngs(_: &[Figure], _: &Path) -> Result<Vec<PathBuf>, Failure> {
    Err("--png: this program was built without it; build it with --features png".into())
}

/// Writes a file whole or not at all.
pub(crate) fn write_aside(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut name = file.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let aside = file.with_file_name(name);
    let written = std::fs::write(&aside, bytes).and_then(|()| std::fs::rename(&aside, file));
    written.map_err(|error| {
        // Nothing half-written stays; the first error is the one to report.
        let _ = std::fs::remove_file(&aside);
        format!("{}: {error}", file.display()).into()
    })
}

/// The float values of the packed weights, by path.
fn weights<N: Module>(float: &N, packed: &PackedModel) -> BTreeMap<String, Vec<f32>> {
    let wanted = packed.weights.iter().map(|(path, _)| path.clone());
    let mut collect = Collect {
        found: wanted.map(|path| (path, Vec::new())).collect(),
        path: Vec::new(),
    };
    float.visit(&mut collect);
    collect.found
}

struct Collect {
    found: BTreeMap<String, Vec<f32>>,
    path: Vec<String>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(values) = self.found.get_mut(&self.path.join(".")) {
            let data = param.val().into_data();
            *values = data.try_into_vec().expect("weights are f32");
        }
    }
}
