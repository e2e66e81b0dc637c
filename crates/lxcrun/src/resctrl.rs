//! resctrl, the kernel's interface to cache allocation and memory bandwidth: classes of service and monitoring groups
//! are directories. Source: the kernel's filesystems/resctrl, and runtime-spec, config-linux.md, "IntelRdt".

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use kernel::MountInfo;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::config::IntelRdt;
use crate::error::refuse;
use crate::{ContainerId, Result};

/// A container's place in resctrl.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resctrl {
    /// The directory of its class of service.
    class: PathBuf,
    /// That of its monitoring group.
    monitoring: Option<PathBuf>,
    /// Directories that go away with the container, the deepest first.
    own: Vec<PathBuf>,
}

impl Resctrl {
    /// Decides the directories, so that they can be written down before they are made.
    pub(crate) fn new(id: &ContainerId, wanted: &IntelRdt) -> Result<Self> {
        match mountpoint().map_err(|e| refuse(id, "linux.intelRdt", format!("/proc/self/mountinfo: {e}")))? {
            Some(root) => Self::below(id, wanted, &root),
            None => Err(refuse(id, "linux.intelRdt", "this host has no resctrl file system mounted")),
        }
    }

    fn below(id: &ContainerId, wanted: &IntelRdt, root: &Path) -> Result<Self> {
        let class = root.join(wanted.class.as_deref().unwrap_or(id.as_str()));
        let mut own = Vec::new();
        let monitoring = wanted.monitoring.then(|| class.join("mon_groups").join(id.as_str()));
        own.extend(monitoring.clone());
        match (&wanted.class, class.is_dir()) {
            (None, true) => {
                let reason = format!("{} exists already", class.display());
                return Err(refuse(id, "linux.intelRdt", reason));
            }
            (None, false) => own.push(class.clone()),
            (Some(_), true) => {}
            (Some(name), false) if wanted.schemata.is_empty() => {
                let reason = format!("there is no class {name}, and no schema to make one");
                return Err(refuse(id, "linux.intelRdt.closID", reason));
            }
            // Others may come to share it, so it stays.
            (Some(_), false) => {}
        }
        Ok(Self { class, monitoring, own })
    }

    /// Makes what is missing and puts the init there.
    pub(crate) fn apply(&self, id: &ContainerId, wanted: &IntelRdt, init: Pid) -> Result<()> {
        let refused = |path: &Path| {
            let path = path.display().to_string();
            move |e: io::Error| refuse(id, "linux.intelRdt", format!("{path}: {e}"))
        };
        let made = !self.class.is_dir();
        if made {
            fs::create_dir(&self.class).map_err(refused(&self.class))?;
        }
        let schemata = self.class.join("schemata");
        if made {
            for line in &wanted.schemata {
                write(&schemata, &format!("{line}\n"))
                    .map_err(|e| refuse(id, "linux.intelRdt.schemata", format!("{line:?}: {e}")))?;
            }
        } else if !wanted.schemata.is_empty() {
            let now = fs::read_to_string(&schemata).map_err(refused(&schemata))?;
            if let Some(line) = wanted.schemata.iter().find(|line| !has_line(&now, line)) {
                let reason = format!("{line:?} is not what class {} has", self.class.display());
                return Err(refuse(id, "linux.intelRdt.schemata", reason));
            }
        }
        if let Some(group) = &self.monitoring {
            fs::create_dir(group).map_err(refused(group))?;
        }
        self.enter(id, init)
    }

    /// Puts one process there.
    pub(crate) fn enter(&self, id: &ContainerId, pid: Pid) -> Result<()> {
        for directory in std::iter::once(&self.class).chain(&self.monitoring) {
            let tasks = directory.join("tasks");
            write(&tasks, &pid.as_raw_nonzero().to_string())
                .map_err(|e| refuse(id, "linux.intelRdt", format!("{}: {e}", tasks.display())))?;
        }
        Ok(())
    }

