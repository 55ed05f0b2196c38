//! Servers as a training needs them: reached before its first step, and named when they are gone.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::channel;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use burn::tensor::remote::{ConnectError, RemoteHost};
use burn::tensor::{Device, Tensor};
use example_common::Failure;

/// How often a server is asked for a sign of life.
const BEAT: Duration = Duration::from_secs(1);

/// How long to wait before another try.
const PAUSE: Duration = Duration::from_millis(200);

/// A server with a session.
#[derive(Clone)]
pub struct Server {
    /// `ws://HOST:PORT`, as it was given.
    address: String,
    place: SocketAddr,
    device: Device,
}

/// Parses an address, for its form alone.
///
/// # Errors
/// If it is not `ws://HOST:PORT`.
pub fn parse_address(text: &str) -> Result<String, String> {
    let place = text
        .strip_prefix("ws://")
        .and_then(|rest| rest.rsplit_once(':'));
    let good = place.is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if good {
        Ok(text.into())
    } else {
        Err("an address is ws://HOST:PORT".into())
    }
}

impl Server {
    /// Opens a session on a server, and tries again for some time where another one is still open or nobody
    /// listens yet.
    ///
    /// # Errors
    /// If it cannot be found or reached, does not answer as a server of Burn, or is of another version; names it.
    pub fn reach(address: &str, patience: Duration) -> Result<Self, Failure> {
        let until = Instant::now() + patience;
        let place = resolve(address)?;
        loop {
            let (error, may_pass) = match Self::open(address, place, until) {
                Ok(device) => {
                    let address = address.into();
                    return Ok(Self {
                        address,
                        place,
                        device,
                    });
                }
                Err(refused) => refused,
            };
            if !may_pass || Instant::now() + PAUSE > until {
                return Err(format!("{address}: {error}").into());
            }
            sleep(PAUSE);
        }
    }

    /// Its device, or why there is none and whether that may pass.
    fn open(address: &str, place: SocketAddr, until: Instant) -> Result<Device, (String, bool)> {
        let left = until.saturating_duration_since(Instant::now()).max(PAUSE);
        // Burn's own tries take longer, and longest where nothing comes back.
        TcpStream::connect_timeout(&place, left)
            .map_err(|error| (format!("the server cannot be reached: {error}"), true))?;
        let host = RemoteHost::websocket(address);
        let opened = within(left, move || Device::remote_options(&host).init());
        match opened {
            Some(Ok(device)) => Ok(device),
            Some(Err(ConnectError::Unauthorized)) => {
                Err(("the server is busy with another training".into(), true))
            }
            Some(Err(error)) => {
                let may_pass = matches!(
                    error,
                    ConnectError::Unreachable { .. } | ConnectError::Handshake { .. }
                );
                Err((error.to_string(), may_pass))
            }
            None => Err((
                format!(
                    "something listens there, but gave no answer of a server of Burn in {left:.0?}"
                ),
                false,
            )),
        }
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Tells of the end of the session, once. Burn would wait for ever for a machine that has vanished, and for
    /// a server that waits for another one.
    pub fn watch(&self, tell: impl Fn(Failure) + Clone + Send + 'static) {
        let (number, end) = (Tensor::<1>::zeros([1], &self.device), self.clone());
        let tell_of_session = tell.clone();
        spawn(move || {
            while number.clone().try_into_data().is_ok() {
                sleep(BEAT);
            }
            let address = &end.address;
            tell_of_session(
                format!(
                    "{address}: the server has ended the session, and says why; go on with --resume"
                )
                .into(),
            );
        });
        let server = self.clone();
        spawn(move || {
            loop {
                sleep(5 * BEAT);
                if let Err(error) = TcpStream::connect_timeout(&server.place, 10 * BEAT) {
                    return tell(server.gone(&error));
                }
            }
        });
    }

    fn gone(&self, error: &std::io::Error) -> Failure {
        let address = &self.address;
        format!("{address}: the server is gone ({error}); start it again and go on with --resume")
            .into()
    }
}

/// The error of a server that is gone, if one is. Others end their sessions for want of it, and may be heard
/// of before.
pub fn find_gone(servers: &[Server]) -> Option<Failure> {
    let mut gone = servers.iter().filter_map(|server| {
        let until = Instant::now() + BEAT;
        // Those that begin anew are soon there.
        loop {
            match TcpStream::connect_timeout(&server.place, BEAT) {
                Ok(_) => return None,
                Err(error) if Instant::now() > until => return Some(server.gone(&error)),
                Err(_) => sleep(PAUSE / 4),
            }
        }
    });
    gone.next()
}

/// Lets every server fetch a number from every other: what lies on one is sent to the next without a way over
/// this machine, at the addresses given here.
///
/// # Errors
/// If one cannot; names both.
pub fn introduce(servers: &[Server], patience: Duration) -> Result<(), Failure> {
    for from in servers {
        for to in servers.iter().filter(|to| to.address != from.address) {
            let [source, target] = [&from.device, &to.device].map(Device::clone);
            let fetched = within(patience, move || {
                let number = Tensor::<1>::ones([1], &source).to_device(&target);
                number.try_into_data()
            });
            let error = match fetched {
                Some(Ok(_)) => continue,
                Some(Err(_)) => "it has ended the session, and says why".into(),
                None => format!("nothing came in {patience:.0?}"),
            };
            let [from, to] = [&from.address, &to.address];
            return Err(format!(
                "{to} cannot fetch from {from}: {error}; servers reach each other at the addresses of \
                 --server, so each must be good on every machine, and in its firewall"
            )
            .into());
        }
    }
    Ok(())
}

fn resolve(address: &str) -> Result<SocketAddr, Failure> {
    let place = address.trim_start_matches("ws://");
    let found = place.to_socket_addrs().map(|mut found| found.next());
    match found {
        Ok(Some(place)) => Ok(place),
        Ok(None) => Err(format!("{address}: there is no such host").into()),
        Err(error) => Err(format!("{address}: the host cannot be found: {error}").into()),
    }
}

/// What comes of work in a thread of its own; none if it takes longer, or panics.
fn within<T: Send + 'static>(
    time: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (send, receive) = channel();
    spawn(move || send.send(work()));
    receive.recv_timeout(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_scheme_host_and_port() {
        for good in ["ws://127.0.0.1:3000", "ws://gpu-1:1", "ws://[::1]:3000"] {
            assert_eq!(parse_address(good).unwrap(), good);
        }
        let bad = [
            "",
            "127.0.0.1:3000",
            "http://a:1",
            "ws://a",
            "ws://:1",
            "ws://a:0",
            "ws://a:x",
            "ws://a/b:1",
        ];
        for bad in bad {
            let error = parse_address(bad).unwrap_err();
            assert_eq!(error, "an address is ws://HOST:PORT", "{bad}");
        }
    }

    #[test]
    fn who_does_not_answer_is_named() {
        let patience = Duration::from_millis(300);
        // Listens, and says nothing.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("ws://{}", listener.local_addr().unwrap());
        let fails = |address: &str| Server::reach(address, patience).err().unwrap().to_string();
        let error = fails(&address);
        assert!(
            error.starts_with(&format!("{address}: something listens")),
            "{error}"
        );
        drop(listener);
        let error = fails(&address);
        assert!(
            error.starts_with(&format!("{address}: the server cannot be reached")),
            "{error}"
        );
        let error = fails("ws://no.such.host.invalid:1");
        assert!(
            error.starts_with("ws://no.such.host.invalid:1: the host"),
            "{error}"
        );
    }
}
