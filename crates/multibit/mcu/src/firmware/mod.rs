//! What runs on the board: the model is read where it lies in flash, images come in by a file of the
//! debugger's, scores go out by another.

extern crate alloc;

mod board;
mod memory;
mod text;

use alloc::vec::Vec;

use multibit::file::{PackedFile, ReadError};
use multibit::runtime::{Plan, PlanError, RunError};
use semihosting::fs::File;
use semihosting::io::{self, Read, Write};

use crate::codes;
use text::say;

/// Why the firmware stops: what it exits with, after it has said what it can.
struct Stop(u8);

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        #[cfg(feature = "messages")]
        text::explain(&error);
        Self(codes::read(&error))
    }
}

impl From<PlanError> for Stop {
    fn from(error: PlanError) -> Self {
        #[cfg(feature = "messages")]
        text::explain(&error);
        Self(codes::plan(&error))
    }
}

impl From<RunError> for Stop {
    fn from(error: RunError) -> Self {
        #[cfg(feature = "messages")]
        text::explain(&error);
        Self(codes::run(&error))
    }
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self(codes::DEBUGGER)
    }
}

#[cortex_m_rt::entry]
fn main() -> ! {
    let code = match run() {
        Ok(()) => 0,
        Err(Stop(code)) => code,
    };
    semihosting::process::exit(code.into())
}

fn run() -> Result<(), Stop> {
    let model = board::model();
    let timer = board::Timer::start();
    let file = PackedFile::read(model)?;
    let plan = Plan::new(&file)?;
    let starting = timer.instructions();
    let planned = memory::used();
    let mut buffer = zeros::<u32>(plan.words())?;
    let mut image = zeros::<u8>(plan.input().len())?;
    let mut scores = zeros::<f32>(plan.scores())?;

    let mut images = File::open(c"images.bin")?;
    let mut out = File::create(c"scores.bin")?;
    while fill(&mut images, &mut image)? {
        let timer = board::Timer::start();
        let ran = plan.run_raw(&image, &mut buffer, &mut scores);
        let instructions = timer.instructions();
        ran?;
        for score in &scores {
            out.write_all(&score.to_bits().to_le_bytes())?;
        }
        out.write_all(&instructions.to_le_bytes())?;
    }
    say("flash", board::flash());
    say("data", board::data() - memory::SIZE);
    say("plan", planned);
    say("buffer", plan.bytes());
    say("heap", memory::used());
    say("stack", board::deepest_stack());
    say("starting", starting as usize);
    Ok(())
}

/// Zeros, if there is room.
fn zeros<T: Clone + Default>(len: usize) -> Result<Vec<T>, Stop> {
    let mut zeros = Vec::new();
    let room = zeros.try_reserve_exact(len);
    room.map_err(|_| Stop(codes::MEMORY))?;
    zeros.resize(len, T::default());
    Ok(zeros)
}

/// Fills a buffer from a file; not, if the file has ended.
fn fill(file: &mut File, mut buffer: &mut [u8]) -> io::Result<bool> {
    while !buffer.is_empty() {
        match file.read(buffer)? {
            0 => return Ok(false),
            count => buffer = &mut buffer[count..],
        }
    }
    Ok(true)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    semihosting::process::exit(codes::PANIC.into())
}
