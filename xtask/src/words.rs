//! Rust code as a plain list of words: enough to find what it imports, without a parser.

/// An identifier, a number, `::` or one sign.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Word<'a> {
    /// The line that it stands on, from 1.
    pub line: usize,
    pub text: &'a str,
}

/// The words of some code. Comments and the insides of strings and characters are no words.
pub fn words(code: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut line = 1;
    let mut rest = code;
    while !rest.is_empty() {
        let (length, is_word) = first(rest);
        let (text, after) = rest.split_at(length);
        if is_word {
            words.push(Word { line, text });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    words
}

/// How many bytes the first element of the code takes, and whether it is a word.
fn first(code: &str) -> (usize, bool) {
    if code.starts_with("//") {
        return (code.find('\n').unwrap_or(code.len()), false);
    }
    if code.starts_with("/*") {
        return (comment(code), false);
    }
    if code.starts_with('"') {
        return (quoted(code, '"'), false);
    }
    if let Some(length) = raw_string(code) {
        return (length, false);
    }
    if code.starts_with('\'') {
        return (character(code), false);
    }
    if code.starts_with("::") {
        return (2, true);
    }
    let in_name = |sign: char| sign.is_alphanumeric() || sign == '_';
    match code.find(|sign| !in_name(sign)).unwrap_or(code.len()) {
        0 => {
            let sign = code.chars().next().unwrap_or_default();
            (sign.len_utf8(), !sign.is_whitespace())
        }
        length => (length, true),
    }
}

/// The length of a block comment; comments may lie in it.
fn comment(code: &str) -> usize {
    let mut depth = 0;
    let mut place = 0;
    while let Some(found) = code[place..].find(['/', '*']) {
        place += found;
        if code[place..].starts_with("/*") {
            depth += 1;
            place += 2;
        } else if code[place..].starts_with("*/") {
            depth -= 1;
            place += 2;
            if depth == 0 {
                return place;
            }
        } else {
            place += 1;
        }
    }
    code.len()
}

/// The length of a string or a character, quotes included.
fn quoted(code: &str, quote: char) -> usize {
    let mut escaped = false;
    for (place, sign) in code.char_indices().skip(1) {
        if sign == quote && !escaped {
            return place + 1;
        }
        escaped = sign == '\\' && !escaped;
    }
    code.len()
}

/// The length of a raw string, where the code begins with one.
fn raw_string(code: &str) -> Option<usize> {
    let prefix = ["r", "br", "cr"]
        .into_iter()
        .find(|prefix| code.starts_with(prefix))?;
    let hashes = code[prefix.len()..]
        .chars()
        .take_while(|sign| *sign == '#')
        .count();
    let start = prefix.len() + hashes + 1;
    if !code[start - 1..].starts_with('"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let length = code[start..]
        .find(&end)
        .map(|place| start + place + end.len());
    Some(length.unwrap_or(code.len()))
}

/// The length of a character, or of the quote of a lifetime.
fn character(code: &str) -> usize {
    let mut signs = code.char_indices().skip(1);
    let is_escape = signs.next().is_some_and(|(_, sign)| sign == '\\');
    let is_closed = signs.next().is_some_and(|(_, sign)| sign == '\'');
    if is_escape || is_closed {
        quoted(code, '\'')
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(code: &str) -> Vec<&str> {
        words(code).into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn names_and_signs_are_words() {
        assert_eq!(
            texts("use a::{b_1, c};"),
            ["use", "a", "::", "{", "b_1", ",", "c", "}", ";"]
        );
    }

    #[test]
    fn comments_and_texts_are_not() {
        for code in [
            "a // b\n c",
            "a /* b /* d */ e */ c",
            "a /// b\n c",
            "a \"b \\\" // b\" c",
            "a r#\"b \" b\"# c",
            "a br\"\\\" c",
            "a '\\'' c",
            "a 'ü' c",
            "a '\"' c",
        ] {
            assert_eq!(texts(code), ["a", "c"], "{code}");
        }
        assert_eq!(texts("&'a str r#type"), ["&", "a", "str", "r", "#", "type"]);
    }

    #[test]
    fn lines_are_counted_through_texts() {
        let found = words("a\n\"b\n\n\" /*\n*/ c");
        assert_eq!(found[0], Word { line: 1, text: "a" });
        assert_eq!(found[1], Word { line: 5, text: "c" });
    }
}
