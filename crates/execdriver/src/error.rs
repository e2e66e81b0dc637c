//! What can go wrong, in words that name container, field and reason.

use std::io;
use std::path::PathBuf;

use lxcrun::ContainerId;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong. `Display` says what was done and [`source`](std::error::Error::source) why it failed;
/// [`report`](Self::report) is both.
///
/// A daemon that wants `docker run`'s exit codes takes [`Error::exit_code`], and 125 for what has none:
///
/// ```no_run
/// # use execdriver::{Command, Driver, LxcDriver, Pipes};
/// # fn run(driver: &LxcDriver, command: &Command) -> u8 {
/// match driver.run(command, Pipes::inherit(), &mut |_| ()) {
///     Ok(status) => status.exit_code,
///     Err(error) => error.exit_code().unwrap_or(125),
/// }
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This host lacks what every container needs.
    #[error("no containers can run here: {what}: {reason}")]
    Missing {
        /// What is missing: `liblxc`, `pid namespaces`, `cgroups`, `file descriptors` and so on.
        what: String,
        /// How that shows.
        reason: String,
    },
    /// The driver's directory can't be used.
    #[error("driver root {}: {reason}", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A command or a process asks for something that is wrong.
    #[error("container {id}: {field}: {reason}")]
    Field {
        /// The container, as it was named.
        id: String,
        /// The field of [`Command`](crate::Command), for instance `cap_add`.
        field: String,
        /// Why.
        reason: String,
    },
    /// The container's pipes or its terminal.
    #[error("container {id}: {what}")]
    Pipes {
        /// The container.
        id: ContainerId,
        /// What was done.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The library that carries commands out.
    #[error(transparent)]
    Lxcrun(#[from] lxcrun::Error),
}

impl Error {
    /// The error and its causes in one line, for people.
    ///
    /// ```
    /// let error = execdriver::Command::builder("a/b", "/srv/web").build().unwrap_err();
    /// assert!(error.report().starts_with("container id \"a/b\" has other characters"));
    /// ```
    #[must_use]
    pub fn report(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        causes.fold(self.to_string(), |text, cause| format!("{text}: {cause}"))
    }

    /// The exit code that says why there is no exit code of a program: 127 when it isn't there, 126 when it can't be
    /// executed.
    #[must_use]
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Self::Lxcrun(error) => error.exit_code(),
            _ => None,
        }
    }

    /// The id of the container that it is about, for instance of one in [`Driver::list`](crate::Driver::list) that can't be
    /// looked at.
    #[must_use]
    pub fn container(&self) -> Option<&str> {
        match self {
            Self::Missing { .. } | Self::Root { .. } => None,
            Self::Field { id, .. } => Some(id),
            Self::Pipes { id, .. } => Some(id.as_str()),
            Self::Lxcrun(error) => error.container(),
        }
    }

    /// Whether there is no such container.
    ///
    /// ```no_run
    /// # use execdriver::{Driver, LxcDriver};
    /// # let driver = LxcDriver::new()?;
    /// let gone = driver.info(&"web".parse()?).is_err_and(|error| error.is_not_found());
    /// # Ok::<(), execdriver::Error>(())
    /// ```
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Lxcrun(lxcrun::Error::NotFound { .. }))
    }
}

/// A refusal of one field.
pub(crate) fn refuse(id: &ContainerId, field: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::Field { id: id.to_string(), field: field.into(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_all_causes() {
        let id: ContainerId = "web".parse().expect("an id");
        let source = io::Error::from_raw_os_error(24);
        let pipes = Error::Pipes { id: id.clone(), what: "cannot open its pipes", source };
        assert_eq!(pipes.report(), "container web: cannot open its pipes: Too many open files (os error 24)");
        let source = io::Error::from_raw_os_error(2);
        let error: Error = lxcrun::Error::Io { id, what: "cannot read x".into(), source }.into();
        assert_eq!(error.report(), "container web: cannot read x: No such file or directory (os error 2)");
    }
}
