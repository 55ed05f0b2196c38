//! Average bits, bytes and phase, from the training thread to the thread of the metrics.

use std::fmt;
use std::string::String;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use burn_core::module::Module;
use burn_core::tensor::TensorReadError;
use burn_train::EarlyStoppingStrategy;
use burn_train::metric::store::EventStoreClient;
use burn_train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};

use super::Plan;
use crate::optim::{average_bits, sizes};
use crate::schedule::PhaseKind;
use crate::step::prune::{Cost, total};

/// Where a training is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Status {
    /// Epoch of the schedule, from 0.
    pub epoch: usize,
    /// The outer round, from 0; none after the rounds.
    pub round: Option<usize>,
    /// The phase; [`PhaseKind::Fixed`] after the schedule.
    pub phase: PhaseKind,
    /// Average bitwidth of the multi-bit weights.
    pub bits: f64,
    /// Bytes of the multi-bit weights when packed.
    pub bytes: usize,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.round {
            Some(round) => write!(f, "{} (round {})", self.phase, round + 1),
            None => write!(f, "{}", self.phase),
        }
    }
}

/// What the training thread writes and metrics read.
///
/// Metrics run behind the training, on a thread of their own. So the status is kept for every batch,
/// as the batches where it changed.
#[derive(Debug, Clone, Default)]
pub struct Monitor(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Batches begun, of all devices.
    items: usize,
    /// Of them, since the last step.
    since_step: usize,
    bits: f64,
    bytes: usize,
    /// The first batch of a status.
    changes: Vec<(usize, Status)>,
}

impl Monitor {
    /// The status of the last batch; none before the first.
    pub fn status(&self) -> Option<Status> {
        self.lock().changes.last().map(|(_, status)| *status)
    }

    /// The status after batch `item` of this process, from 0; none before its first.
    fn at(&self, item: usize) -> Option<Status> {
        let state = self.lock();
        let after = state.changes.partition_point(|(first, _)| *first <= item);
        let index = after.checked_sub(1)?;
        Some(state.changes[index].1)
    }

    /// Reads the size of the weights.
    pub(super) fn weigh<M: Module>(&self, model: &M, plan: &Plan) {
        let sizes = sizes(model);
        let mut state = self.lock();
        state.bits = average_bits(&sizes);
        state.bytes = total(&sizes, Cost::Bytes(plan.schedule.coordinate_type()));
        // The batch that has just been optimized ends with them.
        let (bits, bytes) = (state.bits, state.bytes);
        if let Some(last) = state.items.checked_sub(1)
            && let Some(&(_, status)) = state.changes.last()
        {
            state.push(
                last,
                Status {
                    bits,
                    bytes,
                    ..status
                },
            );
        }
    }

    /// A batch begins; returns its number among the batches of the step.
    pub(super) fn item(&self, step: usize, plan: &Plan) -> usize {
        let epoch = step / plan.steps_per_epoch;
        let now = plan.schedule.epochs().get(epoch);
        let mut state = self.lock();
        let status = Status {
            epoch,
            round: now.and_then(|epoch| epoch.round),
            phase: now.map_or(PhaseKind::Fixed, |epoch| epoch.kind),
            bits: state.bits,
            bytes: state.bytes,
        };
        let items = state.items;
        state.push(items, status);
        state.items += 1;
        state.since_step += 1;
        state.since_step - 1
    }

    pub(super) fn stepped(&self) {
        self.lock().since_step = 0;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, first: usize, status: Status) {
        match self.changes.last_mut() {
            Some((_, last)) if *last == status => {}
            Some((item, last)) if *item == first => *last = status,
            _ => self.changes.push((first, status)),
        }
    }
}

/// Follows a [`Monitor`] from batch to batch.
#[derive(Debug, Clone)]
struct Cursor {
    monitor: Monitor,
    items: usize,
}

impl Cursor {
    fn new(monitor: &Monitor) -> Self {
        let monitor = monitor.clone();
        Self { monitor, items: 0 }
    }

    fn next(&mut self) -> Option<Status> {
        self.items += 1;
        self.monitor.at(self.items - 1)
    }
}

/// Average bits or packed bytes of the multi-bit weights, as a training metric of Burn's.
///
/// Its value for an epoch is the one at its end, not a mean. The log in the training's folder holds
/// the first value of an epoch and each that differs from the one before.
#[derive(Clone)]
pub struct WeightMetric {
    name: MetricName,
    unit: &'static str,
    read: fn(&Status) -> f64,
    cursor: Cursor,
    value: Option<f64>,
    /// Whether the log of the epoch has the value.
    logged: bool,
}

