//! What can go wrong, in words that name container, field and reason.

use std::io;
use std::path::PathBuf;

use protocol::init::{Failure, FailureKind};

use crate::{ContainerId, Status};

/// A result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong. `Display` holds the facts, [`std::error::Error::source`] what is below.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The id is none.
    #[error("container id {id:?} {reason}")]
    Id {
        /// The text given.
        id: String,
        /// Why it is none.
        reason: &'static str,
    },
    /// No such container. As with the next ones, engines look for runc's words.
    #[error("container {id}: container does not exist in {}", root.display())]
    NotFound {
        /// The container.
        id: ContainerId,
        /// The state root that was searched.
        root: PathBuf,
    },
    /// The id is taken.
    #[error("container {id}: already exists in {}", root.display())]
    Exists {
        /// The container.
        id: ContainerId,
        /// The state root.
        root: PathBuf,
    },
    /// Somebody deletes the container while it is being made.
    #[error("container {id}: is being deleted: somebody has deleted or terminated it before it was complete")]
    Deleted {
        /// The container.
        id: ContainerId,
    },
    /// Whoever made the container was killed at it, before there was anything but its directory.
    #[error(
        "container {id}: was never completed: whoever made it was killed; what is left of it in {} can be deleted",
        root.display()
    )]
    Unfinished {
        /// The container.
        id: ContainerId,
        /// The state root.
        root: PathBuf,
    },
    /// The bundle's config.json can't be used.
    #[error("bundle {}: {field}: {reason}", bundle.display())]
    Bundle {
        /// The bundle directory.
        bundle: PathBuf,
        /// `config.json`, or the field in it.
        field: String,
        /// Why.
        reason: String,
    },
    /// The specification asks for something that is wrong, or that can't be had.
    #[error("container {id}: {field}: {reason}")]
    Spec {
        /// The container.
        id: ContainerId,
        /// The field, for instance `linux.namespaces[2].path`.
        field: String,
        /// Why.
        reason: String,
    },
    /// The operation does not fit the container's status.
    #[error("container {id}: cannot {verb}: {}it is {status}", in_runcs_words(verb))]
    Status {
        /// The container.
        id: ContainerId,
        /// What was asked for.
        verb: &'static str,
        /// What it is.
        status: Status,
    },
    /// No process can be executed in it now. The words are runc's.
    #[error("container {id}: cannot exec in a {status} container")]
    Exec {
        /// The container.
        id: ContainerId,
        /// What it is.
        status: Status,
    },
    /// The container has ended. The words are runc's: engines look for them.
    #[error("container {id}: container not running")]
    NotRunning {
        /// The container.
        id: ContainerId,
    },
    /// A process of an exec has run and ended, but how is not known: this program ignores SIGCHLD, or somebody else in it has
    /// waited for the process. [`ExecOptions::shared_children`](crate::ExecOptions::shared_children) is for that.
    #[error(
        "container {id}: the process has ended, but this program ignores SIGCHLD or has waited for it elsewhere"
    )]
    StatusTaken {
        /// The container.
        id: ContainerId,
    },
    /// A file or a call of the operating system.
    #[error("container {id}: {what}")]
    Io {
        /// The container.
        id: ContainerId,
        /// What was done, to which path.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Nobody wants it any more, and it waited for somebody.
    #[error("container {id}: {verb} was given up by a signal while it waited")]
    Cancelled {
        /// The container.
        id: ContainerId,
        /// What was done.
        verb: &'static str,
    },
    /// The state file is damaged, or from another version.
    #[error("container {id}: state file: {reason}")]
    State {
        /// The container.
        id: ContainerId,
        /// Why it can't be used.
        reason: String,
    },
    /// It can't be done, and no field of the specification is why: the host lacks what it takes, or the container, or a process
    /// of ours is gone.
    #[error("container {id}: {what}: {reason}")]
    Unable {
        /// The container.
        id: ContainerId,
        /// What was asked for, or what it takes: `exec`, `freezer`.
        what: String,
        /// Why.
        reason: String,
    },
    /// systemd does not do its part.
    #[error("container {id}: systemd: {reason}")]
    Systemd {
        /// The container.
        id: ContainerId,
        /// What it does not do, and why.
        reason: String,
    },
    /// liblxc refused a setting.
    #[error("container {id}: {field}: liblxc refused {key} = {value:?}{log}")]
    Refused {
        /// The container.
        id: ContainerId,
        /// The field that the setting comes from.
        field: String,
        /// The LXC key.
        key: String,
        /// Its value.
        value: String,
        /// The end of liblxc's log, with `: ` before it.
        log: String,
    },
    /// liblxc or the monitor failed.
    #[error("container {id}: {reason}{log}")]
    Liblxc {
        /// The container.
        id: ContainerId,
        /// Our own words.
        reason: String,
        /// The end of liblxc's log, with `: ` before it.
        log: String,
    },
    /// CRIU could not checkpoint or restore the container.
    #[error("container {id}: cannot {verb}: {reason}")]
    Criu {
        /// The container.
        id: ContainerId,
        /// What was asked for.
        verb: &'static str,
        /// CRIU's reason, with the errors of its log.
        reason: String,
    },
    /// The container's init could not do its work, or the program can't be executed. The words are runc's: engines
    /// look for them.
    #[error("unable to start container process: {}{} (container {id})", during(failure), failure.message)]
    Init {
        /// The container.
        id: ContainerId,
        /// What the init says.
        failure: Failure,
    },
    /// A hook of the runtime namespace failed.
    #[error("container {id}: error running hook")]
    Hook {
        /// The container.
        id: ContainerId,
        /// Which one, and why.
        #[source]
        source: protocol::HookError,
    },
    /// Removing a container failed in places. Everything else was removed.
    #[error("container {id}: could not remove everything: {}", problems.join("; "))]
    Cleanup {
        /// The container.
        id: ContainerId,
        /// What is left, and why.
        problems: Vec<String>,
    },
}

