//! Whatever is wrong: a clear error that names it, an exit code that isn't 0, and nothing left behind.
//!
//! `refused` checks all of that, and of lxcrun also that the error names the container.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lxcrun_test::{Bundle, Container, Need, cgroup_parent, hierarchies, tests};
use rustix::fs::Mode;
use serde_json::{Value, json};

tests![
    a_bundle_that_does_not_exist_is_refused,
    a_bundle_without_config_is_refused,
    a_config_that_is_a_directory_is_refused,
    a_config_that_is_no_json_is_refused,
    a_config_that_ends_early_is_refused,
    an_empty_config_is_refused,
    a_config_that_is_no_object_is_refused,
    a_huge_config_is_refused.lxcrun_only("others read all of it"),
    a_value_of_a_wrong_type_is_refused_by_name,
    any_value_of_a_config_may_be_anything.lxcrun_only("others break in places"),
    an_unknown_major_version_is_refused.lxcrun_only("runc doesn't look at the version"),
    a_missing_version_is_refused.lxcrun_only("runc doesn't look at the version"),
    an_unknown_property_is_ignored,
    a_property_that_is_not_supported_is_refused_by_name.lxcrun_only("others support it or ignore it"),
    a_missing_root_is_refused,
    a_root_that_is_a_file_is_refused,
    a_root_that_is_not_in_the_config_is_refused,
    a_root_without_a_path_is_refused.lxcrun_only("others take the bundle"),
    an_id_with_a_slash_or_dots_is_refused,
    an_id_with_other_characters_is_refused,
    an_empty_id_is_refused,
    an_id_of_300_characters_is_refused,
    an_id_that_climbs_deletes_nothing,
    a_missing_id_is_refused,
    a_duplicate_id_is_refused_and_the_first_lives_on,
    start_twice_is_refused_and_the_container_runs_on,
    start_of_a_stopped_container_is_refused,
    every_verb_refuses_an_unknown_container,
    delete_by_force_of_an_unknown_container_is_fine,
    delete_twice_is_refused,
    an_unknown_signal_is_refused_by_name,
    a_missing_process_is_refused,
    empty_args_are_refused,
    a_relative_working_directory_is_refused,
    a_user_who_is_nobody_is_refused.not_on("runc", "it does not name the number"),
    an_unknown_capability_is_refused_by_name.lxcrun_only("runc only warns"),
    an_unknown_resource_limit_is_refused_by_name,
    a_resource_limit_with_soft_above_hard_is_refused
        .lxcrun_only("runc gives the limit's number, not its name"),
    a_resource_limit_above_what_we_may_is_refused.lxcrun_only("runc gives the limit's number, not its name"),
    a_resource_limit_given_twice_is_refused.lxcrun_only("others set it twice"),
    relative_masked_paths_are_refused.lxcrun_only("others take them"),
    an_unknown_device_type_is_refused_by_name,
    an_unknown_device_rule_is_refused,
    an_unknown_device_access_is_refused.lxcrun_only("others pass it over"),
    a_missing_mount_source_is_refused_by_name,
    an_unknown_file_system_is_refused_by_name,
    an_unknown_mount_option_is_refused,
    a_directory_bound_over_a_file_is_refused,
    an_unknown_namespace_is_refused_by_name,
    a_namespace_listed_twice_is_refused,
    a_namespace_path_that_does_not_exist_is_refused_by_name,
    a_namespace_path_that_is_no_namespace_is_refused,
    an_unknown_propagation_is_refused_by_name,
    an_unknown_seccomp_action_is_refused_by_name,
    a_nul_byte_in_a_hook_is_refused
        .not_on("runc", "poststart: 1.1 has the program run already")
        .not_on("crun", "it cuts the text there"),
    a_system_call_without_a_name_is_refused
        .not_on("runc", "it does not name the field")
        .not_on("crun", "it passes over what it does not know"),
    an_io_priority_without_a_class_is_refused
        .not_on("runc", "1.1 does not know it")
        .not_on("crun", "it does not name the field"),
    cpus_that_do_not_exist_are_refused.needs(Need::Controller("cpuset")),
    a_cpu_quota_that_is_too_small_is_refused.needs(Need::CgroupV1("cpu")),
    a_memory_limit_that_is_too_small_is_refused.needs(Need::Controller("memory")),
    an_empty_cgroup_that_exists_is_used
        .not_on("runc", "1.1 removes it in any case")
        .not_on("crun", "it removes it in any case"),
    a_frozen_cgroup_that_exists_is_refused_and_stays
        .needs(Need::CgroupV1("freezer"))
        .not_on("runc", "1.1 only warns")
        .not_on("crun", "it does not look"),
    a_cgroup_with_processes_is_refused_and_stays.lxcrun_only("runc 1.1 only warns"),
    a_cgroup_path_that_climbs_stays_in_its_hierarchy,
    a_full_disk_for_the_state_is_refused.lxcrun_only("runc 1.1 fails without a reason"),
    a_caller_with_few_descriptors_leaves_nothing.lxcrun_only("crun leaves its directory, runc takes minutes"),
    a_state_root_that_is_a_file_is_refused,
    a_pid_file_that_cannot_be_written_is_refused,
    a_pid_file_that_is_a_directory_leaves_nothing_beside_it.lxcrun_only("others leave a temporary"),
    a_config_that_is_a_fifo_is_refused.lxcrun_only("others wait for a writer"),
    a_log_that_nobody_reads_is_refused.lxcrun_only("others wait for a reader"),
    a_container_whose_state_is_damaged_is_deleted_by_force.lxcrun_only("about our files"),
    a_container_whose_specification_is_damaged_is_deleted_by_force.lxcrun_only("about our files"),
    a_missing_liblxc_is_told.lxcrun_only("others don't use it"),
];