impl WeightMetric {
    /// Average bitwidth.
    pub fn bits(monitor: &Monitor) -> Self {
        Self::new("Average Bits", "bit", |status| status.bits, monitor)
    }

    /// Bytes when packed.
    pub fn bytes(monitor: &Monitor) -> Self {
        Self::new("Packed Bytes", "B", |status| status.bytes as f64, monitor)
    }

    fn new(name: &str, unit: &'static str, read: fn(&Status) -> f64, monitor: &Monitor) -> Self {
        Self {
            name: Arc::new(name.into()),
            unit,
            read,
            cursor: Cursor::new(monitor),
            value: None,
            logged: false,
        }
    }

    fn entry(&self) -> SerializedEntry {
        match self.value {
            Some(value) => {
                let digits = if self.unit == "B" { 0 } else { 4 };
                let formatted = format!("{value:.digits$} {}", self.unit);
                SerializedEntry::new(formatted, unless(self.logged, &value))
            }
            None => SerializedEntry::not_available(Some(self.unit)),
        }
    }
}

impl Metric for WeightMetric {
    type Input = ();

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn description(&self) -> Option<String> {
        Some("of the multi-bit weights, at this step".into())
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: Some(self.unit.into()),
            higher_is_better: false,
        }
        .into()
    }

    fn update(
        &mut self,
        _item: &(),
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let value = self.cursor.next().as_ref().map(self.read);
        self.logged &= value == self.value;
        self.value = value;
        let entry = self.entry();
        self.logged = true;
        Ok(entry)
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.entry())
    }

    // The last value still holds in the next epoch, and the cursor goes on.
    fn clear(&mut self) {
        self.logged = false;
    }
}

impl Numeric for WeightMetric {
    fn value(&self) -> Option<NumericEntry> {
        self.value.map(NumericEntry::Value)
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.value()
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Final(self.value.unwrap_or(f64::NAN))
    }
}

/// What Burn writes to the log: nothing for nothing. Burn wakes a thread for each line of each
/// metric, which a short step feels.
fn unless(logged: bool, value: &dyn fmt::Display) -> String {
    match logged {
        true => String::new(),
        false => value.to_string(),
    }
}

/// The current phase and round, as a text metric of Burn's, logged once an epoch.
#[derive(Clone)]
pub struct PhaseMetric {
    name: MetricName,
    cursor: Cursor,
    status: Option<Status>,
    logged: bool,
}

impl PhaseMetric {
    /// The phase of a training.
    pub fn new(monitor: &Monitor) -> Self {
        Self {
            name: Arc::new("Phase".into()),
            cursor: Cursor::new(monitor),
            status: None,
            logged: false,
        }
    }

    fn entry(&self) -> SerializedEntry {
        match self.status {
            Some(status) => {
                let phase = unless(self.logged, &status.phase);
                SerializedEntry::new(status.to_string(), phase)
            }
            None => SerializedEntry::not_available(None),
        }
    }
}

impl Metric for PhaseMetric {
    type Input = ();

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn update(
        &mut self,
        _item: &(),
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let status = self.cursor.next();
        let phase = |status: &Option<Status>| status.map(|status| status.phase);
        self.logged &= phase(&status) == phase(&self.status);
        self.status = status;
        let entry = self.entry();
        self.logged = true;
        Ok(entry)
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.entry())
    }

    fn clear(&mut self) {
        self.logged = false;
    }
}

/// Early stopping that waits until everything is pruned that is to be pruned
/// ([`Alq::once_pruned`](super::Alq::once_pruned)).
#[derive(Debug, Clone)]
pub struct AfterPruning<S> {
    /// Epochs that are not asked about.
    epochs: usize,
    strategy: S,
}

impl<S> AfterPruning<S> {
    pub(super) fn new(epochs: usize, strategy: S) -> Self {
        Self { epochs, strategy }
    }
}

impl<S: EarlyStoppingStrategy> EarlyStoppingStrategy for AfterPruning<S> {
    fn should_stop(&mut self, epoch: usize, store: &EventStoreClient) -> bool {
        // Burn counts epochs from 1.
        epoch > self.epochs && self.strategy.should_stop(epoch, store)
    }
}
