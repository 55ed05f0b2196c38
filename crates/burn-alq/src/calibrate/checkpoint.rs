//! Where a calibration is, in a folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::string::String;
use std::vec::Vec;

use burn_core::module::Module;
use burn_core::tensor::Bytes;
use serde::{Deserialize, Serialize};

use super::inputs::Stage;
use super::refine::{Course, Refined};
use crate::optim::AlqOptimizer;
use crate::quantize::{Conversion, QuantizeReport};
use crate::train::checkpoint::{Checkpoint, CheckpointError, encode, in_file, other_model};
use crate::weight::{load_record, walk};

/// A model that is converted, in part or whole.
const CONVERTED: &str = "converted.bpk";
/// The model behind an epoch.
const REFINED: &str = "refined.bpk";
/// The best model so far.
const BEST: &str = "best.bpk";

/// Where a calibration is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Position {
    /// What a budget gave to each weight.
    pub bits: BTreeMap<String, usize>,
    /// Paths of the weights that are multi-bit.
    pub converted: Vec<String>,
    /// What became of them.
    pub report: QuantizeReport,
    /// The last epoch and the best one, once all are.
    pub refined: Option<[Refined; 2]>,
}

impl Position {
    /// Whether a stage is converted.
    pub fn has(&self, stage: &Stage) -> bool {
        let mut weights = stage.weights.iter();
        weights.all(|weight| self.converted.contains(&weight.path))
    }

    /// One more is converted.
    pub fn add(&mut self, stage: &Stage, report: &QuantizeReport) {
        let paths = stage.weights.iter().map(|weight| weight.path.clone());
        self.converted.extend(paths);
        self.report.clone_from(report);
    }
}

/// A folder for a calibration, which fingerprints tell from others.
pub(super) struct Store<'a> {
    pub folder: &'a Path,
    /// Of what converts.
    pub conversion: String,
    /// Of what refines that.
    pub refinement: String,
}

impl Store<'_> {
    /// Writes a model that is converted in part.
    pub fn save<M: Module>(
        &self,
        model: &M,
        optimizer: &AlqOptimizer,
        at: &Position,
    ) -> Result<(), CheckpointError> {
        self.write(CONVERTED, model, optimizer, at)
    }

    /// Writes a course behind an epoch.
    pub fn save_course<M: Module>(
        &self,
        course: &Course<M>,
        at: &Position,
    ) -> Result<(), CheckpointError> {
        // First, so that the other file never speaks of a best one that is not there.
        if course.best.1 == course.now {
            self.write(BEST, &course.best.0, &course.optimizer, at)?;
        }
        self.write(REFINED, &course.model, &course.optimizer, at)
    }

    fn fingerprint(&self, at: &Position) -> &str {
        match at.refined {
            Some(_) => &self.refinement,
            None => &self.conversion,
        }
    }

    fn write<M: Module>(
        &self,
        name: &str,
        model: &M,
        optimizer: &AlqOptimizer,
        at: &Position,
    ) -> Result<(), CheckpointError> {
        let file = self.folder.join(name);
        let write = || -> Result<(), CheckpointError> {
            std::fs::create_dir_all(self.folder)?;
            let [moments, rest] = optimizer.into_bytes()?;
            let writer = encode(model, moments, Some(rest), self.fingerprint(at), at)?;
            Ok(writer.auto_extension(false).write_to_file(&file)?)
        };
        write().map_err(in_file(&file))
    }

    /// Puts what is there into a float model; none if there is nothing.
    pub fn resume<M: Module>(
        &self,
        conversion: &mut Conversion,
        float: &M,
        optimizer: &AlqOptimizer,
    ) -> Result<Option<(M, AlqOptimizer, Position)>, CheckpointError> {
        let mut files = [REFINED, CONVERTED]
            .into_iter()
            .map(|name| self.folder.join(name));
        let Some(file) = files.find(|file| file.exists()) else {
            return Ok(None);
        };
        let read = self.read(&file, conversion, float, optimizer);
        let (model, optimizer, at) = read.map_err(in_file(&file))?;
        conversion.resume(&at.bits, &at.converted, at.report.clone());
        Ok(Some((model, optimizer, at)))
    }

    /// The best model of a course.
    pub fn best<M: Module>(
        &self,
        conversion: &Conversion,
        float: &M,
        optimizer: &AlqOptimizer,
    ) -> Result<M, CheckpointError> {
        let file = self.folder.join(BEST);
        let read = self.read(&file, conversion, float, optimizer);
        Ok(read.map_err(in_file(&file))?.0)
    }

    fn read<M: Module>(
        &self,
        file: &Path,
        conversion: &Conversion,
        float: &M,
        optimizer: &AlqOptimizer,
    ) -> Result<(M, AlqOptimizer, Position), CheckpointError> {
        let bytes = Bytes::from_bytes_vec(std::fs::read(file)?);
        let checkpoint = Checkpoint::<Position>::open(bytes, true)?;
        let at = checkpoint.at();
        checkpoint.check_run(self.fingerprint(at))?;
        let model = conversion.hollow(float.clone(), &at.bits, &at.converted);
        checkpoint.check_model(&model)?;
        let device = walk(float).first().map(|found| found.device.clone());
        let device = device.unwrap_or_default();
        let (record, optimizer, at) = checkpoint.restore(&model, optimizer.clone(), &device)?;
        let model = load_record(model, record).map_err(other_model)?;
        Ok((model, optimizer, at))
    }
}
