//! From a float file to a packed one, a parameter at a time.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::path::Path;

use burn_core as burn;
use burn_core::module::{
    Module, ModuleMapper, Param, ParamId, Reparameterization, Reparameterizer,
};
use burn_core::tensor::{Bool, DType, Int, Tensor};
use burn_store::{Applier, ApplyError};
use multibit::CoordinateType;
use multibit::file::About;
use thiserror::Error;

use super::convert::{Convert, Work, check_kept};
use super::{
    FloatFile, Hessians, Outcome, Planned, QuantizeError, QuantizeReport, Quantizer, Survey,
};
use crate::file::{FileError, ModelWriter, PackModelError, Packable, pack, stored_scale, texts};
use crate::nn::MultiBitActivation;
use crate::weight::{MultiBit, Product, Replacement, State, walk};

/// Why a file was not converted. The one that was there before is as it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConvertFileError {
    /// The rules do not fit the module, or a weight cannot be quantized.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// A parameter cannot be packed.
    #[error(transparent)]
    Pack(#[from] PackModelError),
    /// The packed file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A tensor cannot be read, or is not what the module has in its place.
    #[error("{file}: {source}")]
    Tensor {
        /// The float file.
        file: String,
        /// Which, and why.
        source: Box<ApplyError>,
    },
    /// The float file lacks a tensor.
    #[error("{file} has no tensor for {path}")]
    Missing {
        /// The float file.
        file: String,
        /// Path of the parameter.
        path: String,
    },
    /// The float file has a tensor too many.
    #[error("the module has no parameter for {path} of {file}")]
    Unused {
        /// The float file.
        file: String,
        /// Name of the tensor.
        path: String,
    },
}

impl Quantizer {
    /// Converts a float model in a file to a packed one: what [`quantize`](Self::quantize),
    /// [`PackedModel::pack`](crate::PackedModel::pack) and
    /// [`with_coordinate_type`](crate::PackedModel::with_coordinate_type) make of it, in the same bytes, with
    /// one weight in memory at a time. For models that are larger than memory.
    ///
    /// Each parameter is read, sketched if the rules say so, written to a scratch file beside `out`, and
    /// dropped; `out` is put together and renamed at the end. The report says what became of each.
    ///
    /// # Arguments
    /// - `module`: a fresh module, for structure, layouts and what is tied; its random values are not drawn
    /// - `config`: free text that travels with the model
    ///
    /// # Errors
    /// If the rules do not fit, before anything is read; if a tensor cannot be read, is missing, left over or
    /// of another shape, or the float file was changed meanwhile; if a weight is not finite; if `out` cannot
    /// be written. What was at `out` is kept then.
    pub fn convert_file<M: Module>(
        &self,
        module: M,
        source: FloatFile,
        config: &BTreeMap<String, String>,
        out: impl AsRef<Path>,
    ) -> Result<QuantizeReport, ConvertFileError> {
        let conversion = self.begin_on(&Survey::of(walk(&module)))?;
        let (plans, switched, mut report) = conversion.into_parts();
        check_plain(&module, &plans)?;
        let (parts, is_partial) = (source.parts.clone(), source.is_partial);
        let mut stream = Stream {
            applier: source.applier(),
            is_partial,
            path: Vec::new(),
            containers: Vec::new(),
            switched,
            work: Work::new(plans, Hessians::default(), &mut report),
            writer: ModelWriter::create(out.as_ref())?,
            coordinates: self.coordinates(),
            first: BTreeMap::new(),
            tied: BTreeMap::new(),
            stopped: None,
        };
        drop(module.map(&mut stream));
        let Stream {
            applier,
            writer,
            tied,
            stopped,
            ..
        } = stream;
        if let Some(Some(error)) = stopped {
            return Err(error);
        }
        let file = parts.name();
        let result = applier.into_result();
        if let Some(source) = result.errors.into_iter().next() {
            let source = Box::new(source);
            return Err(ConvertFileError::Tensor { file, source });
        }
        if !is_partial {
            let mut missing = result.missing.into_iter().map(|(path, _)| path);
            // A tied parameter has the value of its first place.
            if let Some(path) = missing.find(|path| !tied.contains_key(path)) {
                return Err(ConvertFileError::Missing { file, path });
            }
            if let Some(path) = result.unused.into_iter().next() {
                return Err(ConvertFileError::Unused { file, path });
            }
        }
        if writer.has_no_weights() {
            return Err(PackModelError::NoWeights.into());
        }
        writer.finish(&texts(config), &texts(&tied), About::default())?;
        log::info!("converted {file}: {}", report.summary());
        Ok(report)
    }
}

/// Refuses a module whose parameters carry something, or a plan for what cannot.
fn check_plain<M: Module>(
    module: &M,
    plans: &BTreeMap<String, Planned>,
) -> Result<(), QuantizeError> {
    let carrying = walk(module).into_iter().find_map(|found| {
        let (path, by) = (found.path, found.carries?);
        Some(QuantizeError::Reparameterized { path, by })
    });
    if let Some(error) = carrying {
        return Err(error);
    }
    let marked = module.clone().apply_reparameterization(Marker { plans });
    check_kept(&marked, plans)
}

/// What is put on planned weights to see whether they keep it.
#[derive(Module, Debug)]
struct Mark {
    none: Option<Param<Tensor<1>>>,
}

