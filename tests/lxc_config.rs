//! `lxc-config`: what it prints starts under LXC's own tools, with nothing of the runtime's.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use lxcrun_test::{Bundle, Container, Need, Output, tests};
use serde_json::json;

tests![
    lxc_execute_runs_it.needs(Need::Program("lxc-execute")).lxcrun_only(WHY),
    lxc_start_runs_it.needs(Need::Program("lxc-start")).lxcrun_only(WHY),
    words_and_variables_arrive_as_they_are.needs(Need::Program("lxc-execute")).lxcrun_only(WHY),
    mounts_are_made.needs(Need::Program("lxc-execute")).lxcrun_only(WHY),
    what_lxc_lacks_is_named_by_its_field.lxcrun_only(WHY),
    settings_of_annotations_are_those_of_a_run.needs(Need::Program("lxc-execute")).lxcrun_only(WHY),
    a_bundle_that_is_none_is_refused.lxcrun_only(WHY),
];

const WHY: &str = "others have nothing to do with LXC";

/// The printed configuration, in a file.
#[track_caller]
fn printed(container: &Container) -> (PathBuf, String) {
    let config = container.call("lxc-config").arg("--bundle").arg(container.dir()).output();
    let file = container.path("lxc.conf");
    fs::write(&file, &config.assert_ok().stdout).expect("a file");
    (file, config.stdout)
}

/// Runs the bundle under one of LXC's tools.
#[track_caller]
fn under(tool: &str, options: &[&str], container: &Container) -> Output {
    let (config, text) = printed(container);
    let log = container.path("lxc.log");
    let mut command = Command::new(tool);
    command.args(options).args(["-n", container.id(), "-l", "WARN", "-P"]).arg(container.path("lxc"));
    fs::create_dir_all(container.path("lxc")).expect("a directory");
    command.arg("-f").arg(&config).arg("-o").arg(&log).stdin(std::process::Stdio::null());
    let cgroup = |kind: &str| format!("{}-{kind}", container.id());
    for (key, kind) in [("container", "own"), ("monitor", "monitor"), ("monitor.pivot", "pivot")] {
        command.arg("-s").arg(format!("lxc.cgroup.dir.{key}={}", cgroup(kind)));
    }
    let mut output = Output::new(tool, &command.output().expect(tool));
    // LXC moves its monitor there to remove the monitor's own cgroup, and leaves it.
    for left in lxcrun_test::all_cgroups().iter().filter(|path| path.ends_with(cgroup("pivot"))) {
        fs::remove_dir(left.join("lxc.pivot")).and_then(|()| fs::remove_dir(left)).expect("LXC's own cgroup");
    }
    output.log = format!("{}{text}", fs::read_to_string(log).unwrap_or_default());
    output
}

fn lxc_execute_runs_it() {
    let script = "hostname; id -u; cat /proc/self/status | grep NoNewPrivs; ulimit -n; exit 42";
    let container = Bundle::busybox().sh(script).build();
    let run = under("lxc-execute", &[], &container);
    run.assert_exit(42).assert_stdout("box\n0\nNoNewPrivs:\t1\n1024\n");
}

fn lxc_start_runs_it() {
    // Its console is not our standard output.
    let container = Bundle::busybox().args(["cp", "/proc/self/status", "/said"]).build();
    under("lxc-start", &["-F"], &container).assert_ok();
    let said = fs::read_to_string(container.path("rootfs/said")).expect("a word");
    assert!(said.contains("Pid:\t1\n") && said.contains("NoNewPrivs:\t1"), "{said}");
}

