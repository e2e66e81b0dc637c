//! Labels of security modules, written to the kernel's files: proc_pid_attr(5).

use protocol::init::Process;
use rustix::io::Errno;

use crate::failure::{Result, fail};
use crate::proc::Proc;

/// Asks the kernel for the program's labels: they take effect at the next exec, and are refused now when they are
/// unknown.
pub fn set_for_exec(process: &Process, proc: &Proc) -> Result<()> {
    if let Some(profile) = &process.apparmor_profile {
        set_apparmor(profile, proc).map_err(|e| {
            let reason = match e {
                Errno::NOENT => "no such profile is loaded".into(),
                e => e.to_string(),
            };
            fail(format!("process.apparmorProfile: apparmor failed to apply profile {profile:?}"), reason)
        })?;
    }
    if let Some(label) = &process.selinux_label {
        proc.write("thread-self/attr/exec", label)
            .map_err(|e| fail(format!("process.selinuxLabel ({label})"), e))?;
    }
    Ok(())
}

fn set_apparmor(profile: &str, proc: &Proc) -> rustix::io::Result<()> {
    let value = format!("exec {profile}");
    // The directory of its own came with Linux 5.8; the old file may be another module's.
    match proc.has("thread-self/attr/apparmor") {
        true => proc.write("thread-self/attr/apparmor/exec", &value),
        false => proc.write("thread-self/attr/exec", &value),
    }
}

/// Has the keyrings that `make` makes labelled as the program's.
pub fn label_keys<T>(process: &Process, proc: &Proc, make: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(label) = &process.selinux_label else { return make() };
    let set = |label: &str| {
        proc.write("thread-self/attr/keycreate", label)
            .map_err(|e| fail(format!("process.selinuxLabel ({label}): the session keyring"), e))
    };
    set(label)?;
    let made = make()?;
    // Nothing written is no label: the default again.
    set("")?;
    Ok(made)
}
