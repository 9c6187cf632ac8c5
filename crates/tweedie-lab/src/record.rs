//! Records of checks: what was measured, and hashes of what it was measured with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tweedie::catalog::Card;

use crate::check::{Arm, Bar, Check, card};

/// What a record says of its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// The method meets its bar, the ablation does not, and the gap is clear.
    Checked,
    /// One of these fails; the figures show which.
    Short,
}

/// One arm on all seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Which arm.
    pub(crate) arm: Arm,
    /// A value a seed.
    pub(crate) values: Vec<f64>,
}

/// The record of a check, as it stands in `crates/tweedie-lab/results/ID.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The card's id.
    pub(crate) id: String,
    /// What came out.
    pub(crate) verdict: Verdict,
    /// Why it is short; empty otherwise.
    pub(crate) why: Vec<String>,
    /// The claim.
    pub(crate) claim: String,
    /// The world.
    pub(crate) world: String,
    /// What is measured.
    pub(crate) measure: String,
    /// What the baseline and the ablation are.
    pub(crate) arms: [String; 2],
    /// The bar.
    pub(crate) bar: Bar,
    /// The seeds.
    pub(crate) seeds: Vec<u64>,
    /// The figures.
    pub(crate) measured: Vec<Measured>,
    /// The gap between method and ablation, seed by seed at its smallest.
    pub(crate) gap: f64,
    /// The largest spread of an arm between seeds.
    pub(crate) spread: f64,
    /// What computed it.
    pub(crate) device: String,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Hashes of the code's tokens, comments aside: the method, its parts, the check.
    pub(crate) hashes: BTreeMap<String, String>,
}

/// Judges what was measured.
pub(crate) fn judge(check: &Check, measured: &[(Arm, Vec<f64>)], seconds: f64) -> Result<Record> {
    let of = |arm: Arm| measured.iter().find(|(a, _)| *a == arm).map_or(&[][..], |(_, v)| v);
    let (method, ablation) = (of(Arm::Method), of(Arm::Ablation));
    let gap = method.iter().zip(ablation).map(|(m, a)| (m - a).abs()).fold(f64::INFINITY, f64::min);
    let spread = [method, ablation].iter().map(|v| spread_of(v)).fold(0.0, f64::max);
    let mut why = Vec::new();
    if check.seeds.len() < 3 {
        why.push(format!("{} seeds, wanted three", check.seeds.len()));
    }
    if let Some(bad) = method.iter().find(|v| !check.bar.met(**v)) {
        why.push(format!("the method measures {bad}, wanted {}", check.bar));
    }
    if let Some(bad) = ablation.iter().find(|v| check.bar.met(**v)) {
        why.push(format!("the ablation measures {bad} and meets the bar, {}", check.bar));
    }
    if gap.is_nan() || gap <= 2.0 * spread {
        why.push(format!("the gap {gap} is not above twice the spread {spread}"));
    }
    Ok(Record {
        id: check.id.to_owned(),
        verdict: if why.is_empty() { Verdict::Checked } else { Verdict::Short },
        why,
        claim: check.claim.to_owned(),
        world: check.world.to_owned(),
        measure: check.measure.to_owned(),
        arms: check.arms.map(str::to_owned),
        bar: check.bar,
        seeds: check.seeds.to_vec(),
        measured: measured
            .iter()
            .map(|(arm, v)| Measured { arm: *arm, values: v.clone() })
            .collect(),
        gap,
        spread,
        device: tweedie::engine::instruction_set().to_owned(),
        seconds,
        hashes: hashes(check)?,
    })
}

