//! The optimizer's state in checkpoints.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use burn_core::module::{Module, ParamId};
use burn_core::store::RecordError;
use burn_core::tensor::{Bytes, Device, TensorData};
use burn_pack::{Scalar, Writer};

use super::memory::Remembered;
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

    /// The state of the multi-bit weights alone: by the id of a weight's codes, as records of modules keep
    /// ids, and in the order of paths.
    pub(crate) fn weights_to_bytes(&self) -> Result<Bytes, RecordError> {
        let mut all: Vec<(&ParamId, &Remembered)> = self.memory.iter().collect();
        all.sort_by_key(|(id, kept)| (&kept.path, id.val()));
        let mut tensors = Vec::new();
        for (id, kept) in &all {
            for (name, data) in kept.memory.to_record() {
                let (bytes, shape, dtype) = data.into_parts();
                let name = format!("{}/{name}", id.val());
                let id = Some(id.val());
                tensors.push(burn_pack::Tensor::new(name, dtype, shape, id, bytes));
            }
        }
        let writer = all
            .into_iter()
            .fold(Writer::new(tensors), |writer, (id, kept)| {
                let (id, t) = (id.val().to_string(), kept.memory.kept.t);
                let writer = writer.with_scalar(&id, Scalar::from(t));
                writer.with_metadata(&id, &kept.path)
            });
        Ok(writer.into_bytes()?)
    }

    /// Restores what [`into_bytes`](Self::into_bytes) wrote. Moments belong to parameters by their ids,
    /// as in Burn's optimizers: load the model's record too, which has them ([`check`](Self::check)).
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
        let (steps, paths) = (reader.scalars().clone(), reader.metadata().clone());
        let mut tensors = BTreeMap::new();
        for tensor in reader.into_tensors()? {
            let (name, dtype, shape, _, bytes) = tensor.into_parts()?;
            tensors.insert(name, TensorData::from_bytes(bytes, shape, dtype));
        }
        let mut memory = BTreeMap::new();
        for (id, t) in steps {
            let invalid = |what: &str| RecordError::Validation(format!("{id}: {what}"));
            let number: u64 = id.parse().map_err(|_| invalid("no id of a parameter"))?;
            let path = paths.get(&id).ok_or_else(|| invalid("no path"))?;
            let t = u32::try_from(t).map_err(|_| invalid("step is not a count"))?;
            let take = |name: &str| tensors.remove(&format!("{id}/{name}"));
            let kept = Memory::from_record(t, take, &device)
                .map_err(|name| RecordError::Validation(format!("{path}: no moment {name}")))?;
            let remembered = Remembered {
                path: path.clone(),
                memory: kept,
            };
            memory.insert(ParamId::from(number), remembered);
        }
        self.memory = memory;
        self.unknown = true;
        Ok(())
    }

    /// Whether all moments are of weights of this model.
    ///
    /// # Errors
    /// If they are of another one.
    pub fn check<M: Module>(&self, module: &M) -> Result<(), RecordError> {
        let weights = multi_bit_weights(module);
        for (id, Remembered { path, memory }) in &self.memory {
            let weight = weights.iter().find(|weight| weight.state.codes.id == *id);
            let fault = match weight {
                None => "its moments are of no weight of this model",
                Some(weight) if !memory.fit(&weight.state) => "the moments do not fit the weight",
                Some(_) => continue,
            };
            return Err(RecordError::Validation(format!("{path}: {fault}")));
        }
        Ok(())
    }

    /// Forgets weights that a model does not have, so that records of its training are of it alone.
    pub(crate) fn forget_others<M: Module>(&mut self, module: &M) {
        let weights = multi_bit_weights(module);
        let ids: Vec<ParamId> = weights.iter().map(|weight| weight.state.codes.id).collect();
        self.memory.retain(|id, _| ids.contains(id));
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
