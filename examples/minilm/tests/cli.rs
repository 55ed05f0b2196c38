//! The program as a user meets it, on the fixture and on bad input.

use std::fs;
use std::path::Path;

use example_testing::{Program, holds, result};

const FLOAT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bert");

fn minilm() -> Program {
    Program::new(env!("CARGO_BIN_EXE_minilm"))
}

/// Writes a file in the program's folder; its path.
fn write(program: &Program, name: &str, content: impl AsRef<[u8]>) -> String {
    fs::write(program.at(name), content).unwrap();
    program.at(name)
}

/// A copy of the fixture in the program's folder, to be damaged.
fn copy(program: &Program, name: &str) -> String {
    let folder = program.at(name);
    copy_folder(Path::new(FLOAT), Path::new(&folder));
    folder
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The arguments of a conversion of the fixture.
fn quantize<'a>(float: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args = [
        "quantize",
        "--float",
        float,
        "--out",
        out,
        "--group-size",
        "16",
    ];
    [&args[..], more].concat()
}

const TEXT: &str =
    "The cat is happy.\n\nThe king and the queen wait for tea.\r\nWhere is the key?\n";

#[test]
fn a_model_is_packed_compared_searched_and_timed() {
    let minilm = minilm();
    let [out, half] = ["model.bpk", "half.bpk"].map(|name| minilm.at(name));
    let printed = minilm.succeeds(&quantize(FLOAT, &out, &["--bits", "8"]));
    holds(&printed, "embeddings.word_embeddings.weight");
    holds(&printed, "15 tensors");
    let cosine = result(&printed, "cosine=");
    assert!(cosine > 0.999, "{printed}");
    // A short group may need fewer.
    let paper = result(&printed, "paper_bits=");
    assert!((7.9..=8.0).contains(&paper), "{printed}");
    let bytes = fs::metadata(&out).unwrap().len() as f64;
    assert_eq!(result(&printed, "file_bytes="), bytes);
    // A coordinate of f32 for each of 16 weights and basis, and widths.
    let effective = result(&printed, "effective_bits=");
    assert!((24.0..25.0).contains(&effective), "{printed}");

    let few = [
        "--bits",
        "3",
        "--coordinates",
        "f16",
        "--biases",
        "f16",
        "--deflate",
    ];
    let few = [&few[..], &["--embedding-bits", "4", "--arithmetic", "int8"]].concat();
    let printed = minilm.succeeds(&quantize(FLOAT, &half, &few));
    assert!(result(&printed, "cosine=") < cosine, "{printed}");
    assert!(result(&printed, "file_bytes=") < bytes / 2.0, "{printed}");
    let inspected = minilm.succeeds(&["inspect", "--model", &half]);
    for part in [
        "hidden_size: 32",
        "model: bert",
        "encoder.layers.1.mha.query.weight",
        "bits per weight by the paper",
    ] {
        holds(&inspected, part);
    }

    let text = write(&minilm, "text", TEXT);
    let pairs = "the cat\tthe cat\t5\nthe cat\tthe queen\t2.5\nthe king\tx + y\t0\n";
    let pairs = write(&minilm, "pairs", pairs);
    let opened = |command| vec![command, "--model", &half, "--float", FLOAT];
    let eval = [
        opened("eval"),
        vec!["--sentences", &text, "--pairs", &pairs],
    ]
    .concat();
    let printed = minilm.succeeds(&eval);
    holds(&printed, "of 3 sentences");
    let [mean, p5, least] = ["cosine=", "p5=", "least="].map(|key| result(&printed, key));
    assert!(least <= p5 && p5 <= mean && mean < 1.0, "{printed}");
    assert!(result(&printed, "spearman=").abs() <= 1.0);
    assert!(result(&printed, "float_spearman=").abs() <= 1.0);

    // A line of the text itself is found first, with its number.
    let query = [
        "--corpus",
        &text,
        "--query",
        "where IS the key",
        "--top",
        "2",
    ];
    let printed = minilm.succeeds(&[opened("search"), query.to_vec()].concat());
    assert_eq!(printed.lines().count(), 2);
    holds(printed.lines().next().unwrap(), "  4: Where is the key?");

    let time = ["--batch", "2", "--tokens", "8", "--seconds", "0"];
    let printed = minilm.succeeds(&[opened("time"), time.to_vec()].concat());
    assert!(result(&printed, "packed_ms=") > 0.0 && result(&printed, "float_ms=") > 0.0);
    let refused = [opened("time"), vec!["--tokens", "41"]].concat();
    minilm.refuses(&refused, "--tokens 41: the model reads 40");

    // Without the float weights, one can search but not compare.
    let without = copy(&minilm, "without");
    fs::remove_file(format!("{without}/model.safetensors")).unwrap();
    let args = |command| vec![command, "--model", &half, "--float", &without];
    minilm.succeeds(&[args("search"), query.to_vec()].concat());
    let eval = [args("eval"), vec!["--sentences", &text]].concat();
    minilm.refuses(&eval, "model.safetensors: there is no such file");
}

