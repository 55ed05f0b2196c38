//! The checkpoint of a run: a container with the records of the model and the optimizer, the position,
//! and one checksum of it all.

use std::format;
use std::path::Path;
use std::string::ToString;
use std::vec::Vec;

use burn_core::module::Module;
use burn_core::store::ModuleRecord;
use burn_core::tensor::{Bytes, DType, Device};
use burn_pack::{Scalar, Writer};

use super::{Position, Run, TrainError};
use crate::container::{check, open};
use crate::optim::{average_bits, sizes};
use crate::pack::check_record;

const SECTIONS: [&str; 3] = ["model", "optimizer", "rest"];
const POSITION: &str = "burn-alq.position";
const CHECKSUM: &str = "burn-alq.crc32";

/// CRC-32 of the position and the sections; the container has none.
fn checksum<'a>(position: &str, sections: impl IntoIterator<Item = &'a Bytes>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(position.as_bytes());
    for bytes in sections {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    hasher.finalize()
}

impl<M: Module> Run<M> {
    /// Writes a checkpoint, whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written, or a loss that was not read yet is not finite; what was there
    /// before is kept.
    pub fn save(&mut self, file: impl AsRef<Path>) -> Result<(), TrainError> {
        let file = file.as_ref();
        let (epoch, batch) = self.position();
        if let Some(plan) = self.schedule.epochs().get(epoch) {
            self.read_losses(plan.kind, batch)?;
        }
        let record = |source| TrainError::Record {
            file: file.to_path_buf(),
            source,
        };
        // Running statistics keep their last update aside, where records do not see it; validation
        // mode takes it in.
        let _ = self.model.valid();
        let model = self.model.clone().into_record();
        let model = model.into_bytes().map_err(record)?;
        let [optimizer, rest] = self.optimizer.into_bytes().map_err(record)?;
        let position = serde_json::to_string(&self.position).expect("the position is plain data");
        let sections = [model, optimizer, rest];
        let checksum = checksum(&position, &sections);
        let tensors = SECTIONS.iter().zip(sections).map(|(name, bytes)| {
            let shape = [bytes.len()];
            burn_pack::Tensor::new(name.to_string(), DType::U8, shape, None, bytes)
        });
        Writer::new(tensors.collect())
            .with_metadata(POSITION, &position)
            .with_scalar(CHECKSUM, Scalar::from(checksum))
            .auto_extension(false)
            .write_to_file(file)
            .map_err(|source| TrainError::Container {
                file: file.to_path_buf(),
                source,
            })
    }

    /// Continues from a checkpoint. The arguments are those of [`new`](Self::new); the values of
    /// the model and of the optimizer are replaced by the recorded ones.
    ///
    /// # Errors
    /// If the file is not a checkpoint of a run with the same fingerprint and model.
    pub fn resume(mut self, file: impl AsRef<Path>, device: &Device) -> Result<Self, TrainError> {
        let file = file.as_ref();
        let container = |source| TrainError::Container {
            file: file.to_path_buf(),
            source,
        };
        let record = |source| TrainError::Record {
            file: file.to_path_buf(),
            source,
        };
        let checkpoint = |reason: &str| TrainError::Checkpoint {
            file: file.to_path_buf(),
            reason: reason.to_string(),
        };
        // At once, because the container's own reader of files trusts lengths in it.
        let bytes = std::fs::read(file)
            .map_err(|error| container(burn_pack::Error::IoError(error.to_string())))?;
        let reader = open(Bytes::from_bytes_vec(bytes)).map_err(container)?;
        let text = reader.metadata().get(POSITION).cloned();
        let text = text.ok_or_else(|| checkpoint("is not a checkpoint"))?;
        let recorded = reader.scalars().get(CHECKSUM).copied();
        let mut sections: Vec<Bytes> = Vec::new();
        for name in SECTIONS {
            let bytes = reader.tensor_data(name).map_err(container)?;
            sections.push(Bytes::from_bytes_vec(bytes));
        }
        drop(reader);
        match recorded.map(u32::try_from) {
            Some(Ok(recorded)) if recorded == checksum(&text, &sections) => {}
            None => {
                return Err(checkpoint(
                    "is a checkpoint of an earlier version, without a checksum",
                ));
            }
            _ => return Err(checkpoint("damaged checkpoint: wrong checksum")),
        }
        let position: Position = serde_json::from_str(&text)
            .map_err(|error| checkpoint(&format!("damaged checkpoint: {error}")))?;
        if position.fingerprint != self.position.fingerprint {
            return Err(checkpoint(&format!(
                "belongs to another run: it was made with {}, this run has {}",
                position.fingerprint, self.position.fingerprint
            )));
        }
        let [model, optimizer, rest]: [Bytes; 3] =
            sections.try_into().expect("as many as section names");
        check(&model).map_err(container)?;
        let model = ModuleRecord::from_bytes(model).map_err(record)?;
        check_record(&self.model, &model).map_err(record)?;
        self.optimizer = self
            .optimizer
            .from_bytes([optimizer, rest], device)
            .map_err(record)?;
        self.optimizer.check(&self.model).map_err(record)?;
        self.model = self.model.try_load_record(model).map_err(record)?;
        self.bits = average_bits(&sizes(&self.model));
        self.position = position;
        Ok(self)
    }
}
