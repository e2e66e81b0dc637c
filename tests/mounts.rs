//! Mounts and their options, the root, masked and read-only paths.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use lxcrun_test::{Bundle, Output, Runtime, is_v2, tests};
use serde_json::{Value, json};

tests![
    a_mount_over_the_root_is_refused
        .not_on("runc", "1.1 mounts it there, 1.3 refuses it")
        .not_on("crun", "1.8 mounts beside it"),
    a_mount_over_the_root_by_a_link_of_the_image_is_refused
        .not_on("runc", "1.1 mounts it there, 1.3 refuses it")
        .not_on("crun", "1.8 mounts beside it"),
    a_mount_goes_over_the_root_bound_below_itself,
    a_bind_mount_is_writable_by_default,
    a_read_only_bind_mount_cannot_be_written,
    a_bind_mount_leaves_what_is_below_it_out,
    a_recursive_bind_mount_takes_what_is_below_it_along,
    a_read_only_recursive_bind_is_read_only_at_its_top_alone,
    rro_is_read_only_all_the_way_down,
    a_file_can_be_bound,
    a_file_can_be_bound_read_only,
    a_bind_mount_needs_no_type,
    a_relative_source_is_below_the_bundle,
    a_relative_destination_is_below_the_root,
    a_missing_target_is_made,
    a_missing_target_of_a_file_is_made,
    a_target_with_dots_stays_inside,
    names_with_spaces_commas_and_unicode_work,
    words_of_options_in_paths_mean_nothing,
    a_tmpfs_has_its_size_and_mode,
    a_tmpfs_has_the_mode_of_what_it_covers,
    mounts_nest_in_their_order,
    mounts_are_listed_in_their_order,
    a_later_mount_covers_an_earlier_one,
    a_file_on_a_directory_is_told_in_the_words_of_engines,
    flags_of_mounts_are_set,
    flags_of_bind_mounts_are_set,
    a_bind_mount_that_names_no_flag_keeps_those_of_its_source,
    a_bind_mount_that_names_a_flag_has_no_other,
    atime_flags_are_set,
    a_bind_mount_keeps_access_times_as_its_source_unless_told_how,
    a_read_only_root_cannot_be_written,
    mounts_in_a_read_only_root_can_be_written,
    targets_are_made_in_a_read_only_root,
    no_pivot_leaves_no_procfs_of_the_host_behind,
    masked_paths_are_empty,
    masked_paths_that_are_missing_are_fine,
    what_covers_a_masked_path_is_not_the_hosts.not_on("crun", "1.8 covers it with the host's"),
    what_covers_a_masked_path_is_not_the_hosts_where_the_container_has_none
        .lxcrun_only("others cover it with what is there"),
    readonly_paths_cannot_be_written,
    proc_is_the_containers_own,
    sys_is_read_only,
    the_cgroup_mount_shows_the_containers_cgroups,
    what_is_mounted_below_the_cgroups_is_not_the_hosts,
    another_hosts_proc_may_be_shown_elsewhere,
    nothing_but_a_procfs_is_mounted_over_proc,
    a_source_behind_a_link_of_proc_is_what_it_leads_to
        .not_on("runc", "1.1 looks for it in the container's /proc"),
    the_old_root_is_out_of_sight,
    a_mount_on_the_root_itself_or_above_is_harmless,
    a_source_in_the_root_is_what_earlier_mounts_made_it,
    a_source_in_the_root_leads_nowhere_else.lxcrun_only("others resolve it on the host"),
    a_destination_may_be_the_hosts_name_for_it.not_on("runc", "1.1 looks for it on the host"),
    a_remount_changes_what_is_there,
    a_remount_of_what_is_no_mount_is_an_error,
    a_remount_without_more_of_what_is_no_mount_is_an_error.not_on("crun", "1.8 passes over it"),
    a_bind_of_the_hosts_devices_takes_its_terminals_along,
    the_root_may_be_bound_below_itself,
    a_read_only_path_may_be_the_root.not_on("crun", "1.8 passes over it"),
    options_that_mean_nothing_for_a_bind_mount_are_refused.lxcrun_only("others pass over them"),
    a_mode_and_a_size_of_a_bind_mount_are_those_that_it_has,
    options_that_change_nothing_are_taken.not_on("crun", "1.8 does not know all of them"),
];

