//! What all of them run: a busybox root file system and the spec that `runc spec` writes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::sandbox::LXC_PIVOT;

/// The bundles differ in the program alone and share their root file system.
pub struct Bundles {
    pub dir: PathBuf,
    pub rootfs: PathBuf,
    /// Ends at once.
    pub ends: PathBuf,
    /// Stays until it is killed.
    pub stays: PathBuf,
    /// The same as an LXC configuration.
    pub lxc: PathBuf,
}

impl Bundles {
    pub fn create(dir: &Path) -> Result<Self> {
        let rootfs = dir.join("rootfs");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(name))?;
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.context("busybox is missing: install busybox-static")?, rootfs.join("bin/busybox"))?;
        for name in ["sh", "sleep", "true"] {
            symlink("busybox", rootfs.join("bin").join(name))?;
        }
        let bundles = Self {
            dir: dir.to_owned(),
            ends: dir.join("ends"),
            stays: dir.join("stays"),
            lxc: dir.join("lxc.conf"),
            rootfs,
        };
        bundles.write(&bundles.ends, &spec(&bundles.rootfs, ENDS))?;
        bundles.write(&bundles.stays, &spec(&bundles.rootfs, STAYS))?;
        fs::write(&bundles.lxc, lxc_config(&bundles.rootfs))?;
        Ok(bundles)
    }

    /// A bundle that ends at once, in a cgroup of its own.
    pub fn ending_in(&self, cgroup: &str) -> Result<PathBuf> {
        self.in_cgroup(ENDS, cgroup)
    }

    /// A bundle that stays, in a cgroup of its own.
    pub fn staying_in(&self, cgroup: &str) -> Result<PathBuf> {
        self.in_cgroup(STAYS, cgroup)
    }

    fn in_cgroup(&self, args: &[&str], cgroup: &str) -> Result<PathBuf> {
        let mut spec = spec(&self.rootfs, args);
        spec["linux"]["cgroupsPath"] = format!("/lxcrun-bench-{cgroup}").into();
        self.variant(cgroup, &spec)
    }

    /// A bundle that ends at once, with so many bytes of memory at most.
    pub fn limited_to(&self, bytes: u64) -> Result<PathBuf> {
        let mut spec = spec(&self.rootfs, ENDS);
        spec["linux"]["resources"]["memory"] = json!({ "limit": bytes });
        self.variant("limited", &spec)
    }

    fn variant(&self, name: &str, spec: &Value) -> Result<PathBuf> {
        let bundle = self.dir.join("variants").join(name);
        self.write(&bundle, spec)?;
        Ok(bundle)
    }

    fn write(&self, bundle: &Path, spec: &Value) -> Result<()> {
        fs::create_dir_all(bundle)?;
        Ok(fs::write(bundle.join("config.json"), spec.to_string())?)
    }
}

const ENDS: &[&str] = &["/bin/true"];
const STAYS: &[&str] = &["/bin/sleep", "3600"];

const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

fn spec(rootfs: &Path, args: &[&str]) -> Value {
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount"];
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        namespaces.push("cgroup");
    }
    let namespaces: Vec<Value> = namespaces.iter().map(|name| json!({ "type": name })).collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": { "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES },
            "noNewPrivileges": true,
        },
        "root": { "path": rootfs },
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "cgroupsPath": "/lxcrun-bench",
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": namespaces,
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

/// As near to the spec as LXC's own words come.
fn lxc_config(rootfs: &Path) -> String {
    format!(
        "lxc.rootfs.path = dir:{}\n\
         lxc.uts.name = bench\n\
         lxc.net.0.type = empty\n\
         lxc.mount.auto = proc:mixed sys:ro cgroup:ro\n\
         lxc.mount.entry = shm dev/shm tmpfs nosuid,noexec,nodev,mode=1777,size=65536k,create=dir 0 0\n\
         lxc.mount.entry = mqueue dev/mqueue mqueue nosuid,noexec,nodev,create=dir 0 0\n\
         lxc.autodev = 1\n\
         lxc.pty.max = 1\n\
         lxc.tty.max = 0\n\
         lxc.cap.keep = audit_write kill net_bind_service\n\
         lxc.no_new_privs = 1\n\
         lxc.cgroup.dir.container = lxcrun-bench\n\
         lxc.cgroup.dir.monitor = lxcrun-bench-monitor\n\
         lxc.cgroup.dir.monitor.pivot = {LXC_PIVOT}\n",
        rootfs.display()
    )
}
