//! Malicious images: whatever links a root file system holds, the host is neither changed nor shown.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use lxcrun_test::{Bundle, Output, tests};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

tests![
    a_target_that_links_outside_stays_inside,
    a_target_below_a_link_outside_stays_inside,
    a_file_target_that_links_outside_stays_inside,
    a_target_that_links_to_itself_is_refused,
    a_proc_that_links_outside_does_not_reach_the_host,
    a_dev_that_links_outside_does_not_reach_the_host
        .not_on("runc", "1.1.5 makes its links in /dev on the host"),
    a_sys_that_links_outside_does_not_reach_the_host,
    a_masked_path_that_links_outside_does_not_reach_the_host,
    a_working_directory_that_links_outside_does_not_reach_the_host,
    a_program_that_links_outside_is_not_the_hosts,
    a_device_below_a_link_outside_does_not_reach_the_host,
    a_magic_link_of_proc_does_not_lead_outside,
    a_link_in_a_mounted_volume_stays_inside,
    a_target_that_changes_meanwhile_stays_inside.not_on("runc", "1.1.5 loses the race"),
    an_absolute_link_inside_the_image_is_followed_inside,
];

/// A place outside of the root file system that nobody may change.
struct Outside {
    dir: PathBuf,
}

impl Outside {
    fn new(bundle: &Bundle) -> Outside {
        let dir = bundle.make_dir("outside");
        bundle.make_file("outside/file", "secret\n");
        bundle.make_dir("outside/dir");
        Outside { dir }
    }

    /// Links that lead to `name` in it, if they are resolved on the host.
    fn links(&self, name: &str) -> Vec<PathBuf> {
        let target = self.dir.join(name);
        let climbing =
            format!("{}{}", "../".repeat(40), target.to_str().expect("UTF-8").trim_start_matches('/'));
        vec![target, PathBuf::from(climbing), Path::new("../outside").join(name)]
    }

    #[track_caller]
    fn assert_untouched(&self, run: &Output) {
        let mut names: Vec<PathBuf> =
            fs::read_dir(&self.dir).expect("outside").flatten().map(|e| e.path()).collect();
        names.sort();
        assert_eq!(names, [self.dir.join("dir"), self.dir.join("file")], "the host has changed{run}");
        let in_dir = fs::read_dir(self.dir.join("dir")).expect("outside/dir").count();
        assert_eq!(in_dir, 0, "the host has changed{run}");
        assert_eq!(fs::read_to_string(self.dir.join("file")).expect("outside/file"), "secret\n");
        assert!(!run.stdout.contains("secret"), "the container saw the host's file{run}");
    }
}

/// Replaces what is at `place` in the image by each link to `name` outside, and runs `change`d bundles on it.
fn with_links_at(place: &str, name: &str, change: impl Fn(Bundle) -> Bundle) {
    let probe = Bundle::busybox();
    let count = Outside::new(&probe).links(name).len();
    for number in 0..count {
        let bundle = Bundle::busybox();
        let outside = Outside::new(&bundle);
        let link = bundle.rootfs(place);
        fs::create_dir_all(link.parent().expect("a parent")).expect("a directory");
        let _ = fs::remove_dir_all(&link);
        symlink(&outside.links(name)[number], &link).expect("a link");
        bundle.make_dir("source");
        bundle.make_file("source/inside", "inside\n");
        let container = change(bundle).build();
        // It may work, within the image, or be refused.
        let run = container.run();
        outside.assert_untouched(&run);
        if run.code() != 0 {
            run.assert_fails();
        }
    }
}

fn a_target_that_links_outside_stays_inside() {
    for name in ["dir", "new"] {
        with_links_at("data", name, |b| b.bind("source", "/data", &[]).sh("cat /data/*; echo x > /data/x"));
        with_links_at("data", name, |b| b.mount("/data", "tmpfs", "tmpfs", &[]).sh("echo x > /data/x"));
    }
}

fn a_target_below_a_link_outside_stays_inside() {
    with_links_at("a/link", "dir", |b| {
        b.bind("source", "/a/link/new/dir", &[]).args(["cat", "/a/link/new/dir/inside"])
    });
    with_links_at("a/link", "new", |b| {
        b.bind("source", "/a/link/new/dir", &[]).args(["cat", "/a/link/new/dir/inside"])
    });
    with_links_at("a/link", "dir", |b| {
        b.bind("source/inside", "/a/link/file", &[]).args(["cat", "/a/link/file"])
    });
}

fn a_file_target_that_links_outside_stays_inside() {
    for name in ["file", "new"] {
        with_links_at("etc/resolv.conf", name, |b| {
            b.bind("source/inside", "/etc/resolv.conf", &[]).args(["cat", "/etc/resolv.conf"])
        });
    }
}

fn a_target_that_links_to_itself_is_refused() {
    let bundle = Bundle::busybox().mount("/loop/x", "tmpfs", "tmpfs", &[]);
    symlink("loop", bundle.rootfs("loop")).expect("a link");
    bundle.refused(&["/loop"]);
}

