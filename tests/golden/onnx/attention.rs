// Generated from ONNX "models/attention.onnx" by burn-onnx
extern crate alloc;
use burn::prelude::*;
use burn::nn::LayerNorm;
use burn::nn::LayerNormConfig;
use burn::nn::Linear;
use burn::nn::LinearConfig;
use burn::tensor::Bytes;
use burn_store::BurnpackStore;
use burn_store::ModuleSnapshot;


#[derive(Module, Debug)]
pub struct Model {
    constant1: burn::module::Param<Tensor<2>>,
    constant2: burn::module::Param<Tensor<3>>,
    constant14: burn::module::Param<Tensor<1>>,
    constant22: burn::module::Param<Tensor<1>>,
    constant23: burn::module::Param<Tensor<1>>,
    constant24: burn::module::Param<Tensor<1>>,
    layernormalization1: LayerNorm,
    linear1: Linear,
    linear2: Linear,
    linear3: Linear,
    linear4: Linear,
    layernormalization2: LayerNorm,
    linear5: Linear,
    linear6: Linear,
    layernormalization3: LayerNorm,
    linear7: Linear,
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
        let constant1: burn::module::Param<Tensor<2>> = burn::module::Param::uninitialized(
            burn::module::ParamId::new(),
            move |device, _require_grad| Tensor::<
                2,
            >::zeros([24, 16], (device, burn::tensor::DType::F32)),
            device.clone(),
            false,
            [24, 16].into(),
        );
        let constant2: burn::module::Param<Tensor<3>> = burn::module::Param::uninitialized(
            burn::module::ParamId::new(),
            move |device, _require_grad| Tensor::<
                3,
            >::zeros([1, 8, 16], (device, burn::tensor::DType::F32)),
            device.clone(),
            false,
            [1, 8, 16].into(),
        );
        let constant14: burn::module::Param<Tensor<1>> = burn::module::Param::uninitialized(
            burn::module::ParamId::new(),
            move |device, _require_grad| Tensor::<
                1,
            >::from_data(
                burn::tensor::TensorData::from([2.8284270763397217f64]),
                (device, burn::tensor::DType::F32),
            ),
            device.clone(),
            false,
            [1].into(),
        );
        let constant22: burn::module::Param<Tensor<1>> = burn::module::Param::uninitialized(
            burn::module::ParamId::new(),
            move |device, _require_grad| Tensor::<
                1,
            >::from_data(
                burn::tensor::TensorData::from([1.4142135381698608f64]),
                (device, burn::tensor::DType::F32),
            ),
            device.clone(),
            false,
            [1].into(),
        );
        let constant23: burn::module::Param<Tensor<1>> = burn::module::Param::uninitialized(
            burn::module::ParamId::new(),
            move |device, _require_grad| Tensor::<
                1,
            >::from_data(
                burn::tensor::TensorData::from([1f64]),
                (device, burn::tensor::DType::F32),
            ),
            device.clone(),
            false,
            [1].into(),
        );
        let constant24: burn::module::Param<Tensor<1>> = burn::module::Param::uninitialized(
            burn::module::ParamId::new(),
            move |device, _require_grad| Tensor::<
                1,
            >::from_data(
                burn::tensor::TensorData::from([0.5f64]),
                (device, burn::tensor::DType::F32),
            ),
            device.clone(),
            false,
            [1].into(),
        );
        let layernormalization1 = LayerNormConfig::new(16)
            .with_epsilon(0.000009999999747378752f64)
            .with_bias(true)
            .init(device);
        let linear1 = LinearConfig::new(16, 16).with_bias(true).init(device);
        let linear2 = LinearConfig::new(16, 16).with_bias(true).init(device);
        let linear3 = LinearConfig::new(16, 16).with_bias(true).init(device);
        let linear4 = LinearConfig::new(16, 16).with_bias(true).init(device);
        let layernormalization2 = LayerNormConfig::new(16)
            .with_epsilon(0.000009999999747378752f64)
            .with_bias(true)
            .init(device);
        let linear5 = LinearConfig::new(16, 32).with_bias(true).init(device);
        let linear6 = LinearConfig::new(32, 16).with_bias(true).init(device);
        let layernormalization3 = LayerNormConfig::new(16)
            .with_epsilon(0.000009999999747378752f64)
            .with_bias(true)
            .init(device);
        let linear7 = LinearConfig::new(16, 4).with_bias(true).init(device);
        Self {
            constant1,
            constant2,
            constant14,
            constant22,
            constant23,
            constant24,
            layernormalization1,
            linear1,
            linear2,
            linear3,
            linear4,
            layernormalization2,
            linear5,
            linear6,
            layernormalization3,
            linear7,
            device: device.clone(),
        }
    }

    #[allow(clippy::let_and_return, clippy::approx_constant)]
    pub fn forward(&self, input: Tensor<2, Int>) -> Tensor<2> {
        let constant1_out1 = self.constant1.val();
        let constant2_out1 = self.constant2.val();
        let constant14_out1 = self.constant14.val();
        let constant22_out1 = self.constant22.val();
        let constant23_out1 = self.constant23.val();
        let constant24_out1 = self.constant24.val();
        let gather1_out1 = {
            let axis_size = constant1_out1.dims()[0] as i64;
            let negative = input.clone().lower_elem(0i64);
            let corrected = input.clone() + axis_size;
            let indices = input.mask_where(negative, corrected);
            constant1_out1.take::<2, 3>(0, indices)
        };
        let add1_out1 = gather1_out1.add(constant2_out1);
        let layernormalization1_out1 = {
            let dtype = add1_out1.dtype();
            self.layernormalization1
                .forward(add1_out1.cast(burn::tensor::DType::F32))
                .cast(dtype)
        };
        let linear1_out1 = self.linear1.forward(layernormalization1_out1.clone());
        let reshape1_out1 = linear1_out1.reshape([2, 8, 2, 8]);
        let transpose1_out1 = reshape1_out1.permute([0, 2, 1, 3]);
        let linear2_out1 = self.linear2.forward(layernormalization1_out1.clone());
        let reshape2_out1 = linear2_out1.reshape([2, 8, 2, 8]);
        let transpose2_out1 = reshape2_out1.permute([0, 2, 3, 1]);
        let linear3_out1 = self.linear3.forward(layernormalization1_out1.clone());
        let reshape3_out1 = linear3_out1.reshape([2, 8, 2, 8]);
        let transpose3_out1 = reshape3_out1.permute([0, 2, 1, 3]);
        let matmul4_out1 = transpose1_out1.matmul(transpose2_out1);
        let div1_out1 = matmul4_out1
            .div((constant14_out1).unsqueeze_dims(&[0isize, 1isize, 2isize]));
        let softmax1_out1 = burn::tensor::activation::softmax(div1_out1, 3);
        let matmul5_out1 = softmax1_out1.matmul(transpose3_out1);
        let transpose4_out1 = matmul5_out1.permute([0, 2, 1, 3]);
        let reshape4_out1 = transpose4_out1.reshape([2, 8, 16]);
        let linear4_out1 = self.linear4.forward(reshape4_out1);
        let add2_out1 = layernormalization1_out1.add(linear4_out1);
        let layernormalization2_out1 = {
            let dtype = add2_out1.dtype();
            self.layernormalization2
                .forward(add2_out1.cast(burn::tensor::DType::F32))
                .cast(dtype)
        };
        let linear5_out1 = self.linear5.forward(layernormalization2_out1.clone());
        let div2_out1 = linear5_out1
            .clone()
            .div((constant22_out1).unsqueeze_dims(&[0isize, 1isize]));
        let erf1_out1 = div2_out1.erf();
        let add3_out1 = erf1_out1
            .add((constant23_out1).unsqueeze_dims(&[0isize, 1isize]));
        let mul1_out1 = linear5_out1.mul(add3_out1);
        let mul2_out1 = mul1_out1
            .mul((constant24_out1).unsqueeze_dims(&[0isize, 1isize]));
        let linear6_out1 = self.linear6.forward(mul2_out1);
        let add4_out1 = layernormalization2_out1.add(linear6_out1);
        let layernormalization3_out1 = {
            let dtype = add4_out1.dtype();
            self.layernormalization3
                .forward(add4_out1.cast(burn::tensor::DType::F32))
                .cast(dtype)
        };
        let gather2_out1 = {
            let sliced = layernormalization3_out1.slice(s![.., 0, ..]);
            sliced.squeeze_dim::<2usize>(1)
        };
        let linear7_out1 = self.linear7.forward(gather2_out1);
        linear7_out1
    }
}
