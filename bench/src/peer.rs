//! The programs that are compared, and what each has to do.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::bundle::Bundles;
use crate::stopwatch::{Sample, Stopwatch};

/// Rows that are measured in one go, on one container.
#[derive(Clone, Copy, PartialEq)]
pub enum Group {
    Run,
    Lifecycle,
    Running,
}

impl Group {
    pub const ALL: [Self; 3] = [Self::Run, Self::Lifecycle, Self::Running];

    /// The rows, as the table names them.
    pub fn rows(self) -> &'static [&'static str] {
        match self {
            Self::Run => &["run /bin/true"],
            Self::Lifecycle => &["create+start+delete", "create", "start", "delete (stopped)"],
            Self::Running => &["exec /bin/true", "state", "kill", "delete"],
        }
    }
}

/// A sample for each row of the group, in their order.
pub type Samples = Vec<(&'static str, Sample)>;

pub struct Peer {
    pub name: String,
    pub program: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Oci,
    LxcExecute,
    Floor,
}

impl Peer {
    pub fn new(name: &str, program: PathBuf) -> Self {
        let kind = match name {
            "lxc-execute" => Kind::LxcExecute,
            "floor" => Kind::Floor,
            _ => Kind::Oci,
        };
        Self { name: name.to_owned(), program, kind }
    }

    pub fn takes_part_in(&self, group: Group) -> bool {
        self.kind == Kind::Oci || group == Group::Run
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

    /// The command of the first row, for the record.
    pub fn command_line(&self) -> String {
        match self.kind {
            Kind::Oci => format!("{} --root DIR run --bundle DIR bench", self.program.display()),
            Kind::LxcExecute => {
                format!("{} -P DIR -n bench -f FILE -o FILE -- /bin/true", self.program.display())
            }
            Kind::Floor => format!("{} DIR /bin/true", self.program.display()),
        }
    }

    pub fn measure(&self, group: Group, bundles: &Bundles, watch: &Stopwatch) -> Result<Samples> {
        let job = Job { peer: self, root: bundles.dir.join(format!("root-{}", self.name)), bundles, watch };
        let samples = match group {
            Group::Run => job.run(),
            Group::Lifecycle => job.lifecycle(),
            Group::Running => job.running(),
        };
        if samples.is_err() {
            job.clean_up();
        }
        Ok(group.rows().iter().copied().zip(samples?).collect())
    }
}

struct Job<'a> {
    peer: &'a Peer,
    /// The peer's state directory.
    root: PathBuf,
    bundles: &'a Bundles,
    watch: &'a Stopwatch,
}

impl Job<'_> {
    fn run(&self) -> Result<Vec<Sample>> {
        let mut command = Command::new(&self.peer.program);
        match self.peer.kind {
            Kind::Oci => command
                .arg("--root")
                .arg(&self.root)
                .arg("run")
                .arg("--bundle")
                .arg(&self.bundles.ends)
                .arg("bench"),
            Kind::LxcExecute => {
                std::fs::create_dir_all(&self.root)?;
                let log = self.bundles.dir.join("lxc.log");
                command.arg("-P").arg(&self.root).args(["-n", "bench", "-f"]).arg(&self.bundles.lxc);
                command.arg("-o").arg(log).args(["--", "/bin/true"])
            }
            Kind::Floor => command.arg(&self.bundles.rootfs).arg("/bin/true"),
        };
        Ok(vec![self.watch.time_all(|| self.watch.run(&mut command))?])
    }

    fn lifecycle(&self) -> Result<Vec<Sample>> {
        let pid_file = self.pid_file();
        let (mut create, mut start, mut delete) = (None, None, None);
        let all = self.watch.time_all(|| {
            create = Some(self.watch.time(|| self.create(&self.bundles.ends, &pid_file))?);
            start = Some(self.watch.time(|| self.oci(["start", "bench"]))?);
            self.watch.wait_for(&pid_file)?;
            delete = Some(self.watch.time(|| self.oci(["delete", "bench"]))?);
            Ok(())
        })?;
        Ok([Some(all), create, start, delete].into_iter().flatten().collect())
    }

    fn running(&self) -> Result<Vec<Sample>> {
        let pid_file = self.pid_file();
        self.create(&self.bundles.stays, &pid_file)?;
        self.oci(["start", "bench"])?;
        let exec = self.watch.time(|| self.oci(["exec", "bench", "/bin/true"]))?;
        let state = self.watch.time(|| self.oci(["state", "bench"]))?;
        let kill = self.watch.time(|| self.oci(["kill", "bench", "KILL"]))?;
        self.watch.wait_for(&pid_file)?;
        let delete = self.watch.time(|| self.oci(["delete", "bench"]))?;
        self.watch.settle()?;
        Ok(vec![exec, state, kill, delete])
    }

    fn pid_file(&self) -> PathBuf {
        self.bundles.dir.join("pid")
    }

    fn create(&self, bundle: &Path, pid_file: &Path) -> Result<()> {
        let [create, bundle_flag, pid_flag, id] =
            ["create", "--bundle", "--pid-file", "bench"].map(OsStr::new);
        self.oci([create, bundle_flag, bundle.as_ref(), pid_flag, pid_file.as_ref(), id])
    }

    fn oci<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<()> {
        self.watch.run(Command::new(&self.peer.program).arg("--root").arg(&self.root).args(args))
    }

    /// After a failure, so that the next one finds nothing in its way.
    fn clean_up(&self) {
        let exists = self.peer.kind == Kind::Oci && self.oci(["state", "bench"]).is_ok();
        if exists && let Err(err) = self.oci(["delete", "--force", "bench"]) {
            eprintln!("lxcrun-bench: {err:#}");
        }
    }
}
