//! Containers of ordinary users.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use lxcrun_test::{Bundle, Call, Need, Runtime, cgroup_parent as parent, hierarchies, tests};
use serde_json::json;

tests![
    root_of_the_container_is_the_user.for_ordinary_user(),
    a_container_lives_and_dies_without_root.for_ordinary_user(),
    binds_are_the_users_and_read_only_where_asked.for_ordinary_user(),
    a_cgroup_below_a_delegated_one_has_limits.for_ordinary_user().needs(Need::CgroupV2).needs(Need::Systemd),
    a_cgroup_below_a_delegated_one_of_version_1_has_limits
        .needs(Need::CgroupV1("memory"))
        .not_on("crun", "it makes none"),
    a_path_where_the_user_may_make_no_cgroup_is_refused.for_ordinary_user(),
    an_exec_from_a_login_session_enters_the_scope
        .for_ordinary_user()
        .needs(Need::CgroupV2)
        .needs(Need::Systemd)
        .not_on("runc", "leaves the program outside"),
    a_listed_ptmx_is_the_link_all_the_same.for_ordinary_user(),
    what_cannot_be_killed_is_warned_of.for_ordinary_user(),
    limits_need_a_cgroup.for_ordinary_user().lxcrun_only("others ask systemd for one, or differ in words"),
    a_container_without_a_user_namespace_is_refused.for_ordinary_user().not_on("crun", "makes one"),
    ids_of_others_are_not_mapped.for_ordinary_user().lxcrun_only("about the field that is named"),
    groups_are_refused_where_they_cannot_be_set
        .for_ordinary_user()
        .lxcrun_only("about the field that is named"),
    a_command_alone_is_enough.for_ordinary_user().lxcrun_only("others need a bundle"),
    podman_splits_the_cgroup_of_a_service
        .for_ordinary_user()
        .needs(Need::Program("podman"))
        .needs(Need::CgroupV2)
        .needs(Need::Systemd)
        .alone(),
    // At its end podman takes away what all of the user's have in common.
    podman_runs_execs_and_stops
        .for_ordinary_user()
        .needs(Need::Program("podman"))
        .needs(Need::Systemd)
        .alone(),
];

/// What `spec --rootless` makes: one's own id alone is mapped.
fn rootless() -> Bundle {
    rootless_of(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

fn rootless_of(uid: u32, gid: u32) -> Bundle {
    let own = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    Bundle::busybox()
        .namespace("user", None)
        .set("/linux/uidMappings", own(uid))
        .set("/linux/gidMappings", own(gid))
        .edit(|spec| {
            spec["linux"].as_object_mut().expect("an object").remove("resources");
            for mount in spec["mounts"].as_array_mut().expect("a list") {
                if let Some(options) = mount["options"].as_array_mut() {
                    options.retain(|option| option != "gid=5");
                }
            }
        })
}

fn root_of_the_container_is_the_user() {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let run = rootless().sh("id -u; cat /proc/self/uid_map; cat /proc/self/setgroups").run();
    let words: Vec<&str> = run.assert_ok().stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "0", &uid, "1", "deny"]);
}

fn a_container_lives_and_dies_without_root() {
    let container = rootless().args(["sleep", "1000"]).create();
    assert_eq!(container.status(), "created");
    container.start().assert_ok();
    container.exec(["sh", "-c", "id -u; hostname"]).assert_ok().assert_stdout_contains("0\n");
    assert_eq!(container.status(), "running");
    container.kill("KILL").assert_ok();
    container.until_stopped();
    container.delete().assert_ok();
}

fn binds_are_the_users_and_read_only_where_asked() {
    let bundle = rootless();
    let dir = bundle.make_dir("volume");
    let script = "echo new >/rw/file && ! (echo x >/ro/other) 2>/dev/null && cat /ro/file";
    let run = bundle.bind(&dir, "/rw", &["rbind"]).bind(&dir, "/ro", &["rbind", "ro"]).sh(script).run();
    run.assert_ok().assert_stdout("new\n");
}

