//! User namespaces: mapped ids, and owners of files on id-mapped mounts.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::thread;

use lxcrun_test::{Bundle, Need, tests};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};

tests![
    ids_are_mapped_in_ranges,
    the_program_of_a_mapped_init_cannot_be_written_to,
    root_of_a_user_namespace_owns_what_the_container_has,
    message_queues_are_roots,
    message_queues_are_roots_in_a_user_namespace_with_a_path.not_on("runc", "1.1 wants mappings beside it"),
    a_user_namespace_with_a_path_is_entered.not_on("runc", "1.1 wants mappings beside it"),
    a_network_of_others_is_joined_beside_a_user_namespace
        .not_on("runc", "1.1 wants mappings beside the path"),
    an_exec_is_in_the_user_namespace,
    files_of_an_id_mapped_mount_have_the_right_owner_on_both_sides.not_on("runc", "1.1 does not know them"),
    an_id_mapped_mount_may_have_mappings_of_its_own.not_on("runc", "1.1 does not know them"),
    a_tree_is_id_mapped_with_all_its_mounts.not_on("runc", "1.1 does not know them"),
    a_source_in_the_root_is_id_mapped_as_earlier_mounts_made_it.not_on("runc", "1.1 does not know them"),
    what_shows_itself_to_the_host_alone_can_be_bound
        .needs(Need::File("/dev/fuse"))
        .not_on("runc", "1.1 looks at it from inside"),
    what_shows_itself_to_the_host_alone_has_its_place_made_and_can_be_masked
        .needs(Need::File("/dev/fuse"))
        .not_on("runc", "it looks at it from inside"),
    flags_of_a_source_cannot_be_taken_away.not_on("runc", "1.1 keeps them without a word"),
    an_id_mapped_mount_without_mappings_is_refused.not_on("runc", "1.1 does not know them"),
    mappings_of_users_alone_are_refused.not_on("runc", "1.1 does not know them"),
    a_new_file_system_is_not_id_mapped.not_on("runc", "1.1 does not know them"),
    mappings_that_overlap_are_refused,
    mappings_without_a_user_namespace_are_refused.not_on("runc", "1.1 ignores them"),
    a_user_namespace_without_mappings_is_refused,
];

const BASE: u32 = 100_000;

fn mapping(container: u32, host: u32, size: u32) -> Value {
    json!({ "containerID": container, "hostID": host, "size": size })
}

/// A bundle in a user namespace whose root is `BASE`, with a root file system of its own.
fn mapped(bundle: Bundle) -> Bundle {
    own(&bundle.rootfs("/"));
    bundle
        .namespace("user", None)
        .set("/linux/uidMappings", json!([mapping(0, BASE, 1000), mapping(1000, 2 * BASE, 64536)]))
        .set("/linux/gidMappings", json!([mapping(0, BASE, 65536)]))
}

fn own(path: &Path) {
    std::os::unix::fs::lchown(path, Some(BASE), Some(BASE)).expect("a new owner");
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).expect("a directory").flatten().for_each(|entry| own(&entry.path()));
    }
}

fn ids_are_mapped_in_ranges() {
    let run = mapped(Bundle::busybox()).sh("cat /proc/self/uid_map; id -u").run();
    let words: Vec<&str> = run.assert_ok().stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "1000", "1000", "200000", "64536", "0"]);
}

fn the_program_of_a_mapped_init_cannot_be_written_to() {
    let bundle = mapped(Bundle::busybox().args(["sleep", "1000"]));
    crate::lifecycle::program_of_init_cannot_be_written_to(bundle);
}

fn root_of_a_user_namespace_owns_what_the_container_has() {
    let script = "touch /tmp/new; stat -c %u:%g / /tmp/new /dev /dev/shm /dev/pts";
    let bundle = mapped(Bundle::busybox()).sh(script).build();
    bundle.run().assert_ok().assert_stdout(&"0:0\n".repeat(5));
    let made = fs::metadata(bundle.path("rootfs/tmp/new")).expect("the new file");
    assert_eq!((made.uid(), made.gid()), (BASE, BASE));
}