/// The kernel lists mounts in the order in which they were made.
fn mounts_are_listed_in_their_order() {
    let bundle = Bundle::busybox();
    let first = bundle.make_dir("first");
    let second = bundle.make_file("second", "");
    let bundle = bundle.bind(first, "/mnt/a", &["rbind", "rw"]).mount("/mnt/b", "tmpfs", "tmpfs", &[]);
    let bundle = bundle.bind(second, "/mnt/c", &["ro", "rprivate"]).mount("/mnt/d", "tmpfs", "tmpfs", &[]);
    let run = bundle
        .bind("/etc", "/mnt/e", &["rshared"])
        .sh("cut -d' ' -f5 /proc/self/mountinfo | grep ^/mnt/")
        .run();
    run.assert_ok().assert_stdout("/mnt/a\n/mnt/b\n/mnt/c\n/mnt/d\n/mnt/e\n");
}

/// A directory of the host with a file in it, for binding.
fn with_source(bundle: Bundle) -> (Bundle, PathBuf) {
    let dir = bundle.make_dir("source");
    bundle.make_file("source/file", "from the host\n");
    (bundle, dir)
}

pub fn busybox_with_source() -> (Bundle, PathBuf) {
    with_source(Bundle::busybox())
}

/// The options that the mount table of the container has for `place`: of the mount, then of the file system.
fn flags(run: &Output, place: &str) -> Vec<String> {
    let line = run.assert_ok().lines().into_iter().rfind(|line| line.split(' ').nth(4) == Some(place));
    let line = line.unwrap_or_else(|| panic!("nothing is mounted at {place}{run}"));
    let (left, right) = line.split_once(" - ").expect("a mount table");
    let of_mount = left.split(' ').nth(5).expect("options");
    let of_superblock = right.split(' ').nth(2).expect("options");
    of_mount.split(',').chain(of_superblock.split(',')).map(str::to_owned).collect()
}

pub const TABLE: [&str; 2] = ["cat", "/proc/self/mountinfo"];

/// What a directory of the host has.
fn names(directory: &Path) -> Vec<OsString> {
    fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect()
}

fn a_mount_over_the_root_is_refused() {
    for place in ["/", "//", "/.", "/a/..", "/..", "", "."] {
        let (bundle, source) = busybox_with_source();
        let container = bundle.edit(|spec| {
            let over = json!({ "destination": place, "source": source, "options": ["rbind"] });
            spec["mounts"].as_array_mut().expect("mounts").insert(0, over);
        });
        let container = container.build();
        let output = container.refused(&["is on the top of rootfs"]);
        if Runtime::get().is("lxcrun") {
            output.assert_stderr_contains("mounts[0].destination");
        }
        assert_eq!(names(&source), ["file"], "{place:?}{output}");
        assert!(!container.path("rootfs/a").exists(), "{place:?}{output}");
    }
    Bundle::busybox().mount("/", "tmpfs", "tmpfs", &[]).refused(&["is on the top of rootfs"]);
    Bundle::busybox().mount("/", "none", "none", &["remount", "ro"]).refused(&["is on the top of rootfs"]);
    let bundle = Bundle::busybox();
    let root = bundle.rootfs("").display().to_string();
    bundle.mount(&root, "tmpfs", "tmpfs", &[]).refused(&["is on the top of rootfs"]);
}

fn a_mount_over_the_root_by_a_link_of_the_image_is_refused() {
    for target in ["/", "..", "bin/..", "/bin/../link"] {
        let (bundle, source) = busybox_with_source();
        symlink("/", bundle.rootfs("link")).expect("a link");
        symlink(target, bundle.rootfs("other")).expect("a link");
        let container = bundle.bind(&source, "/other", &["rbind"]).build();
        let output = container.refused(&["is on the top of rootfs"]);
        assert_eq!(names(&source), ["file"], "{target}{output}");
    }
}

/// It is the same directory, but not what the container's programs have as their root.
fn a_mount_goes_over_the_root_bound_below_itself() {
    let bundle = Bundle::busybox();
    let root = bundle.rootfs("");
    let bundle = bundle.bind(root, "/again", &["bind"]).mount("/again", "tmpfs", "tmpfs", &[]);
    bundle.sh("ls /again; test -e /proc/self/stat && echo proc").run().assert_ok().assert_stdout("proc\n");
}

