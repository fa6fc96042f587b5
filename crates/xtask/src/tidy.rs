//! Style as a test: what the house asks for and no compiler checks. Every complaint says the remedy.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use crate::house::{self, Crate};

/// Lines that a source file may have.
const FILE_LINES_MAX: usize = 600;
/// Lines that a function may have, signature and closing brace included.
const FUNCTION_LINES_MAX: usize = 70;
/// Files and functions that may be longer, each with its reason.
const LONGER_WITH_REASON: &[(&str, &str)] = &[];
/// Words that mean something else in this field, and the word to use.
const BANNED_WORDS: &[(&str, &str)] = &[
    ("autoscaler", "manager (Load Scaling Manager)"),
    ("orchestrator", "manager (Load Scaling Manager)"),
    ("backend", "destination or member"),
    ("backends", "destinations or members"),
    ("heartbeat", "poll"),
    ("cordoned", "draining"),
    ("qps", "queries per second"),
    ("rps", "calls per second (cps)"),
    ("fixme", "TODO with an issue's number, or nothing"),
];
/// Crates whose code may not read a clock, a socket, a file or a random source.
const PURE_FLOOR_MAX: u64 = 2;
/// What such crates must not depend on.
const IMPURE: &[&str] = &["tokio", "libc", "socket2", "getrandom", "rand", "reqwest", "axum"];

/// All complaints, or none.
pub(crate) fn run() -> Result<()> {
    let texts = house::texts()?;
    let crates = house::crates()?;
    let complaints = complaints(&texts, &crates);
    for complaint in &complaints {
        eprintln!("tidy: {complaint}");
    }
    match complaints.len() {
        0 => {
            println!(
                "tidy: {} files and {} crates are as the house asks",
                texts.len(),
                crates.len()
            );
            Ok(())
        }
        count => bail!("{count} complaints"),
    }
}

fn complaints(texts: &[(String, String)], crates: &[Crate]) -> Vec<String> {
    let mut found = Vec::new();
    check_floors(crates, &mut found);
    check_map(texts, crates, &mut found);
    check_citations(texts, &mut found);
    check_promises(texts, &mut found);
    check_rules(texts, &mut found);
    for (path, text) in texts.iter().filter(|(path, _)| path.ends_with(".rs")) {
        check_source(path, text, &mut found);
    }
    found
}

/// A crate uses only crates on lower floors; floors 0 to 2 know nothing of the world.
fn check_floors(crates: &[Crate], found: &mut Vec<String>) {
    let floors: BTreeMap<&str, u64> =
        crates.iter().filter_map(|it| Some((it.name.as_str(), it.floor?))).collect();
    for it in crates {
        let Some(floor) = it.floor else {
            found.push(format!("{}: Cargo.toml lacks [package.metadata.house] floor", it.name));
            continue;
        };
        for used in &it.uses {
            if floors.get(used.as_str()).is_none_or(|below| *below >= floor) {
                found.push(format!(
                    "{} is on floor {floor} and must not use {used}: move the shared words down a \
                     floor, or pass the value in (ARCHITECTURE.md)",
                    it.name
                ));
            }
        }
        for impure in it.dependencies.iter().filter(|name| IMPURE.contains(&name.as_str())) {
            if floor <= PURE_FLOOR_MAX {
                found.push(format!(
                    "{} is on floor {floor}, which owns no socket, clock or random source, and must \
                     not use {impure}",
                    it.name
                ));
            }
        }
    }
}

/// Every crate has its place on the map.
fn check_map(texts: &[(String, String)], crates: &[Crate], found: &mut Vec<String>) {
    let map = text_of(texts, "ARCHITECTURE.md");
    for it in crates {
        if !map.contains(&format!("`{}`", it.name)) {
            found.push(format!("ARCHITECTURE.md does not name the crate `{}`", it.name));
        }
    }
}

/// Every RFC that is cited anywhere is listed in docs/conformance.md.
fn check_citations(texts: &[(String, String)], found: &mut Vec<String>) {
    let listed: BTreeSet<&str> = citations(text_of(texts, "docs/conformance.md")).collect();
    for (path, text) in texts {
        if !(path.ends_with(".rs") || path.ends_with(".md")) {
            continue;
        }
        let cited: BTreeSet<&str> = citations(text).collect();
        for number in cited.difference(&listed) {
            found.push(format!(
                "{path} cites RFC {number}, which docs/conformance.md does not list"
            ));
        }
    }
}

/// The numbers that follow `RFC `.
fn citations(text: &str) -> impl Iterator<Item = &str> {
    text.split("RFC ").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..end).filter(|digits| (3..=4).contains(&digits.len()))
    })
}

