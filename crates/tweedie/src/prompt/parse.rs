//! Weights in brackets.

use crate::error::{Error, Result};

/// What a pair of round brackets multiplies by.
const MORE: f64 = 1.1;
/// The most brackets that may be open at once; the weight of the innermost would be 1.1^64 = 445.
const DEEPEST: usize = 64;
/// The word that ends a window.
const BREAK: &str = "BREAK";

/// A piece of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Text of one weight.
    Text {
        /// The text, without markup.
        text: String,
        /// Its weight; 1 is plain.
        weight: f64,
    },
    /// The word `BREAK`: what follows starts a new window.
    Break,
}

impl Piece {
    fn text(text: impl Into<String>, weight: f64) -> Self {
        Self::Text { text: text.into(), weight }
    }
}

/// Cuts a prompt into pieces of one weight each.
///
/// `(text)` multiplies the weight by 1.1 and `[text]` divides it by 1.1, `(text:1.3)` multiplies it
/// by 1.3; brackets nest, and one that is never closed reaches to the end. `\(`, `\)`, `\[`, `\]`
/// and `\\` are the sign itself; any other backslash is dropped. A closing bracket without an
/// opening one is text. `BREAK` as a word of its own ends a window.
///
/// Neighbours of the same weight are one piece, so that a prompt without markup is one piece; an
/// empty prompt is one empty piece.
///
/// # Errors
///
/// [`Error::Setting`] for more than 64 brackets open at once, or a weight that is not finite.
pub fn parse(prompt: &str) -> Result<Vec<Piece>> {
    let mut pieces: Vec<Piece> = Vec::new();
    let (mut round, mut square): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut rest = prompt;
    while let Some(sign) = rest.chars().next() {
        let after = &rest[sign.len_utf8()..];
        rest = match sign {
            '\\' => match after.chars().next() {
                Some(next) if "()[]\\".contains(next) => {
                    pieces.push(Piece::text(next, 1.0));
                    &after[1..]
                }
                _ => after,
            },
            '(' | '[' => {
                let open = if sign == '(' { &mut round } else { &mut square };
                open.push(pieces.len());
                if round.len() + square.len() > DEEPEST {
                    let why = format!("more than {DEEPEST} brackets are open at once");
                    return Err(Error::setting("prompt", why));
                }
                after
            }
            ')' if !round.is_empty() => {
                multiply(&mut pieces, round.pop(), MORE);
                after
            }
            ']' if !square.is_empty() => {
                multiply(&mut pieces, square.pop(), 1.0 / MORE);
                after
            }
            ':' => match weight(after) {
                Some((weight, after)) if !round.is_empty() => {
                    multiply(&mut pieces, round.pop(), weight);
                    after
                }
                _ => {
                    pieces.push(Piece::text(":", 1.0));
                    after
                }
            },
            ')' | ']' => {
                pieces.push(Piece::text(sign, 1.0));
                after
            }
            _ => {
                let end = rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len());
                split_breaks(&rest[..end], &mut pieces);
                &rest[end..]
            }
        };
    }
    for start in round {
        multiply(&mut pieces, Some(start), MORE);
    }
    for start in square {
        multiply(&mut pieces, Some(start), 1.0 / MORE);
    }
    merged(pieces)
}

fn multiply(pieces: &mut [Piece], start: Option<usize>, factor: f64) {
    for piece in pieces.iter_mut().skip(start.unwrap_or(usize::MAX)) {
        if let Piece::Text { weight, .. } = piece {
            *weight *= factor;
        }
    }
}

/// The number and the bracket of `:1.3)`, from behind the colon, with what follows.
fn weight(text: &str) -> Option<(f64, &str)> {
    let (number, rest) = text.split_once(')')?;
    let number = number.trim();
    let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    Some((if plain { number.parse().ok()? } else { return None }, rest))
}

/// A run of text without signs, cut at each `BREAK` together with the white space around it.
fn split_breaks(run: &str, pieces: &mut Vec<Piece>) {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut start = 0;
    for (at, word) in run.match_indices(BREAK) {
        let end = at + word.len();
        let joined = run[..at].chars().next_back().is_some_and(is_word)
            || run[end..].chars().next().is_some_and(is_word);
        if joined || at < start {
            continue;
        }
        pieces.push(Piece::text(run[start..at].trim_end(), 1.0));
        pieces.push(Piece::Break);
        start = end + (run[end..].len() - run[end..].trim_start().len());
    }
    pieces.push(Piece::text(&run[start..], 1.0));
}

