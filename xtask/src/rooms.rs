//! The rooms of each crate: what lies at the top of its sources, and what may use what.
//!
//! A plain scan of paths (`crate::room::…`, `super::…`), in tests too; no compiler is asked.

use std::collections::BTreeMap;
use std::path::Path;

use crate::validate::{entries, read, rust_files};
use crate::words::{Word, words};

/// Rooms side by side: none of them uses another.
type Floor = &'static [&'static str];

/// A crate's floors, each above the next. A room may use rooms of floors above its own; `lib.rs` may
/// use all. As long as this holds there is no circle.
const CRATES: [(&str, &[Floor]); 3] = [
    (
        "multibit",
        &[
            &["parts"],
            &["bits"],
            &["math"],
            &["grouping"],
            &["packed"],
            &["fit", "report"],
            &["cpu"],
            &["file", "gpu"],
            &["runtime"],
            &["exports"],
        ],
    ),
    (
        "burn-alq",
        &[
            &["weight"],
            &["ops"],
            &["backends"],
            &["nn"],
            &["file"],
            &["quantize"],
            &["optim"],
            &["train"],
            &["analysis", "calibrate"],
            &["report"],
        ],
    ),
    (
        "multibit-cli",
        &[
            &["text"],
            &["file"],
            &["diff", "inspect", "report", "run", "verify"],
            &["main"],
        ],
    ),
];

/// Whether every crate keeps its order; if not, all that breaks it.
pub fn check(root: &Path) -> Result<(), String> {
    let mut text = String::new();
    for (name, floors) in CRATES {
        let sources = root.join("crates").join(name).join("src");
        let faults = check_crate(&sources, floors)?;
        for fault in &faults {
            text += &format!("crates/{name}/src/{fault}\n");
        }
        if !faults.is_empty() {
            let order = order(floors);
            text += &format!("the rooms of {name}, each may import those before it: {order}\n");
        }
    }
    if text.is_empty() {
        Ok(())
    } else {
        Err(text.trim_end().into())
    }
}

/// What breaks the order in one crate's sources.
fn check_crate(sources: &Path, floors: &[Floor]) -> Result<Vec<String>, String> {
    let mut faults = Vec::new();
    let mut files = Vec::new();
    let mut present = Vec::new();
    for entry in entries(sources)? {
        let room = entry.file_stem().unwrap_or_default().to_string_lossy();
        if entry.ends_with("lib.rs") {
            continue;
        }
        if floor(floors, &room).is_none() {
            let name = entry.file_name().unwrap_or_default().to_string_lossy();
            faults.push(format!("{name} is no room"));
            continue;
        }
        present.push(room.into_owned());
        if entry.is_dir() {
            rust_files(&entry, &mut files)?;
        } else {
            files.push(entry);
        }
    }
    for room in floors.iter().copied().flatten() {
        if !present.iter().any(|name| name == room) {
            faults.push(format!("{room} is a room without a file or a folder"));
        }
    }
    let root = root_names(&read(&sources.join("lib.rs"))?);
    files.sort();
    for file in files {
        let name = file.strip_prefix(sources).unwrap_or(&file);
        for (line, fault) in check_code(&read(&file)?, &module(name), &root, floors) {
            let name = name.display();
            faults.push(format!("{name}:{line}: {fault}"));
        }
    }
    // Several names of a room on one line are one import.
    faults.dedup();
    Ok(faults)
}

/// The faults of one file, with their lines. `module` is the file's place in the crate.
fn check_code(
    code: &str,
    module: &[String],
    root: &BTreeMap<String, String>,
    floors: &[Floor],
) -> Vec<(usize, String)> {
    let own = module[0].as_str();
    let own_floor = floor(floors, own);
    let mut faults = Vec::new();
    for import in imports(code, module) {
        let first = import.path.first().map_or("*", String::as_str);
        let room = match floor(floors, first) {
            Some(_) => first,
            None => root.get(first).map_or(first, String::as_str),
        };
        let fault = match floor(floors, room) {
            Some(_) if room == own => continue,
            Some(found) if Some(found) < own_floor => continue,
            Some(_) => format!("{own} imports {room}"),
            None => format!("{own} imports crate::{first}, which is of no room"),
        };
        faults.push((import.line, fault));
    }
    faults
}