fn bare() -> Container {
    Bundle::busybox().build()
}

fn a_bundle_that_does_not_exist_is_refused() {
    let container = bare();
    let missing = container.path("no-such-bundle");
    let created = container.call("create").arg("--bundle").arg(missing).arg(container.id()).output();
    container.refuses(created, &["no-such-bundle"]);
}

fn a_bundle_without_config_is_refused() {
    let container = bare();
    fs::remove_file(container.path("config.json")).expect("our config");
    container.refused(&["config.json"]);
}

fn a_config_that_is_a_directory_is_refused() {
    let container = bare();
    fs::remove_file(container.path("config.json")).expect("our config");
    fs::create_dir(container.path("config.json")).expect("a directory");
    container.refused(&["director"]);
}

fn a_config_that_is_no_json_is_refused() {
    Bundle::busybox().text("this is no JSON").refused(&[]);
}

fn a_config_that_ends_early_is_refused() {
    Bundle::busybox().text(r#"{ "ociVersion": "1.0.2", "process": {"#).refused(&[]);
}

fn an_empty_config_is_refused() {
    Bundle::busybox().text("").refused(&[]);
}

fn a_config_that_is_no_object_is_refused() {
    Bundle::busybox().text("[]").refused(&[]);
    Bundle::busybox().text([0xff, 0xfe, 0x00]).refused(&[]);
}

fn a_huge_config_is_refused() {
    Bundle::busybox().set("/annotations/huge", "x".repeat(100 << 20)).refused(&["config.json"]);
}

fn a_value_of_a_wrong_type_is_refused_by_name() {
    let wrong: [(&str, Value, &str); 13] = [
        ("/process/args", json!("sh"), "args"),
        ("/process/user/uid", json!("root"), "uid"),
        ("/process/user/uid", json!(-1), "uid"),
        ("/process/noNewPrivileges", json!("yes"), "noNewPrivileges"),
        ("/mounts", json!({}), "mounts"),
        ("/linux/resources/memory", json!({ "limit": "64m" }), "limit"),
        ("/linux/namespaces", json!(["pid"]), "namespaces"),
        ("/hostname", json!(7), "hostname"),
        ("/hooks", json!([]), "hooks"),
        ("/process/user", json!([5, 5]), "user"),
        ("/process/rlimits", json!([["RLIMIT_NOFILE", 88, 77]]), "rlimits"),
        ("/linux/resources", json!([]), "resources"),
        ("/mounts", json!([["/tmp", "tmpfs", "tmpfs"]]), "mounts"),
    ];
    for (field, value, word) in wrong {
        Bundle::busybox().set(field, value).refused(&[word]);
    }
}

/// The JSON pointers of everything in `value`.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Array(items) => items.iter().enumerate().map(|(i, v)| (format!("{at}/{i}"), v)).collect(),
        Value::Object(fields) => fields.iter().map(|(k, v)| (format!("{at}/{k}"), v)).collect(),
        _ => Vec::new(),
    };
    for (pointer, child) in children {
        pointers(child, &pointer, all);
        all.push(pointer);
    }
}