/// Every promise of SPECIFICATION.md names what holds it, and that exists.
///
/// A promise is a table row that begins with a number; its last column holds names in backticks: a
/// function with `#[test]`, or a file.
fn check_promises(texts: &[(String, String)], found: &mut Vec<String>) {
    let is_known = |name: &str| {
        let signature = format!("fn {name}(");
        texts.iter().any(|(path, text)| {
            path == name || (path.ends_with(".rs") && text.contains(&signature))
        })
    };
    for line in text_of(texts, "SPECIFICATION.md").lines() {
        let mut cells = line.split('|').map(str::trim).filter(|cell| !cell.is_empty());
        let Some(number) = cells.next().filter(|cell| cell.parse::<f64>().is_ok()) else {
            continue;
        };
        let holders: Vec<&str> =
            cells.next_back().unwrap_or_default().split('`').skip(1).step_by(2).collect();
        if holders.is_empty() {
            found.push(format!("SPECIFICATION.md: promise {number} names no test or benchmark"));
        }
        for holder in holders.iter().filter(|holder| !is_known(holder)) {
            found.push(format!(
                "SPECIFICATION.md: promise {number} names `{holder}`, which is nowhere"
            ));
        }
    }
}

/// Every rule of docs/protocol.md names a test, and every test that the page names exists.
///
/// A rule begins with its number in bold, `**7.`; a test is a name in backticks with two underscores
/// or more, after its file if that is named too.
fn check_rules(texts: &[(String, String)], found: &mut Vec<String>) {
    let page = text_of(texts, "docs/protocol.md");
    for (place, rule) in page.split("\n**").enumerate() {
        let number = rule.split('.').next().filter(|it| place > 0 && it.parse::<u32>().is_ok());
        let spans = rule.split('`').skip(1).step_by(2);
        let tests = spans.filter_map(test_name).collect::<Vec<_>>();
        if let (Some(number), true) = (number, tests.is_empty()) {
            found.push(format!("docs/protocol.md: rule {number} names no test"));
        }
        for test in tests.iter().filter(|test| !is_test(texts, test)) {
            found.push(format!("docs/protocol.md names the test `{test}`, which is nowhere"));
        }
    }
}

/// The name of a test in `file: name`, or `name` alone. Metrics look like one.
fn test_name(span: &str) -> Option<&str> {
    let name = span.rsplit(':').next()?.trim();
    let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    (is_name && name.matches('_').count() >= 2 && !name.starts_with("sipcloud_")).then_some(name)
}

fn is_test(texts: &[(String, String)], name: &str) -> bool {
    let signature = format!("fn {name}(");
    texts.iter().filter(|(path, _)| path.ends_with(".rs")).any(|(_, text)| {
        text.split_once(&signature).is_some_and(|(before, _)| {
            let above = before.trim_end_matches("async ").trim_end().lines().rev().map(str::trim);
            above.take_while(|line| line.starts_with("#[")).any(|line| line.contains("test"))
        })
    })
}

fn check_source(path: &str, text: &str, found: &mut Vec<String>) {
    let lines: Vec<&str> = text.lines().collect();
    let excused = |what: &str| LONGER_WITH_REASON.iter().any(|(name, _)| *name == what);
    if lines.len() > FILE_LINES_MAX && !excused(path) {
        found.push(format!("{path} has {} lines; cut it in rooms ({FILE_LINES_MAX})", lines.len()));
    }
    if !lines.first().is_some_and(|line| line.starts_with("//!")) {
        found.push(format!("{path} does not begin with a `//!` line that says what it owns"));
    }
    if path.ends_with("/src/lib.rs") && path.starts_with("crates/") {
        for heading in ["# Where it sits", "# Invariants", "# Reading order"] {
            if !text.contains(&format!("//! {heading}")) {
                found.push(format!("{path} lacks the heading `{heading}`"));
            }
        }
    }
    for (name, first, length) in functions(&lines) {
        if length > FUNCTION_LINES_MAX && !excused(&format!("{path}:{name}")) {
            found.push(format!(
                "{path}:{first}: fn {name} has {length} lines ({FUNCTION_LINES_MAX})"
            ));
        }
    }
    check_trait_methods(path, &lines, found);
    if path != "crates/xtask/src/tidy.rs" {
        check_words(path, &lines, found);
    }
}