/// What runc says of a container that an operation does not fit.
fn in_runcs_words(verb: &str) -> &'static str {
    match verb {
        "pause" | "update" => "container not running: ",
        "resume" => "container not paused: ",
        "kill" => "container not running yet: ",
        _ => "",
    }
}

/// Where it happened: a program that can't be executed says so itself.
fn during(failure: &Failure) -> &'static str {
    match failure.kind {
        FailureKind::Other => "error during container init: ",
        FailureKind::NotFound | FailureKind::NotExecutable => "",
    }
}

impl Error {
    /// The id of the container that it is about; none where a bundle alone is.
    #[must_use]
    pub fn container(&self) -> Option<&str> {
        match self {
            Self::Id { id, .. } => Some(id),
            Self::Bundle { .. } => None,
            Self::NotFound { id, .. }
            | Self::Exists { id, .. }
            | Self::Deleted { id }
            | Self::Unfinished { id, .. }
            | Self::Spec { id, .. }
            | Self::Status { id, .. }
            | Self::Exec { id, .. }
            | Self::NotRunning { id }
            | Self::StatusTaken { id }
            | Self::Io { id, .. }
            | Self::Cancelled { id, .. }
            | Self::State { id, .. }
            | Self::Unable { id, .. }
            | Self::Systemd { id, .. }
            | Self::Refused { id, .. }
            | Self::Liblxc { id, .. }
            | Self::Criu { id, .. }
            | Self::Init { id, .. }
            | Self::Hook { id, .. }
            | Self::Cleanup { id, .. } => Some(id.as_str()),
        }
    }

    /// What the kernel says of a program that was found and can't be executed: all that `runc run` prints then.
    #[must_use]
    pub fn of_execution(&self) -> Option<&str> {
        let Self::Init { failure, .. } = self else { return None };
        let at = failure.message.strip_prefix("exec: ")?.find(": exec /")?;
        failure.message.get("exec: ".len() + at + ": ".len()..)
    }

    /// The exit code that tells a program that can't be executed (126) or isn't there (127) from everything else.
    #[must_use]
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Self::Init { failure: Failure { kind: FailureKind::NotFound, .. }, .. } => Some(127),
            Self::Init { failure: Failure { kind: FailureKind::NotExecutable, .. }, .. } => Some(126),
            _ => None,
        }
    }
}

/// Adds the container and what was done to an error of the operating system.
pub(crate) trait Context<T> {
    /// `what` is what was done, for instance `cannot write /run/lxcrun/x/state.json`.
    fn at(self, id: &ContainerId, what: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn at(self, id: &ContainerId, what: impl Into<String>) -> Result<T> {
        self.map_err(|e| Error::Io { id: id.clone(), what: what.into(), source: e.into() })
    }
}

/// A refusal of one field of the specification.
pub(crate) fn refuse(id: &ContainerId, field: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::Spec { id: id.clone(), field: field.into(), reason: reason.into() }
}

/// What can't be done, for a reason that is in no field of the specification.
pub(crate) fn unable(id: &ContainerId, what: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::Unable { id: id.clone(), what: what.into(), reason: reason.into() }
}
