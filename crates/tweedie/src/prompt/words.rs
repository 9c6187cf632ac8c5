//! Words of a prompt that stand for something of their own: the names of learned embeddings.

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// Text like any other.
    Text(&'a str),
    /// The name at this index.
    Word(usize),
}

/// What ComfyUI's users write before the name of an embedding.
const PREFIX: &str = "embedding:";

/// Cuts a text at every name in it, the longest first where several begin at one place. Letter case
/// does not count; a name that begins or ends in a letter or digit must stand free of others there.
/// `embedding:name`, as ComfyUI has it, is the name.
pub fn words<'a>(text: &'a str, names: &[&str]) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    if names.is_empty() {
        return vec![Part::Text(text)];
    }
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        let longest = (0..names.len())
            .filter(|&i| stands(text, at, names[i]))
            .max_by_key(|&i| (names[i].len(), std::cmp::Reverse(i)));
        if let Some(index) = longest {
            let before = &text[start..at];
            let cut = before.len().saturating_sub(PREFIX.len());
            let prefixed = before.get(cut..).is_some_and(|p| p.eq_ignore_ascii_case(PREFIX));
            let before = if prefixed { &before[..cut] } else { before };
            if !before.is_empty() {
                parts.push(Part::Text(before));
            }
            parts.push(Part::Word(index));
            at += names[index].len();
            start = at;
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    if start < text.len() {
        parts.push(Part::Text(&text[start..]));
    }
    parts
}

/// Whether `name` stands at `at`.
fn stands(text: &str, at: usize, name: &str) -> bool {
    let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let end = at + name.len();
    let Some(found) = text.get(at..end) else { return false };
    if name.is_empty() || !found.eq_ignore_ascii_case(name) {
        return false;
    }
    let (first, last) = (name.chars().next(), name.chars().next_back());
    let joined_before = letter(first) && letter(text[..at].chars().next_back());
    let joined_behind = letter(last) && letter(text[end..].chars().next());
    !joined_before && !joined_behind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_where_they_stand_free() {
        let names = ["cat", "<cat-toy>", "bad hands", "cat-2"];
        let of = |text| words(text, &names);
        assert_eq!(of("a Cat, here"), [Part::Text("a "), Part::Word(0), Part::Text(", here")]);
        assert_eq!(of("concat cats"), [Part::Text("concat cats")]);
        assert_eq!(of("<cat-toy>,x"), [Part::Word(1), Part::Text(",x")]);
        assert_eq!(of("x<cat-toy>y"), [Part::Text("x"), Part::Word(1), Part::Text("y")]);
        assert_eq!(of("cat-2"), [Part::Word(3)]);
        assert_eq!(of("cat-25"), [Part::Word(0), Part::Text("-25")]);
        assert_eq!(of("embedding:bad hands é"), [Part::Word(2), Part::Text(" é")]);
        assert_eq!(of("éé"), [Part::Text("éé")]);
        assert_eq!(of(""), []);
        assert_eq!(words("cat", &[]), [Part::Text("cat")]);
    }
}
