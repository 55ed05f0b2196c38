//! Burn's records, loaded into modules that have their values already.

use burn_core::module::{Module, ModuleMapper, Param};
use burn_core::store::{ModuleRecord, RecordError};
use burn_core::tensor::{Shape, Tensor};

use super::tied::tie;
use super::walk::restore_autodiff;

/// Loads a record, like [`Module::try_load_record`], which compares the shapes of records with those of
/// values and so refuses what a layer maps when it loads, a [`Linear`](burn_nn::Linear) in columns,
/// once it has its value. Tied weights stay tied.
///
/// # Errors
/// If a tensor of the record is missing, left over or of another shape.
pub(crate) fn load_record<M: Module>(module: M, record: ModuleRecord) -> Result<M, RecordError> {
    let module = module.map(&mut AsRecorded).try_load_record(record)?;
    Ok(in_rows(module))
}

/// Lays float parameters out row by row in memory.
///
/// One that its layer maps lies as it was recorded until its first step, and is multiplied in another
/// order than after it: a resumed training would not reach the same bits.
pub(crate) fn in_rows<M: Module>(module: M) -> M {
    struct InRows;

    impl ModuleMapper for InRows {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let mut sizes = param.lazy_shape().to_vec();
            sizes.sort_unstable();
            // A swap of equal axes is not seen in the shape.
            let equal = sizes.windows(2).any(|pair| pair[0] == pair[1]);
            if !param.is_initialized()
                || !param.base().dtype().is_float()
                || !(equal || recorded(&param) != param.shape())
            {
                return param;
            }
            let id = param.id;
            param.map(|old| {
                let device = old.device().without_autodiff();
                let (data, dtype) = (old.to_data(), old.dtype());
                restore_autodiff(&old, Tensor::from_data(data, (&device, dtype)), id)
            })
        }
    }

    // Leaves of their own are tied again.
    tie(module.map(&mut InRows))
}

/// The shape in a record.
fn recorded<const D: usize>(param: &Param<Tensor<D>>) -> Shape {
    param.transform_for_save().shape()
}

/// Puts parameters whose records have another shape back to where they report that shape: before they
/// are initialized, with the value that they have.
struct AsRecorded;

impl ModuleMapper for AsRecorded {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.is_initialized() {
            return param;
        }
        let recorded = recorded(&param);
        if recorded == param.shape() {
            return param;
        }
        let (device, require_grad) = (param.lazy_device(), param.is_require_grad());
        let (id, value, mapper) = param.consume();
        let (load, save) = (mapper.clone(), mapper);
        Param::uninitialized(id, |_, _| value, device, require_grad, recorded)
            .load_mapper(move |tensor| load.on_load(tensor))
            .save_mapper(move |tensor| save.on_save(tensor))
    }
}