const QUEUES: &str =
    "stat -c %u:%a /dev/mqueue; chmod 700 /dev/mqueue && stat -c %a /dev/mqueue; touch /dev/mqueue/q";

fn message_queues_are_roots() {
    mapped(Bundle::busybox()).sh(QUEUES).run().assert_ok().assert_stdout("0:1777\n700\n");
}

fn message_queues_are_roots_in_a_user_namespace_with_a_path() {
    let first = mapped(Bundle::busybox()).args(["sleep", "1000"]).start();
    let bundle = Bundle::busybox().sh(QUEUES);
    own(&bundle.rootfs("/"));
    let run = bundle.namespace("user", Some(&format!("/proc/{}/ns/user", first.pid()))).run();
    run.assert_ok().assert_stdout("0:1777\n700\n");
}

fn a_user_namespace_with_a_path_is_entered() {
    let first = mapped(Bundle::busybox()).args(["sleep", "1000"]).start();
    let path = format!("/proc/{}/ns/user", first.pid());
    let bundle = Bundle::busybox().sh("readlink /proc/self/ns/user; id -u; cat /proc/self/uid_map");
    own(&bundle.rootfs("/"));
    let run = bundle.namespace("user", Some(&path)).run();
    let link = fs::read_link(path).expect("the user namespace");
    run.assert_ok()
        .assert_stdout_contains(&format!("{}\n0\n", link.display()))
        .assert_stdout_contains("200000");
}

fn a_network_of_others_is_joined_beside_a_user_namespace() {
    let first = mapped(Bundle::busybox()).args(["sleep", "1000"]).start();
    let other = Bundle::busybox().args(["sleep", "1000"]).start();
    let [user, network] = [format!("/proc/{}/ns/user", first.pid()), format!("/proc/{}/ns/net", other.pid())];
    let bundle = Bundle::busybox().args(["sleep", "1000"]).edit(|spec| {
        // A sysfs is only for who owns the network.
        spec["mounts"].as_array_mut().expect("mounts").retain(|mount| mount["type"] != "sysfs");
    });
    own(&bundle.rootfs("/"));
    let bundle = bundle.namespace("user", Some(&user)).without_namespace("network");
    let container = bundle.namespace("network", Some(&network)).start();
    for (kind, path) in [("user", user), ("net", network)] {
        let link = fs::read_link(path).expect("a namespace").display().to_string() + "\n";
        container.exec(["readlink", &format!("/proc/self/ns/{kind}")]).assert_ok().assert_stdout(&link);
    }
}

fn an_exec_is_in_the_user_namespace() {
    let container = mapped(Bundle::busybox()).args(["sleep", "1000"]).start();
    container.exec(["sh", "-c", "id -u; touch /tmp/x"]).assert_ok().assert_stdout("0\n");
    assert_eq!(fs::metadata(container.path("rootfs/tmp/x")).expect("the new file").uid(), BASE);
}

fn files_of_an_id_mapped_mount_have_the_right_owner_on_both_sides() {
    let bundle = Bundle::busybox();
    let volume = bundle.make_dir("volume");
    fs::write(volume.join("old"), "").expect("a file");
    chown(volume.join("old"), Some(7), Some(8)).expect("a new owner");
    let script = "stat -c %u:%g /v/old /v; touch /v/new; chown 5:6 /v/new";
    let bundle = mapped(bundle).sh(script).bind(&volume, "/v", &["rbind", "idmap"]);
    let container = bundle.capabilities(&["CAP_CHOWN"]).build();
    container.run().assert_ok().assert_stdout("7:8\n0:0\n");
    let made = fs::metadata(volume.join("new")).expect("the new file");
    assert_eq!((made.uid(), made.gid()), (5, 6));
}

fn an_id_mapped_mount_may_have_mappings_of_its_own() {
    let bundle = Bundle::busybox();
    let volume = bundle.make_dir("volume");
    chown(&volume, Some(1), Some(1)).expect("a new owner");
    let bundle = bundle.sh("stat -c %u:%g /v").bind(&volume, "/v", &["bind"]).edit(|spec| {
        let mount = spec["mounts"].as_array_mut().and_then(|m| m.last_mut()).expect("a mount");
        mount["uidMappings"] = json!([mapping(0, 1000, 10)]);
        mount["gidMappings"] = json!([mapping(0, 2000, 10)]);
    });
    bundle.run().assert_ok().assert_stdout("1001:2001\n");
}