fn a_bind_mount_is_writable_by_default() {
    let (bundle, source) = busybox_with_source();
    let container = bundle.bind(&source, "/data", &[]).sh("cat /data/file; echo new > /data/new").build();
    container.run().assert_ok().assert_stdout("from the host\n");
    assert_eq!(fs::read_to_string(source.join("new")).expect("the new file"), "new\n");
}

fn a_read_only_bind_mount_cannot_be_written() {
    let (bundle, source) = busybox_with_source();
    let container = bundle.bind(&source, "/data", &["ro"]).sh("cat /data/file; echo new > /data/new").build();
    container.run().assert_exit(1).assert_stdout("from the host\n").assert_stderr_contains("read-only");
    assert!(!source.join("new").exists());
}

/// A source with a tmpfs mounted at `source/below`, in the runtime's own mount namespace.
fn with_submount(options: &[&str]) -> Bundle {
    let (bundle, source) = busybox_with_source();
    let below = bundle.make_dir("source/below");
    let script = format!("mount -t tmpfs below {0}; echo deep > {0}/deep", below.display());
    bundle.host(script).bind(source, "/data", options)
}

fn a_bind_mount_leaves_what_is_below_it_out() {
    with_submount(&[]).sh("ls /data/below").run().assert_ok().assert_stdout("");
}

fn a_recursive_bind_mount_takes_what_is_below_it_along() {
    with_submount(&["rbind"]).sh("cat /data/below/deep").run().assert_ok().assert_stdout("deep\n");
}

fn a_read_only_recursive_bind_is_read_only_at_its_top_alone() {
    let script = "(echo x > /data/x) 2>/dev/null || echo top; echo x > /data/below/x && echo below";
    with_submount(&["rbind", "ro"]).sh(script).run().assert_ok().assert_stdout("top\nbelow\n");
}

fn rro_is_read_only_all_the_way_down() {
    let run = with_submount(&["rbind", "rro"]).sh("echo x > /data/below/x").run();
    run.assert_exit(1).assert_stderr_contains("read-only");
}

fn a_file_can_be_bound() {
    let (bundle, source) = busybox_with_source();
    let run = bundle.bind(source.join("file"), "/etc/passwd", &[]).args(["cat", "/etc/passwd"]).run();
    run.assert_ok().assert_stdout("from the host\n");
}

fn a_file_can_be_bound_read_only() {
    let (bundle, source) = busybox_with_source();
    let run = bundle.bind(source.join("file"), "/file", &["ro"]).sh("echo x > /file").run();
    run.assert_exit(1).assert_stderr_contains("read-only");
}

fn a_bind_mount_needs_no_type() {
    let (bundle, source) = busybox_with_source();
    let mount = json!({ "destination": "/data", "source": source, "options": ["rbind"] });
    let run = bundle.push("/mounts", mount).args(["cat", "/data/file"]).run();
    run.assert_ok().assert_stdout("from the host\n");
}

fn a_relative_destination_is_below_the_root() {
    let (bundle, source) = busybox_with_source();
    let run = bundle.bind(source, "data/below", &[]).args(["cat", "/data/below/file"]).run();
    run.assert_ok().assert_stdout("from the host\n");
}

fn a_relative_source_is_below_the_bundle() {
    let (bundle, _) = busybox_with_source();
    let run = bundle.bind("source", "/data", &[]).args(["cat", "/data/file"]).run();
    run.assert_ok().assert_stdout("from the host\n");
}

fn a_missing_target_is_made() {
    let (bundle, source) = busybox_with_source();
    let run = bundle.bind(source, "/very/new/place", &[]).args(["cat", "/very/new/place/file"]).run();
    run.assert_ok().assert_stdout("from the host\n");
}

fn a_missing_target_of_a_file_is_made() {
    let (bundle, source) = busybox_with_source();
    let run = bundle.bind(source.join("file"), "/new/file", &[]).args(["cat", "/new/file"]).run();
    run.assert_ok().assert_stdout("from the host\n");
}

