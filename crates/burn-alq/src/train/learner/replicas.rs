//! Replicas of one training: they get the same gradients, so they must prune the same.

use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

use burn_core::module::Module;
use burn_core::tensor::Device;
use thiserror::Error;

use crate::weight::walk;

/// A checksum of the bitwidths of each multi-bit weight, by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Widths(Vec<(String, u32)>);

impl Widths {
    /// Reads the widths of a model.
    pub fn of<M: Module>(model: &M) -> Self {
        let found = walk(model).into_iter();
        let weights = found.filter(|found| found.tied_to.is_none());
        let sums = weights.filter_map(|found| {
            let widths = found.state.as_ref()?.widths.val().into_data();
            let bytes: Vec<u8> = widths.iter::<i32>().flat_map(i32::to_le_bytes).collect();
            Some((found.path, crc32fast::hash(&bytes)))
        });
        Self(sums.collect())
    }

    /// One checksum of all.
    pub fn sum(&self) -> u32 {
        let sums = self.0.iter().flat_map(|(_, sum)| sum.to_le_bytes());
        crc32fast::hash(&sums.collect::<Vec<u8>>())
    }
}

/// Replicas that do not prune the same any more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the replica on {device} differs from the one on {other} after epoch {epoch}: groups of {path} have \
     other bitwidths. Replicas must start from the same model or checkpoint, and get the same gradients, \
     those of all replicas reduced"
)]
pub(super) struct Differs {
    device: String,
    other: String,
    epoch: usize,
    path: String,
}

/// What the replicas of a training have said of their widths, by the step.
#[derive(Debug, Default)]
pub(super) struct Replicas(BTreeMap<usize, Said>);

#[derive(Debug)]
struct Said {
    widths: Widths,
    device: String,
    /// Replicas that have said the same.
    replicas: usize,
}

impl Replicas {
    /// One of so many replicas is at the end of an epoch, from 1, after a step.
    ///
    /// # Errors
    /// If another one has said something else.
    pub fn say(
        &mut self,
        widths: Widths,
        device: &Device,
        [step, epoch, replicas]: [usize; 3],
    ) -> Result<(), Differs> {
        let device = format!("{device:?}");
        let Some(said) = self.0.get_mut(&step) else {
            let said = Said {
                widths,
                device,
                replicas: 1,
            };
            self.0.insert(step, said);
            return Ok(());
        };
        let pairs = said.widths.0.iter().zip(&widths.0);
        if let Some((_, (path, _))) = pairs.into_iter().find(|(said, own)| said != own) {
            return Err(Differs {
                device,
                other: said.device.clone(),
                epoch,
                path: path.clone(),
            });
        }
        said.replicas += 1;
        if said.replicas == replicas {
            self.0.remove(&step);
        }
        Ok(())
    }
}