/// Whatever comes of it, it is said in words, and nothing is left.
fn any_value_of_a_config_may_be_anything() {
    let container = Bundle::busybox()
        .resource("memory", json!({ "limit": 64 << 20, "swap": 64 << 20 }))
        .resource("pids", json!({ "limit": 50 }))
        .set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 64, "hard": 64 }]))
        .set(
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{ "names": ["chroot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }],
            }),
        )
        .build();
    let file = container.path("config.json");
    let config: Value = serde_json::from_slice(&fs::read(&file).expect("a config")).expect("JSON");
    let mut all = Vec::new();
    pointers(&config, "", &mut all);
    let values = [
        json!(null),
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("a\u{0}b"),
        json!([]),
        json!({}),
    ];
    for (pointer, value) in all.iter().flat_map(|pointer| values.iter().map(move |value| (pointer, value))) {
        let mut changed = config.clone();
        *changed.pointer_mut(pointer).expect("it is there") = value.clone();
        fs::write(&file, changed.to_string()).expect("the config is ours");
        let create = container.create();
        assert!(matches!(create.code(), 0 | 1), "{pointer} = {value}{create}");
        if create.code() == 0 {
            container.delete_force().assert_ok();
        }
        assert!(!container.path("root").join(container.id()).exists(), "{pointer} = {value}{create}");
    }
    let leaks = container.leaks();
    assert!(leaks.is_empty(), "left behind: {leaks:#?}");
}

fn an_unknown_major_version_is_refused() {
    for version in ["2.0.0", "0.9.0", "x", ""] {
        Bundle::busybox().set("/ociVersion", version).refused(&["ociVersion", version]);
    }
}

fn a_missing_version_is_refused() {
    Bundle::busybox().set("/ociVersion", Value::Null).refused(&["ociVersion"]);
}

fn an_unknown_property_is_ignored() {
    let bundle = Bundle::busybox().set("/someday", json!({ "a": 1 })).set("/linux/someday", true);
    bundle.set("/process/someday", json!([])).run().assert_ok();
}

fn a_property_that_is_not_supported_is_refused_by_name() {
    Bundle::busybox().set("/linux/intelRdt", json!({ "closID": "x" })).refused(&["linux.intelRdt"]);
    Bundle::busybox().set("/vm", json!({ "kernel": { "path": "/k" } })).refused(&["vm"]);
}

fn a_missing_root_is_refused() {
    Bundle::busybox().set("/root/path", "no-such-root").refused(&["no-such-root"]);
}

fn a_root_that_is_a_file_is_refused() {
    Bundle::busybox().set("/root/path", "config.json").refused(&["director"]);
}

fn a_root_that_is_not_in_the_config_is_refused() {
    Bundle::busybox().set("/root", Value::Null).refused(&["root"]);
}

