//! Servers and a training over them, each a process of its own on this machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use burn_alq::PackedModel;
use example_common::data::Random;
use example_testing::server::{FREE, Server, nobody, of_another_version};
use tempfile::TempDir;

fn cluster(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cluster"));
    // It chooses its devices itself; this is for tests of a device.
    command.args(args).env_remove("BURN_DEVICE");
    command
}

/// A server at `ADDRESS:PORT`; port 0 is a free one.
fn serve(place: &str) -> Server {
    let (host, port) = place.rsplit_once(':').unwrap();
    let mut command = cluster(&["serve", "--host", host, "--port", port]);
    Server::start(command.stderr(Stdio::null()))
}

fn servers(count: usize) -> Vec<Server> {
    (0..count).map(|_| serve(FREE)).collect()
}

/// Trainings with the same flags, each in a folder of its own.
struct Trainings {
    folder: TempDir,
    flags: &'static [&'static str],
}

/// Ten epochs of two small steps.
const SHORT: &[&str] = &["--steps", "20", "--batch-size", "16"];

impl Trainings {
    fn new(flags: &'static [&'static str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, flags }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, name: &str, servers: &[Server], more: &[&str]) -> Command {
        let mut command = cluster(&["train"]);
        for server in servers {
            command.args(["--server", &server.address]);
        }
        command.arg("--checkpoint").arg(self.at(name));
        command.args(self.flags).args(more);
        command
    }

    fn run(&self, name: &str, servers: &[Server], more: &[&str]) -> Output {
        self.command(name, servers, more).output().unwrap()
    }

    /// Trains to the end; the packed file.
    fn train(&self, name: &str, servers: &[Server], more: &[&str]) -> Vec<u8> {
        let output = self.run(name, servers, more);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {error}");
        println!(
            "{name}: {}",
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .last()
                .unwrap()
        );
        std::fs::read(self.at(name).join("model.bpk")).unwrap()
    }

    /// Fails, and says all that is expected.
    fn fails(&self, name: &str, servers: &[Server], more: &[&str], expected: &[&str]) {
        refused(&self.run(name, servers, more), expected);
    }
}

fn refused(output: &Output, expected: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    for expected in expected {
        assert!(error.contains(expected), "{error}, not {expected}");
    }
    assert!(!error.contains("panicked"), "{error}");
}

/// Gradients of two parts have one sum, whoever computes them and adds them up.
#[test]
fn two_servers_and_one_end_in_the_same_bytes() {
    let servers = servers(2);
    let trainings = Trainings::new(SHORT);
    let one = trainings.train("one", &servers[..1], &["--parts", "2"]);
    let main = trainings.train("main", &servers, &[]);
    assert!(main == one, "the optimizer on the first");
    let sharded = trainings.train("sharded", &servers, &["--strategy", "sharded"]);
    assert!(sharded == one, "the optimizer on both");
}

#[test]
fn a_lost_server_is_named_and_the_training_resumes_to_the_same_bytes() {
    let mut servers = servers(2);
    let trainings = Trainings::new(SHORT);
    let whole = trainings.train("whole", &servers, &[]);
    for lost in 0..2 {
        let name = format!("lost-{lost}");
        let mut command = trainings.command(&name, &servers, &[]);
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for(&trainings.at(&name).join("checkpoint/scheduler-3.bpk"));
        servers[lost].kill();
        let output = child.wait_with_output().unwrap();
        let address = servers[lost].address.clone();
        refused(&output, &[&format!("error: {address}: "), "--resume"]);

        servers[lost] = serve(address.trim_start_matches("ws://"));
        trainings.fails(
            &name,
            &servers,
            &[],
            &["holds a training; go on with it by --resume"],
        );
        let resumed = trainings.train(&name, &servers, &["--resume"]);
        assert!(resumed == whole, "server {lost} was lost");
    }
    let other = ["--resume", "--seed", "2"];
    trainings.fails(
        "whole",
        &servers,
        &other,
        &["holds a training with seed 1, not with seed 2"],
    );
}

