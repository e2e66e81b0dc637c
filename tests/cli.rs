//! The command line itself: spec, features, version, logs, descriptors.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use lxcrun_test::{Bundle, Call, ConsoleSocket, Container, Runtime, tests};
use serde_json::Value;

tests![
    spec_writes_a_config_that_runs,
    spec_does_not_overwrite,
    features_are_json,
    version_names_the_specification,
    version_names_liblxc.lxcrun_only("others don't use it"),
    spec_for_a_user_other_than_root,
    features_agree_with_what_is_refused.lxcrun_only("runc says features that it then refuses"),
    an_unknown_command_fails,
    an_unknown_option_fails,
    nothing_to_do_is_help,
    help_goes_to_stdout,
    every_option_of_runc_is_known,
    the_list_is_a_table,
    the_list_is_json,
    the_list_may_be_of_ids_alone,
    a_stopped_container_has_no_pid_in_the_list,
    a_pidfd_of_the_init_comes_over_its_socket.not_on("runc", "new in 1.2").not_on("crun", "unknown there"),
    a_pidfd_of_an_exec_comes_over_its_socket.not_on("runc", "new in 1.2").not_on("crun", "unknown there"),
    a_pidfd_socket_that_is_none_is_refused.not_on("runc", "new in 1.2"),
    completions_are_complete.lxcrun_only("others ship a file"),
    manual_pages_are_complete.lxcrun_only("others ship files"),
    the_steps_of_the_readme_work.lxcrun_only("it is lxcrun's"),
    the_help_of_a_command_says_what_the_list_says.lxcrun_only("each runtime has its own words"),
    help_lists_the_commands,
    help_and_errors_say_the_name_of_the_call.lxcrun_only("others have one name"),
    errors_of_the_init_are_in_runcs_words
        .not_on("runc", "1.1 escapes its quotes")
        .not_on("crun", "it has its own"),
    a_debug_log_names_the_steps.not_on("crun", "it has its own"),
    spec_has_a_cgroup_namespace_with_version_two_alone.not_on("crun", "it has one always"),
    errors_go_to_the_log_as_json,
    errors_that_nobody_can_read_change_no_exit_code,
    errors_go_to_the_log_as_text,
    errors_in_the_log_are_on_stderr_too,
    errors_without_a_log_are_json_where_that_is_asked_for.not_on("crun", "it writes plain text"),
    stdin_stdout_and_stderr_are_the_callers,
    no_byte_is_lost_at_the_end_of_a_pipe,
    stdout_may_be_closed_early,
    preserved_descriptors_are_open_in_the_program,
    other_descriptors_are_not,
    too_many_preserved_descriptors_are_refused,
    descriptors_of_the_runtime_are_not_preserved.lxcrun_only("runc hands its own on"),
    the_variables_of_the_runtime_do_not_reach_the_program,
    no_new_keyring_and_no_pivot_are_accepted,
    options_are_read_as_go_reads_them.not_on("crun", "it is not written in Go"),
    a_root_that_was_named_must_be_there
        .not_on("runc", "1.1 takes it for empty")
        .not_on("crun", "it makes it"),
    a_command_runs_where_the_state_root_is_noexec.lxcrun_only("the others take a bundle"),
    options_of_the_other_form_of_run_are_refused.lxcrun_only("it has two forms"),
    run_without_a_bundle_drops_no_option.lxcrun_only("it has two forms"),
    a_state_root_that_is_no_text_is_refused.lxcrun_only("others write no JSON of it"),
];

fn bare() -> Container {
    Bundle::busybox().build()
}

fn spec_writes_a_config_that_runs() {
    let container = bare();
    fs::remove_file(container.path("config.json")).expect("our config");
    container.call("spec").arg("--bundle").arg(container.dir()).output().assert_ok();
    container.rewrite("/process/terminal", false.into());
    container.rewrite("/process/args", serde_json::json!(["echo", "works"]));
    container.run().assert_ok().assert_stdout("works\n");
}