fn a_root_without_a_path_is_refused() {
    Bundle::busybox().set("/root", json!({})).refused(&["root.path"]);
}

fn an_id_with_a_slash_or_dots_is_refused() {
    for id in ["a/b", "/", "..", ".", "../escaped", "a/../../escaped", "/tmp/absolute"] {
        let container = Bundle::busybox().id(id).build();
        container.refused(&[]);
        assert!(!container.path("escaped").exists(), "{id}");
    }
}

fn an_id_with_other_characters_is_refused() {
    for id in ["a b", "a\nb", "a\tb", "ü", "a:b", "a*", "a%2fb", "a\\b", "a\u{1b}[31m"] {
        let container = Bundle::busybox().id(id).build();
        container.refuses_quoted(container.create());
    }
}

fn an_empty_id_is_refused() {
    Bundle::busybox().id("").refused(&["id"]);
}

fn an_id_of_300_characters_is_refused() {
    let container = Bundle::busybox().id(&"i".repeat(300)).build();
    container.refuses_quoted(container.create());
}

fn an_id_that_climbs_deletes_nothing() {
    let bundle = Bundle::busybox();
    let file = bundle.make_dir("victim").join("state.json");
    fs::write(&file, "{}").expect("a file");
    let container = bundle.id("../victim").build();
    container.delete().assert_fails();
    container.delete_force();
    assert!(file.exists());
}

fn a_missing_id_is_refused() {
    let container = bare();
    for verb in ["create", "start", "state", "kill", "delete", "run", "exec", "ps"] {
        container.call(verb).output().assert_fails();
    }
}

fn a_duplicate_id_is_refused_and_the_first_lives_on() {
    let container = Bundle::busybox().args(["sleep", "1000"]).start();
    let twice = container.create();
    twice.assert_fails().assert_stderr_contains("exist");
    container.call_with_bundle("run").arg(container.id()).output().assert_fails();
    assert_eq!(container.status(), "running");
    assert_eq!(container.state()["pid"], container.pid());
    container.finish();
}

fn start_twice_is_refused_and_the_container_runs_on() {
    let container = Bundle::busybox().args(["sleep", "1000"]).start();
    container.start().assert_fails().assert_stderr_contains("running");
    assert_eq!(container.status(), "running");
    container.finish();
}

fn start_of_a_stopped_container_is_refused() {
    let container = Bundle::busybox().start();
    container.until_stopped();
    container.start().assert_fails().assert_stderr_contains("stopped");
}

fn every_verb_refuses_an_unknown_container() {
    let container = bare();
    for verb in ["start", "state", "kill", "delete", "ps"] {
        let output = container.verb(verb);
        container.refuses(output, &["not exist"]);
    }
    let output = container.exec(["true"]);
    container.refuses(output, &["not exist"]);
}

fn delete_by_force_of_an_unknown_container_is_fine() {
    bare().delete_force().assert_ok();
}

fn delete_twice_is_refused() {
    let container = Bundle::busybox().start();
    container.until_stopped();
    container.delete().assert_ok();
    let again = container.delete();
    container.refuses(again, &["not exist"]);
}

fn an_unknown_signal_is_refused_by_name() {
    let container = Bundle::busybox().args(["sleep", "1000"]).start();
    for signal in ["NOPE", "SIGNOPE", "TERMINATE"] {
        container.kill(signal).assert_fails().assert_stderr_contains(signal);
    }
    for signal in ["999", "TERM KILL", "-1"] {
        container.kill(signal).assert_fails();
    }
    assert_eq!(container.status(), "running");
}

fn a_missing_process_is_refused() {
    Bundle::busybox().set("/process", Value::Null).refused(&["process"]);
}

fn empty_args_are_refused() {
    Bundle::busybox().set("/process/args", json!([])).refused(&["args"]);
    Bundle::busybox().set("/process/args", Value::Null).refused(&["args"]);
}

