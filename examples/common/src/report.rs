//! The report of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn_alq::PackedModel;
use burn_alq::report::{KernelMap, ModelReport, table};
use burn_alq::train::{Point, Run, Timing};
use serde::{Deserialize, Serialize};

use crate::document::Document;
use crate::job::Job;
use crate::origin::{Origin, peak_memory};
use crate::page::Page;
use crate::{Failure, FrontierPoint, Network, Reference, at};

/// Accuracies on the test images, in percent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Accuracies {
    pub float: f64,
    pub trained: f64,
    pub packed: f64,
    /// The float network, trained on for as many steps as the quantized one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<f64>,
    /// Shares of the first three with the class among the five best, where that is reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top5: Option<[f64; 3]>,
    /// Predictions that differ between the packed file and the trained network.
    pub changed: usize,
    pub images: usize,
}

/// Everything that a run reports.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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
    /// Networks of others, with their sources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
    /// The time of all of it, evaluation included: of a resumed run, also that of the steps before.
    pub seconds: f64,
    pub peak_memory_bytes: Option<u64>,
}

impl Report {
    pub fn new<N: Network>(job: &Job<'_, N>) -> Self {
        Self {
            version: Self::VERSION,
            network: N::TITLE.to_string(),
            origin: Origin::new(job.flags.seed, &job.data.name),
            preset: job.preset.into(),
            batch_size: job.plan.batch_size,
            shards: job.shards,
            act_bits: job.flags.activation_bits(),
            references: job.references.clone(),
            ..Self::default()
        }
    }

    /// Adds the time of the steps that a run took before it was resumed.
    pub fn resume<N: Network>(&mut self, run: &Run<N>) {
        let before = run.timings().map(|(_, timing)| timing.seconds());
        self.seconds += before.sum::<f64>();
    }

    /// Adds a run's times and curves.
    pub fn add_run<N: Network>(&mut self, run: &Run<N>) {
        for (phase, timing) in run.timings() {
            self.timings.insert(phase.to_string(), *timing);
        }
        let before = self.history.last().map_or(0, |point| point.step);
        self.history.extend(run.history().iter().map(|point| Point {
            step: before + point.step,
            ..*point
        }));
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
        let model = packed.report(|path| weights.get(path).cloned());
        self.float_bytes = model.float_bytes();
        self.model = Some(model);
        self.maps = KernelMap::of_convolutions(packed);
        let metadata = std::fs::metadata(file).map_err(|error| at(file, error))?;
        self.file_bytes = metadata.len();
        self.seconds += elapsed.as_secs_f64();
        self.peak_memory_bytes = peak_memory();
        Ok(())
    }

    /// One line for machines.
    pub fn result_line(&self) -> String {
        let bits = self.model.as_ref();
        let control = self.accuracies.control;
        let control = control.map_or(String::new(), |control| {
            format!(" control_acc={control:.2}")
        });
        format!(
            "result: paper_bits={:.4} effective_bits={:.4} file_bytes={} float_acc={:.2}{control} \
             packed_acc={:.2} seconds={:.1}",
            bits.map_or(0.0, |model| model.paper_bits),
            bits.map_or(0.0, |model| model.effective_bits),
            self.file_bytes,
            self.accuracies.float,
            self.accuracies.packed,
            self.seconds
        )
    }

    /// How many times smaller the packed file is than the float network's parameters.
    pub fn times_smaller(&self) -> f64 {
        self.float_bytes as f64 / self.file_bytes.max(1) as f64
    }

    /// Networks of others, and this one.
    pub fn published(&self) -> Vec<[String; 5]> {
        let head = [
            "network",
            "accuracy",
            "paper bits",
            "bytes of weights",
            "source",
        ];
        let row = |name: &str, [accuracy, bits, bytes]: [f64; 3], source: &str| {
            [
                name.to_string(),
                format!("{accuracy:.2} %"),
                format!("{bits:.2}"),
                format!("{bytes:.0}"),
                source.to_string(),
            ]
        };
        let mut rows = vec![head.map(String::from)];
        rows.extend(self.references.iter().map(|reference| {
            let FrontierPoint {
                bits,
                bytes,
                accuracy,
            } = reference.point;
            row(&reference.name, [accuracy, bits, bytes], &reference.source)
        }));
        if let Some(model) = &self.model {
            let bytes = model.weight_bytes() as f64;
            let numbers = [self.accuracies.packed, model.paper_bits, bytes];
            rows.push(row("this run", numbers, &self.origin.data));
        }
        rows
    }

    /// The most memory of the process, in words.
    pub fn peak_memory(&self) -> String {
        let memory = self.peak_memory_bytes;
        memory.map_or("unknown".into(), |bytes| format!("{} MiB", bytes >> 20))
    }
}

impl Document for Report {
    const NAME: &'static str = "report";
    const VERSION: u32 = 1;

    fn page(&self) -> Page<'_> {
        Page::of_run(self)
    }

    fn to_markdown(&self) -> String {
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
        let percent = |share: f64| format!("{share:.2} %");
        let accuracies = &self.accuracies;
        let mut rows = vec![["total", ""].map(String::from)];
        rows.extend(model.totals(self.file_bytes as usize));
        let mut row = |name: &str, value: String| rows.push([name.to_string(), value]);
        row("float accuracy", percent(accuracies.float));
        if let Some(control) = accuracies.control {
            row("float accuracy, trained on as long", percent(control));
        }
        row("trained accuracy", percent(accuracies.trained));
        row("packed accuracy", percent(accuracies.packed));
        if let Some([float, trained, packed]) = accuracies.top5 {
            row("float top-5", percent(float));
            row("trained top-5", percent(trained));
            row("packed top-5", percent(packed));
        }
        row(
            "predictions changed by packing",
            format!("{} of {}", accuracies.changed, accuracies.images),
        );
        row("peak memory", self.peak_memory());
        row("seconds", format!("{:.0}", self.seconds));
        text.push_str(&table(&rows));
        if !self.references.is_empty() {
            let _ = write!(text, "\n{}", table(&self.published()));
        }

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