fn a_target_with_dots_stays_inside() {
    let (bundle, source) = busybox_with_source();
    let container = bundle.bind(source, "/../../../../dots", &[]).args(["cat", "/dots/file"]).build();
    container.run().assert_ok().assert_stdout("from the host\n");
    assert!(!container.path("dots").exists());
}

fn names_with_spaces_commas_and_unicode_work() {
    for name in ["a b", "a,b", "ü\u{2603}", "tab\there", "back\\slash", "#hash", "\"quoted\"", "new\nline"] {
        let bundle = Bundle::busybox();
        bundle.make_dir(name);
        bundle.make_file(&format!("{name}/file"), name);
        let source = bundle.path(name);
        let run = bundle.bind(source, &format!("/{name}"), &[]).args(["cat", &format!("/{name}/file")]).run();
        run.assert_ok().assert_stdout(name);
    }
}

fn words_of_options_in_paths_mean_nothing() {
    let bundle = Bundle::busybox();
    let source = bundle.make_dir("optional,create=dir,relative");
    bundle.make_file("optional,create=dir,relative/ro", "x");
    let run = bundle.bind(source, "/create=file,ro/optional", &[]).sh("ls /create=file,ro/optional").run();
    run.assert_ok().assert_stdout("ro\n");
}

fn a_tmpfs_has_its_size_and_mode() {
    let options = ["size=1024k", "mode=1750", "uid=0", "gid=8"];
    let script = "stat -c '%a %u %g' /t; head -c 2000000 /dev/zero > /t/big; stat -c %s /t/big";
    let run = Bundle::busybox().mount("/t", "tmpfs", "tmpfs", &options).sh(script).run();
    run.assert_ok().assert_stdout("1750 0 8\n1048576\n");
}

fn a_tmpfs_has_the_mode_of_what_it_covers() {
    let bundle = Bundle::busybox().mount("/tmp", "tmpfs", "tmpfs", &[]);
    fs::create_dir(bundle.rootfs("private")).expect("set up the root");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o710);
    fs::set_permissions(bundle.rootfs("private"), mode).expect("set up the root");
    let bundle = bundle.mount("/private", "tmpfs", "tmpfs", &[]).mount("/new", "tmpfs", "tmpfs", &[]);
    let run = bundle.args(["stat", "-c", "%a", "/tmp", "/private", "/new"]).run();
    run.assert_ok().assert_stdout("1777\n710\n1777\n");
}

fn mounts_nest_in_their_order() {
    let (bundle, source) = busybox_with_source();
    let bundle = bundle.mount("/a", "tmpfs", "tmpfs", &[]).bind(&source, "/a/b", &[]);
    let bundle = bundle.mount("/a/b/c", "tmpfs", "tmpfs", &[]).bind(source.join("file"), "/a/b/c/d", &["ro"]);
    bundle.sh("cat /a/b/file /a/b/c/d").run().assert_ok().assert_stdout("from the host\nfrom the host\n");
}

fn a_later_mount_covers_an_earlier_one() {
    let (bundle, source) = busybox_with_source();
    let bundle = bundle.bind(source, "/data", &[]).mount("/data", "tmpfs", "tmpfs", &[]);
    bundle.args(["ls", "/data"]).run().assert_ok().assert_stdout("");
}

/// dockerd explains what it means, and has an exit code for it.
fn a_file_on_a_directory_is_told_in_the_words_of_engines() {
    let bundle = Bundle::busybox();
    let file = bundle.make_file("file", "");
    bundle.bind(file, "/bin", &[]).refused(&["not a directory"]);
    let bundle = Bundle::busybox();
    let directory = bundle.make_dir("directory");
    bundle.bind(directory, "/bin/busybox", &[]).refused(&["not a directory"]);
}

fn flags_of_mounts_are_set() {
    for flag in ["nosuid", "nodev", "noexec", "ro", "sync", "dirsync", "noatime", "nodiratime"] {
        let run = Bundle::busybox().mount("/t", "tmpfs", "tmpfs", &[flag]).args(TABLE).run();
        assert!(flags(&run, "/t").iter().any(|f| f == flag), "{flag} is missing{run}");
    }
    let opposites = ["nosuid", "suid", "nodev", "dev", "noexec", "exec", "ro", "rw"];
    let run = Bundle::busybox().mount("/t", "tmpfs", "tmpfs", &opposites).args(TABLE).run();
    let flags = flags(&run, "/t");
    assert!(!flags.iter().any(|f| ["nosuid", "nodev", "noexec", "ro"].contains(&f.as_str())), "{run}");
}