/// The floors in words.
fn order(floors: &[Floor]) -> String {
    let names: Vec<String> = floors.iter().map(|floor| floor.join(" | ")).collect();
    names.join(", ")
}

fn floor(floors: &[Floor], room: &str) -> Option<usize> {
    floors.iter().position(|floor| floor.contains(&room))
}

/// The module that a file below `src` is: `a/b.rs` and `a/b/mod.rs` are `a::b`.
fn module(file: &Path) -> Vec<String> {
    let names = file.with_extension("");
    let names = names.iter().map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name != "mod").collect()
}

/// The rooms that a `lib.rs` takes names from, by name.
fn root_names(lib: &str) -> BTreeMap<String, String> {
    let words = words(lib);
    let mut found = Vec::new();
    for place in 0..words.len() {
        if words[place].text == "use" {
            tree(&words, place + 1, None, &[], &mut found);
        }
    }
    let names = found.into_iter().filter(|import| import.path.len() > 1);
    names
        .map(|import| (import.name, import.path[0].clone()))
        .collect()
}

/// A path in the code that begins in its own crate.
#[derive(Debug, PartialEq)]
struct Import {
    line: usize,
    /// From the crate's root, without `crate`; a glob's last name is `*`.
    path: Vec<String>,
    /// What it is called here.
    name: String,
}

/// The paths of a file's code that begin with `crate`, `super` or `self`.
fn imports(code: &str, file: &[String]) -> Vec<Import> {
    let words = words(code);
    let text = |place: usize| words.get(place).map_or("", |word| word.text);
    let mut found = Vec::new();
    let mut module = file.to_vec();
    // The depths of braces at which the inline modules around this place end.
    let mut ends = Vec::new();
    let mut depth = 0;
    let mut place = 0;
    while place < words.len() {
        match text(place) {
            "mod" if text(place + 2) == "{" => {
                module.push(text(place + 1).to_string());
                ends.push(depth);
                place += 1;
            }
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if ends.last() == Some(&depth) {
                    ends.pop();
                    module.pop();
                }
            }
            "crate" | "super" | "self" if text(place + 1) == "::" => {
                place = tree(&words, place, None, &module, &mut found);
                continue;
            }
            _ => {}
        }
        place += 1;
    }
    found
}

/// Reads the path, or the tree of paths in braces, that begins at a place in the code; returns the
/// place after it.
///
/// `before` is what the path continues, where it lies in braces; `module` is where the code lies.
fn tree(
    words: &[Word],
    mut place: usize,
    before: Option<&[String]>,
    module: &[String],
    found: &mut Vec<Import>,
) -> usize {
    let text = |place: usize| words.get(place).map_or("", |word| word.text);
    let line = words.get(place).map_or(0, |word| word.line);
    let mut path = before.map(<[String]>::to_vec);
    loop {
        match text(place) {
            "crate" => path = Some(Vec::new()),
            "self" => path = Some(path.unwrap_or_else(|| module.to_vec())),
            "super" => {
                let mut above = path.unwrap_or_else(|| module.to_vec());
                above.pop();
                path = Some(above);
            }
            "{" => {
                let path = path.unwrap_or_default();
                place += 1;
                while place < words.len() && text(place) != "}" {
                    place = tree(words, place, Some(&path), module, found);
                    while !["", ",", "}"].contains(&text(place)) {
                        place += 1;
                    }
                    if text(place) == "," {
                        place += 1;
                    }
                }
                return place + 1;
            }
            name if is_name(name) => path.get_or_insert_default().push(name.to_string()),
            // The arguments of a type, or a macro's.
            _ => break,
        }
        place += 1;
        if text(place) != "::" {
            break;
        }
        place += 1;
    }
    let path = path.unwrap_or_default();
    let mut name = path.last().cloned().unwrap_or_default();
    if text(place) == "as" {
        name = text(place + 1).to_string();
        place += 2;
    }
    found.push(Import { line, path, name });
    place
}

