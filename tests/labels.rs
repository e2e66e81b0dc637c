//! Labels of security modules: enforced for the program and for execs, refused where the host can't enforce them.

use std::path::Path;
use std::process::Command;

use lxcrun_test::{Bundle, Call, Need, tests};

tests![
    a_profile_confines_the_program_and_every_exec.needs(Need::AppArmor).needs(PARSER),
    an_exec_may_have_a_profile_of_its_own.needs(Need::AppArmor).needs(PARSER),
    a_raw_lxc_profile_confines_the_program
        .needs(Need::AppArmor)
        .needs(PARSER)
        .lxcrun_only("others have no raw LXC settings"),
    an_unknown_profile_fails_at_create.needs(Need::AppArmor),
    a_profile_on_a_host_without_apparmor_is_refused
        .needs(Need::NoFile("/sys/module/apparmor"))
        .not_on("crun", "goes on without"),
    a_label_on_a_host_without_selinux_is_refused
        .needs(Need::NoFile("/sys/fs/selinux/enforce"))
        .not_on("crun", "goes on without"),
    a_mount_label_on_a_host_without_selinux_is_refused
        .needs(Need::NoFile("/sys/fs/selinux/enforce"))
        .lxcrun_only("others ignore it"),
];

const PARSER: Need = Need::Program("apparmor_parser");

/// A profile that allows everything but writing to /denied, unloaded at the end.
struct Profile(String);

impl Profile {
    fn load(bundle: &Bundle) -> Profile {
        let name = format!("lxcrun-{}", bundle.key());
        let text = format!(
            "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n  file,\n  capability,\n  signal,\n  \
             ptrace,\n  unix,\n  deny /denied w,\n}}\n"
        );
        let file = bundle.make_file("profile", &text);
        Profile::parser("-r", &file);
        Profile(name)
    }

    fn parser(option: &str, file: &Path) {
        let status = Command::new("apparmor_parser").arg(option).arg(file).status();
        assert!(status.expect("apparmor_parser").success(), "{}", file.display());
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = std::fs::write("/sys/kernel/security/apparmor/.remove", &self.0);
    }
}

/// Says its label and whether each of the two files can be written.
const TRY: &str = "cat /proc/self/attr/current; for f in /allowed /denied; do \
                   if (echo x >$f) 2>/dev/null; then echo $f written; else echo $f denied; fi; done";
const UNCONFINED: &str = "unconfined\n/allowed written\n/denied written\n";

fn confined(profile: &Profile) -> String {
    format!("{} (enforce)\n/allowed written\n/denied denied\n", profile.0)
}

fn a_profile_confines_the_program_and_every_exec() {
    Bundle::busybox().sh(TRY).run().assert_ok().assert_stdout(UNCONFINED);
    let bundle = Bundle::busybox();
    let profile = Profile::load(&bundle);
    let bundle = bundle.set("/process/apparmorProfile", profile.0.as_str());
    let container = bundle.args(["sleep", "1000"]).start();
    container.exec(["sh", "-c", TRY]).assert_ok().assert_stdout(&confined(&profile));
    let program = Bundle::busybox().set("/process/apparmorProfile", profile.0.as_str()).sh(TRY).run();
    program.assert_ok().assert_stdout(&confined(&profile));
}

fn an_exec_may_have_a_profile_of_its_own() {
    let bundle = Bundle::busybox();
    let profile = Profile::load(&bundle);
    let container = bundle.args(["sleep", "1000"]).start();
    container.exec(["sh", "-c", TRY]).assert_ok().assert_stdout(UNCONFINED);
    let options = ["--apparmor", profile.0.as_str()];
    container.exec_with(&options, ["sh", "-c", TRY]).assert_ok().assert_stdout(&confined(&profile));
    let unknown = container.exec_with(&["--apparmor", "lxcrun-no-such"], ["true"]);
    unknown.assert_fails().assert_stderr_contains("lxcrun-no-such");
}

fn a_raw_lxc_profile_confines_the_program() {
    let bundle = Bundle::busybox();
    let profile = Profile::load(&bundle);
    let setting = format!("lxc.apparmor.profile={}", profile.0);
    let call = Call::new(bundle.path("root")).args(["run", "--lxc-conf", &setting, "--", "sh", "-c", TRY]);
    call.output().assert_ok().assert_stdout(&confined(&profile));
}

fn an_unknown_profile_fails_at_create() {
    Bundle::busybox()
        .set("/process/apparmorProfile", "lxcrun-no-such")
        .refused(&["apparmor", "lxcrun-no-such"]);
}

fn a_profile_on_a_host_without_apparmor_is_refused() {
    Bundle::busybox().set("/process/apparmorProfile", "docker-default").refused(&["apparmor"]);
}

fn a_label_on_a_host_without_selinux_is_refused() {
    Bundle::busybox().set("/process/selinuxLabel", "a:b:c:s0").refused(&["selinux"]);
}

fn a_mount_label_on_a_host_without_selinux_is_refused() {
    Bundle::busybox().set("/linux/mountLabel", "a:b:c:s0").refused(&["linux.mountLabel", "selinux"]);
}
