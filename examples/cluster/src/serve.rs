//! A server of Burn that is as new for each training.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use burn::server::telemetry::{DrainStatus, TelemetryEvent, TelemetryProbe, TelemetrySubscription};
use burn::server::{AuthorizationRequest, RemoteServer, WebSocketTransport};
use burn::tensor::Device;
use example_common::{Failure, say::say};
use tracing_subscriber::filter::LevelFilter;

/// Events that are remembered. After a session has ended, few others follow.
const CAPACITY: usize = 1 << 12;

/// How often its end is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Serves one training after another until the process is told to end.
///
/// Burn's server keeps its connections to other servers for life, also broken ones: after the loss of one
/// server, or of a training in the middle of a transfer, the others would wait for what never comes. So a
/// process serves one training, and at its end begins anew.
///
/// # Errors
/// If it cannot listen there.
pub fn serve(host: IpAddr, port: u16) -> Result<(), Failure> {
    // Burn's own would write a line for each tensor that is sent.
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::ERROR)
        .with_writer(std::io::stderr)
        .init();
    // Burn's tasks panic where a training or another server is gone.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{}", panic.payload_as_str().unwrap_or("a task panicked"));
    }));
    let failed = |error| format!("--host {host} --port {port}: {error}");
    let listener = TcpListener::bind((host, port)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    say!("ws://{address}");
    let (probe, events) = TelemetryProbe::channel(CAPACITY);
    std::thread::spawn(move || {
        wait_for_end(events);
        let error = anew(address);
        eprintln!("error: ws://{address}: {error}");
        std::process::exit(1);
    });
    let taken = AtomicBool::new(false);
    let server = RemoteServer::new([Device::flex()])
        .with_telemetry(probe)
        .with_authorizer(move |_: AuthorizationRequest<'_>| {
            let other = taken.swap(true, Ordering::SeqCst);
            if other {
                Err("one training at a time".into())
            } else {
                Ok(())
            }
        });
    server.serve(WebSocketTransport::from_listener(listener))?;
    Ok(())
}

/// Returns when the session has ended.
fn wait_for_end(mut events: TelemetrySubscription) {
    let ends = |event: &TelemetryEvent| matches!(event, TelemetryEvent::SessionClosed { .. });
    let mut seen = Vec::new();
    while let DrainStatus::Open { .. } = events.drain_into(&mut seen) {
        if seen.drain(..).any(|event| ends(&event)) {
            return;
        }
        std::thread::sleep(LOOK);
    }
}

/// Puts the same program in the place of this process; returns why that failed.
#[cfg(unix)]
fn anew(address: SocketAddr) -> std::io::Error {
    use std::os::unix::process::CommandExt;

    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    let [host, port] = [address.ip().to_string(), address.port().to_string()];
    let mut command = std::process::Command::new(program);
    command
        .args(["serve", "--host", &host, "--port", &port])
        .exec()
}

/// Returns why the process ends.
#[cfg(not(unix))]
fn anew(_: SocketAddr) -> std::io::Error {
    std::io::Error::other("the training is over; start the server again for the next")
}
