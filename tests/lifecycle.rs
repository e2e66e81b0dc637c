//! create, start, state, kill, delete, run, list.

use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;

use lxcrun_test::{Bundle, tests, until_exit};
use rustix::fs::{SealFlags, StatVfsMountFlags, fcntl_get_seals, fstatvfs};
use rustix::io::Errno;
use serde_json::{Value, json};

tests![
    a_life_goes_from_created_over_running_to_stopped,
    nothing_runs_before_start,
    a_config_that_changes_after_create_changes_nothing,
    state_has_the_fields_of_the_specification,
    state_tells_the_annotations,
    a_created_container_that_is_deleted_by_force_never_ran,
    a_created_container_can_be_killed,
    the_program_of_an_init_cannot_be_written_to,
    a_created_container_is_told_from_its_monitor.lxcrun_only("the title of its init"),
    a_created_container_ends_at_a_signal_that_ends_programs.not_on("crun", "its init ignores them"),
    a_running_container_is_deleted_only_by_force,
    delete_removes_a_stopped_container,
    the_pid_file_holds_the_init,
    the_pid_file_of_run_holds_the_init,
    create_leaves_the_init_to_the_subreaper_of_its_caller,
    the_subreaper_sees_a_death_by_signal,
    no_process_of_the_runtime_stays_after_create,
    run_detached_returns_while_the_program_runs,
    run_removes_the_container_at_its_end,
    run_with_keep_leaves_it_stopped,
    list_shows_every_container,
    list_can_print_json_and_ids,
    list_shows_more_containers_than_it_may_open_files.lxcrun_only("the state file is its own"),
    list_names_the_container_that_it_can_not_read.lxcrun_only("the state file is its own"),
    the_bundle_may_be_the_working_directory,
    the_root_may_be_an_absolute_path_elsewhere,
    the_root_may_be_a_link.not_on("runc", "it refuses one"),
    two_containers_of_one_bundle_live_side_by_side,
    an_id_may_have_every_allowed_character,
    one_id_may_be_in_two_roots
        .not_on("runc", "both have the same cgroup")
        .not_on("crun", "both have the same cgroup"),
    an_init_at_its_gate_has_no_file_open.not_on("runc", "1.1 holds its log and the bundle open"),
];

fn sleeper() -> Bundle {
    Bundle::busybox().args(["sleep", "1000"])
}

fn a_life_goes_from_created_over_running_to_stopped() {
    let container = sleeper().create();
    assert_eq!(container.status(), "created");
    container.pid();
    container.start().assert_ok();
    assert_eq!(container.status(), "running");
    container.kill("KILL").assert_ok();
    container.until_stopped();
    assert_eq!(container.status(), "stopped");
    let deleted = container.delete();
    container.assert_gone(deleted.assert_ok());
}

fn nothing_runs_before_start() {
    let container = Bundle::busybox().sh("echo ran").create();
    container.pid();
    assert_eq!(container.stdout(), "");
    container.start().assert_ok();
    container.until_stopped();
    assert_eq!(container.stdout(), "ran\n");
}

fn a_config_that_changes_after_create_changes_nothing() {
    let container = Bundle::busybox().sh("echo first").create();
    container.rewrite("/process/args", json!(["echo", "second"]));
    container.start().assert_ok();
    container.until_stopped();
    assert_eq!(container.stdout(), "first\n");
}

fn state_has_the_fields_of_the_specification() {
    let container = sleeper().create();
    let state = container.state();
    assert_eq!(state["id"], container.id());
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], container.dir().to_str().expect("a value"));
    assert!(state["ociVersion"].as_str().expect("a value").starts_with("1."), "{state}");
    assert!(fs::exists(format!("/proc/{}", state["pid"])).expect("a value"), "{state}");
    container.kill("KILL").assert_ok();
    container.until_stopped();
    assert!(matches!(&container.state()["pid"], Value::Null | Value::Number(_)));
}

fn state_tells_the_annotations() {
    let annotations = json!({ "org.example.key": "value", "empty": "" });
    let container = sleeper().set("/annotations", annotations.clone()).create();
    assert_eq!(container.state()["annotations"], annotations);
}

fn a_created_container_that_is_deleted_by_force_never_ran() {
    let container = Bundle::busybox().sh("echo ran").create();
    let pid = container.pid();
    let deleted = container.delete_force();
    until_exit(pid);
    assert_eq!(container.stdout(), "");
    container.assert_gone(deleted.assert_ok());
}

fn a_created_container_can_be_killed() {
    let container = sleeper().create();
    container.pid();
    container.kill("KILL").assert_ok();
    container.until_stopped();
    assert_eq!(container.status(), "stopped");
    container.delete().assert_ok();
}

fn the_program_of_an_init_cannot_be_written_to() {
    program_of_init_cannot_be_written_to(sleeper());
}

