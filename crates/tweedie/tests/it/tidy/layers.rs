//! Who may use whom inside the library: the layers of ARCHITECTURE.md, read off the `crate::` paths.

use std::collections::{BTreeMap, BTreeSet};

use super::report;
use super::tree::{self, Source};

/// The library's modules from the ground up. A module uses those of the rows above it in this table.
const LAYERS: &[&[&str]] = &[
    &["catalog", "error", "random"],
    &["level", "noise", "ops", "state", "weight"],
    &["data", "grid", "media", "prediction", "process", "prompt"],
    &["denoiser", "derivative", "guide", "operator", "reward", "sampler", "tap"],
    &["oracle", "run", "search", "spec", "tune"],
    &["discrete", "edit", "parallel", "prune", "quant", "restore"],
    &["model"],
    &["eval", "hub"],
    &["train"],
    &["system"],
    &["engine"],
];

/// Uses within a row that are meant, with the reason.
const WITHIN_A_ROW: &[(&str, &str, &str)] = &[
    ("catalog", "error", "a name that nothing goes by is an error"),
    ("random", "error", "a generator may refuse"),
    ("noise", "state", "noise has the shape of a state"),
    ("state", "level", "a state is scaled by a level per row"),
    ("media", "data", "a picture file holds a picture of the data's kind"),
    ("prediction", "process", "a prediction may need the path's rates"),
    ("grid", "process", "a grid is laid on a path"),
    ("tap", "denoiser", "a tap answers row by row, and a row is the denoiser's"),
    ("denoiser", "tap", "a pass carries the taps through the network"),
    ("derivative", "denoiser", "it differentiates the denoiser"),
    ("guide", "denoiser", "a guide asks the denoiser, once or several times"),
    ("denoiser", "reward", "a condition may say what a sample is to score high in"),
    ("guide", "derivative", "a guide may follow a gradient"),
    ("guide", "reward", "a guide may follow what a sample is to score high in"),
    ("reward", "operator", "a measurement can be a reward"),
    ("guide", "tap", "a guide may lend the weak branch a tap"),
    ("run", "spec", "a run is built from what to run"),
    ("search", "run", "a search walks runs"),
    ("spec", "search", "a search can be named in what to run"),
];

/// Modules that only name the others: the tour and the catalogue, which reads every seam's list.
const READS_ALL: &[&str] = &["lib", "catalog"];

/// The module that a file of the library belongs to: its folder, or its stem.
fn module(inner: &str) -> &str {
    let first = inner.split('/').next().unwrap_or(inner);
    first.strip_suffix(".rs").unwrap_or(first)
}

fn row(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// The modules and root items named after `crate::` in code, groups included, with their lines.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        for name in heads(rest) {
            found.push((line, name));
        }
    }
    found
}

/// The first names of a path or of a group: `a::b` gives `a`; `{a::{b, c}, d}` gives `a` and `d`.
fn heads(rest: &str) -> Vec<String> {
    let ident =
        |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = rest.strip_prefix('{') else { return vec![ident(rest)] };
    let mut names = Vec::new();
    let mut depth = 0_usize;
    let mut expects = true;
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expects = true,
            c if expects && !c.is_whitespace() => {
                names.push(ident(&group[i..]));
                expects = false;
            }
            _ => {}
        }
    }
    names
}

/// What `lib.rs` hands on under another path: item name to module.
fn handed_on(lib: &Source) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for (at, _) in lib.scan.product.match_indices("pub use ") {
        let statement = &lib.scan.product[at + "pub use ".len()..];
        let Some(end) = statement.find(';') else { continue };
        let statement = statement[..end].trim_start_matches("crate::").trim_start_matches("self::");
        let Some((module, items)) = statement.split_once("::") else { continue };
        for item in items.trim_matches(|c| c == '{' || c == '}').split(',') {
            let name = item.rsplit("::").next().unwrap_or(item).trim();
            map.insert(name.to_owned(), module.trim().to_owned());
        }
    }
    map
}

/// The macros that stand at the crate's root, with the module that each is written in.
fn exported_macros(code: &str, module: &str) -> Vec<(String, String)> {
    let pieces = code.split("#[macro_export]").skip(1);
    pieces
        .filter_map(|piece| piece.split_once("macro_rules!"))
        .flat_map(|(_, rest)| heads(rest.trim_start()))
        .map(|name| (name, module.to_owned()))
        .collect()
}

fn breaches(sources: &[Source]) -> Vec<String> {
    let mut findings = BTreeSet::new();
    let library: Vec<(&Source, &str)> =
        sources.iter().filter_map(|s| Some((s, s.in_library()?))).collect();
    let mut handed_on: BTreeMap<String, String> =
        library.iter().find(|(_, i)| *i == "lib.rs").map(|(s, _)| handed_on(s)).unwrap_or_default();
    for (source, inner) in &library {
        handed_on.extend(exported_macros(&source.scan.product, module(inner)));
    }
    for (source, inner) in library {
        let from = module(inner);
        if READS_ALL.contains(&from) {
            continue;
        }
        let Some(own) = row(from) else {
            findings.insert(format!(
                "{}: no layer has the module `{from}`; give it one in tests/it/tidy/layers.rs",
                source.path
            ));
            continue;
        };
        for (line, name) in crate_paths(&source.scan.product) {
            let to = handed_on.get(&name).map_or(name.as_str(), String::as_str);
            // Macros and constants of the crate's root; modules and their items are found above.
            if to == from || !to.starts_with(|c: char| c.is_ascii_lowercase()) {
                continue;
            }
            let place = format!("{}:{line}", source.path);
            match row(to) {
                None => {
                    findings.insert(format!(
                        "{place}: no layer has `{to}`; give it one in tests/it/tidy/layers.rs"
                    ));
                }
                Some(other) if other < own => {}
                Some(other)
                    if other == own
                        && WITHIN_A_ROW.iter().any(|(a, b, _)| (*a, *b) == (from, to)) => {}
                Some(_) => {
                    findings.insert(format!(
                        "{place}: `{from}` uses `{to}`, which stands beside or above it; pass what it needs through \
                         the seam, or move the shared piece down (ARCHITECTURE.md, layers)"
                    ));
                }
            }
        }
    }
    findings.into_iter().collect()
}

