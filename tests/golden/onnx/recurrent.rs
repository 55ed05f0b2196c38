// Generated from ONNX "models/recurrent.onnx" by burn-onnx
extern crate alloc;
use burn::prelude::*;
use burn::nn::BiLstm;
use burn::nn::BiLstmConfig;
use burn::nn::Linear;
use burn::nn::LinearConfig;
use burn::tensor::Bytes;
use burn_store::BurnpackStore;
use burn_store::ModuleSnapshot;


#[derive(Module, Debug)]
pub struct Model {
    lstm1: BiLstm,
    gru1: burn::nn::gru::Gru,
    linear1: Linear,
    #[module(skip)]
    device: Device,
}


impl Model {
    /// Load model weights from in-memory bytes.
    ///
    /// The bytes must be the contents of a `.bpk` file.
    pub fn from_bytes(bytes: Bytes, device: &Device) -> Self {
        let mut model = Self::new(device);
        let mut store = BurnpackStore::from_bytes(Some(bytes));
        model
            .load_from(&mut store)
            .unwrap_or_else(|e| panic!("Failed to load burnpack bytes: {e}"));
        model
    }
}

impl Model {
    #[allow(unused_variables)]
    pub fn new(device: &Device) -> Self {
        let lstm1 = BiLstmConfig::new(6, 8, true)
            .with_batch_first(false)
            .with_input_forget(false)
            .init(device);
        let gru1 = burn::nn::gru::GruConfig::new(16, 8, true)
            .with_reset_after(true)
            .init(device);
        let linear1 = LinearConfig::new(8, 4).with_bias(true).init(device);
        Self {
            lstm1,
            gru1,
            linear1,
            device: device.clone(),
        }
    }

    #[allow(clippy::let_and_return, clippy::approx_constant)]
    pub fn forward(&self, input: Tensor<3>) -> Tensor<2> {
        let lstm1_out1 = {
            let (output_seq, final_state) = self.lstm1.forward(input, None);
            {
                let [seq_len, batch_size, _] = output_seq.dims();
                let reshaped = output_seq.reshape([seq_len, batch_size, 2, 8usize]);
                reshaped.swap_dims(1, 2)
            }
        };
        let transpose1_out1 = lstm1_out1.permute([0, 2, 1, 3]);
        let reshape1_out1 = transpose1_out1.reshape([5, 2, 16]);
        let gru1_out1 = {
            let gru_output = self.gru1.forward(reshape1_out1.swap_dims(0, 1), None);
            let batch_first_output = gru_output;
            batch_first_output.clone().swap_dims(0, 1).unsqueeze_dims::<4>(&[1])
        };
        let transpose2_out1 = gru1_out1.permute([0, 2, 1, 3]);
        let reshape2_out1 = transpose2_out1.reshape([5, 2, 8]);
        let gather1_out1 = {
            let sliced = reshape2_out1.slice(s![- 1, .., ..]);
            sliced.squeeze_dim::<2usize>(0)
        };
        let linear1_out1 = self.linear1.forward(gather1_out1);
        linear1_out1
    }
}
