//! How a step fails: with words, because the runtime knows nothing of what the init sees.

use std::fmt::Display;

use protocol::init::{Failure, FailureKind};
pub use protocol::words;

pub type Result<T> = std::result::Result<T, Failure>;

/// A failure of `what`, for the reason that `error` gives.
pub fn fail(what: impl Display, error: impl Display) -> Failure {
    Failure { kind: FailureKind::Other, message: format!("{what}: {}", words(&error.to_string())) }
}

/// A failure that needs no reason from below.
pub fn refuse(message: impl Into<String>) -> Failure {
    Failure { kind: FailureKind::Other, message: message.into() }
}