fn a_tree_is_id_mapped_with_all_its_mounts() {
    let bundle = Bundle::busybox();
    let volume = bundle.make_dir("volume/below").parent().expect("its parent").to_owned();
    let script = format!("mount -t tmpfs -o mode=755 tmpfs {}/below", volume.display());
    let bundle = mapped(bundle.host(&script)).sh("stat -c %u /v /v/below");
    bundle.bind(&volume, "/v", &["rbind", "ridmap"]).run().assert_ok().assert_stdout("0\n0\n");
}

fn a_source_in_the_root_is_id_mapped_as_earlier_mounts_made_it() {
    for in_user_namespace in [false, true] {
        let bundle = Bundle::busybox();
        let volume = bundle.make_dir("volume");
        chown(bundle.make_dir("volume/inner"), Some(7), Some(8)).expect("a new owner");
        let bundle = if in_user_namespace { mapped(bundle) } else { bundle };
        let source = bundle.rootfs("mnt/inner");
        let bundle = bundle.sh("stat -c %u:%g /copy").bind(&volume, "/mnt", &["bind"]);
        let bundle = bundle.bind(&source, "/copy", &["rbind"]).edit(|spec| {
            let mount = spec["mounts"].as_array_mut().and_then(|m| m.last_mut()).expect("a mount");
            mount["uidMappings"] = json!([mapping(0, BASE, 10)]);
            mount["gidMappings"] = json!([mapping(0, BASE, 10)]);
        });
        let shown = if in_user_namespace { "7:8\n" } else { "100007:100008\n" };
        bundle.run().assert_ok().assert_stdout(shown);
    }
}

/// A FUSE file system that is one directory or one file, and that without `allow_other` is nobody's but the host's root's. It is
/// in no container's directory: it would be taken for a leak.
struct Fuse {
    place: PathBuf,
    _dir: Bundle,
}

impl Fuse {
    fn mount(mode: u32) -> Fuse {
        let dir = Bundle::busybox();
        let mut place = dir.make_dir("fuse");
        if mode & 0o170_000 == 0o100_000 {
            place.push("file");
            fs::write(&place, "").expect("a file");
        }
        let device = File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
        let options = format!("fd={},rootmode={mode:o},user_id=0,group_id=0", device.as_raw_fd());
        let options = CString::new(options).expect("text");
        mount("none", &place, "fuse", MountFlags::empty(), options.as_c_str()).expect("a mount");
        thread::spawn(move || Fuse::serve(device, mode));
        Fuse { place, _dir: dir }
    }

    /// Answers until the file system is gone: the structures are those of linux/fuse.h.
    fn serve(mut device: File, mode: u32) {
        const FORGET: u32 = 2;
        const GETATTR: u32 = 3;
        const INIT: u32 = 26;
        const BATCH_FORGET: u32 = 42;
        const ENOSYS: i32 = 38;
        let mut request = [0; 1 << 16];
        while let Ok(1..) = device.read(&mut request) {
            let number = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|byte| request[at + byte]));
            let (error, body) = match number(4) {
                FORGET | BATCH_FORGET => continue,
                INIT => {
                    let mut reply = [0; 16];
                    // The protocol's version, and the least that may be written at a time.
                    (reply[0], reply[1], reply[5]) = (7, 31, 4096);
                    (0, reply.to_vec())
                }
                GETATTR => {
                    let mut reply = [0; 26];
                    // The inode's number, its mode and links.
                    (reply[4], reply[19], reply[20]) = (1, mode, 1);
                    (0, reply.to_vec())
                }
                _ => (-ENOSYS, Vec::new()),
            };
            let length = u32::try_from(16 + 4 * body.len()).expect("a short reply");
            let mut reply = [length.to_ne_bytes(), i32::to_ne_bytes(error)].concat();
            reply.extend_from_slice(&request[8..16]);
            reply.extend(body.into_iter().flat_map(u32::to_ne_bytes));
            let _ = device.write(&reply);
        }
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        let _ = unmount(&self.place, UnmountFlags::DETACH);
    }
}

