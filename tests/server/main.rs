//! A server of Burn with Flex behind it, at the place of this machine that its argument says (port 0 is a
//! free one): its address is its first line.
//!
//! A line in makes it say how many messages it has got, uploads aside; it ends with its input.

use burn::server::telemetry::{DrainStatus, TelemetryProbe};
use burn::server::{RemoteServer, WebSocketTransport};
use burn::tensor::Device;

/// Messages that are remembered; of older ones the number is.
const CAPACITY: usize = 1 << 12;

fn main() {
    let place = std::env::args().nth(1).expect("ADDRESS:PORT");
    let listener = std::net::TcpListener::bind(place).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (probe, mut messages) = TelemetryProbe::channel(CAPACITY);
    std::thread::spawn(move || {
        println!("ws://{address}");
        let mut count = 0;
        for _ in std::io::stdin().lines() {
            let mut last = Vec::new();
            let DrainStatus::Open { lagged } = messages.drain_into(&mut last) else {
                break;
            };
            count += last.len() as u64 + lagged;
            println!("{count}");
        }
        std::process::exit(0);
    });
    let server = RemoteServer::new([Device::flex()]).with_telemetry(probe);
    let served = server.serve(WebSocketTransport::from_listener(listener));
    served.expect("it serves until its input ends");
}
