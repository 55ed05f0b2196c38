//! The lines of a text that are nearest in meaning to a query.

use std::path::PathBuf;

use example_common::{Failure, say};

use crate::packed::PackedFlags;
use crate::sample::lines;
use crate::score::cosine;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    packed: PackedFlags,
    /// Text whose lines are searched.
    #[arg(long, value_name = "FILE")]
    corpus: PathBuf,
    /// What is searched.
    #[arg(long, value_name = "TEXT")]
    query: String,
    /// Lines to show.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let lines = lines(&args.corpus)?;
    let opened = args.packed.open()?;
    let texts: Vec<String> = lines.iter().map(|line| line.text.clone()).collect();
    let embed = |texts: &[String]| opened.encoder.embed(&opened.model, texts);
    let query = embed(std::slice::from_ref(&args.query))?;
    let query = query.iter().next().expect("one embedding");
    let texts = embed(&texts)?;
    let cosines = texts.iter().map(|text| cosine(query, text));
    let mut found: Vec<_> = cosines.zip(&lines).collect();
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    for (cosine, line) in found.into_iter().take(args.top as usize) {
        say!("{cosine:.4}  {}: {}", line.number, line.text);
    }
    Ok(())
}