/// As `podman run --cgroups=split` in a service: the engine is in a part of its own cgroup, the container in another.
fn a_cgroup_below_a_delegated_one_has_limits() {
    const ENGINE: &str = r#"
        scope=/sys/fs/cgroup$(sed s/0::// /proc/self/cgroup)
        mkdir $scope/runtime
        echo 0 >$scope/runtime/cgroup.procs
        echo "+memory +pids" >$scope/cgroup.subtree_control
        "$@"
        code=$?
        rmdir $scope/container && exit 1
        exit $code"#;
    let bundle = rootless().namespace("cgroup", None).resource("memory", json!({ "limit": 64 << 20 }));
    let uid = rustix::process::geteuid().as_raw();
    let scope = format!("lxcrun-{}.scope", bundle.key());
    let path = format!("/user.slice/user-{uid}.slice/user@{uid}.service/app.slice/{scope}/container");
    let script = "cat /proc/self/cgroup /sys/fs/cgroup/memory.max; exit 9";
    let container = bundle.set("/linux/cgroupsPath", path).sh(script).build();
    let mut command = Command::new("systemd-run");
    command.args(["--user", "--quiet", "--scope", "--property=Delegate=yes", "--unit"]).arg(scope);
    command
        .args(["sh", "-c", ENGINE, "sh"])
        .args(container.call_with_bundle("run").arg(container.id()).argv());
    let run = lxcrun_test::Output::new("a run in a scope", &command.output().expect("systemd-run"));
    run.assert_exit(9).assert_stdout("0::/\n67108864\n");
}

/// An administrator has given a part of every hierarchy to a user who owns nothing else.
fn a_cgroup_below_a_delegated_one_of_version_1_has_limits() {
    const USER: u32 = 54_321;
    let bundle = rootless_of(USER, USER).args(["sleep", "1000"]).resource("pids", json!({ "limit": 50 }));
    let bundle = bundle.resource("memory", json!({ "limit": 64 << 20 }));
    let part = format!("{}/{}", &parent()[1..], bundle.key());
    let container = bundle.set("/linux/cgroupsPath", format!("/{part}/container")).build();
    let given: Vec<PathBuf> =
        hierarchies().iter().filter(|h| !h.controllers().is_empty()).map(|h| h.mount.join(&part)).collect();
    for directory in &given {
        for directory in [directory.parent().expect("the tests' cgroup"), directory] {
            fs::create_dir_all(directory).expect("a cgroup");
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let above = directory.parent().expect("a hierarchy").join(file);
                if let Ok(all) = fs::read(above) {
                    fs::write(directory.join(file), all).expect("processors and memory");
                }
            }
        }
        for file in ["", "cgroup.procs", "tasks", "cpuset.cpus", "cpuset.mems"] {
            if directory.join(file).exists() {
                chown(directory.join(file), Some(USER), Some(USER)).expect("a cgroup given away");
            }
        }
    }
    let (own, runtime) = (container.path("own"), container.path("runtime"));
    fs::create_dir(&own).expect("a state root");
    chown(&own, Some(USER), Some(USER)).expect("a state root given away");
    fs::copy(Runtime::get().path(), &runtime).expect("a copy that the user gets to");
    for directory in container.dir().ancestors().take(2) {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("a way for the user");
    }
    let as_user = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &USER.to_string(), "--regid", &USER.to_string(), "--clear-groups"]);
        command.arg(&runtime).arg("--root").arg(&own).args(args).arg(container.id());
        command.env("XDG_RUNTIME_DIR", &own).env("HOME", &own).current_dir(container.dir());
        // What is made lives on with them.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(container.path("err")).expect("a file"));
        let status = command.status().expect("setpriv");
        assert!(
            status.success(),
            "{args:?}: {}",
            fs::read_to_string(container.path("err")).unwrap_or_default()
        );
    };
    let limit = |controller: &str, file| {
        let mut all = hierarchies().iter();
        let hierarchy = all.find(|h| h.controllers().iter().any(|c| c == controller)).expect("a hierarchy");
        fs::read_to_string(hierarchy.mount.join(&part).join("container").join(file)).expect("a limit")
    };
    as_user(&["create", "--bundle", "."]);
    as_user(&["start"]);
    let list = Command::new(&runtime).arg("--root").arg(&own).arg("list").output().expect("a list");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let of_user = list.lines().any(|line| line.starts_with(container.id()) && line.ends_with("#54321"));
    assert!(of_user, "whose it is, asked by root: {list}");
    assert_eq!(limit("memory", "memory.limit_in_bytes"), "67108864\n");
    assert_eq!(limit("pids", "pids.max"), "50\n");
    as_user(&["update", "--memory", "33554432"]);
    assert_eq!(limit("memory", "memory.limit_in_bytes"), "33554432\n");
    as_user(&["pause"]);
    assert_eq!(limit("freezer", "freezer.state"), "FROZEN\n");
    as_user(&["resume"]);
    as_user(&["delete", "--force"]);
    for directory in &given {
        // Fails when the container's is still there.
        fs::remove_dir(directory).expect("an empty part");
    }
}

