//! What this host can do: each thing that containers need or can use, whether it is there, and what to do if not.

mod host;
mod kernel;
mod user;

use std::path::Path;

use serde::Serialize;

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// There.
    Ok,
    /// There, but not all of it.
    Limited,
    /// Not there.
    Missing,
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Limited => "limited",
            Self::Missing => "missing",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is, a word or two.
    pub name: &'static str,
    /// Whether no container runs without it.
    pub needed: bool,
    /// How it is.
    pub health: Health,
    /// What was found.
    pub found: String,
    /// What it is for.
    pub meaning: &'static str,
    /// What to do when it is not ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Check {
    fn new(name: &'static str, meaning: &'static str) -> Self {
        Self { name, needed: false, health: Health::Ok, found: String::new(), meaning, mend: None }
    }

    /// No container runs without it.
    fn needed(mut self) -> Self {
        self.needed = true;
        self
    }

    fn ok(self, found: impl Into<String>) -> Self {
        Self { found: found.into(), ..self }
    }

    fn limited(self, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { health: Health::Limited, found: found.into(), mend: Some(mend.into()), ..self }
    }

    fn missing(self, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { health: Health::Missing, found: found.into(), mend: Some(mend.into()), ..self }
    }

    /// Whether containers can't run for this.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.needed && self.health == Health::Missing
    }
}

/// Looks at this host, as the caller may use it, for containers below `root`, if the caller has one. Changes nothing, but
/// CRIU, which is asked whether it works, may remember in /run what it has found out about the kernel.
#[must_use]
pub fn examine(root: Option<&Path>) -> Vec<Check> {
    [kernel::checks(), host::checks(root), user::checks()].concat()
}

/// The text of a file, without the last newline; empty when there is none.
fn text(path: &str) -> String {
    crate::host::read(path).unwrap_or_default().trim_end().to_owned()
}

/// The program, when it is on the PATH.
fn program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|d| d.join(name))
        .find(|p| p.is_file())
}