fn a_relative_working_directory_is_refused() {
    Bundle::busybox().cwd("tmp").refused(&["cwd"]);
    Bundle::busybox().cwd("").refused(&["cwd"]);
}

/// The number that means "as it is" to the kernel: root.
fn a_user_who_is_nobody_is_refused() {
    for field in ["uid", "gid"] {
        Bundle::busybox().set(&format!("/process/user/{field}"), u32::MAX).refused(&["4294967295"]);
    }
    let container = Bundle::busybox().args(["sleep", "1000"]).start();
    container.exec_with(&["--user", "4294967295"], ["id"]).assert_fails();
    container.exec_with(&["--user", "0:4294967295"], ["id"]).assert_fails();
}

fn an_unknown_capability_is_refused_by_name() {
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        let bundle = Bundle::busybox().push(&format!("/process/capabilities/{set}"), "CAP_NOPE");
        bundle.refused(&["process.capabilities", "CAP_NOPE"]);
    }
}

fn with_limit(name: &str, soft: u64, hard: u64) -> Bundle {
    Bundle::busybox().push("/process/rlimits", json!({ "type": name, "soft": soft, "hard": hard }))
}

fn an_unknown_resource_limit_is_refused_by_name() {
    with_limit("RLIMIT_NOPE", 1, 1).refused(&["RLIMIT_NOPE"]);
}

fn a_resource_limit_with_soft_above_hard_is_refused() {
    with_limit("RLIMIT_CORE", 2, 1).refused(&["RLIMIT_CORE"]);
}

fn a_resource_limit_given_twice_is_refused() {
    let again = json!({ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 });
    with_limit("RLIMIT_CORE", 0, 0).push("/process/rlimits", again).refused(&["RLIMIT_CORE"]);
}

fn relative_masked_paths_are_refused() {
    Bundle::busybox().push("/linux/maskedPaths", "proc/keys").refused(&["maskedPaths", "proc/keys"]);
}

fn a_resource_limit_above_what_we_may_is_refused() {
    // Above what the kernel lets anybody have.
    Bundle::busybox()
        .set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 1u64 << 40 }]))
        .refused(&["RLIMIT_NOFILE", "not permitted"]);
}

fn an_unknown_device_type_is_refused_by_name() {
    let device = json!({ "path": "/dev/odd", "type": "q", "major": 1, "minor": 3 });
    Bundle::busybox().push("/linux/devices", device).refused(&["device", "q"]);
}

fn an_unknown_device_rule_is_refused() {
    let rule = json!({ "allow": true, "type": "q", "access": "r" });
    Bundle::busybox().push("/linux/resources/devices", rule).refused(&["device", "q"]);
}

fn an_unknown_device_access_is_refused() {
    let rule = json!({ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "z" });
    Bundle::busybox().push("/linux/resources/devices", rule).refused(&["access", "z"]);
}

fn a_missing_mount_source_is_refused_by_name() {
    Bundle::busybox().bind("/no/such/source", "/data", &[]).refused(&["/no/such/source"]);
}

fn an_unknown_file_system_is_refused_by_name() {
    Bundle::busybox().mount("/data", "nopefs", "nope", &[]).refused(&["/data"]);
}

fn an_unknown_mount_option_is_refused() {
    Bundle::busybox().mount("/data", "tmpfs", "tmpfs", &["nope=1"]).refused(&["/data"]);
}

fn a_directory_bound_over_a_file_is_refused() {
    let bundle = Bundle::busybox();
    let source = bundle.make_dir("source");
    bundle.bind(source, "/etc/passwd", &[]).refused(&["/etc/passwd"]);
}

fn an_unknown_namespace_is_refused_by_name() {
    Bundle::busybox().namespace("nope", None).refused(&["nope"]);
}

fn a_namespace_listed_twice_is_refused() {
    Bundle::busybox().push("/linux/namespaces", json!({ "type": "pid" })).refused(&["pid"]);
}

