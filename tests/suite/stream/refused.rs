//! Conversions that cannot be finished: named, and the file that was there as it was.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::Path;

use burn::module::Param;
use burn::nn::LinearConfig;
use burn::tensor::{Device, Tensor};
use burn_alq::quantize::{ConvertFileError, FloatFile, QuantizeError};
use burn_alq::{GroupingRule, PathPattern, Quantizer};
use burn_store::{BurnpackStore, KeyRemapper, ModuleSnapshot, SafetensorsStore};

use super::{Net, quantizer};
use crate::devices::device;

const OLD: &[u8] = b"what was there";

/// Converts to a file that is there, which stays as it is.
fn refused(folder: &Path, net: Net, quantizer: &Quantizer, source: FloatFile) -> ConvertFileError {
    let out = folder.join("out.bpk");
    std::fs::write(&out, OLD).unwrap();
    let result = quantizer.convert_file(net, source, &BTreeMap::new(), &out);
    assert_eq!(std::fs::read(&out).unwrap(), OLD);
    let scratch = std::fs::read_dir(folder).unwrap();
    let scratch =
        scratch.filter(|entry| entry.as_ref().unwrap().path().extension().unwrap() == "tmp");
    assert_eq!(scratch.count(), 0);
    result.unwrap_err()
}

fn safetensors(folder: &Path, net: &Net) -> FloatFile {
    let path = folder.join("float.safetensors");
    // The store does not write over a file.
    let _ = std::fs::remove_file(&path);
    net.save_into(&mut SafetensorsStore::from_file(&path))
        .unwrap();
    FloatFile::open(path).unwrap()
}

#[test]
fn a_file_that_does_not_fit_is_named() {
    let (device, folder) = (device(), tempfile::tempdir().unwrap());
    let (folder, net) = (folder.path(), Net::new(&device));
    let renamed = |to: &str| {
        let names = KeyRemapper::new().add_pattern("^wide.weight$", to).unwrap();
        safetensors(folder, &net).with_names(&names)
    };
    let error = refused(folder, net.clone(), &quantizer(), renamed("other"));
    let text = error.to_string();
    assert!(
        text.contains("float.safetensors has no tensor for wide.weight"),
        "{text}"
    );

    let mut without = net.clone();
    without.head.bias = None;
    let error = refused(
        folder,
        without.clone(),
        &quantizer(),
        safetensors(folder, &net),
    );
    let text = error.to_string();
    assert!(text.contains("no parameter for head.bias of"), "{text}");
    let source = safetensors(folder, &net).partial();
    let out = folder.join("partial.bpk");
    quantizer()
        .convert_file(without, source, &BTreeMap::new(), &out)
        .unwrap();

    let mut other = net.clone();
    other.head = LinearConfig::new(12, 6).init(&device);
    let error = refused(folder, other, &quantizer(), safetensors(folder, &net));
    assert!(matches!(error, ConvertFileError::Tensor { .. }));
    assert!(error.to_string().contains("head.weight"), "{error}");

    let mut broken = net.clone();
    broken.conv.weight = Param::from_tensor(Tensor::full([6, 2, 3, 3], f32::NAN, &device));
    let error = refused(
        folder,
        net.clone(),
        &quantizer(),
        safetensors(folder, &broken),
    );
    let text = error.to_string();
    assert!(
        text.contains("conv.weight: the number at [0, 0, 0, 0] is not finite"),
        "{text}"
    );

    // Rules are looked at before anything is read.
    let pattern = PathPattern::exact("norm.running_mean");
    let rules = quantizer().rule(PathPattern::exact("other"), GroupingRule::Channelwise);
    let error = refused(folder, net.clone(), &rules, renamed("other"));
    let unmatched = QuantizeError::Unmatched {
        rule: "5 (path `other`)".into(),
    };
    assert!(
        matches!(&error, ConvertFileError::Quantize(found) if *found == unmatched),
        "{error}"
    );
    let rules = quantizer().rule(pattern, GroupingRule::Channelwise);
    let error = refused(folder, net.clone(), &rules, renamed("other"));
    assert!(matches!(error, ConvertFileError::Quantize(_)), "{error}");
}