#[test]
fn bad_texts_are_refused_by_name() {
    let minilm = minilm();
    let out = minilm.at("model.bpk");
    let texts: [(&[u8], &str); 3] = [
        (b"", "there are no sentences in it"),
        (b" \n\t\r\n\n", "there are no sentences in it"),
        (b"fine\nna\xefve\n", "line 2 is not UTF-8"),
    ];
    for (text, expected) in texts {
        let text = write(&minilm, "text", text);
        minilm.refuses(&quantize(FLOAT, &out, &["--sentences", &text]), expected);
    }
    let absent = minilm.at("absent");
    minilm.refuses(
        &quantize(FLOAT, &out, &["--sentences", &absent]),
        "absent: ",
    );
    assert!(!minilm.exists("model.bpk"), "nothing is left behind");

    minilm.succeeds(&quantize(FLOAT, &out, &[]));
    let text = write(&minilm, "text", TEXT);
    for (pairs, expected) in [
        (
            "the cat\tthe king\t1\nthe cat, the king, 1\n",
            "line 2: not two sentences and a score",
        ),
        ("the cat\tthe king\tnan\n", "line 1: the score is no number"),
        (
            "the cat\tthe king\t1\nthe cat\tthe key\t1\n",
            "pairs: a rank correlation needs",
        ),
        ("\n", "no sentences"),
    ] {
        let pairs = write(&minilm, "pairs", pairs);
        let args = [
            "eval",
            "--model",
            &out,
            "--float",
            FLOAT,
            "--sentences",
            &text,
        ];
        minilm.refuses(&[&args[..], &["--pairs", &pairs]].concat(), expected);
    }
}

