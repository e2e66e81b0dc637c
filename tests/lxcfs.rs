//! LXCFS over the container's /proc: it shows the container's own limits, or is refused by name.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use lxcrun_test::{Bundle, Call, DEADLINE, Need, tests};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

tests![
    proc_shows_the_limits_of_the_container
        .needs(Need::Program("lxcfs"))
        .needs(Need::File("/dev/fuse"))
        .needs(Need::Controller("memory"))
        .lxcrun_only(WHY),
    proc_is_the_machines_without_the_setting.lxcrun_only(WHY),
    a_host_without_lxcfs_is_refused.lxcrun_only(WHY),
    a_container_without_a_procfs_or_pids_of_its_own_is_refused.lxcrun_only(WHY),
    the_setting_is_true_or_false.lxcrun_only(WHY),
];

const WHY: &str = "it is a setting of lxcrun's";
const ANNOTATION: &str = "org.linuxcontainers.lxc.lxcfs";

/// Takes away what this host has of it.
const NONE: &str = "sed -n 's/^[^/]* [^ ]* \\([^ ]*\\) .* - fuse[.]lxcfs .*/\\1/p' /proc/self/mountinfo | \
                    while read -r place; do umount -l \"$place\"; done;";

fn wanted() -> Bundle {
    Bundle::busybox().set("/annotations", json!({ ANNOTATION: "true" }))
}

/// The server of an LXCFS; it ends when that is unmounted. The directory is no container's: it would be taken for a leak.
struct Lxcfs {
    server: Child,
    place: String,
    _dir: Bundle,
}

impl Lxcfs {
    fn mount() -> Lxcfs {
        let bundle = Bundle::busybox();
        let place = bundle.make_dir("lxcfs").display().to_string();
        let mut server = Command::new("lxcfs");
        server.arg("-f").arg("-p").arg(bundle.path("lxcfs.pid")).args(["-o", "allow_other", &place]);
        let server = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let lxcfs = Lxcfs { server: server.spawn().expect("lxcfs"), place, _dir: bundle };
        // A change of the mounts is an event of this file's.
        let table = File::open("/proc/self/mountinfo").expect("mountinfo");
        let deadline = Timespec::try_from(DEADLINE).expect("a short time");
        while !std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo").contains(&lxcfs.place) {
            let mut fds = [PollFd::new(&table, PollFlags::PRI)];
            assert!(poll(&mut fds, Some(&deadline)).expect("poll") > 0, "lxcfs did not mount");
        }
        lxcfs
    }
}

impl Drop for Lxcfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.place).status();
        let _ = self.server.wait();
    }
}

fn proc_shows_the_limits_of_the_container() {
    const TOTAL: &str = "head -n 1 /proc/meminfo | tr -s ' '; cat /proc/uptime >/dev/null";
    let bundle = wanted().resource("memory", json!({ "limit": 64 << 20 }));
    let lxcfs = Lxcfs::mount();
    let container = bundle.sh(&format!("{TOTAL}; exec sleep 1000")).start();
    container.exec(["sh", "-c", TOTAL]).assert_ok().assert_stdout("MemTotal: 65536 kB\n");
    let write = container.exec(["sh", "-c", "echo >/proc/meminfo"]);
    write.assert_fails();
    container.finish();
    let other = Bundle::busybox();
    let call = Call::new(other.path("root")).args(["run", "--memory", "32m", "--lxc-conf", "lxc.lxcfs=1"]);
    let run = call.args(["--", "sh", "-c", TOTAL]).output();
    drop(lxcfs);
    run.assert_ok().assert_stdout("MemTotal: 32768 kB\n");
}

fn proc_is_the_machines_without_the_setting() {
    let mounts = "grep -c lxcfs /proc/self/mountinfo";
    Bundle::busybox().sh(mounts).run().assert_stdout("0\n");
    let off = Bundle::busybox().set("/annotations", json!({ ANNOTATION: "false" }));
    off.sh(mounts).run().assert_stdout("0\n");
}

fn a_host_without_lxcfs_is_refused() {
    wanted().host(NONE).refused(&[ANNOTATION, "LXCFS is not mounted"]);
}

fn a_container_without_a_procfs_or_pids_of_its_own_is_refused() {
    wanted().host(NONE).without_namespace("pid").refused(&[ANNOTATION, "pid namespace"]);
    wanted().set("/mounts", json!([])).refused(&[ANNOTATION, "no procfs"]);
}

fn the_setting_is_true_or_false() {
    Bundle::busybox()
        .set("/annotations", json!({ ANNOTATION: "perhaps" }))
        .refused(&[ANNOTATION, "not true or false"]);
}
