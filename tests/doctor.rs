//! `doctor`: what it says about this host, and about one that lacks something.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use lxcrun_test::{Bundle, Output, Runtime, tests};
use serde_json::Value;

tests![
    it_names_what_there_is.lxcrun_only(WHY),
    it_prints_json.lxcrun_only(WHY),
    a_host_without_liblxc_lacks_what_is_needed.lxcrun_only(WHY),
    a_caller_without_rights_lacks_what_is_needed.lxcrun_only(WHY),
    a_missing_program_is_no_failure.lxcrun_only(WHY),
    a_criu_that_does_not_work_is_missing.lxcrun_only(WHY),
    a_state_root_of_the_kernels_is_missing.lxcrun_only(WHY),
    a_user_without_a_state_root_lacks_it.lxcrun_only(WHY),
    lxcfs_says_how_to_have_it.lxcrun_only(WHY),
    it_changes_nothing.lxcrun_only(WHY),
];

const WHY: &str = "others have no such command";

fn checks(output: &Output) -> Vec<Value> {
    let report: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}{output}"));
    assert_eq!(report["ok"], output.code() == 0, "{output}");
    report["checks"].as_array().expect("checks").clone()
}

fn check(output: &Output, name: &str) -> Value {
    let found = checks(output).into_iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}{output}"))
}

fn it_names_what_there_is() {
    let output = Bundle::busybox().build().call("doctor").output();
    for word in ["kernel", "liblxc", "cgroups", "seccomp", "capabilities", "state root", "ok"] {
        output.assert_ok().assert_stdout_contains(word);
    }
    // What is not as it should be can be mended.
    let imperfect =
        output.lines().iter().any(|line| line.starts_with("limited") || line.starts_with("missing"));
    assert_eq!(imperfect, output.stdout.contains("mend: "), "{output}");
}

fn it_prints_json() {
    let output = Bundle::busybox().build().call("doctor").arg("--json").output();
    for check in checks(output.assert_ok()) {
        assert!(
            check["meaning"].is_string() && check["found"].is_string() && check["needed"].is_boolean(),
            "{check}"
        );
        match check["health"].as_str() {
            Some("ok") => assert!(check["mend"].is_null(), "{check}"),
            Some("limited" | "missing") => assert!(check["mend"].is_string(), "{check}"),
            _ => panic!("{check}"),
        }
    }
    let version = Bundle::busybox().build().call("--version").output();
    let liblxc = version.lines().into_iter().find_map(|l| l.strip_prefix("liblxc: ")).expect("a version");
    assert!(check(&output, "liblxc")["found"].as_str().expect("text").starts_with(liblxc), "{output}");
}

fn a_host_without_liblxc_lacks_what_is_needed() {
    let hide = "for file in $(ldconfig -p | sed -n 's/.*liblxc[.]so.* => //p'); do mount --bind /dev/null $file; done;";
    let output = Bundle::busybox().build().call("doctor").arg("--json").host(hide).output();
    let liblxc = check(output.assert_exit(1), "liblxc");
    assert_eq!((&liblxc["health"], &liblxc["needed"]), (&"missing".into(), &true.into()), "{liblxc}");
    assert!(liblxc["mend"].as_str().expect("a mend").contains("liblxc1"), "{liblxc}");
}

fn a_caller_without_rights_lacks_what_is_needed() {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-sys_admin", "--inh-caps=-all"]).arg(Runtime::get().path());
    let output = Output::new("doctor", &command.args(["doctor", "--json"]).output().expect("setpriv"));
    let capabilities = check(output.assert_exit(1), "capabilities");
    assert_eq!(capabilities["health"], "missing");
    assert!(capabilities["found"].as_str().expect("text").contains("CAP_SYS_ADMIN"), "{capabilities}");
}

fn a_missing_program_is_no_failure() {
    let hide = "mount -t tmpfs none /usr/sbin; mount -t tmpfs none /usr/local/sbin;";
    let output = Bundle::busybox().build().call("doctor").arg("--json").host(hide).output();
    assert_eq!(check(output.assert_ok(), "CRIU")["health"], "missing");
}

fn a_criu_that_does_not_work_is_missing() {
    let bundle = Bundle::busybox();
    let says = |script: &str| {
        let program = bundle.make_file("criu", script);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
        let others = std::env::var("PATH").expect("a path");
        let path = format!("{}:{others}", program.parent().expect("a directory").display());
        let call = lxcrun_test::Call::new(bundle.path("root")).env("PATH", path).arg("doctor").arg("--json");
        check(&call.output(), "CRIU")
    };
    let works = says("#!/bin/sh\n[ \"$1\" = check ]\n");
    assert_eq!(works["health"], "ok", "{works}");
    let fails = says(
        "#!/bin/sh\necho 'Error (criu/util.c:642): exited, status=1' >&2\n\
         echo 'Error (criu/vdso.c:381): vdso: odd bounds' >&2\nexit 1\n",
    );
    assert_eq!((&fails["health"], &fails["needed"]), (&"missing".into(), &false.into()), "{fails}");
    assert!(fails["found"].as_str().expect("text").ends_with("criu check: vdso: odd bounds"), "{fails}");
}

fn a_state_root_of_the_kernels_is_missing() {
    let container = Bundle::busybox().build();
    for root in ["/proc/x", "/sys/x", "/dev/null/x"] {
        let call = container.global(["--root".as_ref(), root.as_ref()]).arg("doctor").arg("--json");
        let output = call.output();
        let check = check(output.assert_exit(1), "state root");
        assert_eq!(check["health"], "missing", "{check}");
    }
}

fn a_user_without_a_state_root_lacks_it() {
    // Its directory may be closed to others.
    let runtime = fs::File::open(Runtime::get().path()).expect("the runtime");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1000", "--regid=1000", "--clear-groups", "/proc/self/fd/0", "doctor", "--json"]);
    command.env_remove("XDG_RUNTIME_DIR").stdin(runtime);
    let output = Output::new("doctor", &command.output().expect("setpriv"));
    let root = check(output.assert_exit(1), "state root");
    assert!(root["found"].as_str().expect("text").contains("XDG_RUNTIME_DIR"), "{root}");
    assert!(root["mend"].as_str().expect("text").contains("--root"), "{root}");
}

fn lxcfs_says_how_to_have_it() {
    let none = "sed -n 's/^[^/]* [^ ]* \\([^ ]*\\) .* - fuse[.]lxcfs .*/\\1/p' /proc/self/mountinfo | \
                while read -r place; do umount -l \"$place\"; done;";
    let output = Bundle::busybox().build().call("doctor").host(none).output();
    output.assert_stdout_contains("lxc.lxcfs=true").assert_stdout_contains("apt-get install lxcfs");
}

fn it_changes_nothing() {
    let container = Bundle::busybox().build();
    let root = container.path("not/there/yet");
    let output = lxcrun_test::Call::new(&root).arg("doctor").arg("--json");
    std::fs::create_dir_all(root.parent().expect("a parent")).expect("a directory");
    assert_eq!(check(output.output().assert_ok(), "state root")["health"], "ok");
    assert!(!root.exists());
}
