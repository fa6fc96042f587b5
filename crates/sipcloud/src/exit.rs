//! Exit codes, and the errors that lead to them.

use std::fmt;
use std::process::ExitCode;

/// Why the command failed, as a script sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command did its work and found failures (calls that failed, a check that did not hold).
    Failed = 1,
    /// Wrong flags or arguments; clap uses the same.
    Usage = 2,
    /// Something that is needed does not answer.
    Unavailable = 69,
    /// A fault of ours.
    Software = 70,
    /// The configuration is wrong.
    Configuration = 78,
}

/// An error with the exit code that it means.
#[derive(Debug)]
pub(crate) struct Coded {
    exit: Exit,
    message: String,
}

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Coded {}

impl Exit {
    /// An error that ends the command with this code.
    pub(crate) fn because(self, message: impl fmt::Display) -> anyhow::Error {
        anyhow::Error::new(Coded { exit: self, message: message.to_string() })
    }

    /// The code of an error: the one that it was given anywhere on its way, or a fault of ours.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        error.downcast_ref::<Coded>().map_or(Self::Software, |coded| coded.exit)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_code_survives_added_context() {
        let error = Exit::Configuration.because("line 3: no such key");
        let error = Err::<(), _>(error).context("cannot start").expect_err("an error");
        assert_eq!(Exit::of(&error), Exit::Configuration);
        assert_eq!(Exit::of(&anyhow::anyhow!("a surprise")), Exit::Software);
    }
}