/// Who is in a container's PID namespace finds the runtime's own program at the init's /proc/PID/exe (CVE-2019-5736).
pub fn program_of_init_cannot_be_written_to(bundle: Bundle) {
    let container = bundle.create();
    let exe = format!("/proc/{}/exe", container.pid());
    let program = fs::File::open(exe).expect("its program");
    // While it is executed nobody could write to any.
    container.delete_force().assert_ok();
    let again = format!("/proc/self/fd/{}", program.as_raw_fd());
    // What is there in every program, so that nothing is broken where this succeeds.
    let first = b"\x7f";
    let written = fs::OpenOptions::new().write(true).open(again).and_then(|mut it| it.write(first));
    let error = Errno::from_io_error(&written.expect_err("an error")).expect("a number");
    // Where another test's container executes the same file, that is what the kernel finds first.
    assert!(matches!(error, Errno::ROFS | Errno::PERM | Errno::TXTBSY), "{error}");
    let read_only = fstatvfs(&program).expect("its mount").f_flag.contains(StatVfsMountFlags::RDONLY);
    let sealed = fcntl_get_seals(&program).is_ok_and(|seals| seals.contains(SealFlags::WRITE));
    assert!(read_only || sealed, "it was only busy");
}

fn a_created_container_is_told_from_its_monitor() {
    let container = sleeper().create();
    let title = fs::read(format!("/proc/{}/cmdline", container.pid())).expect("its title");
    let expected = format!("lxcrun: init of {}", container.id());
    assert_eq!(String::from_utf8_lossy(&title).trim_end_matches('\0'), expected);
    container.delete_force().assert_ok();
}

fn a_created_container_ends_at_a_signal_that_ends_programs() {
    for signal in ["TERM", "INT", "HUP"] {
        let container = sleeper().create();
        container.pid();
        container.kill(signal).assert_ok();
        container.until_stopped();
        assert_eq!(container.status(), "stopped");
        container.delete().assert_ok();
    }
}

fn a_running_container_is_deleted_only_by_force() {
    let container = sleeper().start();
    container.delete().assert_fails();
    assert_eq!(container.status(), "running");
    let deleted = container.delete_force();
    container.assert_gone(deleted.assert_ok());
}

fn delete_removes_a_stopped_container() {
    let container = Bundle::busybox().start();
    container.until_stopped();
    let deleted = container.delete();
    container.assert_gone(deleted.assert_ok());
    container.verb("state").assert_fails();
}

fn pid_in(path: &std::path::Path) -> u32 {
    let text = fs::read_to_string(path).expect("the pid file");
    text.parse().unwrap_or_else(|_| panic!("the pid file holds {text:?}, not just a number"))
}

fn the_pid_file_holds_the_init() {
    let container = sleeper().build();
    let file = container.path("pid");
    container.create_with(|call| call.arg("--pid-file").arg(&file)).assert_ok();
    assert_eq!(pid_in(&file), container.pid());
}

fn the_pid_file_of_run_holds_the_init() {
    let container = sleeper().build();
    let file = container.path("pid");
    container.spawn(|call| call.arg("--detach").arg("--pid-file").arg(&file)).wait().assert_ok();
    assert_eq!(pid_in(&file), container.pid());
}

fn create_leaves_the_init_to_the_subreaper_of_its_caller() {
    let container = Bundle::busybox().sh("exit 42").build();
    assert_eq!(container.life_under_subreaper(), "exited 42");
    container.delete().assert_ok();
}

fn the_subreaper_sees_a_death_by_signal() {
    // The first process of a pid namespace is immune to its own signals; without one, it isn't.
    let container = Bundle::busybox().without_namespace("pid").sh("kill -TERM $$; sleep 100").build();
    assert_eq!(container.life_under_subreaper(), "killed 15");
    container.delete().assert_ok();
}

fn no_process_of_the_runtime_stays_after_create() {
    let container = sleeper().create();
    assert_eq!(container.processes_on_host(), [container.pid()]);
    container.start().assert_ok();
    assert_eq!(container.processes_on_host(), [container.pid()]);
}

fn run_detached_returns_while_the_program_runs() {
    let container = sleeper().build();
    container.spawn(|call| call.arg("--detach")).wait().assert_ok();
    assert_eq!(container.status(), "running");
}

fn run_removes_the_container_at_its_end() {
    let container = Bundle::busybox().build();
    container.run().assert_ok(); // and nothing is left
    container.verb("state").assert_fails();
}

fn run_with_keep_leaves_it_stopped() {
    let container = Bundle::busybox().build();
    container.spawn(|call| call.arg("--keep")).wait().assert_ok();
    assert_eq!(container.status(), "stopped");
    container.delete().assert_ok();
}

fn list_shows_every_container() {
    let container = sleeper().create();
    let pid = container.pid().to_string();
    let list = container.call("list").output();
    let line = list.assert_ok().stdout.lines().find(|line| line.contains(container.id()));
    let words: Vec<&str> = line.unwrap_or_else(|| panic!("not listed{list}")).split_whitespace().collect();
    assert_eq!(words[..4], [container.id(), &pid, "created", container.dir().to_str().expect("a value")]);
}

