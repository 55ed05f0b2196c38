//! Deflated files → plain ones, which lie in flash as they are.

use std::borrow::Cow;

use multibit::CoordinateType;
use multibit::file::{Coding, Contents, NumberType, Numbers, PackedFile, ReadError, container};

/// The same model in a plain file.
pub fn plain(file: &[u8]) -> Result<Vec<u8>, ReadError> {
    let read = PackedFile::read(file)?;
    if read.coding() == Coding::Plain {
        return Ok(file.to_vec());
    }
    let weights: Vec<_> = read
        .weights()
        .iter()
        .map(|weight| weight.decode())
        .collect();
    let entries = read.weights().iter().zip(&weights);
    let tensors = read.tensors().iter();
    let contents = Contents {
        weights: entries
            .map(|(entry, weight)| (entry.path(), weight, entry.arithmetic()))
            .collect(),
        tensors: tensors
            .map(|tensor| Numbers {
                path: tensor.path(),
                shape: tensor.shape(),
                number_type: tensor.number_type(),
                bytes: match tensor.number_type() {
                    NumberType::F32 => {
                        let values = tensor.stored_type().decode(tensor.bytes());
                        Cow::Owned(CoordinateType::F32.encode(&values))
                    }
                    _ => Cow::Borrowed(tensor.bytes()),
                },
            })
            .collect(),
        config: read.config().collect(),
        tied: read.tied().collect(),
        about: read.about().clone(),
    };
    Ok(container(&contents.body(Coding::Plain)?))
}
