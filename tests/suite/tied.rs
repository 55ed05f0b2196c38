//! Tied weights: one parameter in several places of a model.

use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Int, Tensor};
use burn_alq::file::{Coding, PackModelError};
use burn_alq::quantize::{Outcome, QuantizeError};
use burn_alq::{
    AlqOptimizerConfig, MultiBitEmbedding, MultiBitEmbeddingConfig, MultiBitLinear,
    MultiBitLinearConfig, PackedModel, PathPattern, Phase, sizes,
};

use crate::any_model::{everything, outcome};
use crate::devices::device;
use crate::support::{assert_near, values};

/// One parameter in three places: a table, a layer that computes with it and one that does so again.
#[derive(Module, Debug)]
struct Tied {
    table: Embedding,
    first: Linear,
    second: Linear,
    scale: Param<Tensor<1>>,
    shift: Param<Tensor<1>>,
}

impl Tied {
    fn new(device: &Device) -> Self {
        let table = EmbeddingConfig::new(6, 6).init(device);
        let mut first = LinearConfig::new(6, 6).with_bias(false).init(device);
        let mut second = first.clone();
        first.weight = table.weight.clone();
        second.weight = table.weight.clone();
        let scale = Param::from_tensor(Tensor::ones([6], device));
        Self {
            table,
            first,
            second,
            shift: scale.clone(),
            scale,
        }
    }

    fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let x = self.table.forward(tokens) * self.scale.val().unsqueeze();
        let x = self.second.forward(self.first.forward(x)) + self.shift.val().unsqueeze();
        x.tanh()
    }
}

/// The same function of one parameter in one place.
#[derive(Module, Debug)]
struct Once {
    table: Embedding,
    scale: Param<Tensor<1>>,
}

impl Once {
    fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let x = self.table.forward(tokens) * self.scale.val().unsqueeze();
        let weight = self.table.weight.val().unsqueeze::<3>();
        let x = x.matmul(weight.clone()).matmul(weight) + self.scale.val().unsqueeze();
        x.tanh()
    }
}

fn tokens(device: &Device) -> Tensor<2, Int> {
    Tensor::from_ints([[1, 2, 3, 4], [5, 0, 0, 3]], device)
}

#[test]
fn tied_weights_are_one_weight() {
    let train = device().autodiff();
    let net = Tied::new(&train);
    let once = Once {
        table: net.table.clone(),
        scale: net.scale.clone(),
    };
    let (mut net, report) = everything().quantize(net).unwrap();
    let (mut once, _) = everything().quantize(once).unwrap();
    let tied = Outcome::Tied {
        to: "table.weight".into(),
    };
    assert_eq!(*outcome(&report, "first.weight"), tied);
    assert_eq!(report.quantized().count(), 1);
    assert_eq!(sizes(&net), sizes(&once));

    let mut optimizer = AlqOptimizerConfig::new().init();
    let mut alone = AlqOptimizerConfig::new().init();
    for phase in [Phase::Ste, Phase::Basis, Phase::Coordinate, Phase::Basis] {
        optimizer.set_phase(phase);
        alone.set_phase(phase);
        let loss = net.forward(tokens(&train)).powi_scalar(2).sum();
        let grads = GradientsParams::from_grads(loss.backward(), &net);
        net = optimizer.step(0.05, net, grads);
        let loss = once.forward(tokens(&train)).powi_scalar(2).sum();
        let grads = GradientsParams::from_grads(loss.backward(), &once);
        once = alone.step(0.05, once, grads);
        for place in [&net.table.weight, &net.first.weight, &net.second.weight] {
            // The gradients are added in another order.
            assert_near(&values(place.val()), &values(once.table.weight.val()), 1e-4);
        }
        for place in [&net.scale, &net.shift] {
            assert_near(&values(place.val()), &values(once.scale.val()), 1e-4);
        }
    }

    let packed = PackedModel::pack(&net).unwrap();
    assert_eq!((packed.weights.len(), packed.tensors.len()), (1, 1));
    assert_eq!(packed.tied["first.weight"], "table.weight");
    assert_eq!(packed.tied["shift"], "scale");
    let expected = values(net.forward(tokens(&train)));
    for coding in [Coding::Plain, Coding::Deflate] {
        let bytes = packed.to_bytes_with(coding).unwrap();
        let read = PackedModel::from_bytes(bytes.clone(), "tied").unwrap();
        assert_eq!(read, packed);
        assert_eq!(crate::reader::read(&bytes).unwrap().tied, packed.tied);
        let run = read.apply(Tied::new(&device())).unwrap();
        assert_near(&values(run.forward(tokens(&device()))), &expected, 1e-5);
    }

    // Records, which tell the places apart, keep them one.
    let other = everything().quantize(Tied::new(&train)).unwrap().0;
    let loaded = other.load_record(net.clone().into_record());
    assert_eq!(PackedModel::pack(&loaded).unwrap(), packed);
}

/// Ours compute from bits, where their grouping lets them.
#[derive(Module, Debug)]
struct TiedOurs {
    table: MultiBitEmbedding,
    head: MultiBitLinear,
}

impl TiedOurs {
    fn new(device: &Device) -> Self {
        let table = MultiBitEmbeddingConfig::new(6, 4).init_float(device);
        let mut head = MultiBitLinearConfig::new(6, 4).init_float(device);
        head.weight = table.weight.clone();
        Self { table, head }
    }

    fn forward(&self, tokens: Tensor<2, Int>, x: Tensor<2>) -> Tensor<2> {
        let rows = self.table.forward(tokens).sum_dim(1).squeeze_dim::<2>(1);
        self.head.forward(x) + rows
    }
}

#[test]
fn a_tied_weight_serves_layers_that_cut_it_differently() {
    let train = device().autodiff();
    let (net, _) = everything().quantize(TiedOurs::new(&train)).unwrap();
    let x = Tensor::random([2, 6], Distribution::Default, &device());
    let expected = values(net.valid().forward(tokens(&device()), x.clone()));
    let packed = PackedModel::pack(&net).unwrap();
    let run = packed.apply(TiedOurs::new(&device())).unwrap();
    assert_near(&values(run.forward(tokens(&device()), x)), &expected, 1e-5);
}

#[test]
fn tied_weights_that_are_not_one_are_named() {
    let train = device().autodiff();
    let rules = everything().keep_float(PathPattern::exact("second.weight"));
    let error = rules.quantize(Tied::new(&train)).unwrap_err();
    let expected = QuantizeError::Tied {
        path: "second.weight".into(),
        first: "table.weight".into(),
    };
    assert_eq!(error, expected);
    let (mut net, _) = everything().quantize(Tied::new(&train)).unwrap();
    net.shift = net
        .shift
        .map(|tensor| (tensor + 1.0).detach().require_grad());
    let error = PackedModel::pack(&net).unwrap_err();
    let expected = PackModelError::Tied {
        path: "shift".into(),
        first: "scale".into(),
    };
    assert_eq!(error, expected);
}
