//! Bundles: a busybox root file system and a spec, built up by a test.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::runtime::on_path;
use crate::{Container, Output, scratch};

/// A bundle to be: a directory with a root file system and, once [built](Bundle::build), a `config.json`.
pub struct Bundle {
    /// A word that occurs in every path and name of this container, and in no other's.
    pub(crate) key: String,
    pub(crate) id: String,
    pub(crate) host: String,
    pub(crate) dir: PathBuf,
    spec: Value,
    text: Option<Vec<u8>>,
}

impl Bundle {
    /// A busybox that runs `true` with the spec that `runc spec` makes, but no terminal and a writable root.
    pub fn busybox() -> Bundle {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let key = format!("t{}c{number:04}", std::process::id());
        let dir = scratch().join(&key);
        make_rootfs(&dir.join("rootfs"));
        Bundle { id: key.clone(), key, host: String::new(), dir, spec: base_spec(), text: None }
    }

    /// A word that occurs in the names of this container alone: part of an id or a cgroup path of a test.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// A path in this test's own directory on the host.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// A path in the root file system, as the host sees it.
    pub fn rootfs(&self, name: &str) -> PathBuf {
        self.dir.join("rootfs").join(name.trim_start_matches('/'))
    }

    /// Makes a directory in this test's own directory.
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("a directory");
        path
    }

    /// Makes a file in this test's own directory.
    pub fn make_file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("a file");
        path
    }

    /// Gives the container another id than its unique default.
    #[must_use]
    pub fn id(mut self, id: &str) -> Bundle {
        self.id = id.to_owned();
        self
    }

    /// Changes the spec in any way.
    #[must_use]
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Bundle {
        change(&mut self.spec);
        self
    }

    /// Sets one field, named by its JSON pointer: `"/process/cwd"`.
    #[must_use]
    pub fn set(mut self, pointer: &str, value: impl Into<Value>) -> Bundle {
        let (parent, name) = pointer.rsplit_once('/').expect("a JSON pointer");
        let mut place = &mut self.spec;
        for step in parent.split('/').skip(1) {
            place = &mut place[step];
        }
        place[name] = value.into();
        self
    }

    /// Appends to an array, named by its JSON pointer; it is made if it is missing.
    #[must_use]
    pub fn push(mut self, pointer: &str, value: impl Into<Value>) -> Bundle {
        if self.spec.pointer(pointer).is_none() {
            self = self.set(pointer, json!([]));
        }
        let array = self.spec.pointer_mut(pointer).and_then(Value::as_array_mut).expect("an array");
        array.push(value.into());
        self
    }

    /// Writes this as the `config.json`, whatever the spec says.
    #[must_use]
    pub fn text(mut self, text: impl Into<Vec<u8>>) -> Bundle {
        self.text = Some(text.into());
        self
    }

    /// Runs `script` before the runtime creates the container, in a private mount namespace that it then gets.
    #[must_use]
    pub fn host(mut self, script: impl Into<String>) -> Bundle {
        self.host = script.into();
        self
    }

    /// Sets the program and its arguments.
    #[must_use]
    pub fn args<S: AsRef<str>>(self, args: impl IntoIterator<Item = S>) -> Bundle {
        let args: Vec<String> = args.into_iter().map(|a| a.as_ref().to_owned()).collect();
        self.set("/process/args", args)
    }

    /// Makes the program a shell that runs `script`.
    #[must_use]
    pub fn sh(self, script: &str) -> Bundle {
        self.args(["sh", "-c", script])
    }

    /// Adds a variable, `NAME=value`.
    #[must_use]
    pub fn env(self, variable: &str) -> Bundle {
        self.push("/process/env", variable)
    }

    /// Sets the working directory.
    #[must_use]
    pub fn cwd(self, dir: &str) -> Bundle {
        self.set("/process/cwd", dir)
    }

    /// Sets the user and group.
    #[must_use]
    pub fn user(self, uid: u32, gid: u32) -> Bundle {
        self.set("/process/user/uid", uid).set("/process/user/gid", gid)
    }

    /// Asks for a terminal.
    #[must_use]
    pub fn terminal(self) -> Bundle {
        self.set("/process/terminal", true)
    }

    /// Gives the program these capabilities in the bounding, effective and permitted sets.
    #[must_use]
    pub fn capabilities(self, names: &[&str]) -> Bundle {
        self.set(
            "/process/capabilities",
            json!({ "bounding": names, "effective": names, "permitted": names }),
        )
    }

    /// Adds a mount.
    #[must_use]
    pub fn mount(self, destination: &str, kind: &str, source: impl AsRef<Path>, options: &[&str]) -> Bundle {
        let source = source.as_ref().to_string_lossy();
        let mount = json!({ "destination": destination, "type": kind, "source": source, "options": options });
        self.push("/mounts", mount)
    }

    /// Adds a bind mount.
    #[must_use]
    pub fn bind(self, source: impl AsRef<Path>, destination: &str, options: &[&str]) -> Bundle {
        let options: Vec<&str> = [&["bind"], options].concat();
        self.mount(destination, "bind", source, &options)
    }

    /// Takes the default mount at this place away.
    #[must_use]
    pub fn without_mount(self, destination: &str) -> Bundle {
        self.edit(|spec| {
            let mounts = spec["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| mount["destination"] != destination);
        })
    }

    /// Stays in the host's namespace of this type.
    #[must_use]
    pub fn without_namespace(self, kind: &str) -> Bundle {
        self.edit(|spec| {
            let all = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
            all.retain(|namespace| namespace["type"] != kind);
        })
    }

    /// Enters a namespace of this type: the one at `path`, or else a new one.
    #[must_use]
    pub fn namespace(self, kind: &str, path: Option<&str>) -> Bundle {
        let mut namespace = json!({ "type": kind });
        if let Some(path) = path {
            namespace["path"] = path.into();
        }
        self.without_namespace(kind).push("/linux/namespaces", namespace)
    }

    /// Sets one of `linux.resources`.
    #[must_use]
    pub fn resource(self, name: &str, value: impl Into<Value>) -> Bundle {
        self.set(&format!("/linux/resources/{name}"), value)
    }

    /// Writes the `config.json`.
    #[track_caller]
    pub fn build(self) -> Container {
        let text = self.text.clone().unwrap_or_else(|| self.spec.to_string().into_bytes());
        fs::write(self.path("config.json"), text).expect("config.json");
        Container::new(self)
    }

    /// Creates the container, which must work.
    #[track_caller]
    pub fn create(self) -> Container {
        let container = self.build();
        container.create().assert_ok();
        container
    }

    /// Creates and starts the container, which must work.
    #[track_caller]
    pub fn start(self) -> Container {
        let container = self.create();
        container.pid();
        container.start().assert_ok();
        container
    }

    /// Runs the container in the foreground to its end, after which nothing of it may be left.
    #[track_caller]
    pub fn run(self) -> Output {
        self.build().run()
    }

    /// The runtime refuses to create this, says all these `words`, and leaves nothing behind.
    #[track_caller]
    pub fn refused(self, words: &[&str]) -> Output {
        self.build().refused(words)
    }
}

