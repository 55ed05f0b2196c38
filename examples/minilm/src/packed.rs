//! A packed model and what goes with it.

use std::path::PathBuf;

use burn::tensor::Device;
use burn_alq::PackedModel;
use example_common::{Config, DeviceFlag, Failure, MODEL, at};

use crate::checkpoint::Checkpoint;
use crate::encoder::Encoder;
use crate::model::{Bert, NAME};
use crate::tokens::Tokens;

/// A packed model, and the folder that it was made from.
#[derive(clap::Args)]
pub struct PackedFlags {
    /// The packed model.
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Folder of the float model that it was made from: config.json, tokenizer.json or vocab.txt, and
    /// model.safetensors where that is compared with.
    #[arg(long, value_name = "DIR")]
    float: PathBuf,
    #[command(flatten)]
    device: DeviceFlag,
}

/// A packed model, ready to run.
pub struct Opened {
    pub model: Bert,
    pub config: Config,
    pub encoder: Encoder,
    checkpoint: Checkpoint,
}

impl PackedFlags {
    /// # Errors
    /// If a file cannot be read, or they do not belong together.
    pub fn open(&self) -> Result<Opened, Failure> {
        let device = self.device.device()?;
        let packed = PackedModel::load(&self.model)?;
        let model = unpack(&packed, &device).map_err(|error| at(&self.model, error))?;
        let checkpoint = Checkpoint::open(&self.float)?;
        checkpoint.check(&packed.config)?;
        let tokens = Tokens::open(&checkpoint, &packed.config)?;
        Ok(Opened {
            model,
            config: packed.config,
            encoder: Encoder { tokens, device },
            checkpoint,
        })
    }
}

impl Opened {
    /// The float model.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn float(&self) -> Result<Bert, Failure> {
        self.checkpoint.model(&self.encoder.device)
    }
}

/// The network of a packed model, on the bits.
///
/// # Errors
/// If it is the model of another example, or does not fit its configuration.
pub fn unpack(packed: &PackedModel, device: &Device) -> Result<Bert, Failure> {
    if let Some(name) = packed.config.get(MODEL).filter(|name| *name != NAME) {
        return Err(format!("holds a {name}, this program runs {NAME}").into());
    }
    Ok(packed.apply(Bert::from_config(&packed.config, device)?)?)
}
