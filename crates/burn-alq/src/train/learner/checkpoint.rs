//! The checkpoint of an [`Alq`]: its record, and the files that Burn's checkpointers write.

use std::path::Path;
use std::sync::{Arc, Mutex};

use burn_core::module::Module;
use burn_core::store::ModuleRecord;
use burn_optim::OptimizerRecord;
use burn_optim::lr_scheduler::LrSchedulerRecord;

use super::{Alq, EpochCount, MOVED_ON, Widths};
use crate::optim::AlqOptimizer;
use crate::train::checkpoint::{Checkpoint, CheckpointError, encode, in_file, other_model};
use crate::weight::load_record;

impl<M: Module> Alq<M> {
    /// What a record of the training holds beside the model: moments and position. Burn's own
    /// checkpoints hold the optimizer of the other parameters.
    pub(super) fn to_checkpoint(&self) -> ModuleRecord {
        let write = || -> Result<ModuleRecord, CheckpointError> {
            let moments = match self.step {
                0 => self.plan.optimizer.init().weights_to_bytes()?,
                _ => {
                    let memory = self.lock_memory();
                    let optimizer = memory.as_ref().unwrap_or_else(|| panic!("{MOVED_ON}"));
                    optimizer.weights_to_bytes()?
                }
            };
            let fingerprint = &self.plan.fingerprint;
            let writer = encode(&self.model, moments, None, fingerprint, &self.step)?;
            Ok(ModuleRecord::from_bytes(writer.into_bytes()?)?)
        };
        // Records in memory fail for want of memory alone.
        write().expect("a record in memory can be written and read")
    }

    /// Continues from a record, wherever it comes from; Burn's `load_record` panics where this
    /// returns an error.
    ///
    /// # Errors
    /// If it is not a record of this model in a training with the same schedule and seed. No clone
    /// of the model has changed then.
    pub fn load_checkpoint(mut self, record: ModuleRecord) -> Result<Self, CheckpointError> {
        let (model, optimizer, step) = self.read(record)?;
        self.model = load_record(self.model, model).map_err(other_model)?;
        self.step = step;
        let start = step - step % self.plan.steps_per_epoch;
        self.epoch = Arc::new(Mutex::new(EpochCount { start, wrong: None }));
        self.memory = Arc::new(Mutex::new(Some(optimizer)));
        self.restart_monitor();
        Ok(self)
    }

    /// Everything in a record, checked against the model: its own record, the optimizer and the step.
    fn read(
        &self,
        record: ModuleRecord,
    ) -> Result<(ModuleRecord, AlqOptimizer, usize), CheckpointError> {
        let checkpoint = Checkpoint::open(record.into_bytes()?, false)?;
        // Other weights have another schedule, of which the fingerprint says less.
        checkpoint.check_model(&self.model)?;
        checkpoint.check_run(&self.plan.fingerprint)?;
        let device = self.model.devices().first().cloned().unwrap_or_default();
        checkpoint.restore(&self.model, self.plan.optimizer.init(), &device)
    }

    /// The status starts anew: with another model, or other weights.
    pub(super) fn restart_monitor(&mut self) {
        self.monitor.weigh(&self.model, &self.plan);
        self.monitor.note(Widths::of(&self.model).sum());
    }

    /// The last epoch that Burn's default checkpointers saved whole in the folder of a training, to
    /// be continued from with `SupervisedTraining::checkpoint`; none if there is none.
    ///
    /// Reads the files and changes nothing.
    ///
    /// # Errors
    /// If it is not a checkpoint of this model in a training with the same schedule and seed, or
    /// its files are damaged.
    pub fn last_checkpoint(
        &self,
        folder: impl AsRef<Path>,
    ) -> Result<Option<usize>, CheckpointError> {
        let folder = folder.as_ref().join("checkpoint");
        let Some(epoch) = last_epoch(&folder)? else {
            return Ok(None);
        };
        let file = |name: &str| folder.join(format!("{name}-{epoch}.bpk"));
        let (model, optim, scheduler) = (file("model"), file("optim"), file("scheduler"));
        let record = ModuleRecord::load(&model).map_err(in_file(&model))?;
        self.read(record).map_err(in_file(&model))?;
        OptimizerRecord::load(&optim).map_err(in_file(&optim))?;
        LrSchedulerRecord::load(&scheduler).map_err(in_file(&scheduler))?;
        Ok(Some(epoch))
    }
}

/// The last epoch with all three files: a killed training may have written one or two.
fn last_epoch(folder: &Path) -> Result<Option<usize>, CheckpointError> {
    let files = match std::fs::read_dir(folder) {
        Ok(files) => files,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(in_file(folder)(error)),
    };
    let epoch = |name: &str| -> Option<usize> {
        let number = name.strip_prefix("model-")?.strip_suffix(".bpk")?;
        number.parse().ok()
    };
    let whole = |epoch: &usize| {
        ["optim", "scheduler"]
            .iter()
            .all(|name| folder.join(format!("{name}-{epoch}.bpk")).exists())
    };
    Ok(files
        .flatten()
        .filter_map(|file| epoch(&file.file_name().to_string_lossy()))
        .filter(whole)
        .max())
}
