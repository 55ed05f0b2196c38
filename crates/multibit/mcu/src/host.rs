//! Runs the firmware in qemu and compares what it says with the same runtime on this machine.

mod images;
mod plain;
mod qemu;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use multibit::file::PackedFile;
use multibit::runtime::Plan;

use crate::codes;
use qemu::Board;

const HELP: &str = "\
Usage: mcu FIRMWARE [--model FILE] [--images N]

Runs the firmware on qemu's board mps2-an500 (Cortex-M7) on N of the MNIST images in the repository
(100; at most 2000), compares every score with this machine's, bit for bit, and damages the model in
several ways, which the board must notice. FILE is the packed model; the project's LeNet5 if not said.
";

type Failure = Box<dyn Error>;

pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The arguments.
struct Flags {
    firmware: PathBuf,
    model: PathBuf,
    images: usize,
}

impl Flags {
    fn read(args: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut firmware = None;
        let mut model = PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../../tests/golden/lenet5/model.bpk"
        ));
        let mut images = 100;
        let mut args = args.peekable();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--model" => model = value()?.into(),
                "--images" => {
                    let text = value()?;
                    let number = text.parse().ok().filter(|&count| count > 0);
                    images = number.ok_or(format!("--images {text} is no number of images"))?;
                }
                _ if arg.starts_with('-') || firmware.is_some() => {
                    return Err(format!("no argument {arg}\n\n{HELP}").into());
                }
                _ => firmware = Some(arg.into()),
            }
        }
        let firmware = firmware.ok_or("no firmware is given; cargo xtask mcu builds it")?;
        Ok(Self {
            firmware,
            model,
            images,
        })
    }
}

fn run() -> Result<(), Failure> {
    let flags = Flags::read(std::env::args().skip(1))?;
    let path = flags.model.display();
    let model = std::fs::read(&flags.model).map_err(|error| format!("{path}: {error}"))?;
    let model = plain::plain(&model).map_err(|error| format!("{path}: {error}"))?;
    let images = images::images(flags.images)?;
    let board = Board::new(&flags.firmware)?;

    let file = PackedFile::read(&model)?;
    let plan = Plan::new(&file)?;
    let size = plan.input().len();
    if images.len() % size != 0 {
        return Err(format!("{path}: takes {size} values, which MNIST's images are not").into());
    }
    let found = board.run(&model, &images)?;
    if found.code != 0 {
        return Err(format!("the board exits with {}: {}", found.code, found.text).into());
    }
    let mut buffer = vec![0; plan.words()];
    let mut scores = vec![0.0; plan.scores()];
    let record = 4 * (plan.scores() + 1);
    let images: Vec<&[u8]> = images.chunks_exact(size).collect();
    if found.scores.len() != record * images.len() {
        return Err(format!(
            "the board has written {} bytes of scores",
            found.scores.len()
        )
        .into());
    }
    let mut instructions = Vec::new();
    for (number, (image, record)) in images
        .iter()
        .zip(found.scores.chunks_exact(record))
        .enumerate()
    {
        plan.run_raw(image, &mut buffer, &mut scores)?;
        let (words, _) = record.as_chunks::<4>();
        let (&count, words) = words.split_last().ok_or("no scores")?;
        for (output, (here, &there)) in scores.iter().zip(words).enumerate() {
            let there = f32::from_le_bytes(there);
            if here.to_bits() != there.to_bits() {
                return Err(format!(
                    "image {number}, output {output}: {there} on the board, {here} here"
                )
                .into());
            }
        }
        instructions.push(u32::from_le_bytes(count));
    }
    println!(
        "{} images: every score is this machine's, bit for bit",
        images.len()
    );
    report(&found, &instructions, model.len());
    let noticed = damages(&board, &model)?;
    println!("{noticed} damaged models: each refused with the code of its error");
    Ok(())
}

/// What the board says of itself.
fn report(found: &qemu::Found, instructions: &[u32], model: usize) {
    let number = |name: &str| {
        let mut lines = found.text.lines();
        let line = lines.find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().parse::<usize>().ok())
            .unwrap_or(0)
    };
    let total: u64 = instructions.iter().map(|&count| u64::from(count)).sum();
    let [data, heap, stack] = ["data ", "heap ", "stack "].map(number);
    println!("model in flash            {model:>9} bytes");
    println!(
        "program in flash          {:>9} bytes, its vectors included",
        number("flash ")
    );
    println!("static RAM                {data:>9} bytes, beside the heap");
    println!(
        "heap, at most             {heap:>9} bytes: {} of them for file and plan, {} the buffer of the run",
        number("plan "),
        number("buffer ")
    );
    println!("stack, at most            {stack:>9} bytes");
    println!("RAM in all                {:>9} bytes", data + heap + stack);
    println!("instructions to start     {:>9}", number("starting "));
    println!(
        "instructions an image     {:>9}, at most {}",
        total / instructions.len() as u64,
        instructions.iter().max().unwrap_or(&0)
    );
}

/// Runs damaged models; the number of them.
fn damages(board: &Board, model: &[u8]) -> Result<usize, Failure> {
    let flipped = |at: usize| {
        let mut damaged = model.to_vec();
        damaged[at] ^= 0x10;
        damaged
    };
    let damaged = [
        flipped(0),               // the container's name
        flipped(5),               // its version
        flipped(300),             // the directory
        flipped(model.len() - 1), // the last section
        model[..model.len() / 2].to_vec(),
        [model, &[0]].concat(),
        Vec::new(),
    ];
    for (number, damaged) in damaged.iter().enumerate() {
        let expected = match PackedFile::read(damaged) {
            Ok(_) => return Err(format!("damage {number} is none").into()),
            Err(error) => error,
        };
        let found = board.run(damaged, &[])?;
        let code = i32::from(codes::read(&expected));
        if found.code != code {
            return Err(format!(
                "damage {number}: the board exits with {}, not with {code} ({expected}): {}",
                found.code, found.text
            )
            .into());
        }
        let words = found
            .text
            .lines()
            .find_map(|line| line.strip_prefix("error: "));
        if words.is_some_and(|words| words != expected.to_string()) {
            return Err(
                format!("damage {number}: the board says {words:?}, not {expected}").into(),
            );
        }
    }
    Ok(damaged.len())
}
