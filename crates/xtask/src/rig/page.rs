//! Where a measurement stands in the documentation: between two marks that carry its command.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Replaces what stands between the marks of `command`.
pub(crate) fn write(path: &Path, command: &str, text: &str) -> Result<()> {
    let page = fs::read_to_string(path)?;
    let page = with(&page, command, text).with_context(|| path.display().to_string())?;
    fs::write(path, page)?;
    Ok(())
}

fn with(page: &str, command: &str, text: &str) -> Result<String> {
    let mark = |side: &str| format!("<!-- cargo xtask {command} --write: {side} -->");
    let (begin, end) = (mark("begin"), mark("end"));
    let (before, rest) = page.split_once(&begin).context("there is no begin mark")?;
    let (_, after) = rest.split_once(&end).context("there is no end mark")?;
    Ok(format!("{before}{begin}\n{}\n{end}{after}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let page = "a\n<!-- cargo xtask it --write: begin -->\nold\n\
                    <!-- cargo xtask it --write: end -->\nz\n";
        let written = with(page, "it", "new\n\n").expect("it has marks");
        assert_eq!(written, page.replace("old", "new"));
        assert!(with(page, "other", "new").is_err());
    }
}
