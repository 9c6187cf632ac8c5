//! What the library does in one place only: the loop, devices, files, the clock (ARCHITECTURE.md, invariants).

use super::report;
use super::tree::{self, Source};

/// Code that belongs to certain places.
struct Rule {
    /// Pieces of code that give it away.
    code: &'static [&'static str],
    /// Files and folders of the library where it is at home.
    home: &'static [&'static str],
    /// What to do instead.
    mend: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        code: &["Step {"],
        home: &["run.rs", "parallel/", "sampler/"],
        mend: "there is one sampling loop, `run::Run`; hold, advance or fork it (invariant 2)",
    },
    Rule {
        code: &[
            "Device::flex(",
            "Device::default(",
            "Device::cuda(",
            "Device::vulkan(",
            "Device::wgpu(",
            "Device::metal(",
            "Device::rocm(",
        ],
        home: &["engine.rs", "engine/"],
        mend: "a method never picks a device; take that of a tensor you were given (invariant 5)",
    },
    Rule {
        code: &["std::fs", "std::net", "std::process", "File::open(", "File::create("],
        home: &["data/", "engine.rs", "engine/", "hub/", "train/"],
        mend: "files are read and written in hub, data, train and engine; take what was read (invariant 6)",
    },
    Rule {
        code: &["std::env"],
        home: &["data/", "engine.rs", "engine/", "hub/"],
        mend: "a result must not depend on the environment; take a parameter (invariant 6)",
    },
    Rule {
        code: &["Instant::now(", "SystemTime::now("],
        home: &["engine.rs", "engine/", "train/"],
        mend: "a result must not depend on timing; time the run from outside, by an observer",
    },
    Rule {
        code: &["build_global("],
        home: &[],
        mend: "the engine owns the thread pool; library code runs inside it and builds no global one",
    },
];

fn misplaced(sources: &[Source], rules: &[Rule]) -> Vec<String> {
    let mut findings = Vec::new();
    for s in sources {
        let Some(inner) = s.in_library() else { continue };
        for rule in rules.iter().filter(|r| !r.home.iter().any(|h| inner.starts_with(h))) {
            for (n, line) in s.scan.product.lines().enumerate() {
                let hit = rule.code.iter().find(|c| begins_in(line, c));
                // A type that is defined or implemented is not made.
                let defines = line
                    .split_whitespace()
                    .take(3)
                    .any(|w| ["struct", "enum", "impl"].contains(&w) || w.starts_with("impl<"));
                if let Some(code) = hit
                    && !defines
                {
                    findings.push(format!("{}:{}: `{code}`: {}", s.path, n + 1, rule.mend));
                }
            }
        }
    }
    findings
}

/// Whether `code` stands in `line` as a word of its own, not as the end of a longer name.
fn begins_in(line: &str, code: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(code).any(|(i, _)| !part(line[..i].chars().next_back()))
}

#[test]
fn everything_happens_in_its_place() {
    report(&misplaced(&tree::sources(), RULES));
}

#[test]
fn what_is_out_of_place_is_found() {
    let count = |inner: &str, text: &str| {
        misplaced(&[Source::new(&format!("crates/tweedie/src/{inner}"), text)], RULES).len()
    };
    for rule in RULES {
        for code in rule.code {
            let text = format!("fn f() {{ let x = {code} }}\n");
            assert_eq!(count("guide/x.rs", &text), 1, "{code}");
            for home in rule.home {
                let inner =
                    if home.ends_with('/') { format!("{home}x.rs") } else { (*home).to_owned() };
                assert_eq!(count(&inner, &text), 0, "{code} in {inner}");
            }
        }
    }
    assert_eq!(
        count("guide/x.rs", "pub struct Step {}\nimpl Step {}\nlet y = TrainStep { a };\n"),
        0
    );
    assert_eq!(count("guide/x.rs", "// std::fs\n#[cfg(test)]\nmod tests { use std::fs; }\n"), 0);
}