fn a_namespace_path_that_does_not_exist_is_refused_by_name() {
    Bundle::busybox().namespace("network", Some("/no/such/namespace")).refused(&["/no/such/namespace"]);
}

fn a_namespace_path_that_is_no_namespace_is_refused() {
    let bundle = Bundle::busybox();
    let file = bundle.make_file("file", "");
    bundle.namespace("network", file.to_str()).refused(&["namespace"]);
    Bundle::busybox().namespace("network", Some("/")).refused(&["namespace"]);
}

fn an_unknown_propagation_is_refused_by_name() {
    Bundle::busybox().set("/linux/rootfsPropagation", "nope").refused(&["rootfsPropagation", "nope"]);
}

fn an_unknown_seccomp_action_is_refused_by_name() {
    let filter = json!({ "defaultAction": "SCMP_ACT_NOPE" });
    Bundle::busybox().set("/linux/seccomp", filter).refused(&["SCMP_ACT_NOPE"]);
}

fn a_nul_byte_in_a_hook_is_refused() {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        for (part, texts) in [("args", json!(["true", "a\0b"])), ("env", json!(["A=b\0c"]))] {
            let mut hook = json!({ "path": "/bin/true" });
            hook[part] = texts;
            let bundle = Bundle::busybox().set(&format!("/hooks/{kind}"), json!([hook]));
            bundle.refused(&[&format!("hooks.{kind}[0].{part}"), "NUL"]);
        }
    }
}

fn a_system_call_without_a_name_is_refused() {
    let rule = json!({ "names": ["mkdir", ""], "action": "SCMP_ACT_ERRNO" });
    let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
    Bundle::busybox().set("/linux/seccomp", filter).refused(&["linux.seccomp.syscalls[0]"]);
}

fn an_io_priority_without_a_class_is_refused() {
    Bundle::busybox().set("/process/ioPriority", json!({ "priority": 4 })).refused(&["ioPriority.class"]);
}

fn cpus_that_do_not_exist_are_refused() {
    Bundle::busybox().resource("cpu", json!({ "cpus": "4000-4001" })).refused(&["cpus"]);
    Bundle::busybox().resource("cpu", json!({ "cpus": "many" })).refused(&["cpus"]);
}

fn a_cpu_quota_that_is_too_small_is_refused() {
    Bundle::busybox().resource("cpu", json!({ "quota": 1, "period": 100_000 })).refused(&["quota"]);
}

fn a_memory_limit_that_is_too_small_is_refused() {
    Bundle::busybox().resource("memory", json!({ "limit": 4096 })).refused(&["memory"]);
}

/// A process that ends with the test.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.kill().expect("our child");
        self.0.wait().expect("our child");
    }
}

/// A cgroup that is there before, with `guest` in it or frozen, is refused, and stays as it is.
fn foreign_cgroup_is_refused(name: &str, guest: Option<Guest>) {
    let path = format!("{}/{name}", cgroup_parent());
    let dirs: Vec<PathBuf> = hierarchies().iter().map(|h| h.mount.join(&path[1..])).collect();
    for dir in &dirs {
        fs::create_dir_all(dir).expect("a cgroup");
        if let Some(guest) = &guest {
            fill_cpuset(dir.parent().expect("the suite's cgroup"));
            fill_cpuset(dir);
            fs::write(dir.join("cgroup.procs"), guest.0.id().to_string()).expect("a process for the cgroup");
        } else if dir.join("freezer.state").exists() {
            fs::write(dir.join("freezer.state"), "FROZEN").expect("a frozen cgroup");
        }
    }
    let container = Bundle::busybox().set("/linux/cgroupsPath", path.as_str()).build();
    let created = container.create();
    drop(guest);
    let removed = dirs.iter().filter(|dir| fs::remove_dir(dir).is_err()).count();
    container.refuses(created, &["cgroup", &path]);
    assert_eq!(removed, 0, "the cgroup wasn't the runtime's to remove");
}