#[test]
fn a_file_that_is_no_float_model_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("float.safetensors");
    let header = |header: &str, data: usize| {
        let length = (header.len() as u64).to_le_bytes();
        [&length[..], header.as_bytes(), &vec![0; data]].concat()
    };
    let tensor = |dtype: &str, end: usize| {
        let text = format!(r#"{{"w":{{"dtype":"{dtype}","shape":[2],"data_offsets":[0,{end}]}}}}"#);
        header(&text, 8)
    };
    for (bytes, expected) in [
        (vec![], "an empty file"),
        (
            b"{\"w\": [1, 2, 3]}".to_vec(),
            "neither a safetensors nor a burnpack file",
        ),
        (
            b"\xff\xff\xff\xff\0\0\0\0{".to_vec(),
            "a safetensors header of 4294967295 bytes",
        ),
        (header("{\"w\"", 0), "the safetensors header: "),
        (header("{\"w\": 1}", 0), "w in the safetensors header: "),
        (tensor("F8_E5M2", 2), "w is of type F8_E5M2"),
        (tensor("F32", 7), "w of shape [2] has bytes"),
        (tensor("F64", 16), "w of shape [2] has bytes"),
        (tensor("F16", 4), "but its tensors end at"),
        (
            b"NRUB\x01\0\xff\0\0\0\x9a\xff\xff\xff\xff".to_vec(),
            "float.safetensors: ",
        ),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = FloatFile::open(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let missing = FloatFile::open(folder.path().join("none")).unwrap_err();
    assert!(missing.to_string().contains("none: "), "{missing}");
}

#[test]
fn a_file_that_is_changed_while_it_is_read_is_named() {
    let (device, folder) = (device(), tempfile::tempdir().unwrap());
    let (folder, net) = (folder.path(), Net::new(&device));
    for (name, grows) in [
        ("a.safetensors", true),
        ("b.safetensors", false),
        ("c.bpk", true),
        ("d.bpk", false),
    ] {
        let path = folder.join(name);
        match name.ends_with(".bpk") {
            true => net.save_into(&mut BurnpackStore::from_file(&path)).unwrap(),
            false => net
                .save_into(&mut SafetensorsStore::from_file(&path))
                .unwrap(),
        }
        let source = FloatFile::open(&path).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(if grows { length + 1 } else { length - 1 })
            .unwrap();
        let text = refused(folder, net.clone(), &quantizer(), source).to_string();
        assert!(text.contains("was changed while it was read"), "{text}");
        assert!(text.contains(name), "{text}");
    }
}

/// A limit of the system on a file's bytes stands for a disk that is full.
#[cfg(target_os = "linux")]
#[test]
fn a_write_that_fails_is_named() {
    const CHILD: &str = "BURN_ALQ_TEST_LIMITED";

    if let Some(folder) = std::env::var_os(CHILD) {
        let folder = Path::new(&folder);
        let source = FloatFile::open(folder.join("float.safetensors")).unwrap();
        let error = refused(folder, Net::new(&Device::flex()), &quantizer(), source);
        let text = error.to_string();
        assert!(text.contains("out.bpk: File too large"), "{text}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    safetensors(folder.path(), &Net::new(&Device::flex()));
    let folder = folder.path().to_str().unwrap();
    let test = "stream::refused::a_write_that_fails_is_named";
    let program = std::env::current_exe().unwrap();
    let command = format!(
        "trap '' XFSZ; ulimit -f 1; exec {} --exact {test} --nocapture",
        program.display()
    );
    let output = std::process::Command::new("sh")
        .args(["-c", &command])
        .env(CHILD, folder)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains(" 1 passed"),
        "{text}{:?}",
        output.stderr
    );
}
