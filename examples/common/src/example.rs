//! What an example says of itself.

use std::path::Path;
use std::sync::Arc;

use burn_alq::{Quantizer, ScheduleConfig, Target};
use clap::Args;

use crate::cli::{TrainFlags, set};
use crate::job::Job;
use crate::network::load_float;
use crate::{Config, Dataset, Failure, Images, Network, Reference};

/// A network with its data and its training; [`main`](crate::main) makes a program of it.
pub trait Example: Network {
    /// Flags that choose the data.
    type Data: DataFlags;

    /// Flags that choose images without labels; those of [`Data`](Self::Data) choose its training images.
    type Unlabelled: UnlabelledFlags;

    /// Flags that choose the network, of every command that makes one.
    type Flags: Args;

    /// Flags of a training alone.
    type Training: Args;

    /// The program's name.
    const PROGRAM: &'static str;

    /// What the program does, for its help.
    const ABOUT: &'static str;

    /// The command `demo`, if there is one.
    const DEMO: Option<Demo> = None;

    /// Paths of the activations that the conversion gives bits, as a glob; none if the network is built
    /// with them.
    const ACTIVATIONS: Option<&'static str> = None;

    /// What [`load`](Self::load) reads, for the program's help.
    const WEIGHTS: &'static str = "the float.bpk of a run";

    /// How long and how hard to train; `--preset` takes one by its name, `short` if it is not there.
    fn presets() -> Vec<Preset>;

    /// How the weights are grouped, with so many bits before pruning.
    fn quantizer(max_bits: usize) -> Quantizer;

    /// Networks of others for the picture of a sweep.
    fn references() -> Vec<Reference> {
        Vec::new()
    }

    /// What the flags say of the network.
    fn config(_flags: &Self::Flags) -> Config {
        Config::new()
    }

    /// Puts trained weights into a float network.
    ///
    /// # Errors
    /// If the file cannot be read or holds another network; names it.
    fn load(network: Self, file: &Path) -> Result<Self, Failure> {
        load_float(network, file)
    }

    /// Puts the flags of a training alone into one.
    ///
    /// # Errors
    /// If they ask for the impossible.
    fn adjust<'a>(_job: &mut Job<'a, Self>, _flags: &'a Self::Training) -> Result<(), Failure> {
        Ok(())
    }
}

/// What stands in the place of flags where there are none.
#[derive(Args)]
#[group(skip)]
pub struct NoFlags {}

/// Flags that choose the data.
pub trait DataFlags: Args {
    /// The data set asked for, for a network of a configuration.
    ///
    /// # Errors
    /// If it cannot be read or does not fit the network.
    fn load(&self, config: &Config) -> Result<Dataset, Failure>;

    /// The test images, with the data set's name. Nothing else must be there.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    fn test(&self, config: &Config) -> Result<(String, Arc<dyn Images>), Failure>;
}

/// Flags that choose images without labels.
pub trait UnlabelledFlags: Args {
    /// The images, with their name, for a network of a configuration.
    ///
    /// # Errors
    /// If there are none, or they cannot be read or do not fit the network.
    fn unlabelled(&self, config: &Config) -> Result<(String, Arc<dyn Images>), Failure>;
}

/// The training images.
impl<D: DataFlags> UnlabelledFlags for D {
    fn unlabelled(&self, config: &Config) -> Result<(String, Arc<dyn Images>), Failure> {
        let data = self.load(config)?;
        Ok((data.name, data.train))
    }
}

/// A training that needs no decision.
pub struct Demo {
    /// What it does, for the program's help.
    pub about: &'static str,
    /// The flags of its training, beside seed and folder.
    pub flags: &'static [&'static str],
}

/// A training by its name.
#[derive(Debug, Clone)]
pub struct Preset {
    /// What `--preset` takes.
    pub name: &'static str,
    /// What the program's help says of it.
    pub about: &'static str,
    /// The numbers of the training.
    pub plan: Plan,
}

/// The numbers of a training. Where it does not say otherwise, six bits before pruning, and 12 float
/// epochs of batches of 128.
#[derive(burn::config::Config, Debug)]
pub struct Plan {
    /// The schedule from the float network to the target.
    pub schedule: ScheduleConfig,
    /// Epochs of the float network.
    #[config(default = 12)]
    pub float_epochs: usize,
    /// Their highest learning rate.
    #[config(default = 2e-3)]
    pub float_lr: f64,
    /// Factor on it after every epoch, where Adam trains.
    #[config(default = 0.75)]
    pub float_decay: f64,
    /// Epochs in which the rate rises, to fall to 0 in the others: one cycle of Nesterov's momentum, as the
    /// fast recipes for small images have it. None where Adam trains.
    pub float_warm_up: Option<usize>,
    /// Share of a label that all classes get alike, in all trainings.
    #[config(default = 0.0)]
    pub label_smoothing: f32,
    /// Bases of a group before pruning.
    #[config(default = 6)]
    pub max_bits: usize,
    /// Images in a batch.
    #[config(default = 128)]
    pub batch_size: usize,
    /// Batches in an epoch; none for all training images once.
    pub epoch_batches: Option<usize>,
}

impl Plan {
    /// The plan with what the flags set in it.
    pub(crate) fn with(mut self, flags: &TrainFlags, target: Option<Target>) -> Self {
        set(&mut self.schedule.target, target);
        let size = flags.batch_size.map(|size| size as usize);
        set(&mut self.batch_size, size);
        let batches = flags.epoch_batches.map(|batches| batches as usize);
        set(&mut self.epoch_batches, batches);
        let epochs = flags.float_epochs.map(usize::from);
        set(&mut self.float_epochs, epochs);
        if flags.float.is_some() {
            self.float_epochs = 0;
        }
        flags.levers.apply(&mut self.schedule);
        self
    }
}

/// A schedule of few epochs, with decays to match: rounds, then epochs of the basis and the
/// coordinate phase of each, then STE and last coordinate epochs.
pub fn short(
    schedule: &ScheduleConfig,
    rounds: usize,
    [basis, coordinate]: [usize; 2],
    [ste, last]: [usize; 2],
) -> ScheduleConfig {
    schedule
        .clone()
        .with_rounds(rounds)
        .with_basis_epochs(basis)
        .with_coordinate_epochs(coordinate)
        .with_basis_decay(0.7)
        .with_ste_epochs(ste)
        .with_ste_decay(0.75)
        .with_final_epochs(last)
        .with_final_decay(0.6)
}