fn a_proc_that_links_outside_does_not_reach_the_host() {
    with_links_at("proc", "dir", |b| b.sh("cat /proc/*/file; echo x > /proc/x"));
    with_links_at("proc", "new", |b| b);
}

fn a_dev_that_links_outside_does_not_reach_the_host() {
    with_links_at("dev", "dir", |b| b.sh("cat /dev/file; echo x > /dev/x"));
    with_links_at("dev", "new", |b| b);
    // Without a mount of its own, the devices are made in the image.
    with_links_at("dev", "dir", |b| {
        let mounts = ["/dev/pts", "/dev/shm", "/dev/mqueue"];
        mounts.into_iter().fold(b.without_mount("/dev"), Bundle::without_mount)
    });
}

fn a_sys_that_links_outside_does_not_reach_the_host() {
    with_links_at("sys", "dir", |b| b);
    with_links_at("sys", "new", |b| b);
}

fn a_masked_path_that_links_outside_does_not_reach_the_host() {
    let paths = json!(["/hidden"]);
    with_links_at("hidden", "file", |b| b.set("/linux/maskedPaths", paths.clone()).args(["cat", "/hidden"]));
    with_links_at("hidden", "dir", |b| b.set("/linux/readonlyPaths", paths.clone()).sh("echo x > /hidden/x"));
}

fn a_working_directory_that_links_outside_does_not_reach_the_host() {
    with_links_at("place", "dir", |b| b.cwd("/place").sh("echo x > x; cat ../file"));
    with_links_at("place", "dir", |b| b.cwd("/place/new").sh("echo x > x"));
}

fn a_program_that_links_outside_is_not_the_hosts() {
    let bundle = Bundle::busybox();
    let outside = bundle.make_dir("outside");
    fs::hard_link(bundle.rootfs("bin/busybox"), outside.join("program")).expect("a program");
    symlink("../../outside/program", bundle.rootfs("bin/program")).expect("a link");
    symlink(outside.join("program"), bundle.rootfs("bin/absolute")).expect("a link");
    let container = bundle.sh("for p in program absolute; do /bin/$p echo secret; done").build();
    container.run().assert_exit(127).assert_stdout("");
    for program in ["/bin/program", "/bin/absolute"] {
        container.rewrite("/process/args", json!([program, "echo", "secret"]));
        container.refused(&["no such file"]);
    }
}

fn a_device_below_a_link_outside_does_not_reach_the_host() {
    let device = json!([{ "path": "/place/null", "type": "c", "major": 1, "minor": 3 }]);
    with_links_at("place", "dir", |b| b.set("/linux/devices", device.clone()).args(["ls", "/place/"]));
}

fn a_magic_link_of_proc_does_not_lead_outside() {
    for link in ["/proc/self/cwd/outside", "/proc/1/root/tmp", "/proc/self/fd"] {
        let bundle = Bundle::busybox();
        let outside = Outside::new(&bundle);
        symlink(link, bundle.rootfs("data")).expect("a link");
        let container = bundle.mount("/data", "tmpfs", "tmpfs", &[]).build();
        outside.assert_untouched(&container.run());
    }
}

fn a_link_in_a_mounted_volume_stays_inside() {
    let bundle = Bundle::busybox();
    let outside = Outside::new(&bundle);
    let volume = bundle.make_dir("volume");
    symlink(&outside.dir, volume.join("link")).expect("a link");
    let bundle = bundle.bind(volume, "/volume", &[]).mount("/volume/link/new", "tmpfs", "tmpfs", &[]);
    let container = bundle.args(["cat", "/volume/link/file"]).build();
    outside.assert_untouched(&container.run());
}

fn a_target_that_changes_meanwhile_stays_inside() {
    let bundle = Bundle::busybox();
    let outside = Outside::new(&bundle);
    bundle.make_dir("rootfs/data/new");
    symlink(outside.dir.join("dir"), bundle.rootfs("swap")).expect("a link");
    let [data, swap] = ["data", "swap"].map(|name| bundle.rootfs(name));
    let container = bundle.mount("/data/new/dir", "tmpfs", "tmpfs", &[]).build();

    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &data, CWD, &swap, RenameFlags::EXCHANGE).expect("an exchange");
            }
        });
        let runs: Vec<Output> = (0..20).map(|_| container.run()).collect();
        done.store(true, Ordering::Relaxed);
        runs.iter().for_each(|run| outside.assert_untouched(run));
    });
}

fn an_absolute_link_inside_the_image_is_followed_inside() {
    let bundle = Bundle::busybox();
    bundle.make_dir("rootfs/real");
    bundle.make_dir("source");
    bundle.make_file("source/inside", "inside\n");
    symlink("/real", bundle.rootfs("link")).expect("a link");
    let bundle = bundle.bind("source", "/link/place", &[]).args(["cat", "/real/place/inside"]);
    bundle.run().assert_ok().assert_stdout("inside\n");
}