/// A cpuset takes no more than the one above it has, and a new one of version 1 has nothing.
fn fill_cpuset(dir: &Path) {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let above = dir.parent().expect("a hierarchy").join(name);
        if above.exists() && fs::read_to_string(dir.join(name)).is_ok_and(|text| text.trim().is_empty()) {
            fs::write(dir.join(name), fs::read_to_string(above).expect("a cpuset")).expect("a cpuset");
        }
    }
}

fn a_frozen_cgroup_that_exists_is_refused_and_stays() {
    foreign_cgroup_is_refused("frozen", None);
}

/// Whoever manages cgroups makes them before, and sets limits in them. A failure leaves them as they were.
fn an_empty_cgroup_that_exists_is_used() {
    for (name, fails, namespace) in
        [("created", false, false), ("failed", true, false), ("of-a-namespace", false, true)]
    {
        let path = format!("{}/{name}", cgroup_parent());
        let dirs: Vec<PathBuf> = hierarchies().iter().map(|h| h.mount.join(&path[1..])).collect();
        dirs.iter().for_each(|dir| fs::create_dir_all(dir).expect("a cgroup"));
        let pids: Vec<PathBuf> =
            dirs.iter().map(|dir| dir.join("pids.max")).filter(|file| file.exists()).take(1).collect();
        pids.iter().for_each(|file| fs::write(file, "33").expect("a limit"));
        let bundle = Bundle::busybox().set("/linux/cgroupsPath", path.as_str()).args(["sleep", "1000"]);
        let bundle = if fails { bundle.mount("/data", "tmpfs", "tmpfs", &["nosuch=option"]) } else { bundle };
        let bundle = if namespace { bundle.namespace("cgroup", None) } else { bundle };
        let container = bundle.build();
        let created = container.create();
        if fails {
            created.assert_fails();
        } else {
            created.assert_ok();
            assert!(container.proc("cgroup").contains(&format!(":{path}\n")), "{}", container.proc("cgroup"));
            for file in &pids {
                assert_eq!(fs::read_to_string(file).expect("a limit"), "33\n");
            }
            container.start().assert_ok();
            container.exec(["true"]).assert_ok();
            container.delete_force().assert_ok();
        }
        let left = dirs.iter().filter(|dir| fs::remove_dir(dir).is_ok()).count();
        assert_eq!(left, if fails { dirs.len() } else { 0 }, "delete removes them, and a failure does not");
    }
}

fn a_cgroup_with_processes_is_refused_and_stays() {
    let guest = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn();
    foreign_cgroup_is_refused("busy", Some(Guest(guest.expect("a process"))));
}

fn a_cgroup_path_that_climbs_stays_in_its_hierarchy() {
    let bundle = Bundle::busybox();
    let path = format!("/../../../../../..{}/{}", cgroup_parent(), bundle.key());
    let container = bundle.set("/linux/cgroupsPath", path).build();
    let run = container.run(); // after which nothing is left
    if run.code() != 0 {
        run.assert_fails().assert_stderr_contains("cgroup");
    }
}

fn a_full_disk_for_the_state_is_refused() {
    let bundle = Bundle::busybox();
    let root = bundle.path("root");
    let script = format!(
        "mount -t tmpfs -o size=16k full {0}; cat /dev/zero > {0}/filler 2>/dev/null || true",
        root.display()
    );
    bundle.host(script).refused(&["no space left"]);
}

fn a_caller_with_few_descriptors_leaves_nothing() {
    let container = bare();
    // The program may have more.
    for limit in 4..64 {
        let created = container.create_with(|call| call.host(format!("ulimit -n {limit}")));
        created.assert_fails();
        container.assert_gone(&created);
    }
    container.create().assert_ok();
}

fn a_state_root_that_is_a_file_is_refused() {
    let container = bare();
    fs::remove_dir(container.path("root")).expect("our state root");
    fs::write(container.path("root"), "").expect("a file");
    container.create().assert_fails().assert_stderr_contains("root");
    fs::remove_file(container.path("root")).expect("our file");
}

