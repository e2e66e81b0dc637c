//! Labels of security modules that the host can't enforce are refused. What AppArmor enforces is in [`apparmor`](crate::apparmor).

use lxcrun_test::{Bundle, Call, Need, tests};

tests![
    a_profile_on_a_host_without_apparmor_is_refused
        .needs(Need::NoFile("/sys/module/apparmor"))
        .not_on("crun", "goes on without"),
    unconfined_is_what_a_host_without_apparmor_has
        .needs(Need::NoFile("/sys/module/apparmor"))
        .not_on("runc", "asks the kernel for it"),
    a_raw_unconfined_is_what_a_host_without_apparmor_has
        .needs(Need::NoFile("/sys/module/apparmor"))
        .lxcrun_only("others have no raw LXC settings"),
    a_generated_profile_on_a_host_without_apparmor_is_refused
        .needs(Need::NoFile("/sys/module/apparmor"))
        .lxcrun_only("others have no raw LXC settings"),
    a_label_on_a_host_without_selinux_is_refused
        .needs(Need::NoFile("/sys/fs/selinux/enforce"))
        .not_on("crun", "goes on without"),
    a_mount_label_on_a_host_without_selinux_is_refused
        .needs(Need::NoFile("/sys/fs/selinux/enforce"))
        .lxcrun_only("others ignore it"),
];

fn a_profile_on_a_host_without_apparmor_is_refused() {
    Bundle::busybox().set("/process/apparmorProfile", "docker-default").refused(&["apparmor"]);
}

fn unconfined_is_what_a_host_without_apparmor_has() {
    let container =
        Bundle::busybox().set("/process/apparmorProfile", "unconfined").args(["sleep", "1000"]).start();
    container.exec(["true"]).assert_ok();
    container.exec_with(&["--apparmor", "unconfined"], ["true"]).assert_ok();
    container.exec_with(&["--apparmor", "docker-default"], ["true"]).assert_fails();
}

fn a_raw_unconfined_is_what_a_host_without_apparmor_has() {
    for key in ["lxc.apparmor.profile", "lxc.aa_profile"] {
        let bundle = Bundle::busybox();
        let setting = format!("{key}=unconfined");
        let call = Call::new(bundle.path("root")).args(["run", "--lxc-conf", &setting, "--", "true"]);
        call.output().assert_ok();
    }
}

fn a_generated_profile_on_a_host_without_apparmor_is_refused() {
    let bundle = Bundle::busybox();
    let setting = "lxc.apparmor.profile=generated";
    let call = Call::new(bundle.path("root")).args(["run", "--lxc-conf", setting, "--", "true"]);
    call.output().assert_fails().assert_stderr_contains("apparmor");
}

fn a_label_on_a_host_without_selinux_is_refused() {
    Bundle::busybox().set("/process/selinuxLabel", "a:b:c:s0").refused(&["selinux"]);
}

fn a_mount_label_on_a_host_without_selinux_is_refused() {
    Bundle::busybox().set("/linux/mountLabel", "a:b:c:s0").refused(&["linux.mountLabel", "selinux"]);
}
