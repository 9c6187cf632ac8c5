//! Tags in a prompt that ask for a LoRA: `<lora:name:0.8>`.

use crate::error::{Error, Result};

/// A LoRA that a prompt asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Tag {
    /// Its name: that of its file without folder and ending.
    pub name: String,
    /// How strongly it acts; 1 where the tag says nothing.
    pub weight: f64,
}

/// Takes every `<lora:name>` and `<lora:name:weight>` out of a prompt.
///
/// # Errors
///
/// [`Error::Setting`] for a tag without a name or with a weight that is no number.
pub fn tags(prompt: &str) -> Result<(String, Vec<Tag>)> {
    const START: &str = "<lora:";
    let mut text = String::with_capacity(prompt.len());
    let mut found = Vec::new();
    let mut rest = prompt;
    while let Some((before, tag)) = rest.split_once(START) {
        text.push_str(before);
        let wrong = |why: &str| {
            let shown: String = tag.chars().take(40).collect();
            Error::setting("prompt", format!("`{START}{shown}`: {why}"))
        };
        let wanted = "wanted `<lora:name:weight>`";
        let (inner, after) = tag.split_once('>').ok_or_else(|| wrong(wanted))?;
        let (name, weight) = match inner.split_once(':') {
            None => (inner, 1.0),
            Some((name, weight)) => {
                let weight = weight.trim().parse::<f64>().ok().filter(|w| w.is_finite());
                (name, weight.ok_or_else(|| wrong(wanted))?)
            }
        };
        let name = name.trim();
        if name.is_empty() || name.contains(['/', '\\', '\0']) {
            return Err(wrong("wanted the name of a file without folder and ending"));
        }
        found.push(Tag { name: name.to_owned(), weight });
        rest = after;
    }
    text.push_str(rest);
    Ok((text, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_taken_out() {
        let (text, found) = tags("a cat <lora:ink:0.8>, <lora:old film> (b:1.2)").unwrap();
        assert_eq!(text, "a cat ,  (b:1.2)");
        let tag = |name: &str, weight| Tag { name: name.into(), weight };
        assert_eq!(found, [tag("ink", 0.8), tag("old film", 1.0)]);
        assert_eq!(tags("a < b > c").unwrap(), ("a < b > c".to_owned(), vec![]));
    }

    #[test]
    fn what_is_no_tag_is_refused() {
        for bad in ["<lora:", "<lora:a", "<lora::1>", "<lora:a:x>", "<lora:a:1:2>", "<lora:../a:1>"]
        {
            let error = tags(bad).unwrap_err().to_string();
            assert!(error.contains("<lora:"), "{bad}: {error}");
        }
    }
}
