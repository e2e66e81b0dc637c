//! `kill`: signals to the init, or to every process.

use std::str::FromStr;

use oci_spec::runtime::LinuxNamespaceType;
use rustix::process::{Signal, pidfd_send_signal};

use crate::error::Context;
use crate::{Container, Error, Result};

impl Container {
    /// Fails when the init has ended.
    ///
    /// # Errors
    /// [`Error::NotRunning`]
    pub fn check_running(&self) -> Result<()> {
        match self.init_pidfd()? {
            Some(_) => Ok(()),
            None => Err(Error::NotRunning { id: self.id().clone() }),
        }
    }

    /// Sends a signal to the init. By pidfd: never to a later process with its number. Where the end of the init is not
    /// the end of its PID namespace, KILL goes to every process of the container, as in runc.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when it has ended.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        if signal == Signal::KILL && self.shares_pids()? && !self.cgroup()?.pids().is_empty() {
            return self.kill_all(signal);
        }
        let Some(init) = self.init_pidfd()? else {
            return Err(Error::NotRunning { id: self.id().clone() });
        };
        match pidfd_send_signal(&init, signal) {
            Err(rustix::io::Errno::SRCH) => return Err(Error::NotRunning { id: self.id().clone() }),
            sent => sent.at(self.id(), "cannot signal the init")?,
        }
        self.thaw_killed(signal)
    }

    /// Whether its PID namespace outlives it. One that is being made may not have its specification yet.
    fn shares_pids(&self) -> Result<bool> {
        if self.cgroup()?.is_none() {
            return Ok(false);
        }
        let Ok(spec) = self.directory.spec() else { return Ok(false) };
        let mut namespaces = spec.linux().iter().filter_map(|l| l.namespaces().as_ref()).flatten();
        let own = namespaces.any(|n| {
            let path = n.path().as_ref().filter(|path| !path.as_os_str().is_empty());
            n.typ() == LinuxNamespaceType::Pid && path.is_none()
        });
        Ok(!own)
    }

    /// Sends a signal to every process in it, also when its init has ended and others live on in a shared PID
    /// namespace.
    ///
    /// # Errors
    /// [`Error::Io`] when the kernel refuses.
    pub fn kill_all(&self, signal: Signal) -> Result<()> {
        let cgroup = self.cgroup()?;
        cgroup.check_exists("kill --all")?;
        cgroup.signal_all(signal)?;
        self.thaw_killed(signal)
    }

    /// Kills every process in it, frozen or not, and returns when all have ended. The init too, where it has a cgroup.
    ///
    /// # Errors
    /// [`Error::Io`] when the kernel refuses, or this process can have no more descriptors.
    pub fn end_all(&self) -> Result<()> {
        // Without its lock somebody else may remove it, and the cgroup be another container's.
        let ours = || self.directory.is_there().unwrap_or(false);
        let _held = self.directory.hold_freezer()?;
        self.cgroup()?.kill_all_while(&ours)
    }

    /// A frozen process takes even this signal only when it is thawed.
    fn thaw_killed(&self, signal: Signal) -> Result<()> {
        if signal != Signal::KILL {
            return Ok(());
        }
        let _held = self.directory.hold_freezer()?;
        let cgroup = self.cgroup()?;
        if cgroup.is_frozen() {
            cgroup.set_frozen(false)?;
        }
        cgroup.thaw_all()
    }
}

/// A signal by name (`TERM`, `SIGTERM`, `sigterm`, `RTMIN+3`) or number.
///
/// # Errors
/// What was given, when it is none.
pub fn parse_signal(text: &str) -> Result<Signal, String> {
    let none = || format!("unknown signal {text:?}");
    if let Ok(number) = text.parse::<i32>() {
        return kernel::signal_of(number).ok_or_else(none);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    for (base, start) in [("RTMIN", libc::SIGRTMIN()), ("RTMAX", libc::SIGRTMAX())] {
        if let Some(offset) = name.strip_prefix(base) {
            let offset = if offset.is_empty() { Ok(0) } else { offset.parse::<i32>() };
            return offset.ok().and_then(|o| kernel::signal_of(start.checked_add(o)?)).ok_or_else(none);
        }
    }
    let known = nix::sys::signal::Signal::from_str(&format!("SIG{name}")).map_err(|_| none())?;
    kernel::signal_of(known as i32).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["TERM", "SIGTERM", "sigterm", "15"] {
            assert_eq!(parse_signal(text).unwrap(), Signal::TERM, "{text}");
        }
        assert_eq!(parse_signal("RTMIN+3").unwrap().as_raw(), libc::SIGRTMIN() + 3);
        for text in ["", "0", "NOPE", "-1", "1000", "SIG", "RTMIN+2147483647", "RTMAX-2147483648"] {
            assert!(parse_signal(text).is_err(), "{text:?}");
        }
    }
}
