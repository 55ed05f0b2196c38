//! The report of a run: on screen, `report.md` and `report.json`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn_alq::PackedModel;
use burn_alq::report::{ModelReport, table};
use burn_alq::train::{Run, Timing};
use serde::Serialize;

use crate::job::Job;
use crate::{Failure, Network};

/// Accuracies on the test images, in percent.
#[derive(Debug, Clone, Default, Serialize)]
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

/// Everything that a run reports.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub network: &'static str,
    pub preset: String,
    pub seed: u64,
    pub batch_size: usize,
    pub shards: usize,
    pub act_bits: usize,
    pub data: String,
    pub machine: String,
    pub accuracies: Accuracies,
    pub model: Option<ModelReport>,
    /// Bytes of the packed file.
    pub file_bytes: u64,
    /// Bytes of the float network's parameters.
    pub float_bytes: usize,
    pub timings: BTreeMap<String, Timing>,
    /// Of this process, evaluation included.
    pub seconds: f64,
    pub peak_memory_bytes: Option<u64>,
}

/// Adds a run's times to the report.
pub fn add_timings<N: Network>(report: &mut Report, run: &Run<N>) {
    for (phase, timing) in run.timings() {
        report.timings.insert(phase.to_string(), *timing);
    }
}

impl Report {
    pub fn new<N: Network>(job: &Job<'_, N>) -> Self {
        Self {
            network: N::TITLE,
            preset: job.preset.clone(),
            seed: job.flags.seed,
            batch_size: job.plan.batch_size,
            shards: job.shards,
            act_bits: job.flags.activation_bits(),
            data: job.data.name.clone(),
            machine: machine(),
            accuracies: Accuracies::default(),
            model: None,
            file_bytes: 0,
            float_bytes: 0,
            timings: BTreeMap::new(),
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
        self.file_bytes = std::fs::metadata(file)
            .map_err(|error| format!("{}: {error}", file.display()))?
            .len();
        self.seconds = elapsed.as_secs_f64();
        self.peak_memory_bytes = peak_memory();
        Ok(())
    }

    /// Writes `report.md` and `report.json` to the folder, and JSON to another file if asked for.
    pub fn write(&self, out: &Path, json: Option<&Path>) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self)?;
        let markdown = out.join("report.md");
        let files = [
            (out.join("report.json"), &text),
            (markdown, &self.to_markdown()),
        ];
        let also = json.map(|file| (file.to_path_buf(), &text));
        for (file, text) in files.into_iter().chain(also) {
            write_aside(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        Ok(())
    }

    pub fn to_markdown(&self) -> String {
        let Some(model) = &self.model else {
            return String::new();
        };
        let mut text = format!(
            "# {}, preset {}, seed {}\n\ndata: {}; machine: {}; batch size {}, {} shards, {}\n\n{}\n",
            self.network,
            self.preset,
            self.seed,
            self.data,
            self.machine,
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

/// Writes a file whole or not at all.
fn write_aside(file: &Path, text: &str) -> std::io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let aside = file.with_file_name(name);
    let written = std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, file));
    if written.is_err() {
        // Nothing half-written stays; the first error is the one to report.
        let _ = std::fs::remove_file(&aside);
    }
    written
}

/// The processor and the threads that a run can use.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or(std::env::consts::ARCH, |name| {
        name.trim_start_matches([' ', '\t', ':'])
    });
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {threads} threads")
}

/// The most memory that the process has had, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
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