impl Reparameterization for Mark {
    const NAME: &'static str = "mark";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        base
    }
}

struct Marker<'a> {
    plans: &'a BTreeMap<String, Planned>,
}

impl Reparameterizer for Marker<'_> {
    type Reparam = Mark;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Mark>) {
        let mark = self.plans.contains_key(path);
        (param, mark.then_some(Mark { none: None }))
    }
}

/// Takes each parameter as it is loaded; the module keeps what it had.
struct Stream<'a> {
    applier: Applier,
    is_partial: bool,
    path: Vec<String>,
    containers: Vec<String>,
    switched: Replacement<'static>,
    work: Work<'a>,
    writer: ModelWriter,
    coordinates: CoordinateType,
    /// The path where each parameter was met first.
    first: BTreeMap<ParamId, String>,
    tied: BTreeMap<String, String>,
    /// Once nothing more is to be done: an error, or none where the applier has it.
    stopped: Option<Option<ConvertFileError>>,
}

/// A kind of parameter: loaded, and written if it was not met before.
macro_rules! stream {
    ($stream:ident, $param:ident, $load:ident, $write:ident) => {{
        if $stream.stopped.is_some() {
            return $param;
        }
        let kept = $param.clone();
        let loaded = $stream.applier.$load($param);
        let path = $stream.path.join(".");
        if let Some(first) = $stream.first.get(&kept.id) {
            $stream.tied.insert(path, first.clone());
            return kept;
        }
        $stream.first.insert(kept.id, path.clone());
        // What was not loaded is as it was: the applier knows why.
        if !loaded.is_initialized() && !$stream.is_partial {
            $stream.stopped = Some(None);
            return kept;
        }
        if let Err(error) = $stream.$write(&path, loaded) {
            $stream.stopped = Some(Some(error));
        }
        kept
    }};
}

impl ModuleMapper for Stream<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.applier.enter_module(name, container_type);
        self.path.push(name.to_string());
        self.containers.push(container_type.to_string());
    }

    fn exit_module(&mut self, name: &str, container_type: &str) {
        self.applier.exit_module(name, container_type);
        self.path.pop();
        self.containers.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        stream!(self, param, map_float, float)
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        stream!(self, param, map_int, write)
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        stream!(self, param, map_bool, write)
    }
}

impl Stream<'_> {
    fn float<const D: usize>(
        &mut self,
        path: &str,
        mut param: Param<Tensor<D>>,
    ) -> Result<(), ConvertFileError> {
        let container = self.containers.last().map_or("", String::as_str);
        if container == MultiBitActivation::CONTAINER {
            self.check_activation(path, &param)?;
            param = Module::map(param, &mut self.switched);
        }
        if self.work.plans.contains_key(path) {
            let dtype = param.base().dtype();
            if matches!(dtype, DType::QFloat(_)) {
                let path = path.to_string();
                return Err(QuantizeError::BurnsOwn { path }.into());
            }
            self.work.report.set_float_bits(path, 8 * dtype.size());
            let sums = Convert::<MultiBit>::new(&mut self.work);
            param = Module::apply_reparameterization(param, At(path, sums));
            let products = Convert::<Product>::new(&mut self.work);
            param = Module::apply_reparameterization(param, At(path, products));
            if let Some(error) = self.work.error.take() {
                return Err(error.into());
            }
        }
        self.write(path, param)
    }

    /// What the file says of an activation counts, not what the module says.
    fn check_activation<const D: usize>(
        &mut self,
        path: &str,
        state: &Param<Tensor<D>>,
    ) -> Result<(), QuantizeError> {
        let path = path.rsplit_once('.').map_or("", |(path, _)| path);
        let bits = MultiBitActivation::bits_of(&state.val().into_data());
        match self.switched.floats.contains_key(&state.id) {
            true if bits > 0 => Err(QuantizeError::Already { path: path.into() }),
            true => Ok(()),
            false => {
                self.work.report.set(path, Outcome::Activation { bits });
                Ok(())
            }
        }
    }

    /// Writes a parameter, with what it is made of.
    fn write<M: Module>(&mut self, path: &str, param: M) -> Result<(), ConvertFileError> {
        let plain = param.valid();
        drop(param);
        for found in walk(&plain) {
            let path = match found.path.as_str() {
                "" => path.to_string(),
                part => format!("{path}.{part}"),
            };
            match pack(&found, &path)? {
                Packable::Product => {}
                Packable::Float(tensor) if found.product.is_some() => {
                    let scale = stored_scale(&path, &tensor, self.coordinates)?;
                    self.writer.tensor(&path, &scale)?;
                }
                Packable::Float(tensor) => self.writer.tensor(&path, &tensor)?,
                Packable::Weight(weight, arithmetic) => {
                    let weight = weight.with_coordinate_type(self.coordinates);
                    let weight = weight.map_err(|source| PackModelError::Weight {
                        path: path.clone(),
                        source,
                    })?;
                    self.writer.weight(&path, &weight, arithmetic)?;
                }
            }
        }
        Ok(())
    }
}

/// A conversion of the one parameter that is at a path.
struct At<'a, R>(&'a str, R);

impl<S: State> Reparameterizer for At<'_, Convert<'_, '_, S>> {
    type Reparam = S;

    fn reparameterize<const D: usize>(
        &mut self,
        _path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<S>) {
        Reparameterizer::reparameterize(&mut &mut self.1, self.0, param)
    }
}