const FUSE_DIRECTORY: (u32, &str) = (0o40_755, "ls /place");
const FUSE_FILE: (u32, &str) = (0o100_644, "cat /place");

/// A bundle that shows how a FUSE file system is mounted, and whether it can be looked into.
fn with_fuse(fuse: &Fuse, look: &str) -> Bundle {
    let script = format!("grep -o ' /place fuse ' /proc/self/mounts; {look} 2>/dev/null || echo closed");
    mapped(Bundle::busybox()).sh(&script).bind(&fuse.place, "/place", &["bind"])
}

fn what_shows_itself_to_the_host_alone_can_be_bound() {
    for (mode, look) in [FUSE_DIRECTORY, FUSE_FILE] {
        let fuse = Fuse::mount(mode);
        let bundle = with_fuse(&fuse, look);
        let place = bundle.rootfs("place");
        if mode == FUSE_DIRECTORY.0 { fs::create_dir(place) } else { fs::write(place, "") }.expect("a place");
        bundle.run().assert_ok().assert_stdout(" /place fuse \nclosed\n");
    }
}

fn what_shows_itself_to_the_host_alone_has_its_place_made_and_can_be_masked() {
    for (mode, look) in [FUSE_DIRECTORY, FUSE_FILE] {
        let fuse = Fuse::mount(mode);
        with_fuse(&fuse, look).run().assert_ok().assert_stdout(" /place fuse \nclosed\n");
        let bundle = with_fuse(&fuse, look).set("/linux/maskedPaths", json!(["/place"]));
        bundle.run().assert_ok().assert_stdout(" /place fuse \n");
    }
}

fn flags_of_a_source_cannot_be_taken_away() {
    for (flag, opposite) in [("ro", "rw"), ("nosuid", "suid"), ("noatime", "relatime")] {
        let bundle = Bundle::busybox();
        let source = bundle.make_dir("source");
        let place = source.display();
        let script = format!("mount -t tmpfs tmpfs {place}; mount -o remount,bind,{flag} {place}");
        let bundle = mapped(bundle.host(script)).bind(&source, "/data", &[opposite]);
        bundle.refused(&["mounts[", "operation not permitted"]);
    }
}

fn an_id_mapped_mount_without_mappings_is_refused() {
    let bundle = Bundle::busybox();
    let volume = bundle.make_dir("volume");
    bundle.bind(&volume, "/v", &["bind", "idmap"]).refused(&["mounts[", "idmap"]);
}

fn mappings_of_users_alone_are_refused() {
    let bundle = Bundle::busybox();
    let volume = bundle.make_dir("volume");
    let bundle = bundle.bind(&volume, "/v", &["bind"]).edit(|spec| {
        let mount = spec["mounts"].as_array_mut().and_then(|m| m.last_mut()).expect("a mount");
        mount["uidMappings"] = json!([mapping(0, 1000, 10)]);
    });
    bundle.refused(&["mounts[", "gidMappings"]);
}

fn a_new_file_system_is_not_id_mapped() {
    mapped(Bundle::busybox()).mount("/v", "tmpfs", "tmpfs", &["idmap"]).refused(&["mounts[", "bind"]);
}

fn mappings_that_overlap_are_refused() {
    let overlapping = json!([mapping(0, BASE, 10), mapping(5, 2 * BASE, 10)]);
    mapped(Bundle::busybox()).set("/linux/uidMappings", overlapping).build().refused(&["map"]);
}

fn mappings_without_a_user_namespace_are_refused() {
    let bundle = Bundle::busybox().set("/linux/uidMappings", json!([mapping(0, BASE, 10)]));
    bundle.set("/linux/gidMappings", json!([mapping(0, BASE, 10)])).build().refused(&["user namespace"]);
}

fn a_user_namespace_without_mappings_is_refused() {
    Bundle::busybox().namespace("user", None).build().refused(&["mapping"]);
}