fn words_and_variables_arrive_as_they_are() {
    let words = [
        "sh",
        "-c",
        "printf \"%s|\" \"$A\" \"$B\" \"$@\"; id -u; id -g; id -G; pwd",
        "sh",
        "it's",
        "",
        "a  b",
    ];
    let bundle = Bundle::busybox().args(words).env("A= padded ").env("B=\"quoted\" 'twice'").cwd("/tmp");
    let bundle = bundle.user(1000, 1001).set("/process/user/additionalGids", json!([1002]));
    let run = under("lxc-execute", &[], &bundle.build());
    let ids = run.assert_ok().stdout.lines().collect::<Vec<_>>().join(" ");
    assert_eq!(ids, " padded |\"quoted\" 'twice'|it's||a  b|1000 1001 1001 1002 /tmp", "{run}");
}

fn mounts_are_made() {
    let bundle = Bundle::busybox();
    let data = bundle.make_dir("some data");
    fs::write(data.join("file"), "in a volume\n").expect("a file");
    let file = bundle.make_file("one file", "a file\n");
    let script = "cat '/my data/file' /etc/one; touch '/my data/x' 2>&1; cat /proc/keys | wc -c; \
                  echo 1 2>&1 > /proc/sys/kernel/panic; cat /proc/mounts > /mounts";
    let bundle = bundle.bind(&data, "/my data", &["ro"]).bind(&file, "/etc/one", &[]).sh(script);
    let container = bundle.build();
    let run = under("lxc-execute", &[], &container);
    run.assert_ok().assert_stdout_contains("in a volume\na file\n");
    assert_eq!(
        run.stdout.matches("Read-only file system").count() + run.stderr.matches("Read-only file").count(),
        2
    );
    assert!(run.stdout.lines().any(|l| l.trim() == "0"), "{run}");
    let mounts = fs::read_to_string(container.path("rootfs/mounts")).expect("mounts");
    for place in [" /proc ", " /dev ", " /dev/pts ", " /dev/shm ", " /sys ", " /my\\040data "] {
        assert!(mounts.contains(place), "{place} in {mounts}");
    }
}

fn what_lxc_lacks_is_named_by_its_field() {
    let seccomp = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    let bundle = Bundle::busybox().set("/linux/seccomp", seccomp).set("/process/user/umask", 18);
    let bundle = bundle.set("/process/capabilities/ambient", json!(["CAP_KILL"]));
    let bundle = bundle.set("/hooks", json!({ "poststart": [{ "path": "/bin/true" }] }));
    let (_, text) = printed(&bundle.build());
    for field in ["linux.seccomp", "process.user.umask", "hooks.poststart", "process.capabilities.ambient"] {
        assert!(text.contains(&format!("# not expressed: {field}: ")), "{field} in {text}");
    }
}

fn settings_of_annotations_are_those_of_a_run() {
    let annotations = json!({
        "org.linuxcontainers.lxc.limit.nofile": "77",
        "org.linuxcontainers.lxc.hook.pre-start": "/no/such/hook",
        "org.linuxcontainers.lxc.rootfs.path": "/",
        "org.linuxcontainers.lxc.group = x\nlxc.hook.post-stop": "/no/such/hook",
    });
    let container = Bundle::busybox().set("/annotations", annotations).sh("ulimit -n").build();
    let (_, text) = printed(&container);
    let set: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(set.contains(&"lxc.prlimit.nofile = 77"), "{text}");
    let is_ours = |line: &&str| line.starts_with("lxc.hook") || line.starts_with("lxc.rootfs.path = /");
    assert_eq!(set.into_iter().filter(is_ours).count(), 0, "{text}");
    for field in ["lxc.hook.pre-start", "lxc.rootfs.path", "lxc.group = x"] {
        let refused = format!("# not expressed: annotations[org.linuxcontainers.{field}");
        assert!(text.contains(&refused), "{field}: {text}");
    }
    under("lxc-execute", &[], &container).assert_ok().assert_stdout_contains("77\n");
}

fn a_bundle_that_is_none_is_refused() {
    let container = Bundle::busybox().build();
    let config = container.call("lxc-config").arg("--bundle").arg(container.path("nothing")).output();
    config.assert_exit(1).assert_stderr_contains("nothing").assert_stdout("");
}