fn spec_does_not_overwrite() {
    let container = bare();
    let spec = container.call("spec").arg("--bundle").arg(container.dir()).output();
    spec.assert_fails().assert_stderr_contains("config.json");
    container.run().assert_ok();
}

fn features_are_json() {
    let features = bare().call("features").output();
    let features: Value = serde_json::from_str(&features.assert_ok().stdout).expect("JSON");
    for hook in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        assert!(features["hooks"].as_array().expect("hooks").contains(&hook.into()), "{hook}");
    }
    for field in ["ociVersionMin", "ociVersionMax"] {
        assert!(features[field].as_str().expect(field).starts_with("1."), "{field}");
    }
    for option in ["rbind", "ro", "nosuid", "rshared"] {
        assert!(features["mountOptions"].as_array().expect("options").contains(&option.into()), "{option}");
    }
    let namespaces = features["linux"]["namespaces"].as_array().expect("namespaces");
    assert!(namespaces.contains(&"network".into()), "{namespaces:?}");
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
}

fn version_names_the_specification() {
    let version = bare().call("--version").output();
    version.assert_ok().assert_stdout_contains("version");
    version.assert_stdout_contains("spec: 1.");
}

fn version_names_liblxc() {
    bare().call("--version").output().assert_ok().assert_stdout_contains("liblxc");
}

fn spec_for_a_user_other_than_root() {
    let container = bare();
    fs::remove_file(container.path("config.json")).expect("our config");
    container.call("spec").arg("--rootless").arg("--bundle").arg(container.dir()).output().assert_ok();
    let spec: Value =
        serde_json::from_slice(&fs::read(container.path("config.json")).expect("a config")).expect("JSON");
    let own = rustix::process::geteuid().as_raw();
    assert_eq!(
        spec["linux"]["uidMappings"],
        serde_json::json!([{ "containerID": 0, "hostID": own, "size": 1 }])
    );
    let namespaces = spec["linux"]["namespaces"].as_array().expect("namespaces");
    let has = |kind: &str| namespaces.iter().any(|n| n["type"] == kind);
    assert!(has("user") && !has("network"), "{namespaces:?}");
    assert!(spec["linux"]["resources"].is_null());
}

/// What the features document denies is refused by name, what it affirms is not.
fn features_agree_with_what_is_refused() {
    let features = bare().call("features").output();
    let features: Value = serde_json::from_str(&features.assert_ok().stdout).expect("JSON");
    let linux = &features["linux"];
    let refused = |bundle: Bundle, options: &[&str], words: &str| {
        let container = bundle.build();
        let call = container.global(options.iter().map(|o| o.as_ref())).arg("create");
        let output = call.arg("--bundle").arg(container.dir()).arg(container.id()).output();
        output.code() != 0 && output.stderr.contains(words)
    };
    for (feature, pointer, value) in [
        (&linux["netDevices"]["enabled"], "/linux/netDevices", serde_json::json!({ "nosuchdev0": {} })),
        (&linux["intelRdt"]["enabled"], "/linux/intelRdt", serde_json::json!({ "closID": "nosuch" })),
        (&linux["selinux"]["enabled"], "/linux/mountLabel", "x:y:z:s0".into()),
    ] {
        let bundle = Bundle::busybox().set(pointer, value);
        assert_eq!(refused(bundle, &[], "is not supported by this version"), *feature == false, "{pointer}");
    }
    let denied = linux["cgroup"]["systemd"] == false;
    let words = "--systemd-cgroup: not supported by this version";
    assert_eq!(refused(Bundle::busybox(), &["--systemd-cgroup"], words), denied, "systemd");
}

fn an_unknown_command_fails() {
    let output = bare().call("no-such-command").output();
    output.assert_fails().assert_stderr_contains("no-such-command");
    if !Runtime::get().is("crun") {
        output.assert_exit(3);
    }
}