/// Makes the root file system. The program itself is a link to one copy that the run shares.
fn make_rootfs(rootfs: &Path) {
    let (template, applets) = busybox();
    for dir in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr", "var"] {
        fs::create_dir_all(rootfs.join(dir)).expect("a directory");
    }
    let mode = fs::Permissions::from_mode(0o1777);
    fs::set_permissions(rootfs.join("tmp"), mode).expect("a mode for /tmp");
    fs::hard_link(template, rootfs.join("bin/busybox")).expect("a link to busybox");
    for applet in applets {
        symlink("busybox", rootfs.join("bin").join(applet)).expect("a link for an applet");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n";
    fs::write(rootfs.join("etc/passwd"), passwd).expect("passwd");
    fs::write(rootfs.join("etc/group"), "root:x:0:\ntty:x:5:\nuser:x:1000:\n").expect("group");
}

/// This run's copy of the static busybox, and its applets.
fn busybox() -> &'static (PathBuf, Vec<String>) {
    static BUSYBOX: OnceLock<(PathBuf, Vec<String>)> = OnceLock::new();
    BUSYBOX.get_or_init(|| {
        let host = on_path("busybox").expect("busybox (of busybox-static) on the PATH");
        let copy = scratch().join("busybox");
        fs::copy(&host, &copy).expect("a copy of busybox");
        let list = Command::new(&host).arg("--list").output().expect("busybox --list");
        let list = String::from_utf8(list.stdout).expect("names of applets");
        (copy, list.lines().filter(|&a| a != "busybox").map(str::to_owned).collect())
    })
}

fn base_spec() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["true"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "box",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] },
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" },
                { "type": "network" },
                { "type": "ipc" },
                { "type": "uts" },
                { "type": "mount" },
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
