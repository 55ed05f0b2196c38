//! Checkpoints that were damaged: refused, or the same training.

use burn::tensor::{DType, Device};
use burn_alq::Target;
use burn_alq::train::learner::CheckpointError;
use burn_alq::train::{Run, TrainError};
use burn_core::module::Module;
use burn_core::store::ModuleRecord;
use burn_pack::{Bytes, Reader, Scalar, Writer};
use tempfile::TempDir;

use crate::MEMORY;
use crate::file::crc32;
use crate::learner::{alq, net};
use crate::model::{Fit, Net, start};
use crate::support::{Random, alone};

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

/// A record with other bytes in the tensors whose name ends so.
fn with_tensor(record: &[u8], end: &str, change: impl Fn(&mut [u8])) -> Bytes {
    let reader = Reader::from_bytes(Bytes::from_bytes_vec(record.to_vec())).unwrap();
    let mut found = false;
    let tensors = reader.into_tensors().unwrap().into_iter().map(|tensor| {
        let (name, dtype, shape, id, bytes) = tensor.into_parts().unwrap();
        let mut bytes = bytes.to_vec();
        if name.ends_with(end) {
            found = true;
            change(&mut bytes);
        }
        burn_pack::Tensor::new(name, dtype, shape, id, Bytes::from_bytes_vec(bytes))
    });
    let tensors = tensors.collect();
    assert!(found, "no {end}");
    Writer::new(tensors).into_bytes().unwrap()
}

/// A checkpoint with another record of the model in it, and the right checksum.
fn with_model(good: &[u8], model: &[u8]) -> Vec<u8> {
    let [position, _, optimizer] = parts(good);
    let reader = Reader::from_bytes(Bytes::from_bytes_vec(good.to_vec())).unwrap();
    let rest = reader.tensor_data("rest").unwrap();
    let sections = [model, &optimizer, &rest];
    let mut all = position.clone();
    for section in sections {
        all.extend((section.len() as u64).to_le_bytes());
        all.extend(section);
    }
    let tensors = ["model", "optimizer", "rest"].iter().zip(sections);
    let tensors = tensors.map(|(name, bytes)| {
        let bytes = Bytes::from_bytes_vec(bytes.to_vec());
        burn_pack::Tensor::new(name.to_string(), DType::U8, [bytes.len()], None, bytes)
    });
    let writer = Writer::new(tensors.collect());
    let writer = writer.with_metadata("burn-alq.position", str::from_utf8(&position).unwrap());
    let writer = writer.with_scalar("burn-alq.crc32", Scalar::from(crc32(&all)));
    writer.into_bytes().unwrap().to_vec()
}

/// A folder for checkpoints, a run at its start and its checkpoint.
fn saved() -> (TempDir, Run<Net>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("start.bpk");
    let fresh = start(&Device::flex().autodiff(), Target::Bits(0.7));
    fresh.clone().save(&file).unwrap();
    let good = std::fs::read(&file).unwrap();
    (folder, fresh, good)
}

/// With a right checksum, but weights that are none: an error, before anything is computed with them.
#[test]
fn a_checkpoint_of_broken_weights_is_refused() {
    let (folder, fresh, good) = saved();
    let file = folder.path().join("checkpoint.bpk");
    let device = Device::flex().autodiff();
    let [_, model, _] = parts(&good);
    let resume = |model: &[u8]| {
        std::fs::write(&file, with_model(&good, model)).unwrap();
        fresh.clone().resume(&file, &device)
    };
    let unchanged = resume(&with_tensor(&model, ".layout", |_| {}));
    assert!(unchanged.is_ok());
    type Change = fn(&mut [u8]);
    let changes: [(&str, Change); 4] = [
        (".layout", |bytes| bytes.fill(0xff)),
        (".widths", |bytes| bytes.fill(0x7f)),
        (".codes", |bytes| bytes.fill(0xff)),
        (".coordinates", |bytes| bytes.fill(0xff)),
    ];
    for (end, change) in changes {
        let error = resume(&with_tensor(&model, end, change)).unwrap_err();
        assert!(matches!(error, TrainError::Record { .. }), "{end}: {error}");
    }
}

/// Found by fuzzing: for a shape that claims more axes than there are bytes, serde reserved a mebibyte.
#[test]
fn reading_a_checkpoint_takes_little_more_than_twice_its_bytes() {
    if !alone("checkpoint::reading_a_checkpoint_takes_little_more_than_twice_its_bytes") {
        return;
    }
    /// The directories in memory, Flex's own, and what the test harness prints meanwhile.
    const SLACK: usize = 1 << 17;
    let (folder, fresh, good) = saved();
    let file = folder.path().join("checkpoint.bpk");
    let device = Device::flex().autodiff();
    let [_, mut claim, _] = parts(&good);
    let name = b"eshape";
    let shape = claim.windows(name.len()).position(|text| text == name);
    // An array whose length is the next eight bytes.
    claim[shape.unwrap() + name.len()] = 0x9b;
    let claim = with_model(&good, &claim);
    for (bytes, is_good) in [(&good, true), (&claim, false)] {
        std::fs::write(&file, bytes).unwrap();
        let run = fresh.clone();
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let resumed = run.resume(&file, &device);
        let taken = MEMORY.peak_usage() - before;
        match resumed {
            Ok(_) => assert!(is_good),
            Err(error) => {
                assert!(
                    !is_good && error.to_string().contains("a length of"),
                    "{error}"
                );
            }
        }
        let most = 2 * bytes.len() + SLACK;
        assert!(taken <= most, "{} bytes took {taken}", bytes.len());
        assert!(taken > bytes.len(), "memory is counted");
    }
}