fn an_unknown_option_fails() {
    let output = bare().call("list").arg("--no-such-option").output();
    output.assert_exit(1);
    assert!(format!("{}{}", output.stdout, output.stderr).contains("no-such-option"), "{output}");
    for verb in ["create", "start", "state", "delete", "kill", "run", "pause", "update", "events"] {
        bare().call(verb).output().assert_exit(1);
    }
    let container = Bundle::busybox().args(["sleep", "100"]).start();
    container.verb("exec").assert_exit(255).assert_stderr_contains("args");
}

fn nothing_to_do_is_help() {
    let output = std::process::Command::new(Runtime::get().path()).output().expect("the runtime");
    let output = lxcrun_test::Output::new("the runtime alone", &output);
    output.assert_ok().assert_stdout_contains("create");
}

fn help_goes_to_stdout() {
    for verb in ["create", "run", "exec", "kill", "list"] {
        bare().call(verb).arg("--help").output().assert_ok().assert_stdout_contains("--");
    }
    bare().call("help").output().assert_ok().assert_stdout_contains("delete");
}

/// Each option, with a value where it takes one, before an argument that ends it all: what is refused is that.
fn every_option_of_runc_is_known() {
    const GLOBAL: &str = "--debug --log= --log-format=json --systemd-cgroup --rootless=true --rootless=auto";
    const KNOWN: [(&str, &str); 9] = [
        (
            "create",
            "--bundle=/ -b=/ --console-socket= --pid-file= --no-pivot --no-new-keyring --preserve-fds=0",
        ),
        ("run", "--bundle=/ --console-socket= --detach -d --keep --pid-file= --no-subreaper --no-pivot"),
        ("delete", "--force -f"),
        ("events", "--interval=5s --stats"),
        (
            "exec",
            "--console-socket= --cwd=/ --env=A=b -e=A=b --tty -t --user=0 -u=0 --additional-gids=0 -g=0 --process= \
             --detach -d --pid-file= --process-label=x --apparmor=x --no-new-privs --cap=CAP_KILL -c=CAP_KILL \
             --preserve-fds=0 --cgroup=/ --ignore-paused",
        ),
        ("kill", "--all -a"),
        ("list", "--format=json -f=json --quiet -q"),
        ("ps", "--format=json -f=json"),
        (
            "update",
            "--resources= --blkio-weight=10 --cpu-period=1 --cpu-quota=1 --cpu-share=1 --cpu-rt-period=1 \
             --cpu-rt-runtime=1 --cpuset-cpus=0 --cpuset-mems=0 --kernel-memory=1 --kernel-memory-tcp=1 --memory=1 \
             --memory-reservation=1 --memory-swap=1 --pids-limit=1 --l3-cache-schema=x --mem-bw-schema=x",
        ),
    ];
    let container = bare();
    let unknown = |text: &str| {
        ["not defined", "unexpected argument", "unrecognized", "invalid value"]
            .iter()
            .any(|w| text.contains(w))
    };
    let ended = |call: Call| {
        let output = call.arg("--no-such-option").output();
        let text = format!("{}{}", output.assert_fails().stdout, output.stderr);
        text.contains("no-such-option") && unknown(&text)
    };
    for option in GLOBAL.split_whitespace() {
        assert!(ended(container.global([option.as_ref()])), "{option}");
    }
    for (verb, options) in KNOWN {
        for option in options.split_whitespace() {
            assert!(ended(container.call(verb).arg(option)), "{verb} {option}");
        }
    }
    assert!(!ended(container.call("list").arg("--unknown")), "the test tells nothing");
}

