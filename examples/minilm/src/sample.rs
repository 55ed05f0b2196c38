//! Files of sentences, and the sentences that come with the program.

use std::path::Path;

use example_common::{Failure, at};

use crate::checkpoint::text;

/// Sentences of "Alice's Adventures in Wonderland" (Lewis Carroll, 1865).
const ALICE: &str = include_str!("../sentences.txt");

/// A sentence of a file, with the number of its line.
pub struct Line {
    pub number: usize,
    pub text: String,
}

/// The lines of a text file that are not blank.
///
/// # Errors
/// If it cannot be read, is not UTF-8, or has none.
pub fn lines(file: &Path) -> Result<Vec<Line>, Failure> {
    let text = text(file)?;
    let text = text.trim_start_matches('\u{feff}').lines().enumerate();
    let lines = text.map(|(index, line)| Line {
        number: index + 1,
        text: line.trim().to_string(),
    });
    let lines: Vec<Line> = lines.filter(|line| !line.text.is_empty()).collect();
    if lines.is_empty() {
        return Err(at(file, "there are no sentences in it"));
    }
    Ok(lines)
}

/// The sentences of a file.
///
/// # Errors
/// As [`lines`].
pub fn sentences(file: &Path) -> Result<Vec<String>, Failure> {
    Ok(lines(file)?.into_iter().map(|line| line.text).collect())
}

/// Sentences to compare models on: every other one of those that come with the program.
pub fn held_out() -> Vec<String> {
    ALICE.lines().skip(1).step_by(2).map(String::from).collect()
}

/// Sentences to calibrate with: all others.
pub fn calibration() -> Vec<String> {
    ALICE.lines().step_by(2).map(String::from).collect()
}

/// Two sentences, and how alike people find them.
pub struct Pair {
    pub sentences: [String; 2],
    pub score: f64,
}

/// The pairs of a file: a line has two sentences and a score, with tabs between.
///
/// # Errors
/// As [`lines`], or if a line is another; says which.
pub fn pairs(file: &Path) -> Result<Vec<Pair>, Failure> {
    let pair = |line: Line| {
        let columns: Vec<&str> = line.text.split('\t').map(str::trim).collect();
        let failed = |reason: &str| at(file, format!("line {}: {reason}", line.number));
        let [first, second, score] = columns[..] else {
            return Err(failed("not two sentences and a score, with tabs between"));
        };
        let score = score.parse().ok().filter(|score: &f64| score.is_finite());
        Ok(Pair {
            sentences: [first, second].map(String::from),
            score: score.ok_or_else(|| failed("the score is no number"))?,
        })
    };
    lines(file)?.into_iter().map(pair).collect()
}
