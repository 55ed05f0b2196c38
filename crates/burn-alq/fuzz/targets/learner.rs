//! Records of a model in Burn's Learner.

#![no_main]

use std::sync::LazyLock;

use burn_alq::train::learner::Alq;
use burn_alq_fuzz::net::{Net, learner};
use burn_alq_fuzz::{bounded, container};
use burn_core::store::ModuleRecord;
use burn_pack::Bytes;
use libfuzzer_sys::fuzz_target;

static START: LazyLock<Alq<Net>> = LazyLock::new(learner);

fn load(bytes: &[u8]) -> Option<Alq<Net>> {
    let start = START.clone();
    let owned = Bytes::from_bytes_vec(bytes.to_vec());
    bounded(bytes.len(), move || {
        start
            .load_checkpoint(ModuleRecord::from_bytes(owned).ok()?)
            .ok()
    })
}

fuzz_target!(|bytes: &[u8]| {
    load(bytes);
    if let Some(bytes) = container::checkpoint(bytes) {
        load(&bytes);
    }
});
