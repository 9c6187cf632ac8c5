//! JSON as Python writes it, read within bounds.
//!
//! Python's `json` writes `NaN`, `Infinity` and `-Infinity` as bare words, which JSON does not
//! have; published scheduler settings contain them (`"lambda_min_clipped": -Infinity`). They are
//! read here as the strings `"NaN"`, `"Infinity"` and `"-Infinity"`, and [`number`] turns such a
//! string back into a number where the field is one that may be infinite.

use std::borrow::Cow;
use std::path::Path;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// Settings are a few kilobytes; more than this is not a settings file.
pub const MAX_SETTINGS: usize = 16 << 20;

/// Reads the JSON object in `bytes`; `file` is named in errors.
///
/// # Errors
/// The file is longer than [`MAX_SETTINGS`], is not UTF-8, not JSON or not an object.
pub fn object(file: &Path, bytes: &[u8]) -> Result<Map<String, Value>> {
    if bytes.len() > MAX_SETTINGS {
        let why =
            format!("{} bytes are too many for settings, the limit is {MAX_SETTINGS}", bytes.len());
        return Err(Error::format(file, "", why));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Error::format(file, "", format!("wanted JSON in UTF-8, found {e}")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let value: Value = serde_json::from_str(&quote_non_numbers(text)).map_err(|e| {
        Error::format(file, "", format!("not valid JSON: {}", one_line(&e.to_string())))
    })?;
    match value {
        Value::Object(map) => Ok(map),
        other => {
            let why = format!("wanted a JSON object, found {}", kind(&other));
            Err(Error::format(file, "", why))
        }
    }
}

/// The number that a value stands for, with the words of Python's `json` for those that JSON
/// lacks.
#[must_use]
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => match s.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// The text of a settings file: indented, with Python's bare words for the strings that stand for
/// them.
#[must_use]
pub fn text(map: &Map<String, Value>) -> String {
    let mut text = format!("{:#}", Value::Object(map.clone()));
    for word in ["-Infinity", "Infinity", "NaN"] {
        text = text.replace(&format!(": \"{word}\""), &format!(": {word}"));
    }
    text.push('\n');
    text
}

/// What kind of value this is, in words for an error.
#[must_use]
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// `text` as one short line: control characters escaped, the middle of a long one left out. Names
/// in files may hold anything, and an error is one line.
#[must_use]
pub fn one_line(text: &str) -> String {
    const KEEP: usize = 160;
    let count = text.chars().count();
    if count <= KEEP {
        return escape(text);
    }
    let head: String = text.chars().take(KEEP - 40).collect();
    let tail: String = text.chars().skip(count - 37).collect();
    escape(&format!("{head}...{tail}"))
}

/// `text` on one line: control characters escaped.
#[must_use]
pub fn escape(text: &str) -> String {
    let visible = |c: char| -> Cow<'static, str> {
        if c.is_control() { c.escape_default().to_string().into() } else { c.to_string().into() }
    };
    text.chars().map(visible).collect()
}

/// Puts the three words of Python's `json` that JSON lacks into quotes, outside of strings only.
fn quote_non_numbers(text: &str) -> Cow<'_, str> {
    if !text.contains("NaN") && !text.contains("Infinity") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        if in_string && c == '\\' {
            let skip = c.len_utf8() + rest.chars().nth(1).map_or(0, char::len_utf8);
            out.push_str(&rest[..skip]);
            rest = &rest[skip..];
            continue;
        }
        if c == '"' {
            in_string = !in_string;
        } else if !in_string
            && let Some(word) =
                ["-Infinity", "Infinity", "NaN"].into_iter().find(|w| rest.starts_with(w))
        {
            out.push('"');
            out.push_str(word);
            out.push('"');
            rest = &rest[word.len()..];
            continue;
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Map<String, Value>> {
        object(Path::new("x.json"), text.as_bytes())
    }

    #[test]
    fn pythons_words_for_non_numbers_are_read() {
        let map = read(r#"{"a": -Infinity, "b": [NaN, 1], "c": "Infinity \" NaN", "d": Infinity}"#)
            .unwrap();
        assert_eq!(number(&map["a"]), Some(f64::NEG_INFINITY));
        assert!(number(&map["b"][0]).unwrap().is_nan());
        assert_eq!(map["c"], "Infinity \" NaN");
        assert_eq!(number(&map["d"]), Some(f64::INFINITY));
    }

    #[test]
    fn what_is_written_is_read() {
        let map = read(r#"{"a": -Infinity, "b": [1, 2.5], "c": "x"}"#).unwrap();
        let written = text(&map);
        assert!(written.contains("\"a\": -Infinity,\n"), "{written}");
        assert_eq!(read(&written).unwrap(), map);
    }

    #[test]
    fn what_is_not_an_object_is_an_error_in_one_line() {
        for text in ["", "[1]", "{", "{\"a\":}", "nul", "{\"a\"\n\n:\n1,}", "\u{0}"] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.starts_with("x.json: ") && !message.contains('\n'), "{message}");
        }
        assert!(object(Path::new("x"), &[0xff, 0xfe]).is_err());
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(&deep).unwrap_err().to_string().contains("recursion"));
    }

    #[test]
    fn long_and_odd_names_become_one_short_line() {
        let line = one_line(&format!("a\nb{}", "x".repeat(1000)));
        assert!(line.len() < 200 && line.starts_with("a\\nb"), "{line}");
    }
}
