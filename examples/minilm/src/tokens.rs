//! Text as numbers of a vocabulary.

use std::path::Path;

use example_common::network::number;
use example_common::{Config, Failure, at, data};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, Model as _, Tokenizer, TruncationParams};

use crate::checkpoint::{Checkpoint, json, text};
use crate::model::{POSITIONS, VOCABULARY};

/// What all tokens are, as a checksum, in the configuration of a packed model.
pub const TOKENS: &str = "tokens";

/// Tokens in every text, at its ends.
const ENDS: usize = 2;

/// Makes tokens of texts.
pub struct Tokens {
    tokenizer: Tokenizer,
    /// The checksum of the vocabulary.
    pub checksum: String,
}

impl Tokens {
    /// The tokenizer of a checkpoint, for a model of this configuration. It is read from
    /// `tokenizer.json`, or made from `vocab.txt`.
    ///
    /// # Errors
    /// If there is none, or it is another model's.
    pub fn open(checkpoint: &Checkpoint, config: &Config) -> Result<Self, Failure> {
        let [whole, vocabulary] = ["tokenizer.json", "vocab.txt"].map(|name| checkpoint.file(name));
        let (mut tokenizer, file) = if whole.is_file() {
            let read = Tokenizer::from_bytes(text(&whole)?);
            (read.map_err(|error| at(&whole, error))?, whole)
        } else if vocabulary.is_file() {
            let settings = json(&checkpoint.file("tokenizer_config.json"))?;
            let lower = settings.is_none_or(|settings| settings["do_lower_case"] != false);
            let made = word_pieces(&vocabulary, lower);
            (made.map_err(|error| at(&vocabulary, error))?, vocabulary)
        } else {
            return Err(at(&whole, "there is neither this nor vocab.txt"));
        };
        let checksum = check(&tokenizer, config).map_err(|error| at(&file, error))?;
        // Every batch is padded to its own length.
        tokenizer.with_padding(None);
        let positions: usize = number(config, POSITIONS)?;
        let max_length = checkpoint.max_tokens.unwrap_or(positions).min(positions);
        if max_length <= ENDS {
            return Err(at(&file, format!("texts of {max_length} tokens are empty")));
        }
        tokenizer.with_truncation(Some(TruncationParams {
            max_length,
            ..Default::default()
        }))?;
        Ok(Self {
            tokenizer,
            checksum,
        })
    }

    /// The tokens of some texts, with those at their ends.
    ///
    /// # Errors
    /// If the vocabulary has no token for what it does not know.
    pub fn of(&self, texts: &[String]) -> Result<Vec<Vec<u32>>, Failure> {
        let texts = texts.iter().map(String::as_str).collect();
        let encodings = self.tokenizer.encode_batch_fast::<&str>(texts, true)?;
        Ok(encodings
            .iter()
            .map(|text| text.get_ids().to_vec())
            .collect())
    }
}

/// The checksum of a vocabulary that is a model's.
fn check(tokenizer: &Tokenizer, config: &Config) -> Result<String, Failure> {
    let mut tokens: Vec<(u32, String)> = tokenizer
        .get_vocab(true)
        .into_iter()
        .map(|(token, id)| (id, token))
        .collect();
    tokens.sort();
    let size: u32 = number(config, VOCABULARY)?;
    if !tokens.iter().map(|(id, _)| *id).eq(0..size) {
        let count = tokens.len();
        return Err(format!("{count} tokens, but the model is for {size}, numbered from 0").into());
    }
    let bytes = tokens
        .iter()
        .flat_map(|(_, token)| token.as_bytes().iter().chain(b"\n"));
    let checksum = format!("{:016x}", data::fingerprint(bytes));
    match config.get(TOKENS) {
        Some(expected) if *expected != checksum => {
            Err("not the vocabulary that the packed model was made with".into())
        }
        _ => Ok(checksum),
    }
}

/// BERT's tokenizer, from a file with a token in each line.
fn word_pieces(file: &Path, lower: bool) -> Result<Tokenizer, Failure> {
    let pieces = WordPiece::builder()
        .vocab(WordPiece::read_bytes(text(file)?.as_bytes())?)
        .unk_token("[UNK]".into())
        .build()?;
    let ends = ["[SEP]", "[CLS]"].map(|token| match pieces.token_to_id(token) {
        Some(id) => Ok((token.to_string(), id)),
        None => Err(format!("there is no token {token}")),
    });
    let [separator, class] = ends;
    let special: Vec<AddedToken> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .into_iter()
        .filter(|token| pieces.token_to_id(token).is_some())
        .map(|token| AddedToken::from(token, true))
        .collect();
    let mut tokenizer = Tokenizer::new(pieces);
    tokenizer
        .with_normalizer(Some(BertNormalizer::new(true, true, None, lower)))?
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(Some(BertProcessing::new(separator?, class?)));
    tokenizer.add_special_tokens(special)?;
    Ok(tokenizer)
}
