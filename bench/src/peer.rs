//! The programs that are compared, and how each is told what to do.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::bundle::Bundles;
use crate::stopwatch::Stopwatch;

/// The one that the others are compared with.
pub const OURS: &str = "lxcrun";
/// What the kernel alone takes: a limit, and no peer.
pub const FLOOR: &str = "floor";
/// Columns of every table.
pub const ORDER: [&str; 6] = [OURS, "crun", "runc", "youki", "lxc-execute", FLOOR];

pub struct Peer {
    pub name: String,
    pub program: PathBuf,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Oci,
    LxcExecute,
    Floor,
}

impl Peer {
    pub fn new(name: &str, program: PathBuf) -> Self {
        let kind = match name {
            "lxc-execute" => Kind::LxcExecute,
            FLOOR => Kind::Floor,
            _ => Kind::Oci,
        };
        Self { name: name.to_owned(), program, kind }
    }

    /// What the program calls itself.
    pub fn version(&self) -> String {
        if self.kind == Kind::Floor {
            return String::new();
        }
        let output = Command::new(&self.program).arg("--version").output();
        let text =
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    }

    /// Its command line for the first row, for the record.
    pub fn command_line(&self) -> String {
        let program = self.program.file_name().unwrap_or_default().to_string_lossy();
        match self.kind {
            Kind::Oci => format!("{program} --root DIR run --bundle DIR bench"),
            Kind::LxcExecute => format!("{program} -P DIR -n bench -f FILE -o FILE -- /bin/true"),
            Kind::Floor => format!("{program} DIR /bin/true"),
        }
    }
}

/// A peer at work on the bundles, with a state directory of its own.
pub struct Worker<'a> {
    pub peer: &'a Peer,
    pub bundles: &'a Bundles,
    pub watch: &'a Stopwatch,
    root: PathBuf,
}

impl<'a> Worker<'a> {
    pub fn new(peer: &'a Peer, bundles: &'a Bundles, watch: &'a Stopwatch) -> Self {
        Self { peer, bundles, watch, root: bundles.dir.join(format!("root-{}", peer.name)) }
    }

    /// The command that runs a bundle's program in the foreground.
    pub fn run_command(&self, bundle: &Path, id: &str) -> Result<Command> {
        Ok(match self.peer.kind {
            Kind::Oci => {
                let mut command = self.command(["run", "--bundle"]);
                command.arg(bundle).arg(id);
                command
            }
            Kind::LxcExecute => {
                std::fs::create_dir_all(&self.root)?;
                let mut command = Command::new(&self.peer.program);
                command.arg("-P").arg(&self.root).args(["-n", id, "-f"]).arg(&self.bundles.lxc);
                command.arg("-o").arg(self.bundles.dir.join("lxc.log")).args(["--", "/bin/true"]);
                command
            }
            Kind::Floor => {
                let mut command = Command::new(&self.peer.program);
                command.arg(&self.bundles.rootfs).arg("/bin/true");
                command
            }
        })
    }

    /// The pid file of a container that is created or run.
    pub fn pid_file(&self, id: &str) -> PathBuf {
        self.bundles.dir.join(format!("pid-{id}"))
    }

    pub fn create(&self, bundle: &Path, id: &str) -> Result<()> {
        let pid_file = self.pid_file(id);
        let words = ["create", "--bundle", "--pid-file"].map(OsStr::new);
        self.oci([words[0], words[1], bundle.as_ref(), words[2], pid_file.as_ref(), id.as_ref()])
    }

    /// A container whose program runs until it is killed.
    pub fn create_and_start(&self, bundle: &Path, id: &str) -> Result<()> {
        self.create(bundle, id)?;
        self.oci(["start", id])
    }

    pub fn oci<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<()> {
        self.watch.run(&mut self.command(args))
    }

    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.peer.program);
        command.arg("--root").arg(&self.root).args(args);
        command
    }

    /// After a failure, so that the next one finds nothing in its way.
    pub fn clean_up(&self, id: &str) {
        let exists = self.peer.kind == Kind::Oci && self.oci(["state", id]).is_ok();
        if exists && let Err(err) = self.oci(["delete", "--force", id]) {
            eprintln!("lxcrun-bench: {err:#}");
        }
    }
}
