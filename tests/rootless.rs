//! Containers of ordinary users.

use std::process::{Command, Output};

use lxcrun_test::{Bundle, Call, Need, Runtime, tests};
use serde_json::json;

tests![
    root_of_the_container_is_the_user.for_ordinary_user(),
    a_container_lives_and_dies_without_root.for_ordinary_user(),
    binds_are_the_users_and_read_only_where_asked.for_ordinary_user(),
    limits_need_a_cgroup.for_ordinary_user().lxcrun_only("others ask systemd for one, or differ in words"),
    a_container_without_a_user_namespace_is_refused.for_ordinary_user().not_on("crun", "makes one"),
    ids_of_others_are_not_mapped.for_ordinary_user().lxcrun_only("about the field that is named"),
    groups_are_refused_where_they_cannot_be_set
        .for_ordinary_user()
        .lxcrun_only("about the field that is named"),
    a_command_alone_is_enough.for_ordinary_user().lxcrun_only("others need a bundle"),
    podman_runs_execs_and_stops.for_ordinary_user().needs(Need::Program("podman")).needs(Need::Systemd),
];

/// What `spec --rootless` makes: one's own id alone is mapped.
fn rootless() -> Bundle {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
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
}

impl Podman {
    fn call(&self, args: &[&str]) -> Output {
        let mut podman = Command::new("podman");
        podman.args(["--root", &self.store, "--runroot", &self.run, "--cgroup-manager", "cgroupfs"]);
        podman.arg("--runtime").arg(Runtime::get().path()).args(args);
        podman.output().expect("podman")
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

fn podman_runs_execs_and_stops() {
    let bundle = rootless();
    let rootfs = bundle.rootfs("/");
    let image = bundle.path("image.tar");
    let tar = Command::new("tar").arg("-C").arg(&rootfs).arg("-cf").arg(&image).arg(".").status();
    assert!(tar.expect("tar").success());
    let path = |name: &str| bundle.make_dir(name).display().to_string();
    let podman = Podman { store: path("store"), run: path("run") };
    podman.ok(&["import", &image.display().to_string(), "bb"]);
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
