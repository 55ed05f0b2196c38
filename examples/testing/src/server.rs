//! A server of Burn in a process of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A free port of this machine.
pub const FREE: &str = "127.0.0.1:0";

/// A process that serves, and ends with this value or with this process.
pub struct Server {
    process: Child,
    says: BufReader<ChildStdout>,
    /// Its first line, `ws://127.0.0.1:…`.
    pub address: String,
}

impl Server {
    /// Starts it and waits for its address.
    pub fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the server is built with this test");
        let says = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut server = Self {
            process,
            says,
            address: String::new(),
        };
        server.address = server.line();
        server
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let count = self.says.read_line(&mut line);
        assert!(count.is_ok_and(|count| count > 0), "the server has ended");
        line.trim().into()
    }

    /// The number that it answers an empty line with; other lines are its log.
    pub fn ask(&mut self) -> usize {
        let stdin = self.process.stdin.as_mut().expect("it is piped");
        stdin.write_all(b"\n").expect("the server listens");
        loop {
            if let Ok(number) = self.line().parse() {
                return number;
            }
        }
    }

    /// Where it listens, without the scheme.
    pub fn place(&self) -> &str {
        self.address.trim_start_matches("ws://")
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it was killed");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port of this machine where nobody listens.
pub fn nobody() -> String {
    let listener = TcpListener::bind(FREE).expect("a free port");
    format!("ws://{}", listener.local_addr().expect("it is bound"))
}

/// The address of one that answers as the server does, but for the version of its protocol.
pub fn of_another_version(server: &Server) -> String {
    let server = server.place().to_string();
    let listener = TcpListener::bind(FREE).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let server = TcpStream::connect(&server).unwrap();
            std::thread::spawn(|| pass_on(server, client.unwrap()));
        }
    });
    format!("ws://{address}")
}

fn pass_on(mut server: TcpStream, mut client: TcpStream) {
    /// The answer to a session's opening, up to the version.
    const ANSWER: &[u8] = b"Init\x94";

    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let mut bytes = [0; 1 << 16];
    while let Ok(count @ 1..) = server.read(&mut bytes) {
        let bytes = &mut bytes[..count];
        let place = bytes.windows(ANSWER.len()).position(|part| part == ANSWER);
        if let Some(place) = place {
            bytes[place + ANSWER.len()] += 1;
        }
        if client.write_all(bytes).is_err() {
            break;
        }
    }
}