fn wait_for(file: &Path) {
    let start = Instant::now();
    while !file.exists() {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "no {}",
            file.display()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn servers_that_cannot_be_used_are_named() {
    let one = servers(1);
    let trainings = Trainings::new(SHORT);
    let with = |address: &str| ["--patience", "1", "--server", address].map(String::from);
    let fails = |address: &str, expected: &str| {
        let more = with(address);
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let named = format!("error: {address}: {expected}");
        trainings.fails("refused", &[], &more, &[&named]);
        trainings.fails("refused", &one, &more, &[&named]);
    };
    fails(&nobody(), "the server cannot be reached");
    fails("ws://no.such.host.invalid:1", "the host cannot be found");
    let other = serve(FREE);
    fails(&of_another_version(&other), "the server speaks version 3");

    // While one training is at it, another one is not.
    let mut busy = trainings.command("busy", &one, &[]);
    let mut busy = busy.stdout(Stdio::null()).spawn().unwrap();
    wait_for(&trainings.at("busy/checkpoint/scheduler-1.bpk"));
    let busy_is = format!(
        "error: {}: the server is busy with another training",
        one[0].address
    );
    trainings.fails("refused", &one, &["--patience", "1"], &[&busy_is]);
    busy.kill().unwrap();
    busy.wait().unwrap();
    trainings.train("busy", &one, &["--resume"]);
    assert!(
        !trainings.at("refused").exists(),
        "nothing is written before"
    );
}

#[test]
fn flags_that_do_not_fit_are_refused() {
    let trainings = Trainings::new(&[]);
    let fails = |flags: &[&str], expected: &str| trainings.fails("run", &[], flags, &[expected]);
    fails(&["--steps", "501"], "--steps 501: 10 epochs");
    fails(&["--steps", "0"], "--steps 0: 10 epochs");
    fails(
        &["--batch-size", "100000"],
        "--batch-size 100000: there are",
    );
    fails(&["--parts", "3"], "--batch-size 128: cannot be cut into 3");
    fails(&["--parts", "0"], "--parts 0:");
    fails(&["--target-bits", "9"], "--target-bits 9: ");
    let twice = ["--server", "ws://a:1", "--server", "ws://a:1"];
    fails(&twice, "--server ws://a:1: is given twice");
    let three = [
        "--server", "ws://a:1", "--server", "ws://b:1", "--parts", "3",
    ];
    fails(&three, "--parts 3: 2 devices cannot share");
    let output = cluster(&["train", "--server", "a:1"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("an address is ws://HOST:PORT"), "{error}");
    assert!(!trainings.at("run").exists());
}

/// Twenty times: a server is killed at a random time and started again, the training resumed.
#[test]
#[ignore = "takes many minutes"]
fn twenty_losses_at_random_times_end_in_the_same_bytes() {
    const LOSSES: usize = 20;
    let mut servers = servers(2);
    let trainings = Trainings::new(&["--steps", "60", "--batch-size", "16"]);
    let start = Instant::now();
    let whole = trainings.train("whole", &servers, &[]);
    let time = start.elapsed();
    let mut random = Random::new(24, 0);
    let mut done = 0;
    while done < LOSSES {
        let name = format!("lost-{done}");
        let mut command = trainings.command(&name, &servers, &["--resume"]);
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (after, lost) = (time.mul_f64(random.unit()), random.below(2));
        std::thread::sleep(after);
        servers[lost].kill();
        let output = child.wait_with_output().unwrap();
        let address = servers[lost].address.clone();
        servers[lost] = serve(address.trim_start_matches("ws://"));
        if output.status.success() {
            // It was quicker this time; the next is killed earlier, or later.
            std::fs::remove_dir_all(trainings.at(&name)).unwrap();
            continue;
        }
        refused(&output, &[&address]);
        let resumed = trainings.train(&name, &servers, &["--resume"]);
        assert!(resumed == whole, "server {lost} was lost after {after:.2?}");
        done += 1;
        println!("{done}/{LOSSES}: server {lost} killed after {after:.2?}: the same bytes");
    }
}

/// 500 steps on several servers, on one and on this machine, where batches are cut into as many parts.
fn five_hundred_steps_on(count: usize) {
    let servers = servers(count);
    let trainings = Trainings::new(&["--steps", "500"]);
    let parts = count.to_string();
    let model = |name: &str, servers: &[Server], more: &[&str]| {
        trainings.train(name, servers, &[&["--parts", &parts], more].concat());
        PackedModel::load(trainings.at(name).join("model.bpk")).unwrap()
    };
    let one = model("one-server", &servers[..1], &[]);
    for strategy in ["main", "sharded"] {
        let several = model(strategy, &servers, &["--strategy", strategy]);
        let same = compare(strategy, &several, &one);
        // More than two parts are added in the order in which servers are done.
        assert!(same || count > 2, "{strategy}: two parts have one sum");
    }
    let local = model("this-machine", &[], &[]);
    compare("this-machine", &local, &one);
}

#[test]
#[ignore = "takes many minutes"]
fn five_hundred_steps_on_two_servers() {
    five_hundred_steps_on(2);
}

#[test]
#[ignore = "takes many minutes"]
fn five_hundred_steps_on_four_servers() {
    five_hundred_steps_on(4);
}

/// Says how far two models are apart, by the norm of the first's weights; returns whether they have the same bytes.
fn compare(name: &str, model: &PackedModel, other: &PackedModel) -> bool {
    let (mut squares, mut norm, mut signs, mut widths) = (0.0, 0.0, 0, 0);
    for ((path, one), (other_path, other)) in model.weights.iter().zip(&other.weights) {
        assert_eq!(path, other_path);
        for (a, b) in one.unpack().iter().zip(other.unpack()) {
            squares += f64::from(a - b).powi(2);
            norm += f64::from(*a).powi(2);
        }
        widths += one
            .widths()
            .iter()
            .zip(other.widths())
            .filter(|(a, b)| a != b)
            .count();
        let words = one.words().iter().zip(other.words());
        signs += words.map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
    }
    let same = model.to_bytes().unwrap() == other.to_bytes().unwrap();
    let apart = (squares / norm).sqrt();
    println!(
        "{name}: same bytes: {same}; {apart:.1e} apart; {widths} other widths, {signs} other signs"
    );
    same
}
