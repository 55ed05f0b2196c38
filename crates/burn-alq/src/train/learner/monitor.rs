//! Average bits, bytes, widths and phase, from the training thread to the thread of the metrics.

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
use crate::optim::{Cost, PhaseKind, average_bits, sizes, total};

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
    /// A checksum of the bitwidths of all groups, as they were at the last end of an epoch.
    pub widths: u32,
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
    /// Batches begun since the last step.
    since_step: usize,
    bits: f64,
    bytes: usize,
    widths: u32,
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
        state.end();
    }

    /// Takes note of the widths at the end of an epoch.
    pub(super) fn note(&self, widths: u32) {
        let mut state = self.lock();
        state.widths = widths;
        state.end();
    }

    /// A batch begins; returns its number among the batches of the step.
    pub(super) fn item(&self, step: usize, plan: &Plan) -> usize {
        let now = plan.step(step);
        let mut state = self.lock();
        let status = Status {
            epoch: now.epoch,
            round: now.round,
            phase: now.kind,
            bits: state.bits,
            bytes: state.bytes,
            widths: state.widths,
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
    /// The batch that has just been optimized ends with the figures as they are now.
    fn end(&mut self) {
        if let Some(last) = self.items.checked_sub(1)
            && let Some(&(_, status)) = self.changes.last()
        {
            let status = Status {
                bits: self.bits,
                bytes: self.bytes,
                widths: self.widths,
                ..status
            };
            self.push(last, status);
        }
    }

    fn push(&mut self, first: usize, status: Status) {
        match self.changes.last_mut() {
            Some((_, last)) if *last == status => {}
            Some((item, last)) if *item == first => *last = status,
            _ => self.changes.push((first, status)),
        }
    }
}

/// A part of a [`Monitor`]'s status, batch by batch, as a training metric of Burn's.
///
/// Its value for an epoch is the one at its end, not a mean. The log in the training's folder holds
/// the first value of an epoch and each that differs from the one before: Burn wakes a thread for each
/// line of each metric, which a short step feels.
#[derive(Clone)]
pub struct StatusMetric<T> {
    name: MetricName,
    unit: Option<&'static str>,
    read: fn(&Status) -> T,
    /// How a value is shown, and how it is logged.
    write: fn(&T) -> (String, String),
    monitor: Monitor,
    /// Batches followed so far.
    items: usize,
    value: Option<T>,
    /// Whether the log of the epoch has the value.
    logged: bool,
}

/// Average bits or packed bytes of the multi-bit weights.
pub type WeightMetric = StatusMetric<f64>;

/// The current phase and round, as a text; the phase is logged.
pub type PhaseMetric = StatusMetric<(PhaseKind, String)>;

/// A checksum of the bitwidths of all groups, at each end of an epoch: replicas that prune the same, and a
/// training that is run again, have the same.
pub type WidthsMetric = StatusMetric<u32>;

impl WeightMetric {
    /// Average bitwidth.
    pub fn bits(monitor: &Monitor) -> Self {
        let write = |bits: &f64| (format!("{bits:.4} bit"), bits.to_string());
        let read = |status: &Status| status.bits;
        Self::follow(monitor, "Average Bits", Some("bit"), read, write)
    }

    /// Bytes when packed.
    pub fn bytes(monitor: &Monitor) -> Self {
        let write = |bytes: &f64| (format!("{bytes:.0} B"), bytes.to_string());
        let read = |status: &Status| status.bytes as f64;
        Self::follow(monitor, "Packed Bytes", Some("B"), read, write)
    }
}

impl PhaseMetric {
    /// The phase of a training.
    pub fn new(monitor: &Monitor) -> Self {
        let write = |(phase, text): &(PhaseKind, String)| (text.clone(), phase.to_string());
        let read = |status: &Status| (status.phase, status.to_string());
        Self::follow(monitor, "Phase", None, read, write)
    }
}

impl WidthsMetric {
    /// The checksum of a training.
    pub fn new(monitor: &Monitor) -> Self {
        let write = |sum: &u32| {
            let text = format!("{sum:08x}");
            (text.clone(), text)
        };
        Self::follow(monitor, "Widths", None, |status| status.widths, write)
    }
}

impl<T> StatusMetric<T> {
    fn follow(
        monitor: &Monitor,
        name: &str,
        unit: Option<&'static str>,
        read: fn(&Status) -> T,
        write: fn(&T) -> (String, String),
    ) -> Self {
        Self {
            name: Arc::new(name.into()),
            unit,
            read,
            write,
            monitor: monitor.clone(),
            items: 0,
            value: None,
            logged: false,
        }
    }

    fn entry(&self) -> SerializedEntry {
        let Some(value) = &self.value else {
            return SerializedEntry::not_available(self.unit);
        };
        let (shown, logged) = (self.write)(value);
        // Burn writes nothing for nothing.
        let logged = if self.logged { String::new() } else { logged };
        SerializedEntry::new(shown, logged)
    }
}

impl<T: Clone + PartialEq + Send + Sync> Metric for StatusMetric<T> {
    type Input = ();

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn description(&self) -> Option<String> {
        self.unit
            .map(|_| "of the multi-bit weights, at this step".into())
    }

    fn attributes(&self) -> MetricAttributes {
        self.unit.map_or(MetricAttributes::None, |unit| {
            let attributes = NumericAttributes {
                unit: Some(unit.into()),
                higher_is_better: false,
            };
            attributes.into()
        })
    }

    fn update(
        &mut self,
        _item: &(),
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        let value = self.monitor.at(self.items).as_ref().map(self.read);
        self.items += 1;
        self.logged &= value == self.value;
        self.value = value;
        let entry = self.entry();
        self.logged = true;
        Ok(entry)
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.entry())
    }

    // The last value still holds in the next epoch, and the batches go on.
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