fn the_list_is_a_table() {
    let container = Bundle::busybox().create();
    let list = container.call("list").output();
    let lines = list.assert_ok().lines();
    let words: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(words, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let row: Vec<&str> = lines[1].split_whitespace().collect();
    let (pid, bundle) = (container.pid().to_string(), container.dir().to_string_lossy());
    assert_eq!(row[..4], [container.id(), &pid, "created", &bundle]);
    assert_eq!(row[5], "root");
    assert_eq!(lines[0].find("STATUS"), lines[1].find("created"));
}

fn the_list_is_json() {
    let container = Bundle::busybox().set("/annotations", serde_json::json!({ "a": "b" })).create();
    let list = container.call("list").args(["--format", "json"]).output();
    let list: Value = serde_json::from_str(&list.assert_ok().stdout).expect("JSON");
    let entry = &list[0];
    assert_eq!(entry["id"], container.id());
    assert_eq!(entry["pid"], container.pid());
    assert_eq!(entry["status"], "created");
    assert_eq!(entry["bundle"], container.dir().to_str().expect("a path"));
    assert_eq!(entry["owner"], "root");
    if !Runtime::get().is("crun") {
        assert_eq!(entry["rootfs"], container.path("rootfs").to_str().expect("a path"));
        assert_eq!(entry["annotations"]["a"], "b");
        assert!(entry["ociVersion"].as_str().expect("a version").starts_with("1."), "{entry}");
    }
    assert!(entry["created"].as_str().expect("a time").contains('T'), "{entry}");
}

fn the_list_may_be_of_ids_alone() {
    let container = Bundle::busybox().create();
    let list = container.call("list").arg("--quiet").output();
    list.assert_ok().assert_stdout(&format!("{}\n", container.id()));
}

fn a_stopped_container_has_no_pid_in_the_list() {
    let container = Bundle::busybox().start();
    container.until_stopped();
    let list = container.call("list").args(["--format", "json"]).output();
    let list: Value = serde_json::from_str(&list.assert_ok().stdout).expect("JSON");
    assert_eq!((&list[0]["pid"], &list[0]["status"]), (&0.into(), &"stopped".into()));
}

fn a_pidfd_of_the_init_comes_over_its_socket() {
    let container = Bundle::busybox().args(["sleep", "100"]).build();
    let socket = ConsoleSocket::new(container.path("pidfd"));
    container.create_with(|call| call.arg("--pidfd-socket").arg(socket.path())).assert_ok();
    let pidfd = socket.receive_fd();
    container.pid();
    container.start().assert_ok();
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).expect("a signal");
    container.until_stopped();
}

fn a_pidfd_of_an_exec_comes_over_its_socket() {
    let container = Bundle::busybox().args(["sleep", "100"]).start();
    let socket = ConsoleSocket::new(container.path("pidfd"));
    let call = container.call("exec").arg("--pidfd-socket").arg(socket.path());
    let running = call.args([container.id(), "sleep", "100"]).spawn();
    let pidfd = socket.receive_fd();
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::TERM).expect("a signal");
    running.wait().assert_exit(128 + 15);
}

fn a_pidfd_socket_that_is_none_is_refused() {
    let container = bare();
    let created = container.create_with(|call| call.arg("--pidfd-socket").arg(container.path("nothing")));
    container.refuses(created, &["nothing"]);
}

fn completions_are_complete() {
    for shell in ["bash", "zsh", "fish"] {
        let script = bare().call("completion").arg(shell).output();
        for word in ["create", "console-socket", "systemd-cgroup", "pids-limit"] {
            script.assert_ok().assert_stdout_contains(word);
        }
        if lxcrun_test::on_path(shell).is_some() {
            let file = bare().path(shell);
            fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
            fs::write(&file, &script.stdout).expect("a script");
            let checked = std::process::Command::new(shell).arg("-n").arg(&file).output().expect(shell);
            fs::remove_file(&file).expect("our script");
            lxcrun_test::Output::new(shell, &checked).assert_ok();
        }
    }
    bare().call("completion").arg("no-such-shell").output().assert_exit(1);
}

fn manual_pages_are_complete() {
    let container = bare();
    container.call("man").arg(container.path("man")).output().assert_ok();
    let page = |name: &str| {
        let text = fs::read_to_string(container.path("man").join(name)).expect(name);
        text.replace("\\-", "-")
    };
    assert!(page("lxcrun.8").contains("lxcrun-update(8)"));
    assert!(page("lxcrun-exec.8").contains("--additional-gids"));
    assert!(page("lxcrun-run.8").contains("--console-socket"));
}

