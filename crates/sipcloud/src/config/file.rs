//! The file: where a key stands, which keys there are, and faults with line and remedy.

use std::fmt;
use std::path::Path;

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::Config;
use crate::exit::Exit;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Counted from 1; `None` if the key is not in the file.
    pub line: Option<usize>,
    /// As in `proxies.instances_max`; empty if the text is no TOML.
    pub key: String,
    /// What to do about it.
    pub remedy: String,
}

impl Fault {
    pub(super) fn of(key: &str, remedy: String) -> Self {
        Self { line: None, key: key.to_owned(), remedy }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.remedy)
    }
}

/// All faults of a file as one error, one line each.
pub(super) fn report(path: &Path, faults: &[Fault]) -> anyhow::Error {
    let show = |fault: &Fault| match fault.line {
        Some(line) => {
            let unplaced = Fault { line: None, ..fault.clone() };
            format!("{}:{line}: {unplaced}", path.display())
        }
        None => format!("{}: {fault}", path.display()),
    };
    let lines: Vec<String> = faults.iter().map(show).collect();
    Exit::Configuration.because(lines.join("\n"))
}

/// The configuration of a text, its values unchecked.
pub(super) fn parse(text: &str) -> Result<Config, Vec<Fault>> {
    let place = |error: &toml::de::Error| error.span().map(|span| line_of(text, span.start));
    let table = DeTable::parse(text).map_err(|error| {
        let remedy = format!("this is no TOML: {}", error.message());
        vec![Fault { line: place(&error), key: String::new(), remedy }]
    })?;
    let known = Value::try_from(Config::default())
        .map_err(|error| vec![Fault::of("", format!("the defaults cannot be written: {error}"))])?;
    let mut faults = Vec::new();
    find_unknown(text, table.get_ref(), &known, "", &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    let config: Result<Config, _> = toml::from_str(text);
    let config = config.map(|config| with_room_for_one(config, table.get_ref()));
    config.map_err(|error| {
        let line = place(&error);
        let key = line.and_then(|line| key_on(text, table.get_ref(), line)).unwrap_or_default();
        vec![Fault { line, key, remedy: error.message().to_owned() }]
    })
}

/// One address has room for one balancer: so many is then the default.
fn with_room_for_one(mut config: Config, table: &DeTable<'_>) -> Config {
    let is_said = table.iter().any(|(name, value)| match value.get_ref() {
        DeValue::Table(keys) => {
            name.get_ref() == "balancers"
                && keys.iter().any(|(key, _)| key.get_ref() == "instances_max")
        }
        _ => false,
    });
    if !config.local.listen.is_empty() && !is_said {
        config.balancers.instances_max = 1;
    }
    config
}

/// Gives every fault the line on which its key stands.
pub(super) fn locate(text: &str, faults: Vec<Fault>) -> Vec<Fault> {
    let Ok(table) = DeTable::parse(text) else {
        return faults;
    };
    let line = |key: &str| {
        let mut table = table.get_ref();
        let mut place = None;
        for part in key.split('.') {
            let (name, value) = table.iter().find(|(name, _)| name.get_ref() == part)?;
            place = Some(line_of(text, name.span().start));
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                _ => break,
            }
        }
        place
    };
    faults.into_iter().map(|fault| Fault { line: line(&fault.key), ..fault }).collect()
}

/// Keys of the file that the defaults do not have.
fn find_unknown(
    text: &str,
    table: &DeTable<'_>,
    known: &Value,
    parent: &str,
    faults: &mut Vec<Fault>,
) {
    for (name, value) in table {
        let name_text: &str = name.get_ref();
        let key = join(parent, name_text);
        match (known.get(name_text), value.get_ref()) {
            (Some(known), DeValue::Table(inner)) if known.is_table() => {
                find_unknown(text, inner, known, &key, faults);
            }
            (Some(_), _) => {}
            (None, _) => {
                let line = Some(line_of(text, name.span().start));
                let remedy = unknown_remedy(name_text, known, parent);
                faults.push(Fault { line, key, remedy });
            }
        }
    }
}

fn unknown_remedy(name: &str, known: &Value, parent: &str) -> String {
    let names: Vec<&str> =
        known.as_table().into_iter().flat_map(|table| table.keys().map(String::as_str)).collect();
    let nearest = names.iter().map(|known| (distance(name, known), *known)).min();
    match nearest {
        Some((distance, nearest)) if distance <= 1 + name.len() / 3 => {
            format!("there is no such key; did you mean {}?", join(parent, nearest))
        }
        _ if parent.is_empty() => {
            format!("there is no such section; there are {}", names.join(", "))
        }
        _ => format!("there is no such key; [{parent}] has {}", names.join(", ")),
    }
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

/// The key whose value stands on a line.
fn key_on(text: &str, table: &DeTable<'_>, line: usize) -> Option<String> {
    table.iter().find_map(|(name, value)| match value.get_ref() {
        DeValue::Table(inner) => key_on(text, inner, line).map(|key| join(name.get_ref(), &key)),
        _ => {
            let first = line_of(text, name.span().start);
            let last = line_of(text, value.span().end.saturating_sub(1));
            (first..=last).contains(&line).then(|| name.get_ref().to_string())
        }
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// How many letters must change (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
