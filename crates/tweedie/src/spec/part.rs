//! One part of a run by name, with the settings that differ from its defaults.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

use crate::catalog::{Made, Seam, Settings, find};
use crate::error::{Error, Result};

/// The most characters that a name and its settings may have together.
const LONGEST: usize = 65_536;

/// One part by name, with its settings: `ddim:eta=0.5,steps=[1,2]`.
///
/// In JSON it is the plain name where nothing is set, else an object whose `name` stands beside the
/// settings: `{"name": "ddim", "eta": 0.5}`; the text form is read there too. Values are numbers,
/// booleans, words, quoted text or lists of these in brackets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PartSpec {
    /// The method's id or an alias.
    pub name: String,
    /// What differs from the defaults, in the order given.
    pub settings: Map<String, Value>,
}

impl PartSpec {
    /// A part with its defaults.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), settings: Map::new() }
    }

    /// The same with one more setting.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.settings.insert(key.to_owned(), value.into());
        self
    }

    /// The settings as a method reads them.
    pub fn settings(&self, seam: Seam) -> Settings {
        Settings { owner: format!("{} {}", seam.name(), self.name), values: self.settings.clone() }
    }

    /// Makes the part from the seam's entries.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] for a name or a setting that does not exist; what the method says of its
    /// settings.
    pub fn make<T: ?Sized>(&self, entries: &'static [Made<T>], seam: Seam) -> Result<Box<T>> {
        (find(entries, seam, &self.name)?.make)(&self.settings(seam))
    }

    /// The same part under the id of its card, so that a record does not depend on aliases.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`].
    pub fn canonical<T: ?Sized>(&self, entries: &'static [Made<T>], seam: Seam) -> Result<Self> {
        let id = find(entries, seam, &self.name)?.card.id;
        Ok(Self { name: id.to_owned(), settings: self.settings.clone() })
    }
}

impl From<&str> for PartSpec {
    /// A part with its defaults; the name is not parsed.
    fn from(name: &str) -> Self {
        Self::named(name)
    }
}

impl FromStr for PartSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.len() > LONGEST {
            let why = format!("{} characters, at most {LONGEST}", text.len());
            return Err(Error::setting("part", why));
        }
        let (name, rest) = match text.split_once(':') {
            Some((name, rest)) => (name.trim(), Some(rest)),
            None => (text.trim(), None),
        };
        if name.is_empty() {
            return Err(Error::setting(text, "a part needs a name before its settings"));
        }
        let mut settings = Map::new();
        for item in rest.into_iter().flat_map(split_outside_brackets) {
            let item = item.trim();
            let Some((key, value)) = item.split_once('=') else {
                let why = format!("settings are written key=value, this is `{item}`");
                return Err(Error::setting(name, why));
            };
            let key = key.trim();
            if key.is_empty() || settings.contains_key(key) {
                return Err(Error::setting(format!("{name}:{key}"), "every key stands once"));
            }
            settings.insert(key.to_owned(), value_of(value));
        }
        Ok(Self { name: name.to_owned(), settings })
    }
}

impl fmt::Display for PartSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (i, (key, value)) in self.settings.iter().enumerate() {
            write!(f, "{}{key}={}", if i == 0 { ':' } else { ',' }, text_of(value))?;
        }
        Ok(())
    }
}

impl Serialize for PartSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.settings.is_empty() {
            return serializer.serialize_str(&self.name);
        }
        let mut map = serializer.serialize_map(Some(self.settings.len() + 1))?;
        map.serialize_entry("name", &self.name)?;
        for (key, value) in &self.settings {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for PartSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => text.parse().map_err(de::Error::custom),
            Value::Object(mut map) => {
                // `shift_remove` keeps the order of what stays.
                match map.shift_remove("name") {
                    Some(Value::String(name)) if !name.trim().is_empty() => {
                        Ok(Self { name, settings: map })
                    }
                    _ => Err(de::Error::custom("a part needs a `name`")),
                }
            }
            other => Err(de::Error::custom(format!(
                "a part is a name or an object with a `name`, this is {other}"
            ))),
        }
    }
}

/// The pieces between commas that stand outside brackets and quotes.
fn split_outside_brackets(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut escaped, mut start) = (0_usize, false, false, 0);
    let mut pieces = Vec::new();
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth = depth.saturating_sub(1),
            ',' if !quoted && depth == 0 => {
                pieces.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    pieces.push(&text[start..]);
    if let [only] = pieces.as_slice()
        && only.trim().is_empty()
    {
        pieces.clear();
    }
    pieces
}

/// JSON where it is JSON, a list of such in brackets, else a word.
fn value_of(text: &str) -> Value {
    let text = text.trim();
    if let Ok(value) = serde_json::from_str(text) {
        return value;
    }
    let inside = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    match inside {
        Some(items) => split_outside_brackets(items).into_iter().map(value_of).collect(),
        None => Value::String(text.to_owned()),
    }
}

/// The text that [`value_of`] reads back; words go without quotes where that is unambiguous.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(word) => {
            let plain = |c: char| c.is_alphanumeric() || "-_./ ".contains(c);
            let bare = !word.is_empty() && word.trim() == word && word.chars().all(plain);
            match serde_json::from_str::<Value>(word) {
                Err(_) if bare => word.clone(),
                _ => value.to_string(),
            }
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(text_of).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_and_json_say_the_same() {
        for (text, json) in [
            ("ddim", json!("ddim")),
            ("ddim:eta=0.5", json!({"name": "ddim", "eta": 0.5})),
            (
                "skip:sites=[mid_block,up.0],first=2",
                json!({"name": "skip", "sites": ["mid_block", "up.0"], "first": 2}),
            ),
            (
                "a:on=true,word=sigma-min,odd=\"1,2\"",
                json!({"name": "a", "on": true, "word": "sigma-min", "odd": "1,2"}),
            ),
            ("DPM++ 2M Karras", json!("DPM++ 2M Karras")),
        ] {
            let part: PartSpec = text.parse().unwrap();
            assert_eq!(serde_json::to_value(&part).unwrap(), json, "{text}");
            assert_eq!(part.to_string(), text);
            assert_eq!(serde_json::from_value::<PartSpec>(json).unwrap(), part, "{text}");
        }
    }

    #[test]
    fn odd_words_survive_the_way_there_and_back() {
        for word in ["", " padded ", "1", "true", "a,b", "[x]", "quote\"d", "back\\slash", "k=v"] {
            let part = PartSpec::named("p").with("key", word).with("next", 1);
            assert_eq!(part.to_string().parse::<PartSpec>().unwrap(), part, "{word}");
        }
    }

    #[test]
    fn malformed_parts_name_the_culprit() {
        for (text, culprit) in
            [("", "name"), (":eta=1", "name"), ("ddim:eta", "`eta`"), ("ddim:a=1,a=2", "ddim:a")]
        {
            let message = text.parse::<PartSpec>().unwrap_err().to_string();
            assert!(message.contains(culprit), "{text}: {message}");
        }
        assert!(serde_json::from_value::<PartSpec>(json!({"eta": 1})).is_err());
        assert!(serde_json::from_value::<PartSpec>(json!(3)).is_err());
    }
}
