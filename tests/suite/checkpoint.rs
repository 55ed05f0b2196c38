//! Checkpoints that were damaged: refused, or the same training.

use burn::tensor::Device;
use burn_alq::Target;
use burn_alq::train::TrainError;
use burn_alq::train::learner::CheckpointError;
use burn_core::module::Module;
use burn_core::store::ModuleRecord;
use burn_pack::{Bytes, Reader, Writer};

use crate::learner::{alq, net};
use crate::model::{Fit, start};
use crate::support::Random;

/// Changes to bytes: each bit of what describes the rest, and bits all over.
fn damages(bytes: &[u8], described: usize) -> Vec<Vec<u8>> {
    let mut random = Random::new(5);
    let mut places: Vec<(usize, u8)> = (0..described)
        .flat_map(|place| (0..8).map(move |bit| (place, 1 << bit)))
        .collect();
    for _ in 0..3000 {
        let place = (random.uniform() * bytes.len() as f64) as usize;
        places.push((place, random.bits() as u8 | 1));
    }
    let damaged = places.into_iter().map(|(place, mask)| {
        let mut damaged = bytes.to_vec();
        damaged[place] ^= mask;
        damaged
    });
    damaged.collect()
}

/// Position, model and state of the multi-bit weights. Burn's record of Adam orders its parts anew
/// each time.
fn parts(bytes: &[u8]) -> [Vec<u8>; 3] {
    let reader = Reader::from_bytes(Bytes::from_bytes_vec(bytes.to_vec())).unwrap();
    let position = reader.metadata()["burn-alq.position"].clone();
    let [model, optimizer] = ["model", "optimizer"].map(|name| reader.tensor_data(name).unwrap());
    [position.into_bytes(), model, optimizer]
}

#[test]
fn a_damaged_checkpoint_is_refused_or_means_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkpoint.bpk");
    let device = Device::flex().autodiff();
    let task = Fit::new(&device);
    let fresh = start(&device, Target::Bits(0.7));
    let mut run = fresh.clone();
    for _ in 0..3 {
        run.advance(&task).unwrap();
    }
    run.save(&file).unwrap();
    let good = std::fs::read(&file).unwrap();
    let expected = parts(&good);
    let mut refused = 0;
    // The container's metadata, with the position in it, is what names and places everything.
    let metadata = 10 + u32::from_le_bytes(good[6..10].try_into().unwrap()) as usize;
    for damaged in damages(&good, metadata) {
        std::fs::write(&file, &damaged).unwrap();
        match fresh.clone().resume(&file, &device) {
            Err(error) => {
                assert!(error.to_string().contains("checkpoint.bpk"), "{error}");
                refused += 1;
            }
            Ok(mut same) => {
                same.save(&file).unwrap();
                assert!(parts(&std::fs::read(&file).unwrap()) == expected);
            }
        }
    }
    // All but padding.
    assert!(refused > 8 * (metadata - 20), "{refused}");

    let reader = Reader::from_bytes(Bytes::from_bytes_vec(good)).unwrap();
    let position = reader.metadata()["burn-alq.position"].clone();
    let writer = Writer::new(reader.into_tensors().unwrap());
    let bare = writer.with_metadata("burn-alq.position", &position);
    std::fs::write(&file, &bare.into_bytes().unwrap()[..]).unwrap();
    let error = fresh.resume(&file, &device).unwrap_err();
    assert!(matches!(error, TrainError::Checkpoint { .. }));
    assert!(error.to_string().contains("earlier version"), "{error}");
}

#[test]
fn a_damaged_record_of_the_learner_is_refused_or_means_the_same() {
    let fresh = alq(net());
    let record = |bytes: &[u8]| ModuleRecord::from_bytes(Bytes::from_bytes_vec(bytes.to_vec()));
    let good = fresh.clone().into_record().into_bytes().unwrap().to_vec();
    let metadata = 10 + u32::from_le_bytes(good[6..10].try_into().unwrap()) as usize;
    let (mut refused, mut checksums) = (0, 0);
    for damaged in damages(&good, metadata) {
        let Ok(record) = record(&damaged) else {
            refused += 1;
            continue;
        };
        // A checkpoint that does not load leaves running statistics alone, so one model does for all.
        match fresh.clone().load_checkpoint(record) {
            Err(error) => {
                checksums += usize::from(error.to_string().contains("wrong checksum"));
                assert!(!matches!(error, CheckpointError::Folder { .. }));
                refused += 1;
            }
            Ok(same) => assert!(same.into_record().into_bytes().unwrap().to_vec() == good),
        }
    }
    assert!(
        refused > 4 * metadata && checksums > 100,
        "{refused}, {checksums}"
    );
}