fn flags_of_bind_mounts_are_set() {
    let (bundle, source) = busybox_with_source();
    let run = bundle.bind(source, "/data", &["nosuid", "nodev", "noexec", "ro"]).args(TABLE).run();
    let flags = flags(&run, "/data");
    for flag in ["nosuid", "nodev", "noexec", "ro"] {
        assert!(flags.iter().any(|f| f == flag), "{flag} is missing{run}");
    }
}

/// A directory of the host on a file system with flags of its own: a private mount of the runtime's.
fn with_flags_at_source(options: &[&str]) -> Bundle {
    let (bundle, source) = busybox_with_source();
    let place = source.display();
    let bundle = bundle.host(format!("mount -t tmpfs -o nosuid,noexec tmpfs {place}"));
    bundle.bind(&source, "/data", options).args(TABLE)
}

fn a_bind_mount_that_names_no_flag_keeps_those_of_its_source() {
    let run = with_flags_at_source(&["rprivate"]).run();
    let flags = flags(&run, "/data");
    assert!(flags.contains(&"nosuid".into()) && flags.contains(&"noexec".into()), "{run}");
}

fn a_bind_mount_that_names_a_flag_has_no_other() {
    let run = with_flags_at_source(&["nodev"]).run();
    let flags = flags(&run, "/data");
    assert!(flags.contains(&"nodev".into()), "{run}");
    assert!(!flags.contains(&"nosuid".into()) && !flags.contains(&"noexec".into()), "{run}");
}

fn atime_flags_are_set() {
    for (option, shown) in [("relatime", "relatime"), ("noatime", "noatime"), ("strictatime", "")] {
        let run = Bundle::busybox().mount("/t", "tmpfs", "tmpfs", &[option]).args(TABLE).run();
        let flags = flags(&run, "/t");
        let atime: Vec<&str> = flags.iter().map(String::as_str).filter(|f| f.ends_with("atime")).collect();
        assert_eq!(atime.join(","), shown, "{option}{run}");
    }
}

fn a_bind_mount_keeps_access_times_as_its_source_unless_told_how() {
    for (option, shown) in [
        ("nosuid", "noatime"),
        ("atime", "noatime"),
        ("norelatime", "noatime"),
        ("relatime", "relatime"),
        ("strictatime", ""),
        ("nodiratime", "nodiratime,relatime"),
    ] {
        let (bundle, source) = busybox_with_source();
        let bundle = bundle.host(format!("mount -t tmpfs -o noatime tmpfs {}", source.display()));
        let run = bundle.bind(&source, "/data", &[option]).args(TABLE).run();
        let mut atime = flags(&run, "/data");
        atime.retain(|flag| flag.ends_with("atime"));
        atime.sort();
        assert_eq!(atime.join(","), shown, "{option}{run}");
    }
}

fn a_read_only_root_cannot_be_written() {
    let bundle = Bundle::busybox().set("/root/readonly", true).sh("echo x > /etc/new");
    bundle.run().assert_exit(1).assert_stderr_contains("read-only");
}

fn mounts_in_a_read_only_root_can_be_written() {
    let bundle = Bundle::busybox().set("/root/readonly", true).mount("/tmp", "tmpfs", "tmpfs", &[]);
    bundle.sh("echo x > /tmp/x && echo x > /dev/shm/x && echo x > /dev/null").run().assert_ok();
}

fn targets_are_made_in_a_read_only_root() {
    let (bundle, source) = busybox_with_source();
    let bundle = bundle.set("/root/readonly", true).bind(source, "/new/place", &[]).cwd("/new/dir");
    bundle.sh("cat /new/place/file; echo x > /new/x").run().assert_exit(1).assert_stdout("from the host\n");
}

