//! Containers of ordinary users: the user namespace in which everything else happens.
//!
//! liblxc needs a mount namespace that it may change, also for a container without `lxc.rootfs`. An ordinary user has
//! one only in a user namespace, so the runtime makes the container's, has it mapped by newuidmap(1), which alone may
//! map subordinate ids, and the monitor joins it before it calls liblxc: there it is root.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::config::{Plan, Sharing};
use crate::error::refuse;
use crate::{ContainerId, Error, Result};

/// Fails when an ordinary user wants a container without a user namespace: before anything is said of rights that they
/// lack without one.
pub(crate) fn check(id: &ContainerId, spec: &Spec) -> Result<()> {
    let namespaces = spec.linux().as_ref().and_then(|l| l.namespaces().as_deref()).unwrap_or_default();
    let has_user = namespaces.iter().any(|n| n.typ() == LinuxNamespaceType::User);
    if has_user || rustix::process::geteuid().is_root() { Ok(()) } else { Err(needs_namespace(id)) }
}

fn needs_namespace(id: &ContainerId) -> Error {
    let reason = "rootless container requires user namespaces: only root can do without a new one";
    refuse(id, "linux.namespaces", reason)
}

/// The user namespace that the monitor has to join: that of the container. None for root, also in a user namespace of
/// somebody else's making.
pub(crate) fn user_namespace(id: &ContainerId, plan: &Plan) -> Result<Option<OwnedFd>> {
    if rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    match plan.namespaces.get("user") {
        None => Err(needs_namespace(id)),
        Some(Sharing::Path(path)) => fs::File::open(path)
            .map(|file| Some(file.into()))
            .map_err(|e| refuse(id, "linux.namespaces", format!("{}: {e}", path.display()))),
        Some(Sharing::New) => new(id, plan).map(Some),
    }
}

/// Whether this process has no rights over the host: it is not root, or only in a user namespace.
#[must_use]
pub fn is_ordinary_user() -> bool {
    /// A process gets another user namespace only by leaving this one, which no program with threads can.
    static ALL_USERS: LazyLock<bool> = LazyLock::new(|| {
        let map = crate::host::read("/proc/self/uid_map").unwrap_or_default();
        map.split_whitespace().eq(["0", "0", "4294967295"])
    });
    !rustix::process::geteuid().is_root() || !*ALL_USERS
}

/// A user's name in passwd(5), which need not be asked for root's.
#[must_use]
pub fn user_name(uid: u32) -> Option<String> {
    if uid == 0 {
        return Some("root".into());
    }
    let passwd = crate::host::read("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id == uid.to_string()).then(|| name.to_owned())
    })
}

/// One kind of ids: how the kernel maps them, and who may when an ordinary user may not.
struct Kind {
    letter: char,
    field: &'static str,
    file: &'static str,
    helper: &'static str,
    own: u32,
}

fn new(id: &ContainerId, plan: &Plan) -> Result<OwnedFd> {
    let kinds = [
        Kind {
            letter: 'u',
            field: "linux.uidMappings",
            file: "uid_map",
            helper: "newuidmap",
            own: rustix::process::geteuid().as_raw(),
        },
        Kind {
            letter: 'g',
            field: "linux.gidMappings",
            file: "gid_map",
            helper: "newgidmap",
            own: rustix::process::getegid().as_raw(),
        },
    ];
    let maps = kinds.each_ref().map(|kind| lines(plan, kind.letter));
    for (kind, lines) in kinds.iter().zip(&maps) {
        if !lines.iter().any(|line| line.first().is_some_and(|inside| inside == "0")) {
            return Err(refuse(id, kind.field, "does not map 0: a container is made by its root"));
        }
    }
    let map = |pid: Pid| {
        kinds.iter().zip(&maps).try_for_each(|(kind, lines)| kind.map(id, pid.as_raw_nonzero().get(), lines))
    };
    kernel::new_user_namespace(map).map_err(|e| match e {
        kernel::NewUserNamespace::Made(e) => unavailable(id, e),
        kernel::NewUserNamespace::Mapped(e) => e,
    })
}

/// The mappings of one kind, each as the three numbers of /proc/PID/uid_map.
fn lines(plan: &Plan, letter: char) -> Vec<Vec<String>> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let all = plan.id_maps.iter().map(|(_, line)| words(line));
    all.filter(|w| w.first().is_some_and(|l| l.starts_with(letter))).map(|w| w[1..].to_vec()).collect()
}

/// What an administrator has set when there can't be a user namespace.
fn unavailable(id: &ContainerId, error: Errno) -> Error {
    let why = match error {
        Errno::NOSPC => "the limit is reached: sysctl user.max_user_namespaces",
        Errno::PERM | Errno::ACCESS => {
            "ordinary users may not make any here: sysctl kernel.unprivileged_userns_clone, \
             kernel.apparmor_restrict_unprivileged_userns"
        }
        Errno::INVAL => "this kernel has none",
        _ => "cannot be made",
    };
    refuse(id, "linux.namespaces", format!("a user namespace: {}: {why}", io::Error::from(error)))
}

impl Kind {
    fn map(&self, id: &ContainerId, pid: i32, lines: &[Vec<String>]) -> Result<()> {
        let refused = |reason: String| refuse(id, self.field, reason);
        // One's own id alone: without a helper, but then groups can't be changed either (user_namespaces(7)).
        if let [line] = lines
            && let [_, outside, size] = line.as_slice()
            && *outside == self.own.to_string()
            && size == "1"
        {
            let write = |file: &str, text: &str| {
                fs::write(format!("/proc/{pid}/{file}"), text).map_err(|e| refused(format!("{file}: {e}")))
            };
            if self.letter == 'g' {
                write("setgroups", "deny")?;
            }
            return write(self.file, &line.join(" "));
        }
        let helper = Path::new(self.helper);
        let mut command = Command::new(helper);
        command.arg(pid.to_string()).args(lines.iter().flatten());
        let output = kernel::block_none_in(&mut command).output().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                refused(format!("need {}, which is not installed (package uidmap)", self.helper))
            }
            _ => refused(format!("{}: {e}", self.helper)),
        })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let files = if self.letter == 'u' { "/etc/subuid" } else { "/etc/subgid" };
        Err(refused(format!("{} (see {files})", said.trim())))
    }
}
