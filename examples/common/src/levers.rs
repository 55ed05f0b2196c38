//! Flags of what makes a model smaller or better at its size. `COMPRESSION.md` of burn-alq says
//! what each does.

use burn_alq::train::{DistillError, Distillation, DistillationConfig};
use clap::Args;

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
}

impl LeverFlags {
    /// The teacher's part of the loss.
    ///
    /// # Errors
    /// If one of its numbers is out of range.
    pub fn distillation(&self) -> Result<Option<Distillation>, DistillError> {
        let Some(weight) = self.distill else {
            return Ok(None);
        };
        let mut config = DistillationConfig::new(weight);
        if let Some(temperature) = self.distill_temperature {
            config.temperature = temperature;
        }
        config.init().map(Some)
    }
}
