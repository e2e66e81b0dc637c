//! The cgroups of the host, of both versions.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A mounted cgroup hierarchy.
#[derive(Debug)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The cgroup that is seen there.
    root: String,
    /// Its controllers (and `name=…`); of version 2, none: they are in `cgroup.controllers`.
    controllers: Vec<String>,
    v2: bool,
}

/// The cgroup below which tests put those they name themselves; it goes at the end of the suite.
pub fn parent() -> String {
    format!("/lxcrun-test-{}", std::process::id())
}

/// Removes [`parent`] where it was made.
pub fn remove_parent() {
    for hierarchy in hierarchies() {
        // It is there only if a test used it.
        let _ = fs::remove_dir(hierarchy.mount.join(&parent()[1..]));
    }
}

/// Removes the plain directories that podman (4.3) makes at a restore for controllers that are mounted nowhere, and
/// then takes for cgroups.
pub fn remove_plain_directories() {
    let controllers = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    for name in controllers.lines().filter_map(|line| line.split_whitespace().next()) {
        let directory = Path::new("/sys/fs/cgroup").join(name);
        let is_mounted = hierarchies().iter().any(|h| h.has(name) || h.mount == directory);
        if !is_mounted
            && directory.is_dir()
            && !hierarchies().iter().any(|h| h.v2 && h.mount.ends_with("cgroup"))
        {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

impl Hierarchy {
    /// Its controllers of version 1.
    pub fn controllers(&self) -> &[String] {
        &self.controllers
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

/// All hierarchies that are mounted.
pub fn hierarchies() -> &'static [Hierarchy] {
    static ALL: OnceLock<Vec<Hierarchy>> = OnceLock::new();
    ALL.get_or_init(|| {
        let info = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        info.lines().filter_map(hierarchy).collect()
    })
}

fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (place, kind) = line.split_once(" - ")?;
    let place: Vec<&str> = place.split(' ').collect();
    let kind: Vec<&str> = kind.split(' ').collect();
    let (root, mount) = ((*place.get(3)?).to_owned(), PathBuf::from(place.get(4)?));
    if !mount.starts_with("/sys/fs/cgroup") {
        // A part of one, in the root of a container.
        return None;
    }
    match *kind.first()? {
        "cgroup2" => Some(Hierarchy { mount, root, controllers: Vec::new(), v2: true }),
        "cgroup" => {
            let options = kind.get(2)?.split(',').filter(|o| !["rw", "ro", "xattr"].contains(o));
            let controllers = options.map(str::to_owned).collect();
            Some(Hierarchy { mount, root, controllers, v2: false })
        }
        _ => None,
    }
}

/// Where the v1 hierarchy of a controller is mounted.
pub fn v1(controller: &str) -> Option<&'static Path> {
    hierarchies().iter().find(|h| h.has(controller)).map(|h| h.mount.as_path())
}

/// Whether a container can have this controller, of either version.
pub fn has_controller(controller: &str) -> bool {
    let in_v2 = |h: &Hierarchy| {
        let list = fs::read_to_string(h.mount.join("cgroup.controllers")).unwrap_or_default();
        h.v2 && list.split_whitespace().any(|c| c == controller)
    };
    v1(controller).is_some() || hierarchies().iter().any(in_v2)
}

/// Whether cgroup2 is mounted beside v1 hierarchies.
pub fn is_hybrid() -> bool {
    hierarchies().iter().any(|h| h.v2) && hierarchies().iter().any(|h| !h.v2)
}

/// Whether cgroup2 is all there is.
pub fn is_v2() -> bool {
    hierarchies().iter().all(|h| h.v2) && !hierarchies().is_empty()
}

/// All cgroup directories of the host.
pub fn all() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> = hierarchies().iter().map(|h| h.mount.clone()).collect();
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                found.push(entry.path());
                todo.push(entry.path());
            }
        }
    }
    found
}

/// The cgroups that a process is in.
pub struct Cgroups(String);

impl Cgroups {
    /// Those of `pid`.
    #[track_caller]
    pub fn of(pid: u32) -> Cgroups {
        let path = format!("/proc/{pid}/cgroup");
        Cgroups(fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")))
    }

    /// Its directory for this controller: in that controller's v1 hierarchy, or else in the unified one.
    #[track_caller]
    pub fn dir(&self, controller: &str) -> PathBuf {
        let found = hierarchies().iter().find(|h| h.has(controller));
        let hierarchy = found.or_else(|| hierarchies().iter().find(|h| h.v2)).expect("a hierarchy");
        let path = self.path(|names| match hierarchy.v2 {
            true => names.is_empty(),
            false => names.split(',').any(|n| n == controller),
        });
        let below = path.strip_prefix(hierarchy.root.trim_end_matches('/')).unwrap_or(path);
        hierarchy.mount.join(below.trim_start_matches('/'))
    }

    fn path(&self, wanted: impl Fn(&str) -> bool) -> &str {
        let fields = self.0.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?, fields.next()?))
        });
        fields.into_iter().find(|(names, _)| wanted(names)).map_or("/", |(_, path)| path)
    }

    /// A setting of a controller: the file `v1` where it is a v1 hierarchy, else the file `v2`.
    #[track_caller]
    pub fn read(&self, controller: &str, v1_file: &str, v2_file: &str) -> String {
        let file = if v1(controller).is_some() { v1_file } else { v2_file };
        let path = self.dir(controller).join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.trim().to_owned()
    }
}