/// A user namespace may mount a procfs of its own only where a complete one is left.
fn no_pivot_leaves_no_procfs_of_the_host_behind() {
    let script = "unshare -mrpf mount -t proc none /proc && echo mounted";
    let bundle = Bundle::busybox().capabilities(&["CAP_SETFCAP"]).sh(script);
    let masked = json!(["/proc/kcore"]);
    let run = bundle.set("/linux/maskedPaths", masked).build().run_with(|call| call.arg("--no-pivot"));
    run.assert_fails();
    run.assert_stderr_contains("permission denied");
}

fn masked_paths_are_empty() {
    let bundle = Bundle::busybox().set("/linux/maskedPaths", json!(["/proc/meminfo", "/bin", "/secret"]));
    fs::create_dir(bundle.rootfs("secret")).expect("a directory");
    fs::write(bundle.rootfs("secret/key"), "key").expect("a file");
    fs::create_dir(bundle.rootfs("tools")).expect("a directory");
    fs::hard_link(bundle.rootfs("bin/busybox"), bundle.rootfs("tools/busybox")).expect("a link");
    let script = "b=/tools/busybox; $b ls -A /bin /secret; $b wc -c < /proc/meminfo; $b touch /secret/x";
    let run = bundle.args(["/tools/busybox", "sh", "-c", script]).run();
    run.assert_exit(1).assert_stdout("/bin:\n\n/secret:\n0\n").assert_stderr_contains("read-only");
}

/// Whose root may change the mode of what covers a masked path: the host's null device stays as it is.
fn changes_the_mode_of_a_mask(bundle: Bundle) -> Output {
    use std::os::unix::fs::PermissionsExt;
    let mode = || fs::metadata("/dev/null").expect("the null device").permissions().mode();
    let before = mode();
    let script = "chmod 600 /proc/meminfo; stat -c %t:%T:%a /proc/meminfo";
    let run = bundle.set("/linux/maskedPaths", json!(["/proc/meminfo"])).sh(script).run();
    let after = mode();
    fs::set_permissions("/dev/null", fs::Permissions::from_mode(before)).expect("the null device");
    assert_eq!(after, before);
    run
}

fn what_covers_a_masked_path_is_not_the_hosts() {
    changes_the_mode_of_a_mask(Bundle::busybox()).assert_ok().assert_stdout("1:3:600\n");
}

fn what_covers_a_masked_path_is_not_the_hosts_where_the_container_has_none() {
    let bundle = Bundle::busybox().without_mount("/dev");
    fs::create_dir_all(bundle.rootfs("dev")).expect("a directory");
    fs::write(bundle.rootfs("dev/null"), "no device").expect("a file");
    changes_the_mode_of_a_mask(bundle).assert_stdout("1:3:666\n");
}

fn masked_paths_that_are_missing_are_fine() {
    let paths = json!(["/proc/no-such-thing", "/no/such/path"]);
    let bundle = Bundle::busybox().set("/linux/maskedPaths", paths.clone());
    bundle.set("/linux/readonlyPaths", paths).run().assert_ok();
}

fn readonly_paths_cannot_be_written() {
    // A relative one is below the root, and one that is not there is none.
    let paths = json!(["etc", "/proc/sys", "not/there", "/nor/this"]);
    let bundle = Bundle::busybox().set("/linux/readonlyPaths", paths);
    let script = "echo x > /etc/passwd || echo x > /proc/sys/kernel/hostname || cat /etc/passwd";
    let run = bundle.sh(script).run();
    run.assert_ok().assert_stdout_contains("root:x:0").assert_stderr_contains("read-only");
}

fn proc_is_the_containers_own() {
    let run = Bundle::busybox().sh("cd /proc; echo [0-9]*").run();
    run.assert_ok().assert_stdout("1\n");
}

fn sys_is_read_only() {
    let run = Bundle::busybox().args(TABLE).run();
    assert!(flags(&run, "/sys").iter().any(|f| f == "ro"), "{run}");
}

/// Service managers have the host's hierarchies shared.
fn what_is_mounted_below_the_cgroups_is_not_the_hosts() {
    let bundle = Bundle::busybox().mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro"]);
    let bundle = bundle.without_namespace("cgroup").host("mount --make-rshared /sys/fs/cgroup");
    let table = bundle.args(["grep", " /sys/fs/cgroup", "/proc/self/mountinfo"]).run();
    assert!(!table.assert_ok().stdout.contains("shared:"), "{table}");
}

