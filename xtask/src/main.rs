//! The project's commands. `cargo xtask help` lists them.

mod api;
mod full;
mod kills;
mod mcu;
mod rooms;
mod targets;
mod top;
mod tree;
mod validate;
mod web;
mod words;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const HELP: &str = "\
Usage: cargo xtask COMMAND [ARGUMENTS]

  demo [ARGUMENTS]            quantize LeNet5 on MNIST images inside the repository, in minutes
  example NAME [ARGUMENTS]    run an example in release mode; --help shows its arguments
    --device NAME             compute on this Burn device, and build for it: flex (default), wgpu,
                              vulkan, metal, cuda, rocm, …
  paper --data DIR [--minutes N] [--out DIR] [ARGUMENTS]
                              the paper's schedule for VGG-small on CIFAR-10 in DIR, or as much of it as N
                              minutes allow, with a control, against the paper's numbers; goes on where it
                              stopped. Other arguments are those of the example's train
    --device NAME             compute on this Burn device
  test [ARGUMENTS]            all tests, on Flex: those of multibit, multibit-cli and xtask in a debug
                              build, the others compiled as the demo is; with arguments, which go to
                              cargo test, only the others
    --device NAME             only the suite, on this Burn device: flex, ndarray, wgpu, vulkan, cpu,
                              cuda or remote (a server that it starts on this machine, with Flex;
                              then the example `cluster` too);
                              with --features fusion, under Burn's kernel fusion
    --target NAME             only the kernels' crate, elsewhere: for aarch64 or armv7 under qemu-user,
                              for wasm32 or wasm32-simd128 under node
  bench [KIND…] [ARGUMENTS]   time packed layers and networks against Burn Flex in f32; --help
                              shows kinds and arguments
    --device NAME [--quick]   time layers and steps on this GPU against Burn's f32 on it
  bench kernels [ARGUMENTS]   time the kernels alone, on the instruction sets of this machine, without
                              building Burn; --help shows arguments
  check --target TRIPLE       compile what runs packed models (multibit, and burn-alq without
                              training) for the browser (wasm32-unknown-unknown), a phone or a board
                              (aarch64-linux-android, aarch64-apple-ios, armv7-unknown-linux-gnueabihf),
                              or a device without an operating system, such as thumbv7em-none-eabihf
  mcu [ARGUMENTS]             LeNet5 of 0.1 bit on a Cortex-M7 under qemu-system-arm: every score
                              compared with this machine's; flash, RAM and instructions an image
    --messages                errors in words on the board too, not in codes alone
  api                         list the public items of both crates anew, in their PUBLIC_API.txt
  kills [--count N]           kill trainings at random times, resume them and compare what they end in
  load [--minutes N]          8 threads share a packed model for 10 minutes, or N
  onnx                        build the example of ONNX models, a workspace of its own, and check that
                              burn-onnx generates what the tests run
  web [--out DIR] [--test]    build the page of examples/web into a folder that any static server
                              serves, and print its bytes; with --test, its programs are run under
                              node and the page in headless Chromium
    --flex                    the program of examples/web-flex instead, with Burn in it
  validate                    rooms and their order, format, lints, documentation, file sizes, no_std,
                              unsafe, licences, packages, public items
    --full                    also each feature alone, the oldest compiler, whole packages, onnx,
                              advisories
  help                        this text
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(result) = api::as_rustdoc(&args) {
        return exit(result);
    }
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let result = match command {
        "demo" => example(
            "lenet5-mnist",
            std::iter::once("demo".to_string()).chain(rest.iter().cloned()),
        ),
        "example" => match rest.split_first() {
            Some((name, rest)) if examples().contains(name) => example(name, rest.iter().cloned()),
            Some((name, _)) => Err(format!(
                "no example {name}; there are: {}",
                examples().join(", ")
            )),
            None => Err(format!(
                "which example? There are: {}",
                examples().join(", ")
            )),
        },
        "paper" => paper(rest).and_then(|args| example("vgg-cifar10", args.into_iter())),
        "test" => test(rest),
        "bench" => bench(rest),
        "api" => api::write(&root()),
        "check" => targets::check(&root(), rest),
        "kills" => kills::kills(rest),
        "load" => load(rest),
        "mcu" => mcu::mcu(&root(), rest),
        "onnx" => onnx(&root()),
        "web" => web::web(rest),
        "validate" => match rest {
            [] => validate::validate(&root()),
            [flag] if flag == "--full" => {
                validate::validate(&root()).and_then(|()| full::validate(&root()))
            }
            _ => Err("validate: there is --full".into()),
        },
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => {
            eprint!("error: no command {other}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    exit(result)
}

fn exit(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The repository.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// The programs in `examples/`.
fn examples() -> Vec<String> {
    let folders = std::fs::read_dir(root().join("examples"))
        .into_iter()
        .flatten()
        .flatten();
    let mut names: Vec<String> = folders
        .filter(|entry| entry.path().join("src/main.rs").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Says what it runs in a folder, and runs it.
fn step(root: &Path, command: &mut Command) -> Result<(), String> {
    let name = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    let words: Vec<String> = command.get_args().map(name).collect();
    let program = name(command.get_program());
    let program = program.rsplit('/').next().unwrap_or_default().to_string();
    let line = format!("{program} {}", words.join(" "));
    println!("{line}");
    match command.current_dir(root).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(format!("{line} failed")),
        Err(error) => Err(format!("cannot run {program}: {error}")),
    }
}

/// CubeCL's devices, each compiled in by a feature of the same name.
const CUBE: [&str; 7] = ["wgpu", "vulkan", "webgpu", "metal", "cuda", "rocm", "cpu"];

/// What `--device NAME` or `--device=NAME` says.
fn device_flag(args: &[String]) -> Option<&str> {
    let place = args.iter().position(|arg| arg.starts_with("--device"))?;
    match args[place].strip_prefix("--device=") {
        Some(name) => Some(name),
        None => args.get(place + 1).map(String::as_str),
    }
}

/// Runs an example from where the user is, so that relative paths mean what they say.
fn example(name: &str, args: impl Iterator<Item = String>) -> Result<(), String> {
    let args: Vec<String> = args.collect();
    let mut command = cargo();
    // With the features of the whole workspace: what the tests share, they need not compile again.
    command.args(["run", "--release", "--bin", name]);
    let own = root().join("examples").join(name);
    // An example that is no member of the workspace has a lock file of its own.
    let folder = if own.join("Cargo.lock").exists() {
        own
    } else {
        root()
    };
    command
        .arg("--manifest-path")
        .arg(folder.join("Cargo.toml"));
    let variable = std::env::var("BURN_DEVICE").ok();
    // The program itself refuses a name that is none.
    let device = device_flag(&args).or(variable.as_deref());
    let others = ["ndarray", "remote"];
    let device = device.filter(|name| others.contains(name) || CUBE.contains(name));
    let download = args.iter().any(|arg| arg == "--download");
    for feature in device.into_iter().chain(download.then_some("download")) {
        command.args(["--features", &format!("{name}/{feature}")]);
    }
    run(command.arg("--").args(args))
}

/// The arguments of the example that does the paper's job.
fn paper(args: &[String]) -> Result<Vec<String>, String> {
    let (mut data, mut out, mut others) = (None, "runs/paper".to_string(), Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().cloned().ok_or(format!("{arg} needs a folder"));
        match arg.as_str() {
            "--data" => data = Some(value()?),
            "--out" => out = value()?,
            _ => others.push(arg.clone()),
        }
    }
    let data = data.ok_or("paper: --data DIR is the folder of CIFAR-10")?;
    let words = "train --preset paper --control --data-dir";
    let mut words: Vec<String> = words.split(' ').map(String::from).collect();
    // What a training writes first, or keeps when its float network is done.
    let begun = ["float-checkpoint.bpk", "float.bpk"].map(|name| Path::new(&out).join(name));
    let resume = begun.iter().any(|file| file.exists());
    words.extend([data, "--out".into(), out]);
    words.extend(resume.then(|| "--resume".into()));
    words.extend(others);
    println!("vgg-cifar10 {}", words.join(" "));
    Ok(words)
}

fn test(args: &[String]) -> Result<(), String> {
    if args.is_empty() {
        // What does without Burn, in a debug build: it checks arithmetic for overflow.
        let mut command = cargo();
        command.args(["test", "--package", "multibit", "--package", "xtask"]);
        command.args(["--package", "multibit-cli"]);
        let features = "multibit/rayon,multibit/serde,multibit/exports,multibit/deflate";
        step(&root(), command.args(["--features", features]))?;
        // Without std, and with parts of the runtime alone.
        for features in ["chain", "bitwise"] {
            let mut command = cargo();
            command.args(["test", "--package", "multibit", "--no-default-features"]);
            command.args(["--features", features, "--test", "features"]);
            step(&root(), &mut command)?;
        }
    }
    run(&mut test_command(args)?)
}

/// Burn's devices that the suite can run on. Flex is in every build of the suite; each other is a
/// feature of it.
const DEVICES: [&str; 7] = ["flex", "ndarray", "wgpu", "vulkan", "cpu", "cuda", "remote"];

fn test_command(args: &[String]) -> Result<Command, String> {
    let mut command = cargo();
    command.current_dir(root()).args(["test", "--release"]);
    let mut device = "flex";
    let mut package = vec![];
    let mut others = Vec::new();
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        match arg {
            "--device" => {
                device = args.next().ok_or("--device needs a name")?;
                package = match device {
                    "flex" => vec!["--test", "suite"],
                    _ if DEVICES.contains(&device) => vec![
                        "--package",
                        "burn-alq-tests",
                        "--test",
                        "suite",
                        "--features",
                        device,
                    ],
                    _ => {
                        let devices = DEVICES.join(", ");
                        return Err(format!("no device {device}; there are: {devices}"));
                    }
                };
            }
            "--target" => {
                package = targets::emulate(&root(), args.next(), &mut command)?;
            }
            _ => others.push(arg),
        }
    }
    if device == "remote" {
        // The example that trains over servers needs the same build.
        command.args([
            "--package",
            "cluster",
            "--bin",
            "cluster",
            "--test",
            "cluster",
        ]);
    }
    // Before the caller's: what follows a `--` of theirs is for the tests.
    command.args(package).args(others);
    // The suite's default too, whatever the caller's environment says.
    command.env("BURN_DEVICE", device);
    if device == "remote" {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr());
        let free = free.map_err(|error| format!("a free port: {error}"))?;
        command.env("BURN_REMOTE_ADDRESS", format!("ws://{free}"));
    }
    if device != "flex" {
        // Long to compile, soon run: what computes here is the device's.
        command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    }
    Ok(command)
}

/// Tests the example of ONNX models.
fn onnx(root: &Path) -> Result<(), String> {
    let folder = root.join("examples/onnx-import");
    step(&folder, cargo().args(["fmt", "--check"]))?;
    step(&folder, cargo().arg("test"))
}

fn load(args: &[String]) -> Result<(), String> {
    let minutes: u64 = match args {
        [] => 10,
        [flag, minutes] if flag == "--minutes" => minutes
            .parse()
            .map_err(|_| format!("--minutes {minutes} is no number"))?,
        _ => return Err("load: there is --minutes N".into()),
    };
    let mut command = cargo();
    command
        .current_dir(root())
        .args(["test", "--release", "--test", "suite"])
        .args(["--", "--nocapture"])
        .args(["--exact", "load::threads_share_a_packed_model"])
        .env("BURN_ALQ_LOAD_SECONDS", (60 * minutes).to_string());
    run(&mut command)
}

fn bench(args: &[String]) -> Result<(), String> {
    let (package, target, features, args) = match (args, device_flag(args)) {
        ([kind, args @ ..], _) if kind == "kernels" => {
            ("multibit", "kernels", "rayon,limits".to_string(), args)
        }
        (_, None | Some("flex")) => ("burn-alq", "packed", "flex,train".to_string(), args),
        (_, Some(device)) if CUBE.contains(&device) => {
            ("burn-alq", "device", format!("flex,train,{device}"), args)
        }
        (_, Some(other)) => {
            return Err(format!(
                "--device {other}: there are: flex, {}",
                CUBE.join(", ")
            ));
        }
    };
    let mut command = cargo();
    command
        .args(["bench", "--package", package, "--bench", target])
        .args(["--features", &features, "--manifest-path"])
        .arg(root().join("Cargo.toml"));
    let here = std::env::current_dir().map_err(|error| format!("the current folder: {error}"))?;
    run(command.args(["--", "--from"]).arg(here).args(args))
}

/// Becomes the command where that is possible, so that signals reach it alone.
#[cfg(unix)]
fn run(command: &mut Command) -> Result<(), String> {
    use std::os::unix::process::CommandExt;

    Err(format!("cannot run {command:?}: {}", command.exec()))
}

#[cfg(not(unix))]
fn run(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => Err(format!("cannot run {command:?}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows `cargo test --release`, and the device.
    fn command(args: &[&str]) -> Result<(Vec<String>, String), String> {
        let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
        let command = test_command(&args)?;
        let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
        let device = command.get_envs().find(|(name, _)| *name == "BURN_DEVICE");
        let device = device.and_then(|(_, value)| value).map(text);
        Ok((
            command.get_args().skip(2).map(text).collect(),
            device.expect("a device"),
        ))
    }

    #[test]
    fn the_suite_runs_on_the_device_asked_for() {
        for (args, expected, device) in [
            ("", "", "flex"),
            ("--device flex", "--test suite", "flex"),
            (
                "--device ndarray",
                "--package burn-alq-tests --test suite --features ndarray",
                "ndarray",
            ),
            (
                "--device remote -- step",
                "--package cluster --bin cluster --test cluster --package burn-alq-tests --test suite \
                 --features remote -- step",
                "remote",
            ),
            ("-- packed", "-- packed", "flex"),
            (
                "--device wgpu --features fusion -- packed",
                "--package burn-alq-tests --test suite --features wgpu --features fusion -- packed",
                "wgpu",
            ),
        ] {
            let args: Vec<&str> = args.split_whitespace().collect();
            let (found, on) = command(&args).unwrap();
            assert_eq!((found.join(" ").as_str(), on.as_str()), (expected, device));
        }
        for device in DEVICES {
            assert_eq!(command(&["--device", device]).unwrap().1, device);
        }
    }

    #[test]
    fn the_papers_job_goes_on_where_it_stopped() {
        let out = std::env::temp_dir().join(format!("paper-{}", std::process::id()));
        let command = format!("--data DIR --minutes 5 --out {}", out.display());
        let words = || {
            let args: Vec<String> = command.split(' ').map(String::from).collect();
            paper(&args).unwrap().join(" ")
        };
        let expected = |resume: &str| {
            let out = out.display();
            format!("train --preset paper --control --data-dir DIR --out {out}{resume} --minutes 5")
        };
        assert_eq!(words(), expected(""));
        std::fs::create_dir(&out).unwrap();
        std::fs::write(out.join("float.bpk"), "").unwrap();
        assert_eq!(words(), expected(" --resume"));
        std::fs::remove_dir_all(&out).unwrap();
        assert!(paper(&[]).unwrap_err().contains("--data DIR"));
        assert!(
            paper(&["--out".into()])
                .unwrap_err()
                .contains("--out needs")
        );
    }

    #[test]
    fn another_device_is_refused() {
        let error = command(&["--device", "gpu"]).unwrap_err();
        assert_eq!(
            error,
            "no device gpu; there are: flex, ndarray, wgpu, vulkan, cpu, cuda, remote"
        );
        assert_eq!(command(&["--device"]).unwrap_err(), "--device needs a name");
    }
}
