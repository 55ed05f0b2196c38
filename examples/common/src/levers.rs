//! Flags of what makes a model smaller or better at its size. `COMPRESSION.md` of burn-alq says
//! what each does.

use std::path::Path;

use burn_alq::file::Coding;
use burn_alq::train::{DistillError, Distillation, DistillationConfig};
use burn_alq::train::{Pace, Recovery};
use burn_alq::{CoordinateType, PackedModel, ScheduleConfig};
use clap::Args;

use crate::Failure;
use crate::cli::{choice, set};
use crate::settings::Settings;

/// Levers of a training, each off by default.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Levers")]
pub struct LeverFlags {
    /// Share of the float network's outputs in the loss of the quantization, 0 to 1 [default: 0]
    #[arg(long, value_name = "WEIGHT")]
    pub distill: Option<f64>,
    /// Temperature of these outputs [default: 4]
    #[arg(long, value_name = "T", requires = "distill")]
    pub distill_temperature: Option<f64>,
    /// How pruning spreads over its steps: as much in each, by a cubic schedule, or as much modelled
    /// loss in each [default: constant]
    #[arg(long, value_name = "PACE", value_parser = choice(PACES))]
    pub prune_pace: Option<Pace>,
    /// Epochs of a pruning phase [default: by preset]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub prune_epochs: Option<u16>,
    /// Steps of recovery after each pruning step [default: 0]
    #[arg(long, value_name = "N")]
    pub recovery_steps: Option<u16>,
    /// What moves in them [default: coordinate]
    #[arg(long, value_name = "WHAT", requires = "recovery_steps", value_parser = choice(RECOVERIES))]
    pub recovery: Option<Recovery>,
    /// Choose the grouping of every layer by modelled loss per byte, not by the example's rules
    #[arg(long)]
    pub auto_grouping: bool,
    #[command(flatten)]
    pub storage: StorageFlags,
}

/// How a packed model is stored.
#[derive(Args, Debug, Clone, Default)]
pub struct StorageFlags {
    /// How coordinates are stored; they are fitted or trained so [default: f32]
    #[arg(long, value_name = "TYPE", value_parser = choice(COORDINATES))]
    pub coordinates: Option<CoordinateType>,
    /// Round biases, norms and their statistics to this type when packing; --deflate then stores
    /// them so [default: f32]
    #[arg(long, value_name = "TYPE", value_parser = choice(COORDINATES))]
    pub biases: Option<CoordinateType>,
    /// Round them to this many significant bits too; with --biases f16 and --deflate, 3 or fewer take a
    /// byte less each [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=24))]
    pub bias_bits: Option<u32>,
    /// Write the packed file in the fewest bytes: the same model, deflated, without alignment
    #[arg(long)]
    pub deflate: bool,
}

const COORDINATES: [(&str, CoordinateType); 3] = [
    ("f32", CoordinateType::F32),
    ("f16", CoordinateType::F16),
    ("bf16", CoordinateType::Bf16),
];

const PACES: [(&str, Pace); 3] = [
    ("constant", Pace::Constant),
    ("cubic", Pace::Cubic),
    ("loss", Pace::Loss),
];

const RECOVERIES: [(&str, Recovery); 2] = [
    ("coordinate", Recovery::Coordinate),
    ("basis", Recovery::Basis),
];

impl LeverFlags {
    /// Puts what the flags say into a schedule.
    pub(crate) fn apply(&self, schedule: &mut ScheduleConfig) {
        set(&mut schedule.pace, self.prune_pace);
        set(&mut schedule.prune_epochs, self.prune_epochs);
        set(&mut schedule.recovery_steps, self.recovery_steps);
        set(&mut schedule.recovery, self.recovery);
        set(&mut schedule.coordinate_type, self.storage.coordinates);
    }

    /// Adds what a resumed run must share of them and a schedule does not hold.
    pub(crate) fn note(&self, settings: &mut Settings) {
        let Self {
            distill,
            distill_temperature,
            auto_grouping,
            storage:
                StorageFlags {
                    biases,
                    bias_bits,
                    deflate,
                    coordinates: _,
                },
            // In the schedule.
            prune_pace: _,
            prune_epochs: _,
            recovery_steps: _,
            recovery: _,
        } = self;
        settings.flag("--distill", *distill);
        settings.flag("--distill-temperature", *distill_temperature);
        settings.flag("--auto-grouping", auto_grouping.then_some("yes"));
        settings.flag("--biases", *biases);
        settings.flag("--bias-bits", *bias_bits);
        settings.flag("--deflate", deflate.then_some("yes"));
    }

    /// The teacher's part of the loss.
    ///
    /// # Errors
    /// If one of its numbers is out of range.
    pub fn distillation(&self) -> Result<Option<Distillation>, DistillError> {
        let Some(weight) = self.distill else {
            return Ok(None);
        };
        let mut config = DistillationConfig::new(weight);
        set(&mut config.temperature, self.distill_temperature);
        config.init().map(Some)
    }
}

impl StorageFlags {
    /// Writes a packed model, whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, packed: &PackedModel, file: &Path) -> Result<(), Failure> {
        let coding = if self.deflate {
            Coding::Deflate
        } else {
            Coding::Plain
        };
        Ok(packed.save_with(file, coding)?)
    }

    /// The model as it will be stored.
    ///
    /// # Errors
    /// If a bias is beyond the range of its type.
    pub fn round(&self, packed: PackedModel) -> Result<PackedModel, Failure> {
        let packed = match self.bias_bits {
            Some(bits) => packed.with_float_bits(bits)?,
            None => packed,
        };
        match self.biases {
            Some(float_type) => Ok(packed.with_float_type(float_type)?),
            None => Ok(packed),
        }
    }
}
