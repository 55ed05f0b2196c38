//! Reports in a folder: JSON, Markdown, and a page that is drawn from the JSON.

use std::fs::OpenOptions;
use std::io::{Write as _, stderr, stdout};
use std::path::{Path, PathBuf};

use askama::Template as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::page::Page;
use crate::report::Report;
use crate::say::say;
use crate::sweep::Sweep;
use crate::{Failure, at, folder};

/// What is to be read of a run or of a sweep.
pub trait Document: Serialize + DeserializeOwned {
    /// The name of its files, without their endings.
    const NAME: &'static str;

    /// Another one where a reader of the old one would go wrong.
    const VERSION: u32;

    fn to_markdown(&self) -> String;

    fn page(&self) -> Page<'_>;

    /// Writes all its files to a folder.
    fn write(&self, out: &Path) -> Result<(), Failure> {
        write_files(out, Self::NAME, &self.to_markdown(), &self.page(), self)
    }

    /// Whether a folder has one.
    fn is_in(folder: &Path) -> bool {
        file(folder, Self::NAME, "json").exists()
    }

    /// Reads the one of a folder.
    ///
    /// # Errors
    /// If there is none, or one of another version; names the file.
    fn read(folder: &Path) -> Result<Self, Failure> {
        let file = file(folder, Self::NAME, "json");
        let text = std::fs::read_to_string(&file).map_err(|error| at(&file, error))?;
        let damaged = |error| at(&file, format!("not a report, or a damaged one: {error}"));
        let json: serde_json::Value = serde_json::from_str(&text).map_err(damaged)?;
        let expected = Self::VERSION;
        if json["version"] != expected {
            let found = json["version"].as_u64();
            let found = found.map_or("none".into(), |version| version.to_string());
            let error = format!(
                "a report folder of another version: this program reads version {expected}, found \
                 {found}; use the program that made it, or train again"
            );
            return Err(at(&file, error));
        }
        serde_json::from_value(json).map_err(damaged)
    }
}

fn file(folder: &Path, name: &str, ending: &str) -> PathBuf {
    folder.join(name).with_extension(ending)
}

/// Writes `.md`, `.html` and, as the sign that all is done, `.json`.
pub fn write_files(
    out: &Path,
    name: &str,
    markdown: &str,
    page: &Page<'_>,
    json: &impl Serialize,
) -> Result<(), Failure> {
    write_aside(&file(out, name, "md"), markdown.as_bytes())?;
    write_aside(&file(out, name, "html"), page.render()?.as_bytes())?;
    write_json(&file(out, name, "json"), json)
}

pub fn write_json(file: &Path, json: &impl Serialize) -> Result<(), Failure> {
    write_aside(file, &serde_json::to_vec(json)?)
}

/// Whether the file of `--json` can be written, before there is anything to write.
///
/// # Errors
/// If it cannot.
pub fn check_json(file: Option<&Path>) -> Result<(), Failure> {
    let Some(file) = file else {
        return Ok(());
    };
    // A pipe may be used up by opening it.
    let checked = if file.extension().is_some_and(|ending| ending == "bpk") {
        let error = "a name for tensors, and the report would take their place";
        Err(std::io::Error::other(error))
    } else if file.is_dir() {
        Err(std::io::ErrorKind::IsADirectory.into())
    } else if is_stream(file) {
        Ok(())
    } else {
        folder::writable(&followed(file))
    };
    let failed = |error| format!("--json {}: cannot be written: {error}", file.display());
    checked.map_err(|error| failed(error).into())
}

/// Whether it is a pipe or a device, or stands for an open file, as /dev/stdout does.
fn is_stream(file: &Path) -> bool {
    let named = ["/dev", "/proc"]
        .iter()
        .any(|folder| file.starts_with(folder));
    std::fs::metadata(file).is_ok_and(|found| !found.is_dir() && (named || !found.is_file()))
}

/// The file itself, where there is a link to it.
fn followed(file: &Path) -> PathBuf {
    std::fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf())
}

/// Writes a file whole or not at all, or to a stream.
///
/// # Errors
/// If it cannot be written; nothing half-written stays.
pub fn write_aside(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if is_stream(file) {
        let written = match file.to_str() {
            // Opened anew they would have a place of their own in a log, and overwrite it.
            Some("/dev/stdout") => stdout().write_all(bytes),
            Some("/dev/stderr") => stderr().write_all(bytes),
            _ => {
                let opened = OpenOptions::new().append(true).open(file);
                opened.and_then(|mut file| file.write_all(bytes))
            }
        };
        return written.map_err(|error| at(file, error));
    }
    let target = followed(file);
    let aside = folder::aside(&target);
    let written = std::fs::write(&aside, bytes).and_then(|()| std::fs::rename(&aside, target));
    written.map_err(|error| {
        // Nothing half-written stays; the first error is the one to report.
        let _ = std::fs::remove_file(&aside);
        at(file, error)
    })
}

/// Makes the page of a run or of a sweep again from its JSON, and PNGs if asked for.
///
/// # Errors
/// If the folder holds no report or one of another version, a file cannot be written, or PNGs are
/// asked for from a program without them.
pub fn remake_report(folder: &Path, pngs: Option<&Path>) -> Result<(), Failure> {
    if Sweep::is_in(folder) {
        remake::<Sweep>(folder, pngs)
    } else {
        remake::<Report>(folder, pngs)
    }
}

fn remake<D: Document>(folder: &Path, pngs: Option<&Path>) -> Result<(), Failure> {
    let document = D::read(folder)?;
    let page = document.page();
    let file = file(folder, D::NAME, "html");
    write_aside(&file, page.render()?.as_bytes())?;
    say!("{}", file.display());
    match pngs {
        Some(folder) => write_pngs(&page, folder),
        None => Ok(()),
    }
}

/// Writes figures as PNG, and says where.
#[cfg(feature = "png")]
fn write_pngs(page: &Page<'_>, folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|error| at(folder, error))?;
    for figure in page.sections.iter().flat_map(|(_, figures)| figures) {
        let file = folder.join(format!("{}.png", figure.name));
        write_aside(&file, &crate::png::render(&figure.svg)?)?;
        say!("{}", file.display());
    }
    Ok(())
}

#[cfg(not(feature = "png"))]
fn write_pngs(_: &Page<'_>, _: &Path) -> Result<(), Failure> {
    Err("--png: this program was built without it; build it with --features png".into())
}
