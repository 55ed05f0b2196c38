//! A checkpoint as it is published: `config.json`, `model.safetensors`, a vocabulary.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use example_common::weights::{self, KeyRemapper};
use example_common::{Config, Failure, at};
use serde_json::Value;

use crate::model::{Bert, KEYS};

/// Names of a checkpoint's parameters, as expressions, and those of the network's.
const NAMES: [(&str, &str); 8] = [
    (r"^embeddings\.LayerNorm\.", "embeddings.norm."),
    (r"^encoder\.layer\.", "encoder.layers."),
    (r"\.attention\.self\.", ".mha."),
    (r"\.attention\.output\.dense\.", ".mha.output."),
    (r"\.attention\.output\.LayerNorm\.", ".norm_1."),
    (r"\.intermediate\.dense\.", ".pwff.linear_inner."),
    (r"\.output\.dense\.", ".pwff.linear_outer."),
    (r"\.output\.LayerNorm\.", ".norm_2."),
];

/// A folder with a float model.
pub struct Checkpoint {
    folder: PathBuf,
    /// Sizes of the network.
    pub config: Config,
    /// The longest text that the encoder was trained with, if the folder says so.
    pub max_tokens: Option<usize>,
}

impl Checkpoint {
    /// Reads what the model is.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the model is of another kind.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let file = folder.join("config.json");
        let config = json(&file)?.ok_or_else(|| at(&file, "there is no such file"))?;
        let config = sizes(&config).map_err(|error| at(&file, error))?;
        let file = folder.join("1_Pooling/config.json");
        if let Some(pooling) = json(&file)?
            && pooling["pooling_mode_mean_tokens"] == false
        {
            return Err(at(&file, "the embeddings are no means over tokens"));
        }
        let text = json(&folder.join("sentence_bert_config.json"))?;
        let max_tokens = text.and_then(|text| text["max_seq_length"].as_u64());
        Ok(Self {
            folder: folder.into(),
            config,
            max_tokens: max_tokens.map(|tokens| tokens as usize),
        })
    }

    /// Checks that a packed model is of this kind and size.
    ///
    /// # Errors
    /// If a number differs; names it.
    pub fn check(&self, packed: &Config) -> Result<(), Failure> {
        match self
            .config
            .iter()
            .find(|(key, size)| packed.get(*key) != Some(size))
        {
            None => Ok(()),
            Some((key, size)) => {
                let packed = packed.get(key).map_or("nothing", String::as_str);
                let what = format!("{key} is {size}, in the packed model {packed}");
                Err(at(&self.file("config.json"), what))
            }
        }
    }

    /// The float model.
    ///
    /// # Errors
    /// If the weights cannot be read or are another model's; names the tensor.
    pub fn model(&self, device: &Device) -> Result<Bert, Failure> {
        let failed = |error: Failure| at(&self.file("config.json"), error);
        let network = Bert::from_config(&self.config, device).map_err(failed)?;
        let file = self.file("model.safetensors");
        let mut tensors = weights::read(&file)?;
        // Of another use of the model; and a count from 0 on.
        tensors.retain(|tensor| {
            !tensor.name.starts_with("pooler.") && !tensor.name.ends_with(".position_ids")
        });
        if let Some(tensor) = tensors.iter().find(|tensor| tensor.dtype != DType::F32) {
            let (name, dtype) = (&tensor.name, tensor.dtype);
            return Err(at(&file, format!("{name} is {dtype:?}, not F32")));
        }
        let names = KeyRemapper::from_pattern_iter(NAMES).expect("expressions that parse");
        let (tensors, _) = names.remap(tensors);
        weights::fill(network, tensors, |_| false).map_err(|error| at(&file, error))
    }

    /// A file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// The configuration of the network, out of a checkpoint's.
fn sizes(json: &Value) -> Result<Config, String> {
    for (key, expected) in [
        ("model_type", "bert"),
        ("position_embedding_type", "absolute"),
    ] {
        if let Some(found) = json.get(key)
            && found != expected
        {
            return Err(format!("{key} is {found}; this program runs {expected:?}"));
        }
    }
    let size = |key: &str| match &json[key] {
        Value::Null => Err(format!("there is no {key}")),
        Value::String(text) => Ok((key.to_string(), text.clone())),
        value => Ok((key.to_string(), value.to_string())),
    };
    KEYS.into_iter().map(size).collect()
}

/// The text of a file.
///
/// # Errors
/// If it cannot be read or is not UTF-8; says in which line.
pub fn text(file: &Path) -> Result<String, Failure> {
    let bytes = fs::read(file).map_err(|error| at(file, error))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
        at(file, format!("line {line} is not UTF-8"))
    })
}

/// A file of JSON, if it is there.
pub fn json(file: &Path) -> Result<Option<Value>, Failure> {
    if !file.is_file() {
        return Ok(None);
    }
    let json = serde_json::from_str(&text(file)?).map_err(|error| at(file, error))?;
    Ok(Some(json))
}
