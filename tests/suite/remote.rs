//! A device of a server: a process of its own on this machine, with Flex behind it.

use std::net::TcpStream;
use std::process::Command;
use std::sync::LazyLock;

use burn::module::{Module, ParamGroup};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::optim::GradientsParams;
use burn::tensor::activation::relu;
use burn::tensor::remote::RemoteHost;
use burn::tensor::{Device, Tensor};
use burn_alq::train::TrainError;
use burn_alq::{
    AlqOptimizerConfig, GroupingRule, MultiBitConv2d, MultiBitConv2dConfig, MultiBitLinear,
    MultiBitLinearConfig, Phase, Quantizer, Target,
};
use example_testing::server::{FREE, Server, nobody, of_another_version};

use crate::model::{Fit, start};
use crate::support::assert_says;

/// A server in a process of its own, at `ADDRESS:PORT`; port 0 is a free one.
fn serve(place: &str) -> Server {
    Server::start(Command::new(env!("CARGO_BIN_EXE_server")).arg(place))
}

fn device_of(server: &Server) -> Device {
    let address = &server.address;
    connect(address).unwrap_or_else(|error| panic!("{address}: {error}"))
}

fn connect(address: &str) -> Result<Device, String> {
    let device = Device::remote_options(&RemoteHost::websocket(address)).init();
    device.map_err(|error| error.to_string())
}

/// The default device of a suite that runs on a server. Starts it if there is none yet; there is one for a test
/// that runs alone in a process of its own.
///
/// It is where Burn looks for it: what Burn loads from a record, it loads on the default device first.
pub fn device() -> Device {
    static SERVER: LazyLock<Option<Server>> = LazyLock::new(|| {
        let address = std::env::var("BURN_REMOTE_ADDRESS");
        let address = address.as_deref().unwrap_or("ws://127.0.0.1:3000");
        let place = address.trim_start_matches("ws://");
        TcpStream::connect(place).is_err().then(|| serve(place))
    });
    LazyLock::force(&SERVER);
    Device::default()
}

/// LeNet5 of the example.
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
        let net = Self {
            conv1: conv([1, 20]),
            conv2: conv([20, 50]),
            fc1: linear(800, 500),
            fc2: linear(500, 10),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
        };
        let path = |path: &str| ParamGroup::from_path(path);
        let quantizer = Quantizer::new(6)
            .rule(path("conv1.weight"), GroupingRule::Kernelwise)
            .rule(path("conv2.weight"), GroupingRule::Kernelwise)
            .rule(path("fc1.weight"), GroupingRule::Subchannelwise(2))
            .rule(path("fc2.weight"), GroupingRule::Subchannelwise(1));
        quantizer.quantize(net).unwrap().0
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = relu(self.pool.forward(self.conv1.forward(images)));
        let x = relu(self.pool.forward(self.conv2.forward(x)));
        let x = relu(self.fc1.forward(x.flatten::<2>(1, 3)));
        self.fc2.forward(x)
    }
}

/// What the guide says of a step's messages. The server says how many it has got, uploads aside.
#[test]
fn a_step_takes_as_many_messages_as_the_guide_says() {
    let mut server = serve(FREE);
    let device = device_of(&server).autodiff();
    let mut net = LeNet5::new(&device);
    let mut optimizer = AlqOptimizerConfig::new().init();
    optimizer.set_phase(Phase::Basis);
    let mut counts = Vec::new();
    for _ in 0..3 {
        let images = Tensor::<4>::ones([2, 1, 28, 28], &device);
        device.sync().unwrap();
        let before = server.ask();
        let loss = net.forward(images).square().mean();
        let value = loss.clone().inner();
        let gradients = GradientsParams::from_grads(loss.backward(), &net);
        value.into_scalar::<f32>();
        let forth_and_back = server.ask();
        net = optimizer.step(1e-3, net, gradients);
        device.sync().unwrap();
        let after = server.ask();
        counts.push([forth_and_back - before, after - forth_and_back]);
    }
    println!("forward and backward, optimizer: {counts:?}");
    let guide = include_str!("../../crates/burn-alq/README.md");
    let [passes, steps] = counts[2];
    assert!(guide.contains(&format!("about {}00 messages", (passes + steps + 50) / 100)));
}

/// Training ends with an error that names the server.
#[test]
fn a_server_that_is_gone_is_named() {
    let mut server = serve(FREE);
    let device = device_of(&server).autodiff();
    let task = Fit::new(&device);
    let mut run = start(&device, Target::Bits(0.7));
    run.advance(&task).unwrap().unwrap();

    server.kill();

    // As Burn writes an address.
    let (host, port) = server.place().rsplit_once(':').unwrap();
    let host = format!("host: {host:?}");
    let named = [&host[..], port, "is the server still there?"];
    let error = run.advance(&task).unwrap_err();
    assert!(matches!(error, TrainError::Device(_)), "{error}");
    assert_says(&error.to_string(), &named);
}

/// Burn's own errors, as the guide to troubles quotes them.
#[test]
fn a_server_that_cannot_be_used_is_refused() {
    let error = connect(&nobody()).unwrap_err();
    assert_says(
        &error,
        &["the server cannot be reached", "is the server running?"],
    );

    let server = serve(FREE);
    let error = connect(&of_another_version(&server)).unwrap_err();
    assert_says(
        &error,
        &["the server speaks version 3", "this client version 2"],
    );
}
