//! A program and what it is to be given.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::capabilities::{self, Capabilities};

/// A program in a container: its first one, or one more by [`Driver::exec`](crate::Driver::exec).
///
/// ```
/// use execdriver::ProcessConfig;
///
/// let sh = ProcessConfig { user: "www".into(), env: vec!["A=b".into()], ..ProcessConfig::new(["sh", "-c", "id"]) };
/// assert_eq!((sh.entrypoint.as_str(), sh.arguments.len()), ("sh", 2));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessConfig {
    /// The program: a path in the container, or a name that is looked up in the container's PATH.
    pub entrypoint: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// `NAME=value`. The first program of a container gets these, and HOME and PATH when they are not among them;
    /// a process of an exec gets the first one's, with these laid over.
    pub env: Vec<String>,
    /// Who it runs as: a name, `uid`, `uid:gid` or `name:group`, from the container's /etc/passwd and /etc/group. Root
    /// by default.
    pub user: String,
    /// Where it starts: `/` by default, for an exec where the container's first program did.
    pub working_dir: Option<PathBuf>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Columns and rows of the terminal to begin with.
    pub console_size: Option<(u16, u16)>,
    /// Whether it gets every capability. A first program that is privileged makes the whole container so: all devices,
    /// a writable /proc and /sys, and no AppArmor profile. What its command asks for by name it gets all the same: a profile,
    /// a seccomp filter, a capability dropped.
    pub privileged: bool,
    /// Exactly these capabilities, instead of the container's; `all` for every one. With these, a command adds and drops none.
    pub capabilities: Option<Vec<String>>,
    /// Whether it can never gain privileges by executing a file.
    pub no_new_privileges: bool,
}

impl ProcessConfig {
    /// The program and its arguments.
    #[must_use]
    pub fn new<S: Into<String>>(args: impl IntoIterator<Item = S>) -> Self {
        let mut args = args.into_iter().map(Into::into);
        Self { entrypoint: args.next().unwrap_or_default(), arguments: args.collect(), ..Self::default() }
    }

    /// Program and arguments together.
    pub(crate) fn args(&self) -> Vec<String> {
        std::iter::once(self.entrypoint.clone()).chain(self.arguments.iter().cloned()).collect()
    }

    /// Why it can't be run, if it can't: the field and the reason.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if let Some(names) = &self.capabilities
            && let Err(e) = capabilities::exactly(names, &Capabilities::new())
        {
            return Err(("process_config.capabilities", e.to_string()));
        }
        if self.entrypoint.is_empty() {
            return Err(("process_config.entrypoint", "is empty".into()));
        }
        for variable in &self.env {
            match variable.split_once('=') {
                Some((name, _)) if !name.is_empty() => {}
                _ => return Err(("process_config.env", format!("{variable:?} is not NAME=value"))),
            }
        }
        if let Some(directory) = self.working_dir.as_ref().filter(|d| !d.is_absolute()) {
            return Err(("process_config.working_dir", format!("{directory:?} is not absolute")));
        }
        Ok(())
    }
}

/// The value of a variable.
pub(crate) fn variable<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().rev().find_map(|v| v.strip_prefix(name)?.strip_prefix('='))
}

/// `base` with each variable of `over` in the place of one with the same name.
pub(crate) fn overlaid(base: &[String], over: &[String]) -> Vec<String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let kept = base.iter().filter(|b| !over.iter().any(|o| name(o) == name(b)));
    kept.chain(over).cloned().collect()
}