fn is_name(word: &str) -> bool {
    word == "*" || word.starts_with(|sign: char| sign.is_alphabetic() || sign == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOORS: [Floor; 3] = [&["low"], &["left", "right"], &["high"]];

    /// The first names of what a file's code imports.
    fn firsts(code: &str, file: &str) -> Vec<String> {
        let imports = imports(code, &module(Path::new(file))).into_iter();
        imports.map(|import| import.path.join("::")).collect()
    }

    /// The faults of the code of one file.
    fn faults(code: &str, file: &str) -> Vec<(usize, String)> {
        let root = root_names("mod low; pub use self::high::{Roof, sky::Cloud as Sheep};");
        check_code(code, &module(Path::new(file)), &root, &FLOORS)
    }

    #[test]
    fn what_lies_above_may_be_imported() {
        let code = "use crate::low::{Deep, deeper::*};\nuse super::inner;\nuse std::fmt;\n\
                    fn f() -> crate::low::X { crate::left::inner::y(self::z) }";
        assert_eq!(faults(code, "left/part.rs"), []);
    }

    #[test]
    fn an_upward_import_is_found_with_its_line() {
        let code = "use std::fmt;\n\nuse crate::high::Roof;\nfn f() { crate::right::g(); }";
        let found = faults(code, "left.rs");
        let expected = [
            (3, "left imports high".to_string()),
            (4, "left imports right".to_string()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn of_a_circle_one_side_is_found() {
        assert_eq!(faults("use crate::low::A;", "high.rs"), []);
        assert_eq!(faults("use crate::high::B;", "low.rs").len(), 1);
    }

    #[test]
    fn paths_in_nested_braces_are_found() {
        let code =
            "use crate::{low::{self, a::{B, C as D}}, high::{E}};\nuse {crate::right as r, x::Y};";
        let expected = ["low", "low::a::B", "low::a::C", "high::E", "right"];
        assert_eq!(firsts(code, "left.rs"), expected);
        assert_eq!(faults(code, "left.rs").len(), 2);
    }

    #[test]
    fn super_is_counted_from_the_place_of_the_code() {
        for (code, file, expected) in [
            ("super::a", "left.rs", "a"),
            ("super::super::a", "left/part.rs", "a"),
            ("super::super::a", "left/part/mod.rs", "a"),
            ("super::a", "left/mod.rs", "a"),
            ("super::a", "left/part.rs", "left::a"),
            ("self::super::a", "left/part.rs", "left::a"),
            ("use super::{super::a};", "left/part.rs", "a"),
            ("mod tests { use super::super::a; }", "left.rs", "a"),
            ("mod x { fn f() {} } use super::a;", "left.rs", "a"),
        ] {
            assert_eq!(firsts(code, file), [expected], "{code} in {file}");
        }
    }

    #[test]
    fn a_name_at_the_root_belongs_to_its_room() {
        assert_eq!(faults("use crate::{Roof, Sheep};", "left.rs").len(), 2);
        assert_eq!(faults("use crate::{Roof, Sheep};", "high.rs"), []);
        for code in [
            "use crate::NoRoom;",
            "use super::*;",
            "use crate::{self as all};",
        ] {
            let found = faults(code, "high.rs");
            assert!(found[0].1.ends_with("which is of no room"), "{found:?}");
        }
    }

    #[test]
    fn comments_and_texts_do_not_count_but_tests_do() {
        let code = "//! [x](crate::high::Roof)\n/* use crate::high::A; */\n\
                    const A: &str = \"use crate::high::A;\";\n\
                    #[cfg(test)]\nmod tests {\n    use super::*;\n    use crate::high::A;\n}\n";
        assert_eq!(faults(code, "low.rs"), [(7, "low imports high".into())]);
    }

    #[test]
    fn code_of_a_macro_is_read_to_its_end() {
        let code =
            "macro_rules! m { ($x:ident) => { use $crate::{$x::A, high::B}; $crate::high::f() } }";
        assert_eq!(faults(code, "low.rs").len(), 3);
    }

    #[test]
    fn what_lies_beside_the_rooms_is_found() {
        let folder = format!("xtask-rooms-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(folder.join("left/part")).unwrap();
        for (file, code) in [
            ("lib.rs", "use crate::high::A;"),
            ("low.rs", ""),
            ("right.rs", ""),
            ("attic.rs", "use crate::low::A;"),
            ("left/part/mod.rs", "use crate::high::A;"),
        ] {
            std::fs::write(folder.join(file), code).unwrap();
        }
        let found = check_crate(&folder, &FLOORS).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let expected = [
            "attic.rs is no room",
            "high is a room without a file or a folder",
            "left/part/mod.rs:1: left imports high",
        ];
        assert_eq!(found, expected);
    }
}
