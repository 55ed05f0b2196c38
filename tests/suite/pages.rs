//! What the pages say is what the programs say.

use std::fs;
use std::path::Path;

/// All sources below a folder, with strings that go over several lines joined.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let mut lines = source.lines();
            while let Some(line) = lines.next() {
                let mut line = line.to_string();
                while line.ends_with('\\') {
                    line.pop();
                    line.push_str(lines.next().unwrap_or_default().trim_start());
                }
                text.push_str(&line);
                text.push('\n');
            }
        }
    }
}

/// Every message on the page is one that the code can print: its parts, in this order, in one line of
/// a source.
#[test]
fn troubleshooting_quotes_real_messages() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut code = String::new();
    for folder in [
        "crates/multibit/src",
        "crates/burn-alq/src",
        "examples/common/src",
    ] {
        sources(&root.join(folder), &mut code);
    }
    let page = fs::read_to_string(root.join("crates/burn-alq/TROUBLESHOOTING.md")).unwrap();
    let messages: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'))
        .collect();
    assert!(messages.len() >= 10, "{messages:?}");
    for message in messages {
        let parts: Vec<&str> = message.split('…').map(str::trim).collect();
        let quoted = code.lines().any(|line| {
            let mut rest = line;
            parts.iter().all(|part| match rest.find(part) {
                Some(place) => {
                    rest = &rest[place + part.len()..];
                    true
                }
                None => false,
            })
        });
        assert!(quoted, "no source says {message:?}");
    }
}