/// The fenced block below the heading `## Layers`.
fn written_layers(architecture: &str) -> Option<&str> {
    let section = architecture.split_once("\n## Layers\n")?.1;
    let block = section.split_once("```text\n")?.1;
    Some(block.split_once("```")?.0)
}

#[test]
fn architecture_shows_these_layers() {
    let rows: String = LAYERS.iter().map(|row| row.join(", ") + "\n").collect();
    let text = tree::read("ARCHITECTURE.md");
    let same = written_layers(&text) == Some(rows.as_str());
    let finding = format!("ARCHITECTURE.md: the block under `## Layers` should read\n{rows}");
    report(&Vec::from_iter((!same).then_some(finding)));
}

#[test]
fn the_written_layers_are_read() {
    let page = "# A\n\n## Layers\n\nText.\n\n```text\na, b\nc\n```\n\n```text\nd\n```\n";
    assert_eq!(written_layers(page), Some("a, b\nc\n"));
    assert!(written_layers("# A\n").is_none());
}

#[test]
fn no_module_uses_one_above_it() {
    report(&breaches(&tree::sources()));
}

#[test]
fn a_breach_of_the_layers_is_found() {
    let lib = Source::new(
        "crates/tweedie/src/lib.rs",
        "pub use error::{Error, Result};\npub use guide::Stack;\n",
    );
    let sampler = |text| {
        breaches(&[
            Source::new(lib.path.as_str(), &lib.text),
            Source::new("crates/tweedie/src/sampler/x.rs", text),
        ])
    };
    for good in [
        "use crate::error::Result;",
        "use crate::{Error, level::Level, state::{State, View}};",
        "use crate::sampler::Sampler;",
        "#[cfg(test)] mod tests { use crate::oracle::Gaussian; }",
        "// use crate::guide::Cfg;",
        "my_crate::guide::f()",
    ] {
        assert!(sampler(good).is_empty(), "{good}: {:?}", sampler(good));
    }
    for bad in [
        "use crate::guide::Guide;",
        "use crate::{\n    error::Result,\n    guide::{Guide, Stack},\n};",
        "fn f() { crate::engine::open() }",
        "use crate::Stack;",
        "use crate::denoiser::Cond;",
        "use crate::novelty::New;",
    ] {
        assert_eq!(sampler(bad).len(), 1, "{bad}");
    }
    let macros = Source::new(
        "crates/tweedie/src/model/mod.rs",
        "#[macro_export]\nmacro_rules! layer { () => {} }",
    );
    let uses = |path| {
        breaches(&[Source::new(&macros.path, &macros.text), Source::new(path, "crate::layer!();")])
            .len()
    };
    assert_eq!(uses("crates/tweedie/src/hub/mod.rs"), 0, "a macro of a lower module");
    assert_eq!(uses("crates/tweedie/src/guide/mod.rs"), 1, "a macro of a higher module");
    let stray = breaches(&[Source::new("crates/tweedie/src/novelty.rs", "")]);
    assert_eq!(stray.len(), 1, "a module without a layer");
}

/// A chain of `super::` that is longer than the file is deep would leave the top module without being seen.
fn climbs(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for s in sources {
        let Some(inner) = s.in_library() else { continue };
        let deep = inner.trim_end_matches("/mod.rs").matches('/').count();
        for (n, line) in s.scan.product.lines().enumerate() {
            let Some(at) = line.find("super::") else { continue };
            let climbed = line[at..].split("super::").take_while(|piece| piece.is_empty()).count();
            // A `use` that is indented stands in a module inside the file.
            let code = line.trim_start();
            let within = if code.starts_with("use ") { (line.len() - code.len()) / 4 } else { 0 };
            if climbed > deep + within {
                findings.push(format!(
                    "{}:{}: `super` leaves the module; write the path from `crate::`",
                    s.path,
                    n + 1
                ));
            }
        }
    }
    findings
}

#[test]
fn paths_to_other_modules_start_at_the_crate() {
    report(&climbs(&tree::sources()));
}

#[test]
fn a_climbing_path_is_found() {
    let at = |path, text| climbs(&[Source::new(path, text)]).len();
    assert_eq!(at("crates/tweedie/src/sampler/ddim.rs", "use super::Sampler;"), 0);
    assert_eq!(at("crates/tweedie/src/sampler/ddim.rs", "use super::super::guide::Guide;"), 1);
    assert_eq!(at("crates/tweedie/src/sampler/mod.rs", "use super::guide::Guide;"), 1);
    assert_eq!(at("crates/tweedie/src/tap/cache/mod.rs", "use super::Tap;"), 0);
    assert_eq!(at("crates/tweedie/src/tap/cache/mod.rs", "use super::super::Tap;"), 1);
    assert_eq!(
        at("crates/tweedie/src/hub/json.rs", "mod a {\n    use super::super::folder;\n}"),
        0
    );
    assert_eq!(
        at("crates/tweedie/src/hub/json.rs", "mod a {\n    use super::super::super::guide;\n}"),
        1
    );
    assert_eq!(at("crates/tweedie/src/state.rs", "use super::guide;"), 1);
}
