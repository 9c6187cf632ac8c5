//! The `parameters` text of A1111, which most programs that read pictures understand.
//!
//! ```text
//! <prompt>
//! Negative prompt: <text>
//! Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 123, Size: 512x512, …
//! ```
//!
//! A value with a comma, a colon or a line end is written as a JSON string.

use std::fmt;

/// The text in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Infotext {
    /// What the picture should be of; may have several lines.
    pub prompt: String,
    /// What it should not be of.
    pub negative: String,
    /// The last line: name and value, in order.
    pub fields: Vec<(String, String)>,
}

/// How the negative prompt's first line begins.
const NEGATIVE: &str = "Negative prompt: ";

/// The last line is one of settings only if it holds at least this many.
const FEWEST: usize = 3;

impl Infotext {
    /// One more setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.fields.push((name.to_owned(), value.to_string()));
        self
    }

    /// The value of a setting.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Reads a text. Whatever is no line of settings counts as prompt, as it does for other
    /// programs, so that this cannot fail.
    pub fn parse(text: &str) -> Self {
        let mut lines: Vec<&str> = text.lines().collect();
        let mut fields = Vec::new();
        if let Some(last) = lines.last()
            && let Some(found) = settings(last)
        {
            fields = found;
            lines.pop();
        }
        let negative = lines.iter().position(|line| line.starts_with(NEGATIVE));
        let prompt = lines[..negative.unwrap_or(lines.len())].join("\n");
        let negative = negative.map_or(String::new(), |start| {
            let text = lines[start..].join("\n");
            text.strip_prefix(NEGATIVE).unwrap_or(&text).to_owned()
        });
        Self { prompt, negative, fields }
    }
}

/// `Name: value, Name: "quoted value", …`, or nothing where the line is something else.
fn settings(line: &str) -> Option<Vec<(String, String)>> {
    let mut fields = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (name, tail) = rest.split_once(':')?;
        let name = name.trim();
        let plain = |c: char| c.is_alphanumeric() || " _-/".contains(c);
        if name.is_empty() || !name.chars().all(plain) {
            return None;
        }
        let tail = tail.trim_start();
        let (value, tail) = if tail.starts_with('"') {
            let mut values = serde_json::Deserializer::from_str(tail).into_iter::<String>();
            let value = values.next()?.ok()?;
            (value, &tail[values.byte_offset()..])
        } else {
            let end = tail.find(',').unwrap_or(tail.len());
            (tail[..end].trim().to_owned(), &tail[end..])
        };
        fields.push((name.to_owned(), value));
        rest = tail.trim_start().strip_prefix(',').unwrap_or(tail).trim_start();
        if rest == tail && !rest.is_empty() {
            return None;
        }
    }
    (fields.len() >= FEWEST).then_some(fields)
}

impl fmt::Display for Infotext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.prompt.is_empty() {
            writeln!(f, "{}", self.prompt)?;
        }
        if !self.negative.is_empty() {
            writeln!(f, "{NEGATIVE}{}", self.negative)?;
        }
        for (i, (name, value)) in self.fields.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            if value.contains([',', ':', '\n', '"']) {
                write!(f, "{comma}{name}: {}", serde_json::Value::from(value.as_str()))?;
            } else {
                write!(f, "{comma}{name}: {value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Infotext {
        Infotext {
            prompt: "a red circle,\non white".into(),
            negative: "blur: yes".into(),
            fields: vec![],
        }
        .with("Steps", 20)
        .with("Sampler", "DPM++ 2M")
        .with("Size", "64x64")
        .with("Grid", "karras:rho=7, sigma_max=80")
    }

    #[test]
    fn a_text_comes_back() {
        let text = example().to_string();
        assert!(text.ends_with(
            r#"Steps: 20, Sampler: DPM++ 2M, Size: 64x64, Grid: "karras:rho=7, sigma_max=80""#
        ));
        assert_eq!(Infotext::parse(&text), example());
    }

    #[test]
    fn what_a1111_writes_is_read() {
        let text = "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, Schedule type: Karras, \
                    CFG scale: 7, Seed: 123, Size: 512x512, Model hash: 6ce0161689, Lora hashes: \"a: b, c: d\", Version: v1.10";
        let info = Infotext::parse(text);
        assert_eq!((info.prompt.as_str(), info.negative.as_str()), ("a cat", "dog"));
        assert_eq!(info.get("Lora hashes"), Some("a: b, c: d"));
        assert_eq!(info.get("Version"), Some("v1.10"));
        assert_eq!(info.fields.len(), 9);
    }

    #[test]
    fn a_prompt_that_looks_like_settings_stays_a_prompt() {
        let info = Infotext::parse("time: noon, place: here");
        assert_eq!(info.prompt, "time: noon, place: here");
        assert!(info.fields.is_empty());
    }
}