fn a_pid_file_that_cannot_be_written_is_refused() {
    let container = bare();
    let created = container.create_with(|call| call.arg("--pid-file").arg("/no/such/dir/pid"));
    container.refuses(created, &["/no/such/dir"]);
}

fn a_pid_file_that_is_a_directory_leaves_nothing_beside_it() {
    let container = bare();
    let place = container.path("place");
    fs::create_dir_all(place.join("pid")).expect("directories");
    let created = container.create_with(|call| call.arg("--pid-file").arg(place.join("pid")));
    container.refuses(created, &["pid file"]);
    assert_eq!(fs::read_dir(&place).expect("our directory").count(), 1);
}

fn a_config_that_is_a_fifo_is_refused() {
    let container = bare();
    fs::remove_file(container.path("config.json")).expect("our file");
    rustix::fs::mkfifoat(rustix::fs::CWD, container.path("config.json"), Mode::RWXU).expect("a fifo");
    container.create().assert_fails().assert_stderr_contains("config.json").assert_stderr_contains("no file");
}

fn a_log_that_nobody_reads_is_refused() {
    let container = bare();
    let log = container.path("log");
    rustix::fs::mkfifoat(rustix::fs::CWD, &log, Mode::RWXU).expect("a fifo");
    let listed = container.global(["--log".as_ref(), log.as_os_str()]).arg("list").output();
    listed.assert_fails().assert_stderr_contains(log.to_str().expect("UTF-8"));
}

/// A running container with a poststop hook, one of whose own files is empty.
fn damaged(file: &str) -> Container {
    let hook = json!({ "path": "/bin/true" });
    let container = Bundle::busybox().push("/hooks/poststop", hook).args(["sleep", "1000"]).start();
    container.pid();
    fs::write(container.path("root").join(container.id()).join(file), "").expect("a file of the state");
    container
}

fn a_container_whose_state_is_damaged_is_deleted_by_force() {
    let parent = lxcrun_test::cgroup_parent();
    let bundle = Bundle::busybox();
    let path = format!("{parent}/{}", bundle.key());
    let container = bundle.set("/linux/cgroupsPath", path).args(["sleep", "1000"]).start();
    container.pid();
    let state = container.path("root").join(container.id()).join("state.json");
    fs::write(state, "").expect("the state");
    container.delete().assert_fails().assert_stderr_contains("state");
    let deleted = container.delete_force();
    container.assert_gone(deleted.assert_ok().assert_stderr_contains("may be left"));

    // Its id alone may be another container's: who is in a cgroup of that name is told of, and spared.
    let container = damaged("state.json");
    let init = container.pid();
    container.delete_force().assert_ok().assert_stderr_contains("may be left");
    let init = rustix::process::Pid::from_raw(init.cast_signed()).expect("a pid");
    rustix::process::kill_process(init, rustix::process::Signal::KILL).expect("it was spared");
    container.until_stopped();
    for directory in lxcrun_test::all_cgroups().iter().filter(|path| path.ends_with(container.id())) {
        fs::remove_dir(directory).expect("an empty cgroup");
    }
}

fn a_container_whose_specification_is_damaged_is_deleted_by_force() {
    let container = damaged("spec.json");
    let deleted = container.delete_force();
    container.assert_gone(deleted.assert_ok().assert_stderr_contains("no poststop hooks are run"));
}

fn a_missing_liblxc_is_told() {
    let script = "for lib in /usr/lib/*/liblxc.so* /lib/*/liblxc.so* /usr/lib/liblxc.so*; do \
                  if test -e $lib; then mount --bind /dev/null $lib; fi; done";
    let container = Bundle::busybox().host(script).build();
    let created = container.create();
    created.assert_fails().assert_stderr_contains("liblxc");
    container.assert_gone(&created);
}