/// Joins neighbours of the same weight and leaves empty text out.
fn merged(pieces: Vec<Piece>) -> Result<Vec<Piece>> {
    let mut out: Vec<Piece> = Vec::new();
    for piece in pieces {
        if let Piece::Text { text, weight } = &piece {
            if text.is_empty() {
                continue;
            }
            if !weight.is_finite() {
                let why = format!("the weight of `{text:.40}` is not finite");
                return Err(Error::setting("prompt", why));
            }
            if let Some(Piece::Text { text: before, weight: same }) = out.last_mut()
                && same == weight
            {
                before.push_str(text);
                continue;
            }
        }
        out.push(piece);
    }
    if out.is_empty() {
        out.push(Piece::text("", 1.0));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(prompt: &str) -> Vec<(String, f64)> {
        let of = |piece| match piece {
            Piece::Text { text, weight } => (text, (weight * 1e12).round() / 1e12),
            Piece::Break => ("BREAK".to_owned(), -1.0),
        };
        parse(prompt).unwrap().into_iter().map(of).collect()
    }

    fn same(prompt: &str, wanted: &[(&str, f64)]) {
        let wanted: Vec<(String, f64)> =
            wanted.iter().map(|(t, w)| ((*t).to_owned(), *w)).collect();
        assert_eq!(shown(prompt), wanted, "{prompt}");
    }

    /// The examples in the documentation of A1111's `parse_prompt_attention`.
    #[test]
    fn the_documented_examples() {
        same("normal text", &[("normal text", 1.0)]);
        same("an (important) word", &[("an ", 1.0), ("important", 1.1), (" word", 1.0)]);
        same("(unbalanced", &[("unbalanced", 1.1)]);
        same("\\(literal\\]", &[("(literal]", 1.0)]);
        same("(unnecessary)(parens)", &[("unnecessaryparens", 1.1)]);
        same(
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            &[
                ("a ", 1.0),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        );
    }

    #[test]
    fn what_is_no_markup_stays_text() {
        same("a smile :) and 16:9", &[("a smile :) and 16:9", 1.0)]);
        same("ratio (16:9)", &[("ratio ", 1.0), ("16", 9.0)]);
        same("ratio \\(16:9\\)", &[("ratio (16:9)", 1.0)]);
        same("a] b) c", &[("a] b) c", 1.0)]);
        same("(a:b)", &[("a:b", 1.1)]);
        same("(a:1.2.3)", &[("a:1.2.3", 1.1)]);
        same("(a: +1.5 ) b", &[("a", 1.5), (" b", 1.0)]);
        same("(a:-0.5)", &[("a", -0.5)]);
        same("[a]", &[("a", (1e12 / 1.1_f64).round() / 1e12)]);
        same("", &[("", 1.0)]);
        same("()", &[("", 1.0)]);
        same("back\\slash \\\\", &[("backslash \\", 1.0)]);
    }

    #[test]
    fn breaks_are_words_of_their_own() {
        same("a cat BREAK  a dog", &[("a cat", 1.0), ("BREAK", -1.0), ("a dog", 1.0)]);
        same("BREAKFAST, aBREAK", &[("BREAKFAST, aBREAK", 1.0)]);
        same("BREAK", &[("BREAK", -1.0)]);
        same("(a BREAK b:2)", &[("a", 2.0), ("BREAK", -1.0), ("b", 2.0)]);
        same("a BREAK BREAK b", &[("a", 1.0), ("BREAK", -1.0), ("BREAK", -1.0), ("b", 1.0)]);
    }

    #[test]
    fn brackets_of_two_kinds_may_cross() {
        same("(a [b) c]", &[("a ", 1.1), ("b", 1.0), (" c", (1e12 / 1.1_f64).round() / 1e12)]);
    }

    #[test]
    fn depth_and_weights_are_bounded() {
        assert!(parse(&"(".repeat(64)).is_ok());
        assert!(parse(&"[(".repeat(33)).is_err());
        assert!(parse(&format!("(a:{})", "9".repeat(400))).is_err());
        assert!(parse(&"(a)".repeat(20_000)).is_ok());
    }
}