fn options_are_read_as_go_reads_them() {
    let container = Bundle::busybox().args(["sleep", "1000"]).start();
    let log = container.path("the.log");
    let global = |words: &[&str]| container.global(words.iter().map(OsStr::new));
    let list = global(&[
        "-debug",
        "-log",
        &log.display().to_string(),
        "-log-format=json",
        "list",
        "-format=json",
        "-q=false",
    ])
    .output();
    assert!(list.assert_ok().stdout.starts_with('['), "{}", list.stdout);
    let exec = |words: &[&str]| global(&["exec"]).args(words).output();
    exec(&["-cwd", "/bin", "--tty=false", container.id(), "pwd"]).assert_ok().assert_stdout("/bin\n");
    exec(&[
        "--tty",
        "-tty=f",
        "--no-new-privs=true",
        container.id(),
        "grep",
        "NoNewPrivs",
        "/proc/self/status",
    ])
    .assert_ok()
    .assert_stdout("NoNewPrivs:\t1\n");
    exec(&["--tty=perhaps", container.id(), "true"]).assert_fails();
    global(&["kill", "-a=0", container.id(), "KILL"]).output().assert_ok();
    container.until_stopped();
    global(&["delete", "-f=true", container.id()]).output().assert_ok();
}

fn a_root_that_was_named_must_be_there() {
    let container = bare();
    let missing = container.path("missing");
    let list = Call::new(&missing).arg("list").output();
    list.assert_fails().assert_stderr_contains("--root").assert_stderr_contains("No such file");
    assert!(!missing.exists());
}

/// As /run is on many hosts.
fn a_command_runs_where_the_state_root_is_noexec() {
    let container = bare();
    let root = container.path("noexec");
    fs::create_dir(&root).expect("a directory");
    let script = format!("mount -t tmpfs -o noexec,nosuid,nodev none {}", root.display());
    let run = Call::new(&root).host(script).arg("run").args(["--name", container.id(), "--", "echo", "done"]);
    run.output().assert_ok().assert_stdout("done\n");
}

fn options_of_the_other_form_of_run_are_refused() {
    let container = Bundle::busybox().args(["true"]).build();
    for option in ["--memory=5m", "--read-only", "--user=7", "--network=none", "--hostname=name"] {
        let run = container.run_with(|call| call.arg(option));
        run.assert_fails().assert_stderr_contains(option.split('=').next().expect("a name"));
    }
    let both =
        container.call("run").args(["--bundle", container.dir().to_str().expect("a path"), "--", "true"]);
    both.output().assert_fails().assert_stderr_contains("--bundle");
}

fn help_lists_the_commands() {
    let help = bare().call("--help").output();
    for command in ["create", "start", "state", "kill", "delete", "run", "exec"] {
        help.assert_ok().assert_stdout_contains(command);
    }
}

fn the_steps_of_the_readme_work() {
    let text = include_str!("../README.md");
    let (_, steps) = text.split_once("step by step").expect("the steps");
    let steps = steps.split("```sh\n").nth(1).and_then(|block| block.split("```").next()).expect("a block");
    let container = bare();
    let dir = container.path("scratch");
    fs::create_dir(&dir).expect("a directory");
    let (runtime, root) = (Runtime::get().path().display(), container.path("root"));
    let script = format!("lxcrun() {{ '{runtime}' --root '{}' \"$@\"; }}\n{steps}", root.display());
    let mut shell = std::process::Command::new("sh");
    // An id of its own: it is the name of a cgroup.
    shell.arg("-ec").arg(script.replace(" web", &format!(" {}", container.id()))).current_dir(&dir);
    let output = shell.stdin(Stdio::null()).output().expect("sh");
    let output = lxcrun_test::Output::new("the steps", &output);
    output.assert_ok().assert_stdout_contains("sleep 1000").assert_stdout_contains("\"type\":\"stats\"");
}

