//! The command line itself: spec, features, version, logs, descriptors.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use lxcrun_test::{Bundle, Container, tests};
use serde_json::Value;

tests![
    spec_writes_a_config_that_runs,
    spec_does_not_overwrite,
    features_are_json,
    version_names_the_specification,
    version_names_liblxc.lxcrun_only("others don't use it"),
    an_unknown_command_fails,
    an_unknown_option_fails,
    help_lists_the_commands,
    errors_go_to_the_log_as_json,
    errors_go_to_the_log_as_text,
    errors_in_the_log_are_on_stderr_too,
    stdin_stdout_and_stderr_are_the_callers,
    no_byte_is_lost_at_the_end_of_a_pipe,
    stdout_may_be_closed_early,
    preserved_descriptors_are_open_in_the_program,
    other_descriptors_are_not,
    too_many_preserved_descriptors_are_refused,
    the_variables_of_the_runtime_do_not_reach_the_program,
    no_new_keyring_and_no_pivot_are_accepted,
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

fn an_unknown_command_fails() {
    bare().call("no-such-command").output().assert_fails();
}

fn an_unknown_option_fails() {
    bare().call("list").arg("--no-such-option").output().assert_fails();
}

fn help_lists_the_commands() {
    let help = bare().call("--help").output();
    for command in ["create", "start", "state", "kill", "delete", "run", "exec"] {
        help.assert_ok().assert_stdout_contains(command);
    }
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

fn errors_go_to_the_log_as_text() {
    assert!(log_of_failure(&[]).contains("no-such-program"));
    assert!(log_of_failure(&["--log-format", "text"]).contains("no-such-program"));
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

fn the_variables_of_the_runtime_do_not_reach_the_program() {
    let container = Bundle::busybox().args(["env"]).build();
    let run = container.run_with(|call| call.env("FROM_OUTSIDE", "1"));
    assert!(!run.assert_ok().stdout.contains("FROM_OUTSIDE"), "{run}");
}

fn no_new_keyring_and_no_pivot_are_accepted() {
    bare().run_with(|call| call.arg("--no-new-keyring")).assert_ok();
    bare().run_with(|call| call.arg("--no-pivot")).assert_ok();
}