fn spread_of(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    if values.is_empty() { f64::INFINITY } else { most - least }
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where the record of a check stands.
pub(crate) fn place(id: &str) -> PathBuf {
    root().join("crates/tweedie-lab/results").join(format!("{id}.json"))
}

/// The hashes of everything that a check depends on, as they are now.
pub(crate) fn hashes(check: &Check) -> Result<BTreeMap<String, String>> {
    let mut files = vec![check.file.to_owned(), "crates/tweedie-lab/src/check/world.rs".to_owned()];
    collect(card(check)?, &mut files);
    let mut hashes = BTreeMap::new();
    while let Some(file) = files.pop() {
        let file = file.replace('\\', "/");
        let path = root().join(&file);
        let code = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let code = tokens(&code);
        hashes.insert(file.clone(), hash(&code));
        if file.contains("/check/") {
            files.extend(worlds(&file, &code).filter(|world| !hashes.contains_key(world)));
            for model in models(&code) {
                let place = match model.starts_with("builtin:") {
                    true => model.to_owned(),
                    false => root().join(model).display().to_string(),
                };
                let weights = tweedie::hub::Folder::resolve(&place)?.sha256()?;
                hashes.insert(model.to_owned(), weights);
            }
        }
    }
    Ok(hashes)
}

/// The files beside a check's that its code names: the worlds that checks share.
fn worlds<'a>(file: &'a str, code: &'a str) -> impl Iterator<Item = String> + 'a {
    let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
    let uses = code.split(';').filter_map(|line| line.trim().strip_prefix("use super::"));
    let words = uses.flat_map(|names| names.split(|c: char| !c.is_alphanumeric() && c != '_'));
    let files = words.map(move |word| format!("{folder}/{word}.rs"));
    files.filter(|file| !file.ends_with("/mod.rs") && root().join(file).is_file())
}

/// The models that code names: built-in ones, and those of the bench.
fn models(code: &str) -> impl Iterator<Item = &str> {
    let names = |text: &&str| text.starts_with("builtin:") || text.starts_with("models/bench/");
    code.split('"').filter(names).filter(|text| !text.contains([' ', ',']))
}

fn collect(card: &Card, files: &mut Vec<String>) {
    files.push(card.file.to_owned());
    card.parts.iter().for_each(|part| collect(part, files));
}

fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

/// Writes a record, whole or not at all.
pub(crate) fn write(record: &Record) -> Result<()> {
    let path = place(&record.id);
    let folder = path.parent().context("a record has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let text = serde_json::to_string_pretty(record)? + "\n";
    tweedie::hub::atomic::write_file(&path, |out| out.write_all(text.as_bytes()))?;
    Ok(())
}

/// The code without comments and with every run of white space as one blank, so that a hash changes
/// when the code does and not when its prose does.
pub(crate) fn tokens(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '/' if rest.peek() == Some(&'/') => {
                while rest.peek().is_some_and(|c| *c != '\n') {
                    rest.next();
                }
            }
            '/' if rest.peek() == Some(&'*') => skip_block(&mut rest),
            '"' => {
                out.push('"');
                string(&mut rest, &mut out);
            }
            '\'' => {
                // A character, or a lifetime: the character after the quote is taken as it is.
                out.push('\'');
                if let Some(c) = rest.next() {
                    out.push(c);
                    if c == '\\' {
                        out.extend(rest.next());
                    }
                }
            }
            c if c.is_whitespace() => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            c => out.push(c),
        }
    }
    out.trim().to_owned()
}

fn skip_block(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    rest.next();
    let mut depth = 1;
    while depth > 0 {
        match (rest.next(), rest.peek()) {
            (Some('*'), Some('/')) => {
                rest.next();
                depth -= 1;
            }
            (Some('/'), Some('*')) => {
                rest.next();
                depth += 1;
            }
            (None, _) => return,
            _ => {}
        }
    }
}

fn string(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    while let Some(c) = rest.next() {
        out.push(c);
        match c {
            '\\' => out.extend(rest.next()),
            '"' => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::CHECKS;

    #[test]
    fn comments_do_not_count_and_code_does() {
        let a = "/// Doc.\nfn f() { /* a /* b */ c */ g(\"// no comment\", '\"') } // end\n";
        let b = "fn f()   {\n  g(\"// no comment\", '\"') }";
        assert_eq!(tokens(a), tokens(b));
        assert_ne!(tokens(a), tokens(&b.replace("no comment", "comment")));
        assert_eq!(tokens("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
    }

    /// A record in the repository is of the code in the repository, and says what it measured.
    #[test]
    fn records_are_current() {
        for check in CHECKS {
            let path = place(check.id);
            let text = std::fs::read_to_string(&path).unwrap_or_else(|e| {
                panic!("{}: {e}: run the check `{}`", path.display(), check.id)
            });
            let record: Record = serde_json::from_str(&text).unwrap();
            let now = hashes(check).unwrap();
            assert_eq!(record.hashes, now, "{} is stale: run the check again", check.id);
            assert_eq!(record.bar, check.bar);
            let measured: Vec<(Arm, Vec<f64>)> =
                record.measured.iter().map(|m| (m.arm, m.values.clone())).collect();
            let again = judge(check, &measured, record.seconds).unwrap();
            assert_eq!((again.verdict, again.why), (record.verdict, record.why), "{}", check.id);
        }
    }

    #[test]
    fn a_check_that_proves_nothing_is_short() {
        let check = CHECKS.iter().find(|c| matches!(c.bar, Bar::AtMost(_))).unwrap();
        let Bar::AtMost(bar) = check.bar else { unreachable!("it was looked for") };
        let with = |method: f64, ablation: f64| {
            let arms = [
                (Arm::Baseline, vec![1.0; 3]),
                (Arm::Method, vec![method; 3]),
                (Arm::Ablation, vec![ablation; 3]),
            ];
            judge(check, &arms, 0.0).unwrap().verdict
        };
        assert_eq!(with(0.5 * bar, 2.0 * bar), Verdict::Checked);
        assert_eq!(with(1.5 * bar, 2.0 * bar), Verdict::Short);
        assert_eq!(with(0.5 * bar, 0.6 * bar), Verdict::Short);
    }
}
