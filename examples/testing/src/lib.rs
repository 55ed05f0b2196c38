//! Running an example as a user does.

pub mod mnist;
pub mod server;

use std::ffi::OsStr;
use std::fmt::Debug;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The flags of every training, behind those of its own.
pub const TRAINING: &str =
    "--seed --float --control --float-epochs --minutes --batch-size --epoch-batches";

/// A program with a folder of its own, which goes with it.
pub struct Program {
    path: &'static str,
    folder: TempDir,
    flags: Vec<String>,
}

impl Program {
    /// The program at a path.
    pub fn new(path: &'static str) -> Self {
        Self {
            path,
            folder: tempfile::tempdir().unwrap(),
            flags: Vec::new(),
        }
    }

    /// Gives flags to every training.
    pub fn with(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// The path of a name in the folder.
    pub fn at(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_string()
    }

    /// Whether there is a name in the folder.
    pub fn exists(&self, name: &str) -> bool {
        Path::new(&self.at(name)).exists()
    }

    /// The bytes of a file in the folder.
    pub fn read(&self, name: &str) -> Vec<u8> {
        let file = self.at(name);
        std::fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// The text of a file in the folder.
    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    /// The arguments of a command that trains into `out` in the folder.
    pub fn training(&self, command: &str, out: &str, more: &[&str]) -> Vec<String> {
        let mut args = vec![command.to_string(), "--out".into(), self.at(out)];
        args.extend(self.flags.iter().cloned());
        args.extend(more.iter().map(ToString::to_string));
        args
    }

    /// The program, before it starts.
    pub fn command(&self, args: &[impl AsRef<OsStr> + Debug]) -> Command {
        let mut command = Command::new(self.path);
        command.args(args).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[impl AsRef<OsStr> + Debug]) -> (Output, String) {
        let output = self.command(args).output().expect("the program starts");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output, error)
    }

    /// The program does its work; what it prints.
    pub fn succeeds(&self, args: &[impl AsRef<OsStr> + Debug]) -> String {
        let (output, error) = self.run(args);
        assert!(output.status.success(), "{args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The program trains into `out`; what it prints.
    pub fn trains(&self, out: &str, more: &[&str]) -> String {
        self.succeeds(&self.training("train", out, more))
    }

    /// The program fails, and says `expected`.
    pub fn refuses(&self, args: &[impl AsRef<OsStr> + Debug], expected: &str) {
        let (output, error) = self.run(args);
        assert!(!output.status.success(), "{args:?} succeeds");
        assert!(
            error.contains(expected),
            "{args:?} says {error:?}, not {expected:?}"
        );
        assert!(!error.contains("panicked"), "{args:?} panics: {error}");
    }

    /// The flags under each heading of a command's help, in their order.
    pub fn headings(&self, command: &str) -> Vec<(String, String)> {
        let mut headings: Vec<(String, Vec<String>)> = Vec::new();
        for line in self.succeeds(&[command, "--help"]).lines() {
            let heading = line.strip_suffix(':').filter(|line| !line.starts_with(' '));
            if let Some(heading) = heading {
                headings.push((heading.into(), Vec::new()));
            }
            // What is said of a flag stands further in.
            let is_flag = line.trim_start().starts_with('-') && !line.starts_with("        ");
            let words = line
                .split_whitespace()
                .take_while(|word| word.starts_with('-'));
            if let (Some((_, flags)), true, Some(flag)) =
                (headings.last_mut(), is_flag, words.last())
            {
                flags.push(flag.to_string());
            }
        }
        headings.retain(|(_, flags)| !flags.is_empty());
        let headings = headings.into_iter();
        headings
            .map(|(heading, flags)| (heading, flags.join(" ")))
            .collect()
    }

    /// The help of a command has these flags, and no others, under these headings.
    pub fn has_flags(&self, command: &str, expected: &[(&str, &str)]) {
        let found = self.headings(command);
        for &(heading, expected) in expected {
            let flags = found.iter().find(|(name, _)| name == heading);
            let flags = flags.map(|(_, flags)| flags.as_str());
            assert_eq!(flags, Some(expected), "{command}, {heading}");
        }
    }

    /// The program learns its made-up images to an accuracy in percent, above chance, evaluates the
    /// packed file as it did in training, and finds `parts` in it. Gives what training printed.
    pub fn learns(&self, flags: &[&str], least: f64, parts: &[&str]) -> String {
        let flags = [&["--fake-data"], flags].concat();
        let printed = self.trains("whole", &flags);
        let packed = result(&printed, "packed_acc=");
        assert!(packed > least, "{printed}");
        let model = self.at("whole/model.bpk");
        let text = self.succeeds(&["eval", "--fake-data", "--model", &model]);
        holds(&text, &format!("accuracy {packed:.2} % (top-5 "));
        let text = self.succeeds(&["inspect", "--model", &model]);
        for part in parts {
            holds(&text, part);
        }
        self.refuses_to_train("whole", &["--fake-data"], "exists already");
        let other = [&flags[..], &["--resume", "--seed", "2"]].concat();
        self.refuses_to_train("whole", &other, "belongs to another run");
        printed
    }

    /// The program refuses to train into `out`, and says `expected`.
    pub fn refuses_to_train(&self, out: &str, more: &[&str], expected: &str) {
        self.refuses(&self.training("train", out, more), expected);
    }

    /// A training that is killed and resumed packs the same bytes as the one in `whole` did.
    pub fn resumes_to_the_same_bytes(&self, flags: &[&str]) {
        let mut flags = [flags, &["--checkpoint-seconds", "0"]].concat();
        self.kill_in_the_middle("killed", &flags);
        flags.push("--resume");
        self.trains("killed", &flags);
        let [whole, killed] = ["whole", "killed"].map(|out| self.read(&format!("{out}/model.bpk")));
        assert!(whole == killed, "killed and resumed with {flags:?}");
    }

    /// Kills a training as soon as it has a checkpoint of the quantization, so somewhere in the middle.
    pub fn kill_in_the_middle(&self, out: &str, more: &[&str]) {
        let checkpoint = format!("{out}/checkpoint.bpk");
        self.kill_once_there_is(&checkpoint, &self.training("train", out, more));
    }

    /// The program at work, as soon as it has made a file or a folder in the folder.
    pub fn once_there_is(&self, name: &str, args: &[String]) -> Child {
        self.once_it_made(name, &mut self.command(args))
    }

    /// The same of any command.
    pub fn once_it_made(&self, name: &str, command: &mut Command) -> Child {
        let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let start = Instant::now();
        while !self.exists(name) && start.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }

    /// Kills the program as soon as it has made a file in the folder.
    pub fn kill_once_there_is(&self, file: &str, args: &[String]) {
        let mut child = self.once_there_is(file, args);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Checks that a text has a part.
pub fn holds(text: &str, part: &str) {
    assert!(text.contains(part), "no {part:?} in {text}");
}

/// A number of the line of results, the last one.
pub fn result(text: &str, key: &str) -> f64 {
    let result = text.lines().last().unwrap();
    let mut fields = result.split(' ');
    let value = fields.find_map(|field| field.strip_prefix(key));
    value.unwrap().parse().unwrap()
}