fn the_help_of_a_command_says_what_the_list_says() {
    let container = bare();
    let help = container.call("--help").output();
    let lines = help.assert_ok().lines();
    let commands = lines.iter().skip_while(|line| **line != "Commands:").skip(1);
    let commands: Vec<(&str, &str)> =
        commands.map_while(|line| line.trim().split_once(' ')).filter(|(name, _)| *name != "help").collect();
    assert!(commands.len() > 15, "{help}");
    container.call("man").arg(container.path("man")).output().assert_ok();
    for (name, description) in commands {
        let own = container.call(name).arg("--help").output();
        let second = own.assert_ok().lines()[1].trim().to_owned();
        assert_eq!(second, format!("lxcrun {name} - {}", description.trim()));
        let page =
            fs::read_to_string(container.path("man").join(format!("lxcrun-{name}.8"))).expect("a page");
        let page = page.replace("\\-", "-").replace("\\*(Aq", "'");
        assert!(page.contains(&format!("lxcrun-{name} - {}", description.trim())), "{page}");
    }
}

/// Callers look for runc's layout, with the name that they called.
fn help_and_errors_say_the_name_of_the_call() {
    let container = bare();
    let link = container.path("runc");
    std::os::unix::fs::symlink(Runtime::get().path(), &link).expect("a link");
    let call = |args: &[&str]| {
        let mut call = std::process::Command::new(&link);
        let output = call.arg("--root").arg(container.path("root")).args(args).output();
        lxcrun_test::Output::new("runc", &output.expect("the runtime"))
    };
    let lines = |args: &[&str]| {
        let output = call(args);
        let lines: Vec<String> = output.assert_ok().lines().into_iter().map(str::to_owned).collect();
        (lines[0].clone(), lines[1].clone())
    };
    let (first, second) = lines(&["--help"]);
    assert!(first == "NAME:" && second.contains("runc - Open Container Initiative runtime"), "{second}");
    for verb in ["list", "exec", "checkpoint"] {
        let (first, second) = lines(&[verb, "-h"]);
        assert!(first == "NAME:" && second.contains(&format!("runc {verb} - ")), "{second}");
    }
    let (first, second) = lines(&["--version"]);
    assert!(first.starts_with("runc version ") && second.starts_with("commit: "), "{first} {second}");
    let missing = call(&["run", "--bundle", "/no/such/bundle", container.id()]);
    missing.assert_fails().assert_stderr_contains("runc run failed: ");
    call(&["foo", "-h"]).assert_exit(3).assert_stderr_contains("No help topic for 'foo'");
}

fn errors_of_the_init_are_in_runcs_words() {
    let container = Bundle::busybox().mount("/data", "tmpfs", "tmpfs", &["nosuch=option"]).build();
    let words = "run failed: unable to start container process: error during container init: error mounting \"tmpfs\" to \
                 rootfs at \"/data\": ";
    container.refuses(container.run(), &[words, "invalid argument"]);
    let container = Bundle::busybox().args(["no-such-program"]).build();
    let words = "run failed: unable to start container process: ";
    let found = "exec: \"no-such-program\": executable file not found in $PATH";
    container.refuses(container.run(), &[words, found]);
    let container = Bundle::busybox().args(["sleep", "100"]).start();
    container.exec(["no-such-program"]).assert_fails().assert_stderr_contains("exec failed: ");
    container.exec(["no-such-program"]).assert_stderr_contains(found);
}

fn a_debug_log_names_the_steps() {
    let container = Bundle::busybox().args(["sleep", "100"]).build();
    let log = container.path("the.log");
    let debug =
        |verb: &str| container.global(["--debug".as_ref(), "--log".as_ref(), log.as_os_str()]).arg(verb);
    debug("create").arg("--bundle").arg(container.dir()).arg(container.id()).output().assert_ok();
    container.start().assert_ok();
    debug("exec").arg(container.id()).arg("true").output().assert_ok();
    let text = fs::read_to_string(log).expect("the log");
    for step in [
        "nsexec container setup",
        "child process in init()",
        "init: closing the pipe to signal completion",
        "setns_init: about to exec",
    ] {
        assert!(text.contains(step), "{step} in {text}");
    }
}

