//! Exit codes: what a script may rely on.
//!
//! A command answers with an [`Exit`]; an error that carries one (see [`Failure`]) keeps it on its way up through
//! `anyhow`, any other error means [`Exit::Failed`].

use std::{fmt, process::ExitCode};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// Everything was done and adds up.
    Good = 0,
    /// Something failed, or does not add up.
    Failed = 1,
    /// The command line, the configuration or the input file cannot be used. Nothing was sent.
    Unusable = 2,
    /// The mesh, or a part of it that the command needs, did not answer.
    Unreachable = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that ends the program with a code of its own.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The input cannot be used: ends with code 2.
pub(crate) fn unusable(message: impl fmt::Display) -> anyhow::Error {
    Failure { exit: Exit::Unusable, message: message.to_string() }.into()
}

/// The mesh does not answer: ends with code 3.
pub(crate) fn unreachable(message: impl fmt::Display) -> anyhow::Error {
    Failure { exit: Exit::Unreachable, message: message.to_string() }.into()
}

/// The code that an error ends the program with.
pub(crate) fn code_of(error: &anyhow::Error) -> Exit {
    error.chain().find_map(|cause| cause.downcast_ref::<Failure>()).map_or(Exit::Failed, |failure| failure.exit)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_code_survives_the_context_put_around_it() {
        let error = Err::<(), _>(unreachable("no answer")).context("while verifying").expect_err("it is an error");
        assert_eq!(code_of(&error), Exit::Unreachable);
        assert_eq!(code_of(&anyhow::anyhow!("other")), Exit::Failed);
    }
}