fn the_cgroup_mount_shows_the_containers_cgroups() {
    let script = "cat /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/pids/cgroup.procs 2>/dev/null | sort -u";
    // Version 2 is shown whole to who has no namespace of it, as by runc.
    let bundle = Bundle::busybox().sh(script);
    let run = if is_v2() { bundle.namespace("cgroup", None).run() } else { bundle.run() };
    // The shell and the two programs of the pipe, as numbered in the container, and nobody of the host.
    assert!(run.assert_ok().lines().contains(&"1"), "{run}");
    assert!(run.lines().iter().all(|line| line.len() == 1), "{run}");
}

fn bind(source: &str, destination: &str, options: &[&str]) -> Value {
    let options = [&["rbind"], options].concat();
    json!({ "destination": destination, "type": "bind", "source": source, "options": options })
}

/// As monitoring agents ask for.
fn another_hosts_proc_may_be_shown_elsewhere() {
    let bundle = Bundle::busybox()
        .push("/mounts", bind("/proc", "/hostfs/proc", &["ro"]))
        .push("/mounts", bind("/proc", "/hostfs/proc", &["ro"]))
        .push("/mounts", bind("/proc/sys", "/hostfs/proc/sys", &["ro"]));
    bundle.sh("cat /hostfs/proc/1/comm").run().assert_ok();
}

fn nothing_but_a_procfs_is_mounted_over_proc() {
    let over = |source: &str, destination: &str| {
        let bundle = Bundle::busybox().push("/mounts", bind(source, destination, &[]));
        bundle.args(["cat", "/proc/1/comm"]).run()
    };
    over("/tmp", "/proc").assert_fails().assert_stderr_contains("/proc");
    over("/proc", "/proc").assert_ok();
    over("/tmp", "/proc/sys").assert_fails().assert_stderr_contains("it is inside /proc");
    let named = json!({ "destination": "/proc/sys", "type": "proc", "source": "/tmp", "options": ["bind"] });
    let run = Bundle::busybox().push("/mounts", named).args(["true"]).run();
    run.assert_fails().assert_stderr_contains("it is inside /proc");
}

fn a_source_behind_a_link_of_proc_is_what_it_leads_to() {
    let place = tempfile::tempdir().expect("a directory");
    fs::write(place.path().join("file"), "mine").expect("a file");
    let opened = fs::File::open(place.path()).expect("a directory");
    let link = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&opened));
    let bundle = Bundle::busybox().push("/mounts", bind(&link, "/mine", &[]));
    bundle.args(["cat", "/mine/file"]).run().assert_ok().assert_stdout("mine");
}

fn the_old_root_is_out_of_sight() {
    let container = Bundle::busybox().args(TABLE).build();
    let run = container.run();
    run.assert_ok();
    let host = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let roots = |table: &str| {
        let mounts = table.lines().map(|line| line.split(' ').skip(3).take(2).collect::<Vec<_>>().join(" "));
        mounts.filter(|mount| mount == "/ /").count()
    };
    assert_eq!(roots(&host), 1, "this test expects a root that is its file system's");
    assert_eq!(roots(&run.stdout), 0, "{run}");
}

fn a_mount_on_the_root_itself_or_above_is_harmless() {
    for place in ["/", "/..", "/../.."] {
        let (bundle, source) = busybox_with_source();
        let container = bundle.bind(source.clone(), place, &[]).args(["true"]).build();
        // It may work or be refused, but it must not reach the host.
        container.run();
        assert!(source.join("file").exists());
    }
}

fn a_remount_changes_what_is_there() {
    let bundle = Bundle::busybox().sh("grep ' /v ' /proc/mounts; touch /v/x");
    let bundle = bundle.mount("/v", "tmpfs", "tmpfs", &["size=64k"]);
    let run = bundle.mount("/v", "tmpfs", "tmpfs", &["remount", "ro", "nosuid", "size=128k"]).run();
    run.assert_exit(1).assert_stdout_contains("size=128k").assert_stderr_contains("Read-only file system");
}