    /// Changes lines of its class's schemata: of a class of its own, because others may share any other.
    pub(crate) fn update(&self, id: &ContainerId, lines: &[&str]) -> Result<()> {
        if !self.own.contains(&self.class) {
            let reason = format!("{} is not this container's alone", self.class.display());
            return Err(refuse(id, "linux.intelRdt", reason));
        }
        lines.iter().try_for_each(|line| {
            write(&self.class.join("schemata"), &format!("{line}\n"))
                .map_err(|e| refuse(id, "linux.intelRdt", format!("{line:?}: {e}")))
        })
    }

    /// Removes what was the container's alone; what is not there is gone.
    pub(crate) fn remove(&self) -> Vec<String> {
        let failure = |directory: &PathBuf| match fs::remove_dir(directory) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Some(format!("{}: {e}", directory.display())),
            _ => None,
        };
        self.own.iter().filter_map(failure).collect()
    }
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.write_all(text.as_bytes())
}

/// The kernel pads resources and writes masks without zeros in front: `    L3:0=fff;1=fff`.
fn has_line(schemata: &str, wanted: &str) -> bool {
    let plain = |line: &str| -> Vec<String> {
        line.split([':', ';', '=']).map(|part| part.trim().trim_start_matches('0').to_lowercase()).collect()
    };
    schemata.lines().any(|line| plain(line) == plain(wanted))
}

fn mountpoint() -> io::Result<Option<PathBuf>> {
    let table = crate::host::read("/proc/self/mountinfo")?;
    let is_resctrl = |mount: &MountInfo<'_>| mount.filesystem().is_some_and(|f| f.fstype == "resctrl");
    Ok(MountInfo::all(&table).find(is_resctrl).and_then(MountInfo::place))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// resctrl makes files in new directories; here they are made beforehand.
    fn class(root: &Path, name: &str, schemata: &str) {
        fs::create_dir_all(root.join(name).join("mon_groups")).unwrap();
        fs::write(root.join(name).join("schemata"), schemata).unwrap();
        fs::write(root.join(name).join("tasks"), "").unwrap();
    }

    fn wanted(class: Option<&str>, schemata: &[&str]) -> IntelRdt {
        IntelRdt {
            class: class.map(str::to_owned),
            schemata: schemata.iter().map(ToString::to_string).collect(),
            monitoring: false,
        }
    }

    #[test]
    fn a_class_that_exists_must_have_the_schema() {
        let root = tempfile::tempdir().unwrap();
        let id: ContainerId = "web".parse().unwrap();
        class(root.path(), "gold", "    MB:0=100\n    L3:0=0ff;1=fff\n");
        let apply = |wanted: &IntelRdt| {
            Resctrl::below(&id, wanted, root.path())?.apply(&id, wanted, rustix::process::getpid())
        };
        apply(&wanted(Some("gold"), &["L3:0=ff;1=FFF"])).unwrap();
        let tasks = fs::read_to_string(root.path().join("gold/tasks")).unwrap();
        assert_eq!(tasks, std::process::id().to_string());
        apply(&wanted(Some("gold"), &["L3:0=f;1=fff"])).unwrap_err();
        apply(&wanted(Some("silver"), &[])).unwrap_err();
    }

    #[test]
    fn a_class_of_the_containers_own_goes_with_it() {
        let root = tempfile::tempdir().unwrap();
        let id: ContainerId = "web".parse().unwrap();
        let resctrl = Resctrl::below(&id, &wanted(None, &["MB:0=10"]), root.path()).unwrap();
        assert_eq!(resctrl.own, [root.path().join("web")]);
        class(root.path(), "web", "");
        resctrl.update(&id, &["MB:0=20"]).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("web/schemata")).unwrap(), "MB:0=20\n");
        // The files of a real resctrl go with their directory.
        fs::remove_dir_all(root.path().join("web")).unwrap();
        fs::create_dir(root.path().join("web")).unwrap();
        assert!(resctrl.remove().is_empty());
        assert!(resctrl.remove().is_empty(), "once more is no failure");
    }
}
