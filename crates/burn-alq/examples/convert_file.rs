//! A float model that is made up is converted from file to file: what it takes beside what it computes.
//!
//! `cargo run --release -p burn-alq --features flex,store --example convert_file -- --layers 32 --size 4096`

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use burn_alq::file::ModelFile;
use burn_alq::quantize::FloatFile;
use burn_alq::{GroupingRule, PackedModel, PathPattern, Quantizer};
use clap::Parser;

// A weight takes some large buffers, which the system's allocator hands back to the kernel each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error>;

/// A stack of square layers.
#[derive(Module, Debug)]
struct Stack {
    layers: Vec<Linear>,
}

#[derive(Parser)]
struct Args {
    /// Layers.
    #[arg(long, default_value_t = 32)]
    layers: usize,
    /// Inputs and outputs of each.
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// Bases of a group.
    #[arg(long, default_value_t = 2)]
    bits: usize,
    /// Where the files are made; they are removed in the end.
    #[arg(long, default_value = ".")]
    folder: PathBuf,
}

fn main() -> Result<(), Failure> {
    let Args {
        layers,
        size,
        bits,
        folder,
    } = Args::parse();
    let (float, packed) = (folder.join("float.safetensors"), folder.join("packed.bpk"));
    make(&float, layers, size)?;
    println!(
        "{} MB of floats",
        File::open(&float)?.metadata()?.len() / 1_000_000
    );

    let start = Instant::now();
    let device = Device::flex();
    let config = LinearConfig::new(size, size).with_bias(false);
    let stack = Stack {
        layers: (0..layers).map(|_| config.init(&device)).collect(),
    };
    let quantizer = Quantizer::new(bits).rule(PathPattern::glob("**"), GroupingRule::Channelwise);
    let source = FloatFile::open(&float)?;
    quantizer.convert_file(stack, source, &BTreeMap::new(), &packed)?;
    let converted = start.elapsed().as_secs_f64();
    println!(
        "converted in {converted:.1} s, at most {} MB in memory",
        peak()?
    );

    // What has to be computed in any case: sketched, measured, packed and checked, of a layer in memory.
    let layer = Stack {
        layers: vec![config.init(&device)],
    };
    let _ = layer.layers[0].weight.val();
    let start = Instant::now();
    let (layer, _) = quantizer.quantize(layer)?;
    PackedModel::pack(&layer)?;
    let computed = layers as f64 * start.elapsed().as_secs_f64();
    let copied = copy(&float, &packed)?;
    println!(
        "in memory it takes {computed:.1} s, reading and writing alone {copied:.1} s: {:.2} of that is left",
        (converted - computed) / copied
    );

    let start = Instant::now();
    let file = ModelFile::open(&packed)?;
    let last = format!("layers.{}.weight", layers - 1);
    file.load_where(|path| path == last)?;
    println!(
        "the last layer alone is read in {:.3} s",
        start.elapsed().as_secs_f64()
    );
    std::fs::remove_file(float)?;
    std::fs::remove_file(packed)?;
    Ok(())
}

/// Numbers of about a normal distribution, by a generator of 64 bits.
fn numbers(seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let quarters = (0..4).map(|part| (state >> (16 * part)) as u16);
        quarters.map(|part| f32::from(part) / 65536.0 - 0.5).sum()
    })
}

/// A safetensors file of square weights.
fn make(path: &Path, layers: usize, size: usize) -> Result<(), Failure> {
    let bytes = 4 * size * size;
    let tensors = (0..layers).map(|layer| {
        let (start, end) = (layer * bytes, (layer + 1) * bytes);
        format!(
            r#""layers.{layer}.weight":{{"dtype":"F32","shape":[{size},{size}],"data_offsets":[{start},{end}]}}"#
        )
    });
    let header = format!("{{{}}}", tensors.collect::<Vec<_>>().join(","));
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for layer in 0..layers {
        for number in numbers(layer as u64).take(size * size) {
            file.write_all(&number.to_le_bytes())?;
        }
    }
    Ok(file.into_inner()?.sync_all()?)
}

/// Seconds to read one file and to write another again.
fn copy(read: &Path, written: &Path) -> Result<f64, Failure> {
    let bytes = std::fs::read(written)?;
    let start = Instant::now();
    let mut file = File::open(read)?;
    let mut part = vec![0; 1 << 20];
    while file.read(&mut part)? > 0 {}
    let mut file = File::create(written)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    Ok(start.elapsed().as_secs_f64())
}

/// The most of this process that was in memory, in MB, where the system says it.
fn peak() -> Result<usize, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: usize = line
        .ok_or("no VmHWM")?
        .trim()
        .trim_end_matches(" kB")
        .parse()?;
    Ok(kib * 1024 / 1_000_000)
}
