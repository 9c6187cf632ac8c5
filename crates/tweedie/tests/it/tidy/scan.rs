//! A Rust file taken apart into code, comments and strings: as much of a lexer as the checks need.

/// What a file is made of. `code` and `product` have the file's lines and columns.
pub(super) struct Scan {
    /// The file with comments and the insides of strings blanked.
    pub(super) code: String,
    /// `code` with `#[cfg(test)]` items blanked too.
    pub(super) product: String,
    /// Every string literal outside `#[cfg(test)]` items, with its line.
    pub(super) strings: Vec<(usize, String)>,
}

/// Takes a Rust file apart.
pub(super) fn scan(text: &str) -> Scan {
    let (code, strings) = blank_comments_and_strings(text);
    let tests = test_items(&code);
    let product = blank_ranges(&code, &tests);
    let line_of = |at: usize| code[..at].matches('\n').count() + 1;
    let strings = strings
        .into_iter()
        .filter(|(at, _)| !tests.iter().any(|range| range.contains(at)))
        .map(|(at, s)| (line_of(at), s))
        .collect();
    Scan { code, product, strings }
}

/// Blanks byte for byte, so that offsets hold; returns the strings with the offset of their opening quote.
fn blank_comments_and_strings(text: &str) -> (String, Vec<(usize, String)>) {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut strings = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        let rest = &bytes[i..];
        if rest.starts_with(b"//") {
            let end = rest.iter().position(|&b| b == b'\n').map_or(bytes.len(), |n| i + n);
            blank(&mut code[i..end]);
            i = end;
        } else if rest.starts_with(b"/*") {
            let end = i + block_comment(rest);
            blank(&mut code[i..end]);
            i = end;
        } else if let Some((open, close)) = string_at(bytes, i) {
            strings.push((i, text[open..close].to_owned()));
            blank(&mut code[open..close]);
            // Past the closing quote and its hashes.
            i = close + 1;
            while bytes.get(i) == Some(&b'#') {
                i += 1;
            }
        } else if rest[0] == b'\'' {
            let end = i + char_literal(rest);
            if end > i + 1 {
                blank(&mut code[i + 1..end - 1]);
            }
            i = end;
        } else {
            i += 1;
        }
    }
    (String::from_utf8(code).expect("only whole characters are blanked"), strings)
}

fn blank(bytes: &mut [u8]) {
    for b in bytes {
        if *b != b'\n' {
            *b = b' ';
        }
    }
}

/// The length of the (nested) block comment that `rest` starts with.
fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut i = 0;
    while i < rest.len() {
        if rest[i..].starts_with(b"/*") {
            depth += 1;
            i += 2;
        } else if rest[i..].starts_with(b"*/") {
            depth -= 1;
            i += 2;
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    rest.len()
}

/// If a string literal opens at `i` (`"`, `r"`, `r#"`, with `b` or `c` before): where its inside begins and ends.
fn string_at(bytes: &[u8], i: usize) -> Option<(usize, usize)> {
    let word_before = i > 0 && (bytes[i - 1].is_ascii_alphanumeric() || bytes[i - 1] == b'_');
    let mut j = i;
    if !word_before {
        while j < i + 2 && matches!(bytes.get(j), Some(b'b' | b'c' | b'r')) {
            j += 1;
        }
    }
    let raw = j > i && bytes[j - 1] == b'r';
    let mut hashes = 0;
    while raw && bytes.get(j + hashes) == Some(&b'#') {
        hashes += 1;
    }
    if bytes.get(j + hashes) != Some(&b'"') {
        return None;
    }
    let open = j + hashes + 1;
    let mut k = open;
    while k < bytes.len() {
        match bytes[k] {
            b'\\' if !raw => k += 2,
            b'"' if bytes[k + 1..].iter().take_while(|&&b| b == b'#').count() >= hashes => {
                return Some((open, k));
            }
            _ => k += 1,
        }
    }
    Some((open, bytes.len()))
}

/// The length of the character literal that `rest` starts with; 1 where it is a lifetime.
fn char_literal(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        let close = rest.iter().skip(3).position(|&b| b == b'\'');
        return close.map_or(1, |n| n + 4);
    }
    let text = String::from_utf8_lossy(&rest[1..rest.len().min(6)]);
    match text.chars().next() {
        Some(c) if rest.get(1 + c.len_utf8()) == Some(&b'\'') => 2 + c.len_utf8(),
        _ => 1,
    }
}

/// The ranges of the items under `#[cfg(test)]`, in blanked code.
fn test_items(code: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = code[from..].find("#[cfg(test)]").map(|n| n + from) {
        let end = item_end(code, at);
        found.push(at..end);
        from = end;
    }
    found
}

/// Where the item that begins at `at` ends: after its `;`, or after the brace that closes its first one.
fn item_end(code: &str, at: usize) -> usize {
    let mut depth = 0_usize;
    for (i, b) in code.bytes().enumerate().skip(at) {
        match b {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i + 1;
                }
            }
            b';' if depth == 0 => return i + 1,
            _ => {}
        }
    }
    code.len()
}

fn blank_ranges(code: &str, ranges: &[std::ops::Range<usize>]) -> String {
    let mut bytes = code.as_bytes().to_vec();
    for range in ranges {
        blank(&mut bytes[range.clone()]);
    }
    String::from_utf8(bytes).expect("only whole items are blanked")
}

#[test]
fn comments_strings_and_tests_are_told_apart() {
    let text = r##"
let a = "in // a string \" still"; // out "of code"
let b = r#"raw "quoted" text"#; /* block /* nested */ gone */ let c = 'x';
fn life<'a>(q: &'a str) -> char { '"' }
#[cfg(test)]
mod tests { fn t() { let s = "hidden"; } }
let d = "last";
"##;
    let scan = scan(text);
    assert_eq!(scan.code.len(), text.len());
    assert_eq!(scan.code.matches('\n').count(), text.matches('\n').count());
    for gone in ["string", "still", "out", "quoted", "nested", "gone"] {
        assert!(!scan.code.contains(gone), "{gone}");
    }
    for kept in ["let a", "let b", "let c", "fn life<'a>", "fn t()", "let d"] {
        assert!(scan.code.contains(kept), "{kept}");
    }
    assert!(!scan.product.contains("fn t()"));
    assert!(scan.product.contains("let d"));
    let strings: Vec<_> = scan.strings.iter().map(|(line, s)| (*line, s.as_str())).collect();
    assert_eq!(
        strings,
        [(2, r#"in // a string \" still"#), (3, r#"raw "quoted" text"#), (7, "last")]
    );
}

#[test]
fn escapes_in_characters_do_not_open_strings() {
    let scan =
        scan("let a = '\\''; let b = '\\\"'; let c = \"s\"; let d = 'é'; let e = '\\u{41}';");
    assert_eq!(scan.strings, [(1, "s".to_owned())]);
    assert!(scan.code.contains("let e"));
}
