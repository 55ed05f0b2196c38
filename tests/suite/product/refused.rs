//! What cannot be a product, or run as one, and the rules of a file.

use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::Tensor;
use burn_alq::file::{Chain, Input, PackModelError};
use burn_alq::nn::LinearConfig;
use burn_alq::quantize::{ProductError, QuantizeError, Rules};
use burn_alq::{Arithmetic, PackedModel, PathPattern, Product, Quantizer};

use super::{Net, all_images, applied, packed, products};
use crate::any_model::outcome;
use crate::devices::device;

#[test]
fn what_cannot_be_a_product_is_named() {
    let device = device();
    let float = Net::new(&device);
    let refused = |quantizer: Quantizer| quantizer.quantize(float.clone()).unwrap_err();
    let of = |path: &str, bits: f64| Quantizer::new(2).product(PathPattern::exact(path), bits);
    for (error, expected) in [
        (
            refused(of("hidden.weight", f64::NAN)),
            "hidden.weight: a product of NaN bits",
        ),
        (
            refused(of("hidden.weight", 0.0)),
            "hidden.weight: a product of 0 bits",
        ),
        (
            refused(of("hidden.weight", 9.0)),
            "hidden.weight: a product of 9 bits",
        ),
        (
            refused(of("head.weight", 0.5)),
            "head.weight: a product of 0.5 bits a weight has no rank",
        ),
        (
            refused(of("hidden.bias", 1.0)),
            "rule 1 (path `hidden.bias`) matches no weight",
        ),
        (
            refused(of("hidden.weight", 1.0).arithmetic(Arithmetic::Bitwise)),
            "hidden.weight: bitwise arithmetic",
        ),
    ] {
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    let (_, report) = of("head.weight", 0.5)
        .or_float()
        .product(PathPattern::exact("hidden.weight"), 1.0)
        .quantize(float.clone())
        .unwrap();
    let unfit = outcome(&report, "head.weight").to_string();
    assert!(unfit.contains("has no rank"), "{unfit}");

    #[derive(Module, Debug)]
    struct Table {
        table: Embedding,
    }

    let table = EmbeddingConfig::new(64, 64).init(&device);
    let error = of("table.weight", 1.0)
        .quantize(Table { table })
        .unwrap_err();
    let expected = ProductError::Layout;
    assert!(
        matches!(&error, QuantizeError::Product { source, .. } if *source == expected),
        "{error}"
    );

    let (net, _) = products(1.0).quantize(float).unwrap();
    let error = products(1.0).quantize(net.clone()).unwrap_err();
    let expected = "conv.weight is multi-bit already";
    assert_eq!(error.to_string(), expected);

    let mut given = net.clone();
    given.hidden.weight = Module::map(given.hidden.weight, &mut Zero);
    let error = PackedModel::pack(&given).unwrap_err();
    assert!(
        matches!(&error, PackModelError::Given { path } if path == "hidden.weight"),
        "{error}"
    );

    let chain = Chain::new().flatten().layer("hidden", &net.hidden);
    let model = packed(&net).with_input(Input::new([24, 4, 4])).unwrap();
    let error = model.with_chain(chain).unwrap_err();
    assert!(
        matches!(&error, PackModelError::Product { path } if path == "hidden.weight"),
        "{error}"
    );

    let mut lacking = packed(&net);
    lacking
        .tensors
        .retain(|(path, _)| path != "hidden.weight.product.scale");
    let error = lacking.apply(Net::new(&device)).unwrap_err();
    let expected = "hidden.weight.product.scale";
    assert!(
        matches!(&error, PackModelError::Missing { path } if path == expected),
        "{error}"
    );

    let mut other = Net::new(&device);
    other.hidden = LinearConfig::new(384, 47).init(&device);
    let error = packed(&net).apply(other).unwrap_err();
    let expected = "hidden.weight.product.second";
    assert!(
        matches!(&error, PackModelError::Shape { path, .. } if path == expected),
        "{error}"
    );
}

/// Puts 0 into parameters of rank 2, which have no value of their own.
struct Zero;

impl burn::module::ModuleMapper for Zero {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| value.zeros_like())
    }
}

#[test]
#[should_panic(expected = "a weight that is a product was given a value of its own")]
fn a_packed_product_refuses_another_value() {
    let device = device();
    let (net, _) = products(1.0).quantize(Net::new(&device)).unwrap();
    let mut running = applied(&net, &device);
    running.hidden.weight = Module::map(running.hidden.weight, &mut Base);
    running.forward(all_images(1, 1, &device));
}

/// Puts 0 into the weight itself, whose factors are of other shapes.
struct Base;

impl burn::module::ModuleMapper for Base {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let is_base = param.lazy_shape().as_slice() == [384, 48];
        param.map(|value| if is_base { value.zeros_like() } else { value })
    }
}

#[test]
fn rules_of_a_file_say_products() {
    let text = "max_bits = 2\ncoordinate_type = \"f32\"\nactivations = []\n\n[[weights]]\nglob = \"**\"\nproduct = 0.8\nor_float = true\narithmetic = \"int8\"\n";
    let rules: Rules = toml::from_str(text).unwrap();
    let again: Rules = toml::from_str(&toml::to_string(&rules).unwrap()).unwrap();
    assert_eq!(rules, again);
    let (net, _) = Quantizer::from(rules)
        .quantize(Net::new(&device()))
        .unwrap();
    let product = net.hidden.weight.reparameterization::<Product>().unwrap();
    assert_eq!(product.scale.dims(), [384]);
    for keys in [
        "product = 1.0\ngrouping = \"channelwise\"",
        "product = 1.0\nkeep_float = true",
        "product = 1.0\nmax_bits = 2",
        "product = 1.0\nlayout = \"direct\"",
    ] {
        let text = format!("[[weights]]\nglob = \"**\"\n{keys}\n");
        let error = toml::from_str::<Rules>(&text).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("needs one of `grouping`, `product`"),
            "{error}"
        );
    }
}
