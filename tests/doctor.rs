//! `doctor`: what it says about this host, and about one that lacks something.

use std::process::Command;

use lxcrun_test::{Bundle, Output, Runtime, tests};
use serde_json::Value;

tests![
    it_names_what_there_is.lxcrun_only(WHY),
    it_prints_json.lxcrun_only(WHY),
    a_host_without_liblxc_lacks_what_is_needed.lxcrun_only(WHY),
    a_caller_without_rights_lacks_what_is_needed.lxcrun_only(WHY),
    a_missing_program_is_no_failure.lxcrun_only(WHY),
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

fn it_changes_nothing() {
    let container = Bundle::busybox().build();
    let root = container.path("not/there/yet");
    let output = lxcrun_test::Call::new(&root).arg("doctor").arg("--json");
    std::fs::create_dir_all(root.parent().expect("a parent")).expect("a directory");
    assert_eq!(check(output.output().assert_ok(), "state root")["health"], "ok");
    assert!(!root.exists());
}
