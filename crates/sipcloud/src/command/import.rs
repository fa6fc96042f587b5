//! Files with one record per line, for `user import` and `registration import`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::Result;

use crate::exit::Exit;

/// Reads lines `NAME,VALUE`. Of two lines with one key the later one stands, as if they had been
/// carried out one after the other.
///
/// # Errors
///
/// A file that cannot be read, and the first line that cannot, by its number.
pub(crate) fn records<K: Ord, V>(
    file: &Path,
    mut read: impl FnMut(&str, &str) -> Result<(K, V)>,
) -> Result<BTreeMap<K, V>> {
    let is_stdin = file == Path::new("-");
    let text = if is_stdin { io::read_to_string(io::stdin()) } else { fs::read_to_string(file) };
    let text = text.map_err(|error| Exit::Usage.because(format!("{}: {error}", file.display())))?;
    let mut records = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let record = match line.split_once(',') {
            Some((name, value)) if !value.is_empty() => read(name.trim(), value),
            _ => Err(anyhow::anyhow!("a name, a comma and a value belong on it")),
        };
        let (key, value) = record.map_err(|error| {
            Exit::Usage.because(format!("{}:{}: {error:#}", file.display(), number + 1))
        })?;
        records.insert(key, value);
    }
    Ok(records)
}
