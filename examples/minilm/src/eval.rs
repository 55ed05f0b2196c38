//! What packing changes of the embeddings.

use std::path::{Path, PathBuf};

use example_common::{Failure, at, say};

use crate::encoder::Encoder;
use crate::model::Bert;
use crate::packed::PackedFlags;
use crate::sample::{Pair, pairs, sentences};
use crate::score::{Cosines, cosine, spearman};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    packed: PackedFlags,
    /// Text whose lines are compared.
    #[arg(long, value_name = "FILE")]
    sentences: PathBuf,
    /// Pairs of sentences and scores, with tabs between: how alike people find them.
    #[arg(long, value_name = "FILE")]
    pairs: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let compared = sentences(&args.sentences)?;
    let scored = args.pairs.as_deref().map(|file| Ok((file, pairs(file)?)));
    let scored: Option<(&Path, Vec<Pair>)> = scored.transpose().map_err(|error: Failure| error)?;
    let opened = args.packed.open()?;
    let models = [&opened.model, &opened.float()?];
    let [packed, float] = models.map(|model| opened.encoder.embed(model, &compared));
    let Cosines { mean, p5, least } = Cosines::between(&packed?, &float?);
    say!(
        "cosines to the float embeddings of {} sentences",
        compared.len()
    );
    let mut result = format!("result: cosine={mean:.6} p5={p5:.6} least={least:.6}");
    if let Some((file, pairs)) = scored {
        let correlation = |model| correlation(&opened.encoder, model, &pairs);
        let [packed, float] =
            models.map(|model| correlation(model).map_err(|error| at(file, error)));
        say!("rank correlation with the scores of {} pairs", pairs.len());
        result += &format!(" spearman={:.4} float_spearman={:.4}", packed?, float?);
    }
    say!("{result}");
    Ok(())
}

/// Spearman's of the scores and the cosines of pairs.
fn correlation(encoder: &Encoder, model: &Bert, pairs: &[Pair]) -> Result<f64, Failure> {
    let side = |side: usize| {
        let sentences = pairs.iter().map(|pair| pair.sentences[side].clone());
        encoder.embed(model, &sentences.collect::<Vec<_>>())
    };
    let (first, second) = (side(0)?, side(1)?);
    let both = first.iter().zip(second.iter());
    let cosines: Vec<f64> = both.map(|(a, b)| cosine(a, b)).collect();
    let scores: Vec<f64> = pairs.iter().map(|pair| pair.score).collect();
    spearman(&cosines, &scores)
}
