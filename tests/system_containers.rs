//! System containers, as docs/system-containers.md makes them.

use std::fs;
use std::process::{Command, Stdio};

use lxcrun_test::engines::until;
use lxcrun_test::{Bundle, Need, Output, Runtime, tests};
use serde_json::Value;

tests![
    systemd_boots_and_halts
        .needs(Need::CgroupV2)
        .needs(Need::Systemd)
        .needs(Need::Program("jq"))
        .lxcrun_only("the page is about its annotations"),
];

/// The page's specification, for a copy of the host's own system.
fn system() -> Bundle {
    let page = include_str!("../docs/system-containers.md");
    let (_, rest) = page.split_once("```sh\n").expect("a script");
    let (script, _) = rest.split_once("\n\nlxcrun run").expect("what makes the specification");
    let mut bundle = Bundle::busybox();
    let place = bundle.make_dir("specification");
    let programs = Runtime::get().path().parent().expect("its directory").display().to_string();
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(&place).stdin(Stdio::null());
    command.env("PATH", format!("{programs}:{}", std::env::var("PATH").expect("a PATH")));
    Output::new("the page's script", &command.output().expect("a shell")).assert_ok();
    let config = fs::read(place.join("config.json")).expect("a specification");
    let Value::Object(fields) = serde_json::from_slice(&config).expect("JSON") else { panic!("no object") };
    for (name, value) in fields {
        bundle = bundle.set(&format!("/{name}"), value);
    }
    let (changes, root) = (bundle.make_dir("changes"), bundle.rootfs(""));
    bundle.host(format!(
        "mount -t tmpfs changes {0} && mkdir {0}/upper {0}/work && \
         mount -t overlay -o lowerdir=/,upperdir={0}/upper,workdir={0}/work system {1} && \
         rm -rf {1}/etc/fstab {1}/var/lib/systemd/linger",
        changes.display(),
        root.display()
    ))
}

fn systemd_boots_and_halts() {
    let container = system().start();
    let socket = || container.exec(["test", "-S", "/run/systemd/private"]).status.success();
    assert!(until(socket), "systemd does not listen");
    let state = container.exec(["systemctl", "is-system-running", "--wait"]);
    let failed = container.exec(["systemctl", "--failed", "--no-pager"]);
    assert_eq!(state.stdout, "running\n", "{state}{failed}");
    container.exec(["systemd-run", "--wait", "--pipe", "true"]).assert_ok();
    container.kill("SIGRTMIN+3").assert_ok();
    container.until_stopped();
    container.delete().assert_ok();
}
