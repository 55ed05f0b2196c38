//! Text of a file's for a terminal.

use std::fmt;

use multibit::file::Coding;

/// Lines of text, none of which a terminal obeys.
#[derive(Default)]
pub(crate) struct Lines(pub String);

impl Lines {
    /// Adds a line.
    pub fn line(&mut self, line: fmt::Arguments<'_>) {
        self.0.push_str(&shown(&line.to_string()));
        self.0.push('\n');
    }
}

/// A text with control characters as their escapes: a file from anyone may hold some that a terminal
/// obeys.
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for sign in text.chars() {
        if sign.is_control() {
            shown.extend(sign.escape_default());
        } else {
            shown.push(sign);
        }
    }
    shown
}

/// The name of a coding.
pub(crate) fn coding(coding: Coding) -> &'static str {
    match coding {
        Coding::Plain => "plain",
        Coding::Deflate => "deflate",
    }
}