fn list_shows_more_containers_than_it_may_open_files() {
    let container = sleeper().create();
    let root = container.path("root");
    let state = fs::read_to_string(root.join(container.id()).join("state.json")).expect("a state");
    let copies: Vec<String> = (0..40).map(|n| format!("{}-{n}", container.id())).collect();
    for copy in &copies {
        fs::create_dir(root.join(copy)).expect("a directory");
        let state = state.replace(&format!("\"{}\"", container.id()), &format!("\"{copy}\""));
        fs::write(root.join(copy).join("state.json"), state).expect("a state");
    }
    let list = container.call("list").host("ulimit -n 20").output();
    copies.iter().for_each(|copy| fs::remove_dir_all(root.join(copy)).expect("removed"));
    assert_eq!(list.assert_ok().stdout.lines().count(), 1 + 1 + copies.len(), "{list}");
}

fn list_names_the_container_that_it_can_not_read() {
    let container = sleeper().create();
    let broken = container.path("root").join("broken");
    fs::create_dir(&broken).expect("a directory");
    fs::write(broken.join("state.json"), "{").expect("a state");
    let list = container.call("list").output();
    fs::remove_dir_all(&broken).expect("removed");
    assert!(list.stdout.contains(container.id()), "{list}");
    list.assert_fails().assert_stderr_contains("broken");
}

fn list_can_print_json_and_ids() {
    let container = sleeper().create();
    let quiet = container.call("list").arg("--quiet").output();
    quiet.assert_ok().assert_stdout(&format!("{}\n", container.id()));
    let list = container.call("list").args(["--format", "json"]).output();
    let all: Value = serde_json::from_str(&list.assert_ok().stdout).expect("JSON");
    assert_eq!(all[0]["id"], container.id());
    assert_eq!(all[0]["status"], "created");
    assert_eq!(all[0]["pid"], container.pid());
}

fn the_bundle_may_be_the_working_directory() {
    let container = Bundle::busybox().args(["echo", "here"]).build();
    let run = container.call("run").current_dir(container.dir()).arg(container.id()).output();
    run.assert_ok().assert_stdout("here\n");
}

fn the_root_may_be_an_absolute_path_elsewhere() {
    let bundle = Bundle::busybox().args(["cat", "/here"]);
    let elsewhere = bundle.path("elsewhere");
    fs::rename(bundle.rootfs(""), &elsewhere).expect("a value");
    fs::write(elsewhere.join("here"), "elsewhere").expect("a value");
    bundle.set("/root/path", elsewhere.to_str()).run().assert_ok().assert_stdout("elsewhere");
}

fn the_root_may_be_a_link() {
    let bundle = Bundle::busybox().args(["cat", "/here"]);
    fs::write(bundle.rootfs("here"), "led").expect("a file");
    symlink("rootfs", bundle.path("link")).expect("a link");
    bundle.set("/root/path", "link").run().assert_ok().assert_stdout("led");
}

fn two_containers_of_one_bundle_live_side_by_side() {
    let first = sleeper().start();
    let id = format!("{}-twin", first.id());
    let on_twin = |verb: &str| first.call(verb).arg(&id).output();
    first.call_with_bundle("create").arg(&id).output().assert_ok();
    on_twin("start").assert_ok();
    first.kill("KILL").assert_ok();
    first.until_stopped();
    first.delete().assert_ok();
    on_twin("state").assert_ok().assert_stdout_contains("running");
    first.call("delete").arg("--force").arg(&id).output().assert_ok();
}

fn an_id_may_have_every_allowed_character() {
    let bundle = Bundle::busybox();
    let id = format!("{}-A_z.+9", bundle.key());
    let container = bundle.id(&id).create();
    assert_eq!(container.state()["id"], id);
}

fn one_id_may_be_in_two_roots() {
    let (one, other) = (sleeper(), sleeper());
    let id = one.key().to_owned();
    let (one, other) = (one.id(&id).start(), other.id(&id).start());
    assert_ne!(one.pid(), other.pid());
    one.delete_force().assert_ok();
    assert_eq!(other.status(), "running");
    other.delete_force().assert_ok();
}

/// Nothing of the host that a program could get hold of. The memory is its own, for those who ask whether it still waits.
fn an_init_at_its_gate_has_no_file_open() {
    let container = sleeper().create();
    for entry in fs::read_dir(format!("/proc/{}/fd", container.pid())).expect("its descriptors") {
        let path = entry.expect("a descriptor").path();
        let number: i32 = path.file_name().and_then(|n| n.to_str()?.parse().ok()).expect("a number");
        // Closed meanwhile.
        let Ok(target) = fs::read_link(&path) else { continue };
        let target = target.to_string_lossy();
        let plain = ["socket:", "pipe:", "anon_inode:"].iter().any(|kind| target.starts_with(kind));
        assert!(number <= 2 || plain, "{number} is {target}");
    }
}
