//! Exit codes.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed; also: the job or run that was waited for did |
//! | 2 | the command line or the configuration is wrong |
//! | 3 | there is no such job, run, agent or template |
//! | 4 | the server refused the request |
//! | 5 | the server or the bus cannot be reached |
//! | 130 | interrupted twice |

use std::process::ExitCode;

use quintet_service::telemetry::chain;

/// The same table for `--help`.
pub const HELP: &str = "Exit codes: 0 done, 1 failed (also: the job or run that was waited for failed), 2 wrong command line or \
configuration, 3 no such thing, 4 refused by the server, 5 server or bus not reachable, 130 interrupted twice.";

pub(crate) const FAILED: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const NOT_FOUND: u8 = 3;
pub(crate) const REFUSED: u8 = 4;
pub(crate) const UNREACHABLE: u8 = 5;

/// How a command ended.
pub(crate) type Outcome = anyhow::Result<()>;

/// A failure whose code is known.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// The exit code.
    pub(crate) const fn code(&self) -> u8 {
        self.code
    }
}

/// Prints the failure to standard error, and returns the exit code.
pub(crate) fn code(outcome: Outcome) -> ExitCode {
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    let code = if let Some(failure) = error.downcast_ref::<Failure>() {
        failure.code
    } else if error
        .downcast_ref::<quintet_service::settings::Error>()
        .is_some()
    {
        USAGE
    } else if error.downcast_ref::<quintet_bus::ConnectError>().is_some() {
        UNREACHABLE
    } else {
        FAILED
    };
    eprintln!("quintet: {}", chain(error.as_ref()));
    ExitCode::from(code)
}
