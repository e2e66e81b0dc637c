//! The exit code of `run` is the program's; failures to run it have codes of their own.

use std::fs;

use lxcrun_test::{Bundle, tests};

tests![
    success_is_0,
    the_exit_code_of_the_program_is_ours,
    death_by_a_signal_is_128_and_its_number,
    a_missing_program_is_named_as_runc_does,
    a_missing_path_is_named_as_runc_does,
    a_program_that_is_no_executable_is_named_as_runc_does,
    a_missing_program_is_127.lxcrun_only("runc and crun exit with 1"),
    a_program_that_is_no_executable_is_126.lxcrun_only("runc and crun exit with 1"),
    a_directory_is_no_program,
    a_missing_interpreter_fails_at_start_or_before,
    an_unknown_container_is_1,
];

fn success_is_0() {
    Bundle::busybox().args(["true"]).run().assert_exit(0);
}

fn the_exit_code_of_the_program_is_ours() {
    for code in [1, 3, 42, 126, 127, 128, 255] {
        Bundle::busybox().sh(&format!("exit {code}")).run().assert_exit(code);
    }
}

fn death_by_a_signal_is_128_and_its_number() {
    // The first process of a pid namespace can't kill itself, so it stays in ours.
    for (signal, number) in [("TERM", 15), ("KILL", 9), ("HUP", 1), ("INT", 2)] {
        let bundle = Bundle::busybox().without_namespace("pid");
        bundle.sh(&format!("kill -{signal} $$; sleep 100")).run().assert_exit(128 + number);
    }
}

fn a_missing_program_is_named_as_runc_does() {
    let refused = Bundle::busybox().args(["no-such-program"]).refused(&["no-such-program"]);
    refused.assert_stderr_contains("executable file not found");
}

fn a_missing_path_is_named_as_runc_does() {
    let refused = Bundle::busybox().args(["/bin/no-such-program"]).refused(&["/bin/no-such-program"]);
    refused.assert_stderr_contains("no such file or directory");
}

fn not_executable() -> Bundle {
    let bundle = Bundle::busybox().args(["/etc/plain"]);
    fs::write(bundle.rootfs("etc/plain"), "just text\n").expect("set up the root");
    bundle
}

fn a_program_that_is_no_executable_is_named_as_runc_does() {
    not_executable().refused(&["/etc/plain", "permission denied"]);
}

fn a_missing_program_is_127() {
    Bundle::busybox().args(["no-such-program"]).run().assert_exit(127);
    Bundle::busybox().args(["/no/such/program"]).run().assert_exit(127);
}

fn a_program_that_is_no_executable_is_126() {
    not_executable().run().assert_exit(126);
}

fn a_directory_is_no_program() {
    let run = Bundle::busybox().args(["/etc"]).run();
    run.assert_fails().assert_stderr_contains("/etc");
}

fn a_missing_interpreter_fails_at_start_or_before() {
    let bundle = Bundle::busybox().args(["/bin/script"]);
    fs::write(bundle.rootfs("bin/script"), "#!/no/interpreter\n").expect("set up the root");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bundle.rootfs("bin/script"), executable).expect("set up the root");
    bundle.run().assert_fails().assert_stderr_contains("exec /bin/script: no such file or directory");
}

fn an_unknown_container_is_1() {
    Bundle::busybox().build().verb("state").assert_exit(1);
}
