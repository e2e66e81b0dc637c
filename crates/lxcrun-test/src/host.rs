//! What is on the host: to see that a container left nothing there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cgroup;

/// A process of the host.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its short name.
    pub name: String,
    /// Its command line.
    pub command: String,
    /// Its cgroups.
    pub cgroups: String,
}

impl Process {
    /// All processes but ours and those that have exited, but that nobody has waited for yet.
    pub fn all() -> Vec<Process> {
        let numbers = fs::read_dir("/proc").expect("/proc").flatten();
        let numbers = numbers.filter_map(|e| e.file_name().to_str()?.parse().ok());
        numbers.filter(|&pid| pid != std::process::id()).filter_map(Process::read).collect()
    }

    fn read(pid: u32) -> Option<Process> {
        let text = |name| fs::read(format!("/proc/{pid}/{name}")).ok();
        let text = |name| Some(String::from_utf8_lossy(&text(name)?).into_owned());
        // "pid (name) S …": the name may hold anything.
        if text("stat")?.rsplit_once(')')?.1.starts_with(" Z") {
            return None;
        }
        let command = text("cmdline")?.replace('\0', " ").trim_end().to_owned();
        Some(Process { pid, name: text("comm")?.trim_end().to_owned(), command, cgroups: text("cgroup")? })
    }
}

/// The state of the host, as far as a runtime could change it.
pub struct HostSnapshot {
    mountinfo: String,
    things: BTreeSet<String>,
}

impl HostSnapshot {
    /// Takes one.
    pub fn take() -> HostSnapshot {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let mut things: BTreeSet<String> =
            cgroup::all().into_iter().map(|p| format!("cgroup {}", p.display())).collect();
        things.extend(interfaces().into_iter().map(|name| format!("interface {name}")));
        for dir in ["/run/lxcrun", "/run/lxc", "/run/runc", "/run/crun"] {
            // liblxc keeps an empty directory for each state root, but no file for each container.
            let files = files(Path::new(dir)).into_iter().filter(|path| !path.is_dir());
            things.extend(files.map(|path| format!("file {}", path.display())));
        }
        let ours = Process::all().into_iter().filter(|p| {
            ["lxcrun", "[lxc", "lxc-", "runc", "crun"].iter().any(|start| p.name.starts_with(start))
        });
        things.extend(ours.map(|p| format!("process {} {} {}", p.pid, p.name, p.command)));
        HostSnapshot { mountinfo, things }
    }

    /// The host is as it was when this was taken; else the difference is named.
    #[track_caller]
    pub fn assert_unchanged(&self) {
        let now = HostSnapshot::take();
        let (before, after) = (self.lines(), now.lines());
        let gone = before.difference(&after).map(|line| format!("gone: {line}"));
        let new = after.difference(&before).map(|line| format!("new: {line}"));
        let changes: Vec<String> = gone.chain(new).collect();
        assert!(changes.is_empty(), "the host has changed:\n{}", changes.join("\n"));
        assert!(self.mountinfo == now.mountinfo, "the order of the host's mounts has changed");
    }

    fn lines(&self) -> BTreeSet<String> {
        let mounts = self.mountinfo.lines().map(|line| format!("mount {line}"));
        self.things.iter().cloned().chain(mounts).collect()
    }
}

/// The names of the network interfaces in our network namespace.
pub fn interfaces() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/net/dev").expect("a table of interfaces");
    table.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

/// All that lies below `dir`.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                todo.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found
}