fn check_words(path: &str, lines: &[&str], found: &mut Vec<String>) {
    for (number, line) in lines.iter().enumerate() {
        let lower = line.to_ascii_lowercase();
        let words: BTreeSet<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        for (word, instead) in BANNED_WORDS.iter().filter(|(word, _)| words.contains(word)) {
            found.push(format!("{path}:{}: say {instead}, not {word}", number + 1));
        }
    }
}

/// Every method of a trait has a doc comment: it is what a driver owes.
fn check_trait_methods(path: &str, lines: &[&str], found: &mut Vec<String>) {
    let mut inside = false;
    for (number, line) in lines.iter().enumerate() {
        if line.starts_with("pub trait ") || line.starts_with("pub(crate) trait ") {
            inside = true;
        } else if *line == "}" {
            inside = false;
        }
        let is_method = line.starts_with("    fn ") || line.starts_with("    async fn ");
        if inside && is_method {
            let documented = lines[..number]
                .iter()
                .rev()
                .find(|above| !above.trim_start().starts_with("#["))
                .is_some_and(|above| above.trim_start().starts_with("///"));
            if !documented {
                found.push(format!("{path}:{}: a trait's method has no doc comment", number + 1));
            }
        }
    }
}

/// Name, first line and length of every function, found by the layout that rustfmt gives.
fn functions<'a>(lines: &[&'a str]) -> Vec<(&'a str, usize, usize)> {
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        let body = lines[number..].iter().position(|it| *it == closing || it.ends_with(';'));
        let end = lines[number..].iter().position(|it| *it == closing);
        if let (Some(body), Some(end)) = (body, end) {
            // A signature that ends in `;` before any brace opened has no body.
            let opens = lines[number..=number + body].iter().any(|it| it.contains('{'));
            if opens {
                found.push((name, number + 1, end + 1));
            }
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let trimmed = line.trim_start();
    let after =
        ["pub ", "pub(crate) ", "pub(super) ", "const ", "async ", "unsafe ", "extern \"C\" "]
            .iter()
            .fold(trimmed, |rest, prefix| rest.strip_prefix(prefix).unwrap_or(rest));
    let rest = after.strip_prefix("fn ")?;
    rest.split(['(', '<']).next()
}

fn text_of<'a>(texts: &'a [(String, String)], path: &str) -> &'a str {
    texts.iter().find(|(name, _)| name == path).map_or("", |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules hold for this very repository.
    #[test]
    fn the_house_is_tidy() {
        let texts = house::texts().expect("the repository is readable");
        let crates = house::crates().expect("cargo lists the crates");
        let found = complaints(&texts, &crates);
        assert!(found.is_empty(), "{}", found.join("\n"));
    }

    /// Each rule complains when it should: a checker that cannot fail checks nothing.
    #[test]
    fn every_rule_can_fail() {
        let long = format!("//! Long.\nfn f() {{\n{}}}\n", "    g();\n".repeat(80));
        // Put together here, so that this file itself cites nothing that is not listed.
        let unlisted = ["RFC", "9999"].join(" ");
        let texts = [
            ("crates/a/src/lib.rs".to_owned(), format!("//! A backend. {unlisted} §1\n")),
            ("crates/a/src/long.rs".to_owned(), long),
            ("crates/a/src/bare.rs".to_owned(), "pub trait T {\n    fn f();\n}\n".to_owned()),
            (
                "SPECIFICATION.md".to_owned(),
                "| 1 | a promise | `nowhere` |\n| 2 | x | y |".to_owned(),
            ),
            (
                "docs/protocol.md".to_owned(),
                "Rules.\n**1. One.** *`a: no_such_test`*\n\n**2. Two.** `a_key`\n".to_owned(),
            ),
        ];
        let of = |name: &str, floor, uses: &[&str]| Crate {
            name: name.to_owned(),
            floor: Some(floor),
            uses: uses.iter().map(|&it| it.to_owned()).collect(),
            dependencies: vec!["tokio".to_owned()],
        };
        let found = complaints(&texts, &[of("low", 1, &["high"]), of("high", 4, &[])]).join("\n");

        for expected in [
            "low is on floor 1 and must not use high",
            "must not use tokio",
            "ARCHITECTURE.md does not name the crate `low`",
            &format!("cites {unlisted}"),
            "say destination or member, not backend",
            "lacks the heading",
            "fn f has 82 lines",
            "does not begin with",
            "a trait's method has no doc comment",
            "names `nowhere`, which is nowhere",
            "promise 2 names no test",
            "names the test `no_such_test`, which is nowhere",
            "rule 2 names no test",
        ] {
            assert!(found.contains(expected), "missing: {expected}\nfound:\n{found}");
        }
    }
}