fn a_path_where_the_user_may_make_no_cgroup_is_refused() {
    let words = ["linux.cgroupsPath", "unable to apply cgroup configuration", "permission denied"];
    rootless().set("/linux/cgroupsPath", "/not/there").refused(&words);
}

/// Between a session's cgroup and one of the user's systemd only systemd may move a process.
fn an_exec_from_a_login_session_enters_the_scope() {
    let bundle = rootless();
    let scope = format!("test-{}.scope", bundle.key());
    let path = format!(":test:{}", bundle.key());
    let container = bundle.set("/linux/cgroupsPath", path).args(["sleep", "1000"]).build();
    let options = ["--systemd-cgroup", "create", "--bundle"].map(std::ffi::OsStr::new);
    container.global(options).arg(container.dir()).arg(container.id()).output().assert_ok();
    container.start().assert_ok();
    container.exec(["cat", "/proc/self/cgroup"]).assert_ok().assert_stdout_contains(&scope);
    if Runtime::get().is("lxcrun") {
        assert!(
            container.proc("cgroup").trim().ends_with(&format!("/{scope}")),
            "{}",
            container.proc("cgroup")
        );
        assert_eq!(container.processes_on_host(), [container.pid()]);
    }
    container.delete_force().assert_ok();
}

fn a_listed_ptmx_is_the_link_all_the_same() {
    let ptmx = json!({ "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 });
    let run = rootless().push("/linux/devices", ptmx).args(["readlink", "/dev/ptmx"]).run();
    run.assert_ok().assert_stdout("pts/ptmx\n");
}

fn what_cannot_be_killed_is_warned_of() {
    let bundle = rootless().without_namespace("pid");
    let proc = bundle.without_mount("/proc").mount("/proc", "none", "/proc", &["rbind"]);
    proc.args(["true"]).run().assert_ok().assert_stderr_contains("strongly discouraged");
}

fn limits_need_a_cgroup() {
    rootless()
        .resource("memory", json!({ "limit": 64 << 20 }))
        .refused(&["linux.resources.memory.limit", "cgroup"]);
}

fn a_container_without_a_user_namespace_is_refused() {
    Bundle::busybox().refused(&["rootless container requires user namespaces"]);
}

fn ids_of_others_are_not_mapped() {
    let two = json!([{ "containerID": 0, "hostID": 0, "size": 2 }]);
    rootless().set("/linux/uidMappings", two).refused(&["linux.uidMappings"]);
}

fn groups_are_refused_where_they_cannot_be_set() {
    let run = rootless().set("/process/user/additionalGids", json!([0])).run();
    run.assert_fails().assert_stderr_contains("process.user.additionalGids");
}

fn a_command_alone_is_enough() {
    let bundle = rootless();
    let call = Call::new(bundle.path("root")).args(["run", "--", "sh", "-c", "id -u; ls /dev/null; exit 7"]);
    call.output().assert_exit(7).assert_stdout("0\n/dev/null\n");
}

/// podman with a store of its own, which enters a user namespace before it calls the runtime.
struct Podman {
    store: String,
    run: String,
    cgroup_manager: &'static str,
}

impl Podman {
    /// With an image `bb`.
    fn new(bundle: &Bundle, cgroup_manager: &'static str) -> Podman {
        let path = |name: &str| bundle.make_dir(name).display().to_string();
        let podman = Podman { store: path("store"), run: path("run"), cgroup_manager };
        let (rootfs, image) = (bundle.rootfs("/"), bundle.path("image.tar"));
        let tar = Command::new("tar").arg("-C").arg(&rootfs).arg("-cf").arg(&image).arg(".").status();
        assert!(tar.expect("tar").success());
        podman.ok(&["import", &image.display().to_string(), "bb"]);
        podman
    }

    fn argv(&self, args: &[&str]) -> Vec<String> {
        let runtime = Runtime::get().path().display().to_string();
        let own = ["podman", "--root", &self.store, "--runroot", &self.run, "--cgroup-manager"];
        let rest = [self.cgroup_manager, "--runtime", &runtime];
        own.iter().chain(&rest).chain(args).map(|arg| (*arg).to_owned()).collect()
    }

    fn call(&self, args: &[&str]) -> Output {
        let argv = self.argv(args);
        Command::new(&argv[0]).args(&argv[1..]).output().expect("podman")
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.call(args);
        assert!(output.status.success(), "podman {args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.call(&["system", "reset", "--force"]);
    }
}

/// As a container of Quadlet's is started: the service has the limits that systemd gives it, the container its own.
fn podman_splits_the_cgroup_of_a_service() {
    let bundle = rootless();
    let podman = Podman::new(&bundle, "systemd");
    let script = "cat /proc/self/cgroup /sys/fs/cgroup/memory.max";
    let options =
        ["run", "--rm", "--network=none", "--cgroups=split", "--memory=64m", "bb", "sh", "-c", script];
    let mut service = Command::new("systemd-run");
    service.args(["--user", "--quiet", "--scope", "--property=Delegate=yes"]).args(podman.argv(&options));
    let run = lxcrun_test::Output::new("podman in a service", &service.output().expect("systemd-run"));
    run.assert_ok().assert_stdout("0::/\n67108864\n");
    // And with a scope of its own, podman's default.
    let words = podman.ok(&["run", "--rm", "--network=none", "--memory=64m", "bb", "sh", "-c", script]);
    assert_eq!(words, "0::/\n67108864\n");
}

fn podman_runs_execs_and_stops() {
    let bundle = rootless();
    let podman = Podman::new(&bundle, "cgroupfs");
    let words =
        podman.ok(&["run", "--rm", "--network=none", "bb", "sh", "-c", "id -u; cat /proc/self/uid_map"]);
    assert!(words.starts_with("0\n") && words.lines().count() > 1, "{words}");
    let failed = podman.call(&["run", "--rm", "--network=none", "bb", "sh", "-c", "exit 3"]);
    assert_eq!(failed.status.code(), Some(3), "{failed:?}");
    let script = "echo hello; trap 'exit 5' TERM; while :; do sleep 0.1; done";
    podman.ok(&["run", "-d", "--name", "web", "--network=none", "bb", "sh", "-c", script]);
    assert_eq!(podman.ok(&["exec", "web", "id", "-u"]), "0\n");
    assert_eq!(podman.ok(&["exec", "--user", "7:8", "web", "id", "-g"]), "8\n");
    podman.ok(&["stop", "web"]);
    assert_eq!(podman.ok(&["logs", "web"]), "hello\n");
    assert_eq!(podman.ok(&["inspect", "--format", "{{.State.ExitCode}}", "web"]), "5\n");
    podman.ok(&["rm", "web"]);
}
