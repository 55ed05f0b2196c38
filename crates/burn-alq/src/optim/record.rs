//! The optimizer's state in checkpoints.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use burn_core::module::Module;
use burn_core::store::RecordError;
use burn_core::tensor::{Bytes, Device, TensorData};
use burn_pack::{Scalar, Writer};

use super::{AlqOptimizer, Memory};
use crate::file::container;
use crate::weight::multi_bit_weights;

impl AlqOptimizer {
    /// Serializes the state of the multi-bit weights and of the other parameters.
    ///
    /// # Errors
    /// If a tensor cannot be read or written.
    pub fn into_bytes(&self) -> Result<[Bytes; 2], RecordError> {
        Ok([self.weights_to_bytes()?, self.rest.into_bytes()?])
    }

    /// The state of the multi-bit weights alone.
    pub(crate) fn weights_to_bytes(&self) -> Result<Bytes, RecordError> {
        let mut tensors = Vec::new();
        let mut steps = Vec::new();
        for (path, memory) in &self.memory {
            steps.push((path, memory.kept.t));
            for (name, data) in memory.to_record() {
                let (bytes, shape, dtype) = data.into_parts();
                let name = format!("{path}/{name}");
                tensors.push(burn_pack::Tensor::new(name, dtype, shape, None, bytes));
            }
        }
        let writer = steps
            .into_iter()
            .fold(Writer::new(tensors), |writer, (path, t)| {
                writer.with_scalar(path, Scalar::from(t))
            });
        Ok(writer.into_bytes()?)
    }

    /// Restores what [`into_bytes`](Self::into_bytes) wrote.
    ///
    /// # Errors
    /// If the bytes are not such a record.
    pub fn from_bytes(mut self, bytes: [Bytes; 2], device: &Device) -> Result<Self, RecordError> {
        let [own, rest] = bytes;
        self.weights_from_bytes(own, device)?;
        let rest = rest.shared();
        check_rest(rest.clone())?;
        self.rest = self.rest.from_bytes(rest)?;
        Ok(self)
    }

    /// Restores the state of the multi-bit weights alone.
    pub(crate) fn weights_from_bytes(
        &mut self,
        bytes: Bytes,
        device: &Device,
    ) -> Result<(), RecordError> {
        let device = device.clone().without_autodiff();
        let reader = container::open(bytes)?;
        let steps = reader.scalars().clone();
        let mut tensors = BTreeMap::new();
        for tensor in reader.into_tensors()? {
            let (name, dtype, shape, _, bytes) = tensor.into_parts()?;
            tensors.insert(name, TensorData::from_bytes(bytes, shape, dtype));
        }
        self.memory.clear();
        for (path, t) in steps {
            let t = u32::try_from(t)
                .map_err(|_| RecordError::Validation(format!("{path}: step is not a count")))?;
            let take = |name: &str| tensors.remove(&format!("{path}/{name}"));
            let memory = Memory::from_record(t, take, &device)
                .map_err(|name| RecordError::Validation(format!("{path}: no moment {name}")))?;
            self.memory.insert(path.to_string(), memory);
        }
        Ok(())
    }

    /// Whether all moments are of weights of this model.
    pub(crate) fn check<M: Module>(&self, module: &M) -> Result<(), RecordError> {
        let weights = multi_bit_weights(module);
        for (path, memory) in &self.memory {
            let weight = weights.iter().find(|weight| weight.path == *path);
            let fits = weight.is_some_and(|weight| memory.fit(&weight.state));
            if !fits {
                let text = format!("{path}: the moments do not fit the weight");
                return Err(RecordError::Validation(text));
            }
        }
        Ok(())
    }
}

/// Whether Burn's optimizer can read its record: it trusts that each tensor names its parameter, and
/// that ranks are right.
fn check_rest(bytes: Bytes) -> Result<(), RecordError> {
    /// The highest that Burn's optimizers have a state for.
    const MAX_RANK: u64 = 8;

    let invalid = |name: &str| RecordError::Validation(format!("{name}: no state of an optimizer"));
    let reader = container::open(bytes)?;
    let mut ranks = BTreeMap::new();
    for (name, rank) in reader.scalars() {
        if let Some(id) = name.strip_suffix(".__rank") {
            let rank = u64::try_from(*rank).ok().filter(|&rank| rank <= MAX_RANK);
            ranks.insert(id.to_string(), rank.ok_or_else(|| invalid(name))?);
        }
    }
    for tensor in reader.into_tensors()? {
        let id = tensor.param_id.map(|id| id.to_string());
        let rank = id.as_ref().and_then(|id| ranks.get(id).copied());
        let named = tensor.name.split_once('.').map(|(id, _)| id.to_string());
        let fits = rank == Some(tensor.shape.len() as u64) && named == id;
        if !fits || !tensor.dtype.is_float() {
            return Err(invalid(&tensor.name));
        }
    }
    Ok(())
}