fn a_remount_without_more_of_what_is_no_mount_is_an_error() {
    let bundle = Bundle::busybox().mount("/tmp", "tmpfs", "tmpfs", &["remount"]).build();
    bundle.refused(&["/tmp"]);
}

/// liblxc takes them away from the init, which makes the container's mounts.
fn a_bind_of_the_hosts_devices_takes_its_terminals_along() {
    let bundle = Bundle::busybox().bind("/dev", "/x", &["rbind"]).bind("/dev/pts", "/y", &["bind"]);
    let run = bundle.sh("stat -f -c %t /x/pts /y").run();
    run.assert_ok().assert_stdout("1cd1\n1cd1\n");
}

fn the_root_may_be_bound_below_itself() {
    let bundle = Bundle::busybox();
    let root = bundle.rootfs("");
    bundle.bind(root, "/again", &["bind"]).sh("/again/bin/busybox echo there").run().assert_stdout("there\n");
}

fn a_read_only_path_may_be_the_root() {
    let bundle = Bundle::busybox().set("/linux/readonlyPaths", json!(["/"])).set("/root/readonly", false);
    let run = bundle.mount("/tmp", "tmpfs", "tmpfs", &[]).sh("touch /tmp/x && echo works; touch /x").run();
    run.assert_exit(1).assert_stdout("works\n").assert_stderr_contains("read-only file system");
}

fn options_that_mean_nothing_for_a_bind_mount_are_refused() {
    Bundle::busybox().bind("/etc", "/x", &["sync"]).build().refused(&["options", "sync"]);
    Bundle::busybox().bind("/etc", "/x", &["nosuch=755"]).build().refused(&["options", "nosuch=755"]);
}

/// runtime-tools' validation gives every mount of its test the options of a tmpfs.
fn a_mode_and_a_size_of_a_bind_mount_are_those_that_it_has() {
    let bundle = Bundle::busybox();
    let dir = bundle.make_dir("volume");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o751)).expect("a mode");
    let run = bundle.bind(&dir, "/x", &["rbind", "mode=755", "size=1k"]).sh("stat -c %a /x").run();
    run.assert_ok().assert_stdout("751\n");
}

fn options_that_change_nothing_are_taken() {
    let options = ["silent", "loud", "iversion", "noiversion", "async"];
    Bundle::busybox().mount("/v", "tmpfs", "tmpfs", &options).sh("touch /v/x").run().assert_ok();
}

fn a_remount_of_what_is_no_mount_is_an_error() {
    let bundle = Bundle::busybox().mount("/tmp", "tmpfs", "tmpfs", &["remount", "ro"]).build();
    let run = bundle.run();
    run.assert_fails();
    bundle.assert_gone(&run);
}

fn a_source_in_the_root_is_what_earlier_mounts_made_it() {
    let bundle = Bundle::busybox().sh("cat /copy/inner/file");
    let [outer, inner] = ["outer", "inner"].map(|name| bundle.make_dir(name));
    fs::create_dir(outer.join("inner")).expect("a directory");
    fs::write(inner.join("file"), "inner").expect("a file");
    let source = bundle.rootfs("mnt");
    let bundle = bundle.bind(&outer, "/mnt", &["bind"]).bind(&inner, "/mnt/inner", &["bind"]);
    bundle.bind(&source, "/copy", &["rbind"]).run().assert_ok().assert_stdout("inner");
}

fn a_source_in_the_root_leads_nowhere_else() {
    let bundle = Bundle::busybox().sh("ls /v");
    let outside = bundle.make_dir("outside");
    fs::write(outside.join("secret"), "").expect("a file");
    std::os::unix::fs::symlink(&outside, bundle.rootfs("link")).expect("a link");
    let source = bundle.rootfs("link");
    let container = bundle.bind(&source, "/v", &["bind"]).build();
    let run = container.run();
    assert!(!run.stdout.contains("secret"), "{run}");
    run.assert_fails();
}

fn a_destination_may_be_the_hosts_name_for_it() {
    let bundle = Bundle::busybox().sh("cat /v/file");
    let volume = bundle.make_dir("volume");
    fs::write(volume.join("file"), "there").expect("a file");
    let destination = bundle.rootfs("v").display().to_string();
    bundle.bind(&volume, &destination, &["bind"]).run().assert_ok().assert_stdout("there");
}