fn spec_has_a_cgroup_namespace_with_version_two_alone() {
    let container = bare();
    fs::remove_file(container.path("config.json")).expect("our config");
    container.call("spec").arg("--bundle").arg(container.dir()).output().assert_ok();
    let text = fs::read_to_string(container.path("config.json")).expect("a config");
    let spec: Value = serde_json::from_str(&text).expect("JSON");
    let namespaces = spec["linux"]["namespaces"].as_array().expect("namespaces");
    assert_eq!(namespaces.iter().any(|n| n["type"] == "cgroup"), lxcrun_test::is_v2(), "{namespaces:?}");
}

/// Fails with this format of log, and returns what was logged.
fn log_of_failure(format: &[&str]) -> String {
    let container = Bundle::busybox().args(["no-such-program"]).build();
    let log = container.path("the.log");
    let call = container.global(["--log".as_ref(), log.as_os_str()]).args(format).arg("create");
    let output = call.arg("--bundle").arg(container.dir()).arg(container.id()).output();
    container.refuses(output, &["no-such-program"]);
    fs::read_to_string(log).expect("the log")
}

fn errors_go_to_the_log_as_json() {
    let log = log_of_failure(&["--log-format", "json"]);
    let entries = log.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line"));
    let error = entries.rev().find(|entry: &Value| entry["level"] == "error").expect("an error");
    assert!(error["msg"].as_str().expect("a message").contains("executable file not found"), "{error}");
    assert!(error["time"].as_str().expect("a time").contains('T'), "{error}");
}

fn errors_that_nobody_can_read_change_no_exit_code() {
    let container = Bundle::busybox().args(["no-such-program"]).build();
    let full = || fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let log = container.path("log");
    let run = container.global(["--log".as_ref(), log.as_os_str()]).args(["run", "--bundle"]);
    let run =
        run.arg(container.dir()).arg(container.id()).stdio(Stdio::null(), Stdio::null(), full()).output();
    container.assert_gone(run.assert_exit(if Runtime::get().is("lxcrun") { 127 } else { 1 }));
    assert!(fs::read_to_string(log).expect("a log").contains("no-such-program"));
    let state = container.call("state").arg("nobody").stdio(Stdio::null(), Stdio::null(), full()).output();
    state.assert_exit(1);
}

fn errors_go_to_the_log_as_text() {
    assert!(log_of_failure(&[]).contains("no-such-program"));
    assert!(log_of_failure(&["--log-format", "text"]).contains("no-such-program"));
}

fn errors_without_a_log_are_json_where_that_is_asked_for() {
    let container = Bundle::busybox().build();
    let output =
        container.global(["--log-format".as_ref(), "json".as_ref()]).args(["state", container.id()]).output();
    output.assert_fails();
    let line: Value = serde_json::from_str(output.stderr.trim()).expect("one JSON object");
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().expect("a message").contains("does not exist"), "{line}");
}

fn errors_in_the_log_are_on_stderr_too() {
    log_of_failure(&["--log-format", "json"]); // which looks at stderr
}

fn stdin_stdout_and_stderr_are_the_callers() {
    let container = Bundle::busybox().sh("cat; echo err >&2").build();
    let [input, output, errors] = ["input", "output", "errors"].map(|name| container.path(name));
    fs::write(&input, "in\n").expect("input");
    let create = |path| fs::File::create(path).expect("a file");
    let (stdin, stdout, stderr) = (fs::File::open(input).expect("input"), create(&output), create(&errors));
    container.run_with(|call| call.stdio(stdin, stdout, stderr)).assert_ok();
    assert_eq!(fs::read_to_string(output).expect("output"), "in\n");
    assert_eq!(fs::read_to_string(errors).expect("errors"), "err\n");
}

fn no_byte_is_lost_at_the_end_of_a_pipe() {
    for _ in 0..5 {
        let container = Bundle::busybox().args(["seq", "1", "20000"]).build();
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let running = container.spawn(|call| call.stdio(Stdio::null(), writer, Stdio::null()));
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("read");
        running.wait().assert_ok();
        assert!(text.lines().map(str::parse).eq((1..=20000).map(Ok)), "{} bytes came", text.len());
    }
}

