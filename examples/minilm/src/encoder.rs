//! Sentences in, embeddings out.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use example_common::{Failure, bar};

use crate::model::Bert;
use crate::tokens::Tokens;

/// Sentences encoded at a time.
const BATCH: usize = 32;

/// Embeddings of unit length, one after the other.
pub struct Embeddings {
    values: Vec<f32>,
    width: usize,
}

impl Embeddings {
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width)
    }
}

/// What makes embeddings of sentences with a model.
pub struct Encoder {
    pub tokens: Tokens,
    pub device: Device,
}

impl Encoder {
    /// Batches of sentences, as a model takes them: of about the same length, so that little is computed
    /// for padding.
    ///
    /// # Errors
    /// If a sentence has no tokens.
    pub fn batches(&self, sentences: &[String], size: usize) -> Result<Vec<Batch>, Failure> {
        let mut texts = self.tokens.of(sentences)?;
        texts.sort_by_key(Vec::len);
        let texts = texts.chunks(size).map(|texts| {
            let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            pad(&texts, &self.device)
        });
        Ok(texts.collect())
    }

    /// The embeddings of some sentences, in their order.
    ///
    /// # Errors
    /// If one is not finite, as of a model with such weights.
    pub fn embed(&self, model: &Bert, sentences: &[String]) -> Result<Embeddings, Failure> {
        let texts = self.tokens.of(sentences)?;
        // Of about the same length in a batch, so that little is computed for padding.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&index| texts[index].len());
        let bar = bar("embeddings {bar:24} {pos}/{len} ETA {eta}", texts.len());
        let mut rows = vec![Vec::new(); texts.len()];
        let mut width = 0;
        for places in order.chunks(BATCH) {
            let batch: Vec<&[u32]> = places
                .iter()
                .map(|&place| texts[place].as_slice())
                .collect();
            let (tokens, padding) = pad(&batch, &self.device);
            let values = model.forward(tokens, padding).into_data();
            let values: Vec<f32> = values.convert::<f32>().try_into_vec()?;
            width = values.len() / places.len();
            for (&place, row) in places.iter().zip(values.chunks_exact(width)) {
                if !row.iter().all(|value| value.is_finite()) {
                    let sentence = &sentences[place];
                    return Err(format!("the embedding of {sentence:?} is not finite").into());
                }
                rows[place] = row.to_vec();
            }
            bar.inc(places.len() as u64);
        }
        bar.finish_and_clear();
        Ok(Embeddings {
            values: rows.concat(),
            width,
        })
    }
}

/// Tokens and where there are none, see [`pad`].
pub type Batch = (Tensor<2, Int>, Option<Tensor<2, Bool>>);

/// Texts as `[batch, length]`, and where one has no token, if that is anywhere.
fn pad(texts: &[&[u32]], device: &Device) -> Batch {
    let length = texts.iter().map(|text| text.len()).max().unwrap_or(0);
    let shape = [texts.len(), length];
    let places = || {
        texts
            .iter()
            .flat_map(|text| (0..length).map(|place| text.get(place)))
    };
    let tokens: Vec<i64> = places()
        .map(|token| token.map_or(0, |&token| token.into()))
        .collect();
    let padding: Vec<bool> = places().map(|token| token.is_none()).collect();
    let padding = padding
        .contains(&true)
        .then(|| Tensor::from_data(TensorData::new(padding, shape), device));
    let tokens = TensorData::new(tokens, shape);
    (Tensor::from_data(tokens, device), padding)
}

/// The program computes what PyTorch computes, of the same tokens. `tests/fixtures/export.py` made the
/// cases.
#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use serde_json::Value;

    use super::*;
    use crate::checkpoint::Checkpoint;

    fn fixture(name: &str) -> PathBuf {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
        PathBuf::from(folder).join(name)
    }

    fn encoder(checkpoint: &Checkpoint) -> Encoder {
        Encoder {
            tokens: Tokens::open(checkpoint, &checkpoint.config).unwrap(),
            device: Device::flex(),
        }
    }

    /// Sentences and something of each.
    fn case<T>(key: &str, of: impl Fn(&Value) -> T) -> (Vec<String>, Vec<Vec<T>>) {
        let text = fs::read_to_string(fixture("case.json")).unwrap();
        let case: Value = serde_json::from_str(&text).unwrap();
        let list = |value: &Value| value.as_array().unwrap().clone();
        let sentences = list(&case["sentences"]);
        let sentences = sentences.iter().map(|text| text.as_str().unwrap().into());
        let rows = list(&case[key]);
        let rows = rows.iter().map(|row| list(row).iter().map(&of).collect());
        (sentences.collect(), rows.collect())
    }

    #[test]
    fn tokens_are_those_of_the_reference() {
        let (sentences, expected) = case("tokens", |id| id.as_u64().unwrap() as u32);
        let whole = Checkpoint::open(&fixture("bert")).unwrap();
        assert_eq!(encoder(&whole).tokens.of(&sentences).unwrap(), expected);
        // Of the vocabulary alone.
        let folder = std::env::temp_dir().join(format!("minilm-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        for name in ["config.json", "vocab.txt", "sentence_bert_config.json"] {
            fs::copy(fixture("bert").join(name), folder.join(name)).unwrap();
        }
        let made = Checkpoint::open(&folder).unwrap();
        assert_eq!(encoder(&made).tokens.of(&sentences).unwrap(), expected);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn embeddings_are_those_of_torch() {
        let (sentences, expected) = case("embeddings", |value| value.as_f64().unwrap() as f32);
        let checkpoint = Checkpoint::open(&fixture("bert")).unwrap();
        let encoder = encoder(&checkpoint);
        let model = checkpoint.model(&encoder.device).unwrap();
        let found = encoder.embed(&model, &sentences).unwrap();
        assert_eq!(found.iter().count(), expected.len());
        for ((found, expected), sentence) in found.iter().zip(expected).zip(&sentences) {
            let pairs = found.iter().zip(&expected);
            let error = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error < 1e-5, "{sentence:?} is off by {error}");
        }
    }
}