#[test]
fn bad_checkpoints_are_refused_by_name() {
    let minilm = minilm();
    let out = minilm.at("model.bpk");
    let refuses = |float: &str, expected: &str| {
        minilm.refuses(&quantize(float, &out, &[]), expected);
    };
    refuses(
        &minilm.at("absent"),
        "absent/config.json: there is no such file",
    );
    let damaged = copy(&minilm, "damaged");
    let file = |name: &str| format!("{damaged}/{name}");
    /// Damages a file for one refusal.
    macro_rules! with {
        ($name:expr, $damage:expr, $expected:expr) => {{
            let file = file($name);
            let whole = fs::read(&file).unwrap();
            fs::write(&file, $damage(&whole)).unwrap();
            refuses(&damaged, $expected);
            fs::write(&file, whole).unwrap();
        }};
    }
    let replaced = |old: &'static str, new: &'static str| {
        move |whole: &[u8]| {
            let text = std::str::from_utf8(whole).unwrap();
            assert!(text.contains(old));
            text.replacen(old, new, 1).into_bytes()
        }
    };
    let config = |old, new, expected| with!("config.json", replaced(old, new), expected);
    config("{", "", "config.json: ");
    config("\"hidden_size\"", "\"size\"", "there is no hidden_size");
    config("\"bert\"", "\"mpnet\"", "model_type is \"mpnet\"");
    config("\"gelu\"", "\"swish\"", "hidden_act is \"swish\"");
    config(
        "_heads\": 4",
        "_heads\": 5",
        "num_attention_heads is 5, which does not divide 32",
    );
    config(
        "_layers\": 2",
        "_layers\": 0",
        "num_hidden_layers is 0, not 1 to",
    );
    config(
        "_layers\": 2",
        "_layers\": -2",
        "num_hidden_layers is \"-2\"",
    );
    config(
        "_layers\": 2",
        "_layers\": 3",
        "there is no tensor encoder.layers.2.",
    );
    config(
        "_layers\": 2",
        "_layers\": 1",
        "no parameter for encoder.layers.1.",
    );
    config(
        "_size\": 64",
        "_size\": 48",
        "linear_inner.weight has shape",
    );
    config(
        "_embeddings\": 40",
        "_embeddings\": 41",
        "position_embeddings.weight has shape [40, 32]",
    );
    let pooling = replaced("mean_tokens\": true", "mean_tokens\": false");
    with!("1_Pooling/config.json", pooling, "no means over tokens");

    with!(
        "model.safetensors",
        |whole: &[u8]| whole[..whole.len() / 2].to_vec(),
        "model.safetensors: "
    );
    with!(
        "model.safetensors",
        |_: &[u8]| Vec::new(),
        "model.safetensors: "
    );
    let not_a_number = |whole: &[u8]| {
        let mut bytes = whole.to_vec();
        let middle = bytes.len() / 8 * 4;
        bytes[middle..middle + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        bytes
    };
    with!("model.safetensors", not_a_number, "not finite");

    with!(
        "tokenizer.json",
        replaced("\"alice\"", "\"alic\\u00e9e\",\"x"),
        "tokenizer.json: "
    );
    with!(
        "tokenizer.json",
        |_: &[u8]| b"\xff".to_vec(),
        "tokenizer.json: line 1 is not UTF-8"
    );
    with!(
        "sentence_bert_config.json",
        replaced("24", "2"),
        "texts of 2 tokens are empty"
    );
    fs::remove_file(file("tokenizer.json")).unwrap();
    let vocabulary = |old, new, expected| with!("vocab.txt", replaced(old, new), expected);
    vocabulary("alice\n", "", "vocab.txt: ");
    vocabulary("alice\n", "alice\nbob\n", "tokens, but the model is for");
    vocabulary("alice\n", "rabbit\n", "tokens, but the model is for");
    vocabulary("[CLS]\n", "[BOS]\n", "there is no token [CLS]");
    fs::remove_file(file("vocab.txt")).unwrap();
    refuses(
        &damaged,
        "tokenizer.json: there is neither this nor vocab.txt",
    );
    assert!(!minilm.exists("model.bpk"), "nothing is left behind");
}

#[test]
fn what_does_not_belong_together_is_refused_by_name() {
    let minilm = minilm();
    let out = minilm.at("model.bpk");
    let args = ["quantize", "--float", FLOAT, "--out", &out];
    for (flag, value) in [
        ("--bits", "0"),
        ("--bits", "9"),
        ("--group-size", "0"),
        ("--coordinates", "f8"),
    ] {
        minilm.refuses(&[&args[..], &[flag, value]].concat(), flag);
    }
    assert!(!minilm.exists("model.bpk"), "nothing is left behind");
    minilm.refuses(
        &quantize(FLOAT, &minilm.at("no/model.bpk"), &[]),
        "no/model.bpk: ",
    );

    minilm.succeeds(&quantize(FLOAT, &out, &[]));
    let before = minilm.read("model.bpk");
    let text = write(&minilm, "text", "");
    minilm.refuses(
        &quantize(FLOAT, &out, &["--sentences", &text]),
        "no sentences",
    );
    assert!(minilm.read("model.bpk") == before, "what was there is kept");

    let text = write(&minilm, "text", TEXT);
    let search = |model: &str, float: &str, expected: &str| {
        let args = ["search", "--model", model, "--float", float];
        minilm.refuses(
            &[&args[..], &["--corpus", &text, "--query", "x"]].concat(),
            expected,
        );
    };
    search(&minilm.at("absent.bpk"), FLOAT, "absent.bpk");
    search(&text, FLOAT, "is not a packed model");
    let other = copy(&minilm, "other");
    let [tokenizer, config] =
        ["tokenizer.json", "config.json"].map(|name| format!("{other}/{name}"));
    let json = fs::read_to_string(&tokenizer).unwrap();
    fs::write(&tokenizer, json.replace("\"alice\"", "\"alicf\"")).unwrap();
    search(
        &out,
        &other,
        "tokenizer.json: not the vocabulary that the packed model was made with",
    );
    let json = fs::read_to_string(&config).unwrap();
    fs::write(&config, json.replace("1e-12", "0.5")).unwrap();
    search(
        &out,
        &other,
        "config.json: layer_norm_eps is 0.5, in the packed model 1e-12",
    );
}