fn stdout_may_be_closed_early() {
    let container = Bundle::busybox().sh("yes | head -n 100000; exit 4").build();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let run = container.run_with(|call| call.stdio(Stdio::null(), writer, Stdio::null()));
    run.assert_exit(4);
}

fn preserved(count: &str, script: &str) -> lxcrun_test::Output {
    let container = Bundle::busybox().sh(script).build();
    let files = ["three", "four"].map(|name| {
        fs::write(container.path(name), format!("{name}\n")).expect("a file");
        fs::File::open(container.path(name)).expect("a file")
    });
    let [three, four] = files;
    container.run_with(|call| call.fd(3, three).fd(4, four).arg("--preserve-fds").arg(count))
}

fn preserved_descriptors_are_open_in_the_program() {
    preserved("2", "cat <&3; cat <&4").assert_ok().assert_stdout("three\nfour\n");
}

fn other_descriptors_are_not() {
    preserved("1", "cat <&3; (ls /proc/1/fd); exit").assert_ok().assert_stdout("three\n0\n1\n2\n3\n");
    preserved("0", "(ls /proc/1/fd); exit").assert_ok().assert_stdout("0\n1\n2\n");
}

fn too_many_preserved_descriptors_are_refused() {
    preserved("7", "true").assert_fails();
}

fn descriptors_of_the_runtime_are_not_preserved() {
    let container = Bundle::busybox().args(["sleep", "1000"]).build();
    // None that the test has been left by its own caller either.
    let call = |verb: &str, option: &str, number: &str| {
        let log = container.path("log");
        let call = container.global(["--log".as_ref(), log.as_os_str()]).arg(verb);
        call.host("exec 3>&-").args([option, number])
    };
    let refused = |call: Call| {
        call.output()
            .assert_fails()
            .assert_stderr_contains("descriptor 3")
            .assert_stderr_contains("is not open");
    };
    for verb in ["create", "run"] {
        refused(call(verb, "--preserve-fds", "1").arg("--bundle").arg(container.dir()).arg(container.id()));
    }
    container.create().assert_ok();
    container.start().assert_ok();
    refused(call("exec", "--preserve-fds", "1").arg(container.id()).arg("true"));
    refused(call("checkpoint", "--status-fd", "3").arg(container.id()));
    let log = fs::read_to_string(container.path("log")).expect("a log");
    assert_eq!(log.lines().filter(|line| line.contains("is not open")).count(), 4, "{log}");
    container.finish();
}

fn the_variables_of_the_runtime_do_not_reach_the_program() {
    let container = Bundle::busybox().args(["env"]).build();
    let run = container.run_with(|call| call.env("FROM_OUTSIDE", "1"));
    assert!(!run.assert_ok().stdout.contains("FROM_OUTSIDE"), "{run}");
}

fn no_new_keyring_and_no_pivot_are_accepted() {
    bare().run_with(|call| call.arg("--no-new-keyring")).assert_ok();
    bare().run_with(|call| call.arg("--no-pivot")).assert_ok();
}

fn run_without_a_bundle_drops_no_option() {
    let bundle = Bundle::busybox();
    for (options, words) in [
        (["--memory", "0"], "--memory 0"),
        (["--pids", "0"], "--pids 0"),
        (["--mount", "type=tmpfs,source=/nope,destination=/mnt"], "source=/nope"),
        (["--env", "ODD"], "--env ODD: its value is not UTF-8"),
    ] {
        let call = Call::new(bundle.path("root")).env("ODD", OsStr::from_bytes(b"a\xff"));
        let output = call.arg("run").args(options).args(["--", "true"]).output();
        output.assert_fails().assert_stderr_contains(words);
    }
}

fn a_state_root_that_is_no_text_is_refused() {
    let bundle = Bundle::busybox();
    let root = bundle.path(OsStr::from_bytes(b"ro\xffot"));
    let output = Call::new(&root).args(["run", "--", "true"]).output();
    output.assert_fails().assert_stderr_contains("--root").assert_stderr_contains("is not UTF-8");
    assert!(!root.exists());
}
