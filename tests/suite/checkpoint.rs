//! Checkpoints that were damaged: refused, or the same training.

use burn::tensor::{DType, Device};
use burn_alq::Target;
use burn_alq::train::{CheckpointError, Run, TrainError};
use burn_core::module::Module;
use burn_core::store::ModuleRecord;
use burn_pack::{Bytes, Reader, Tensor, Writer};
use tempfile::TempDir;

use crate::MEMORY;
use crate::compact::crc32;
use crate::learner::{alq, net};
use crate::model::{Fit, Net, start};
use crate::support::{Random, alone};

const POSITION: &str = "alq:position";

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

/// The tensors of a checkpoint.
fn tensors(bytes: &[u8]) -> Vec<Tensor> {
    let reader = Reader::from_bytes(Bytes::from_bytes_vec(bytes.to_vec())).unwrap();
    reader.into_tensors().unwrap()
}

/// What a checkpoint says, by name: without its checksum, and without Burn's record of Adam, which
/// orders its parts anew each time.
fn parts(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let tensors = tensors(bytes).into_iter();
    tensors
        .filter(|tensor| tensor.name != "alq:rest")
        .map(|tensor| {
            let checksum = if tensor.name == POSITION { 4 } else { 0 };
            let name = tensor.name.clone();
            (name, tensor.into_bytes().unwrap()[checksum..].to_vec())
        })
        .collect()
}

#[test]
fn a_damaged_checkpoint_is_refused_or_means_the_same() {
    // Saving waits for the disk, a thousand times: in memory, where the system has a folder for that.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let folder = folder.unwrap();
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
    // The container's metadata is what names and places everything.
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
                assert!(!matches!(error, CheckpointError::File { .. }));
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

/// A checkpoint with other bytes in the tensors whose name ends so, and the right checksum.
fn with_tensor(good: &[u8], end: &str, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut found = false;
    let mut hashed = Vec::new();
    let mut position = Vec::new();
    let mut changed = Vec::new();
    for tensor in tensors(good) {
        let (name, dtype, shape, id, bytes) = tensor.into_parts().unwrap();
        let mut bytes = bytes.to_vec();
        if name.ends_with(end) {
            found = true;
            change(&mut bytes);
        }
        if name == POSITION {
            position = bytes.split_off(4);
            continue;
        }
        hashed.extend(format!("{name} {dtype:?} {:?} {id:?}", &shape[..]).into_bytes());
        hashed.extend(&bytes);
        let bytes = Bytes::from_bytes_vec(bytes);
        changed.push(Tensor::new(name, dtype, shape, id, bytes));
    }
    assert!(found, "no {end}");
    hashed.extend(&position);
    let position = [&crc32(&hashed).to_le_bytes()[..], &position].concat();
    changed.push(Tensor::new(
        POSITION.to_string(),
        DType::U8,
        [position.len()],
        Some(0),
        Bytes::from_bytes_vec(position),
    ));
    Writer::new(changed).into_bytes().unwrap().to_vec()
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
    type Change = fn(&mut [u8]);
    let resume = |end: &str, change: Change| {
        std::fs::write(&file, with_tensor(&good, end, change)).unwrap();
        fresh.clone().resume(&file, &device)
    };
    assert!(resume(".layout", |_| {}).is_ok());
    let changes: [(&str, Change); 4] = [
        (".layout", |bytes| bytes.fill(0xff)),
        (".widths", |bytes| bytes.fill(0x7f)),
        (".codes", |bytes| bytes.fill(0xff)),
        (".coordinates", |bytes| bytes.fill(0xff)),
    ];
    for (end, change) in changes {
        let error = resume(end, change).unwrap_err();
        let TrainError::Checkpoint(CheckpointError::File { source, .. }) = &error else {
            panic!("{end}: {error}");
        };
        let of_model = matches!(**source, CheckpointError::Model { .. });
        assert!(of_model, "{end}: {error}");
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
    let claim = |container: &mut [u8]| {
        let name = b"eshape";
        let shape = container.windows(name.len()).position(|text| text == name);
        // An array whose length is the next eight bytes.
        container[shape.unwrap() + name.len()] = 0x9b;
    };
    let mut outer = good.clone();
    claim(&mut outer);
    // The state of the optimizer is a container in a tensor. There is none before the first step.
    let mut run = fresh.clone();
    run.advance(&Fit::new(&device)).unwrap();
    run.save(&file).unwrap();
    let stepped = std::fs::read(&file).unwrap();
    let inner = with_tensor(&stepped, "alq:moments", claim);
    // Burn restores the state of the other parameters on its default device, and first sets that up.
    drop(fresh.clone().resume(&file, &device).unwrap());
    for (bytes, is_good) in [
        (&good, true),
        (&stepped, true),
        (&outer, false),
        (&inner, false),
    ] {
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
