//! A packed model under Burn Flex, as a module of WebAssembly: for models that are more than a chain of
//! layers, which `multibit` runs without Burn in a tenth of the bytes (`examples/web`).
//!
//! The functions are those of `multibit::exports` as far as they are there, so a page calls both alike: an
//! instance holds one model, a function that can fail returns 1 or 0, and then the text says why.

use std::sync::{Mutex, PoisonError};

use burn::module::Module;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use burn_alq::file::Input;
use burn_alq::{
    MultiBitConv2d, MultiBitConv2dConfig, MultiBitLinear, MultiBitLinearConfig, PackedModel,
    Quantized,
};

/// Caffe's LeNet5. Any module of Burn's can stand here.
#[derive(Module, Debug)]
struct LeNet5 {
    conv1: MultiBitConv2d,
    conv2: MultiBitConv2d,
    fc1: MultiBitLinear,
    fc2: MultiBitLinear,
    pool: MaxPool2d,
}

impl LeNet5 {
    fn new(device: &Device) -> Self {
        let conv = |channels| MultiBitConv2dConfig::new(channels, [5, 5]).init_float(device);
        let linear = |d_in, d_out| MultiBitLinearConfig::new(d_in, d_out).init_float(device);
        Self {
            conv1: conv([1, 20]),
            conv2: conv([20, 50]),
            fc1: linear(800, 500),
            fc2: linear(500, 10),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let pooled = |x| relu(Quantized::from(x).max_pool2d(&self.pool).into_tensor());
        let x = pooled(self.conv1.forward(images));
        let x = pooled(self.conv2.forward(x));
        self.fc2
            .forward(relu(self.fc1.forward(x.flatten::<2>(1, 3))))
    }
}

/// All that an instance knows.
struct State {
    file: Vec<u8>,
    text: String,
    model: Option<Model>,
}

static STATE: Mutex<State> = Mutex::new(State {
    file: Vec::new(),
    text: String::new(),
    model: None,
});

/// A network with the weights of a file.
pub struct Model {
    network: LeNet5,
    device: Device,
    input: Input,
    raw: Vec<u8>,
    scores: Vec<f32>,
}

impl Model {
    /// Reads a packed file.
    ///
    /// # Errors
    /// If it is none, not this network's, or does not say what its input is; in a sentence.
    pub fn new(file: Vec<u8>) -> Result<Self, String> {
        let packed =
            PackedModel::from_bytes(file, "the file").map_err(|error| error.to_string())?;
        let device = Device::flex();
        let network = packed.apply(LeNet5::new(&device));
        let network = network.map_err(|error| error.to_string())?;
        let input = packed.input;
        let input = input.ok_or("the file does not say what its input is")?;
        if input.shape != [1, 28, 28] {
            return Err(format!("inputs of {:?}, not of [1, 28, 28]", input.shape));
        }
        Ok(Self {
            raw: vec![0; input.len()],
            scores: Vec::new(),
            network,
            device,
            input,
        })
    }

    /// The ten scores of an image of 28×28 bytes.
    ///
    /// # Errors
    /// If it has another size.
    pub fn scores(&mut self, raw: &[u8]) -> Result<&[f32], String> {
        if raw.len() != self.raw.len() {
            return Err(format!("{} bytes, not {}", raw.len(), self.raw.len()));
        }
        self.raw.copy_from_slice(raw);
        self.run()?;
        Ok(&self.scores)
    }

    fn run(&mut self) -> Result<(), String> {
        let raw = |place: usize| f32::from(self.raw[place]);
        let places = 0..self.input.len();
        let values: Vec<f32> = places.map(|place| self.input.value(place, raw)).collect();
        let values = TensorData::new(values, [1, 1, 28, 28]);
        let scores = self
            .network
            .forward(Tensor::from_data(values, &self.device));
        let scores = scores.into_data().try_into_vec();
        self.scores = scores.map_err(|error| format!("{error:?}"))?;
        Ok(())
    }
}

fn with<R>(work: impl FnOnce(&mut State) -> R) -> R {
    work(&mut STATE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// 1, or 0 with its reason as the text.
fn done(state: &mut State, result: Result<(), String>) -> u32 {
    match result {
        Ok(()) => 1,
        Err(reason) => {
            state.text = reason;
            0
        }
    }
}

/// Room for a file of `len` bytes.
#[unsafe(no_mangle)]
pub extern "C" fn flex_file(len: usize) -> *mut u8 {
    with(|state| {
        state.file = vec![0; len];
        state.file.as_mut_ptr()
    })
}

/// Reads the file into the network. 0 if it is no packed file of this network.
#[unsafe(no_mangle)]
pub extern "C" fn flex_load() -> u32 {
    with(|state| {
        let file = std::mem::take(&mut state.file);
        let result = Model::new(file).map(|model| state.model = Some(model));
        done(state, result)
    })
}

/// What the last call said, UTF-8.
#[unsafe(no_mangle)]
pub extern "C" fn flex_text() -> *const u8 {
    with(|state| state.text.as_ptr())
}

/// Its bytes.
#[unsafe(no_mangle)]
pub extern "C" fn flex_text_len() -> usize {
    with(|state| state.text.len())
}

/// Where a raw sample goes, a byte a value; null without a model.
#[unsafe(no_mangle)]
pub extern "C" fn flex_input() -> *mut u8 {
    with(|state| {
        let model = state.model.as_mut();
        model.map_or(std::ptr::null_mut(), |model| model.raw.as_mut_ptr())
    })
}

/// Computes the scores of the sample. 0 if no model is loaded.
#[unsafe(no_mangle)]
pub extern "C" fn flex_run() -> u32 {
    with(|state| {
        let result = match &mut state.model {
            Some(model) => model.run(),
            None => Err("no model is loaded".into()),
        };
        done(state, result)
    })
}

/// The ten scores of the last run; null before it.
#[unsafe(no_mangle)]
pub extern "C" fn flex_scores() -> *const f32 {
    with(|state| {
        let model = state
            .model
            .as_ref()
            .filter(|model| !model.scores.is_empty());
        model.map_or(std::ptr::null(), |model| model.scores.as_ptr())
    })
}
