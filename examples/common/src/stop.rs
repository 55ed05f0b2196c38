//! Ctrl-C, a polite kill, a closed terminal: a training stops with a checkpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};

use crate::Failure;

/// The exit code of a program that the user stopped.
pub(crate) const STOPPED: u8 = 130;

/// Whether the user wants the program to stop.
#[derive(Clone)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens from now on. Who asks a second time is not kept waiting: the program ends there and then.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn listen() -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let ignored = ignored();
        for signal in signals() {
            // `nohup` and shells have signals ignored that a job in the background must survive.
            if ignored >> (signal - 1) & 1 == 0 {
                register_conditional_shutdown(signal, STOPPED.into(), stop.clone())?;
                register(signal, stop.clone())?;
            }
        }
        Ok(Self(stop))
    }

    /// Whether it was.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// What asks a program to end. A closed terminal does only where it shows whether it is to be ignored.
fn signals() -> Vec<i32> {
    let mut signals = vec![SIGINT, SIGTERM];
    #[cfg(target_os = "linux")]
    signals.push(signal_hook::consts::SIGHUP);
    signals
}

/// The signals that the parent process had ignored, one bit each from signal 1 on.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
