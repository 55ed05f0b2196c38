//! What an example's tests ask of its network: the chain in its packed file gives the scores of the
//! network under Burn, bit for bit.

use burn::tensor::{Device, Distribution, Tensor};
use burn_alq::file::Input;
use burn_alq::{Arithmetic, PackedModel, PathPattern};
use multibit::cpu::Isa;
use multibit::file::PackedFile;
use multibit::runtime::{Plan, Prepared};

use crate::network::act_bits;
use crate::{Config, Example};

/// Quantizes a network of random weights for images of a shape, and compares.
///
/// # Panics
/// If a score differs, or anything fails.
pub fn chain_agrees<E: Example>(
    config: &[(&str, &str)],
    shape: [usize; 3],
    arithmetic: Option<Arithmetic>,
) {
    let device = Device::flex();
    let train = device.clone().autodiff();
    let pairs = config.iter();
    let config = Config::from_iter(pairs.map(|&(key, value)| (key.into(), value.into())));
    let images = |batch: usize, device: &Device| {
        let [channels, height, width] = shape;
        let shape = [batch, channels, height, width];
        Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), device)
    };
    let bits = act_bits(&config).unwrap();
    let float = E::from_config(&config, &train).unwrap();
    let mut quantizer = E::quantizer(3);
    if let (1.., Some(paths)) = (bits, E::ACTIVATIONS) {
        quantizer = quantizer.activations(PathPattern::glob(paths), bits);
    }
    let (model, _) = quantizer.quantize(float).unwrap();
    // Fits levels and statistics.
    for _ in 0..3 {
        model.forward(images(8, &train));
    }
    let model = model.valid();
    let mut packed = PackedModel::pack(&model).unwrap();
    if let Some(arithmetic) = arithmetic {
        let paths = packed.weights.iter().map(|(path, _)| path.clone());
        packed.arithmetic = paths.map(|path| (path, arithmetic)).collect();
    }
    let packed = packed.with_input(Input::new(shape)).unwrap();
    let packed = packed.with_chain(model.chain()).unwrap();
    let network = E::from_config(&config, &device).unwrap();
    let network = packed.apply(network).unwrap();

    let bytes = packed.to_bytes().unwrap();
    let file = PackedFile::read(&bytes).unwrap();
    let plan = Plan::new(&file).unwrap();
    let best = Prepared::new(&plan, Isa::best());
    for batch in [1, 3, 9] {
        let images = images(batch, &device);
        let values: Vec<f32> = images.clone().into_data().try_into_vec().unwrap();
        let burns: Vec<f32> = network.forward(images).into_data().try_into_vec().unwrap();
        let mut scores = vec![f32::NAN; burns.len()];
        best.run(&values, batch, &mut scores).unwrap();
        assert_same(&scores, &burns, &format!("{} of {batch}", E::TITLE));
        assert!(
            burns.iter().any(|score| *score != burns[0]),
            "scores differ"
        );
    }
    // In place, as on a processor without vectors.
    let portable = Prepared::new(&plan, Isa::PORTABLE);
    let values: Vec<f32> = images(1, &device).into_data().try_into_vec().unwrap();
    let mut buffer = vec![0; plan.words()];
    let [mut found, mut expected] = [0; 2].map(|_| vec![f32::NAN; plan.scores()]);
    plan.run(&values, &mut buffer, &mut found).unwrap();
    portable.run(&values, 1, &mut expected).unwrap();
    assert_same(&found, &expected, &format!("{} in place", E::TITLE));
}

fn assert_same(found: &[f32], expected: &[f32], what: &str) {
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let same = found.to_bits() == expected.to_bits();
        assert!(same, "{what}: {found} for {expected} at {i}");
    }
}
