//! AppArmor: profiles by name, and those that are made for a container, confine its program and every exec.

use std::fs;
use std::path::Path;
use std::process::Command;

use lxcrun_test::{Bundle, Call, Container, Fifo, Need, Output, Test, tests};
use rustix::process::Signal;
use serde_json::{Value, json};

const PARSER: Need = Need::Program("apparmor_parser");

/// All of them.
pub fn tests() -> Vec<Test> {
    let generated =
        generated::tests().into_iter().map(|test| test.lxcrun_only("others generate no profiles"));
    by_name::tests().into_iter().chain(generated).map(|t| t.needs(Need::AppArmor).needs(PARSER)).collect()
}

/// Says its label and whether each of the two files can be written.
const TRY: &str = "cat /proc/self/attr/current; for f in /allowed /denied; do \
                   if (echo x >$f) 2>/dev/null; then echo $f written; else echo $f denied; fi; done";
const UNCONFINED: &str = "unconfined\n/allowed written\n/denied written\n";

fn confined(profile: &str) -> String {
    format!("{profile} (enforce)\n/allowed written\n/denied denied\n")
}

/// Profiles that somebody has loaded.
mod by_name {
    use super::*;

    tests![
        a_profile_confines_the_program_and_every_exec,
        an_exec_may_have_a_profile_of_its_own,
        a_raw_lxc_profile_confines_the_program.lxcrun_only("others have no raw LXC settings"),
        an_unknown_profile_fails_at_create,
        a_process_of_lxc_attach_is_confined.lxcrun_only("others are unknown to LXC's tools"),
    ];

    /// A profile that allows everything but writing to /denied, unloaded at the end.
    struct Profile(String);

    impl Profile {
        fn load(bundle: &Bundle) -> Profile {
            let name = format!("lxcrun-{}", bundle.key());
            let text = format!(
                "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n  file,\n  capability,\n  \
                 network,\n  signal,\n  ptrace,\n  unix,\n  deny /denied w,\n}}\n"
            );
            let file = bundle.make_file("profile", &text);
            let status = Command::new("apparmor_parser").arg("-r").arg(&file).status();
            assert!(status.expect("apparmor_parser").success(), "{}", file.display());
            Profile(name)
        }
    }

    impl Drop for Profile {
        fn drop(&mut self) {
            let _ = fs::write("/sys/kernel/security/apparmor/.remove", &self.0);
        }
    }

    fn a_profile_confines_the_program_and_every_exec() {
        Bundle::busybox().sh(TRY).run().assert_ok().assert_stdout(UNCONFINED);
        let bundle = Bundle::busybox();
        let profile = Profile::load(&bundle);
        let bundle = bundle.set("/process/apparmorProfile", profile.0.as_str());
        let container = bundle.args(["sleep", "1000"]).start();
        container.exec(["sh", "-c", TRY]).assert_ok().assert_stdout(&confined(&profile.0));
        let program = Bundle::busybox().set("/process/apparmorProfile", profile.0.as_str()).sh(TRY).run();
        program.assert_ok().assert_stdout(&confined(&profile.0));
    }

    fn an_exec_may_have_a_profile_of_its_own() {
        let bundle = Bundle::busybox();
        let profile = Profile::load(&bundle);
        let container = bundle.args(["sleep", "1000"]).start();
        container.exec(["sh", "-c", TRY]).assert_ok().assert_stdout(UNCONFINED);
        let options = ["--apparmor", profile.0.as_str()];
        let exec = container.exec_with(&options, ["sh", "-c", TRY]);
        exec.assert_ok().assert_stdout(&confined(&profile.0));
        let unknown = container.exec_with(&["--apparmor", "lxcrun-no-such"], ["true"]);
        unknown.assert_fails().assert_stderr_contains("lxcrun-no-such");
    }

    fn a_raw_lxc_profile_confines_the_program() {
        let bundle = Bundle::busybox();
        let profile = Profile::load(&bundle);
        let setting = format!("lxc.apparmor.profile={}", profile.0);
        let call =
            Call::new(bundle.path("root")).args(["run", "--lxc-conf", &setting, "--", "sh", "-c", TRY]);
        call.output().assert_ok().assert_stdout(&confined(&profile.0));
    }

    fn an_unknown_profile_fails_at_create() {
        Bundle::busybox()
            .set("/process/apparmorProfile", "lxcrun-no-such")
            .refused(&["apparmor", "lxcrun-no-such"]);
    }

    fn a_process_of_lxc_attach_is_confined() {
        let bundle = Bundle::busybox();
        let profile = Profile::load(&bundle);
        let mut begun = Fifo::new(bundle.path("begun"));
        let container = bundle
            .bind(begun.path(), "/begun", &["bind"])
            .set("/process/apparmorProfile", profile.0.as_str())
            .sh("echo begun >/begun; exec sleep 1000")
            .build();
        let run = container.spawn(|call| call);
        assert_eq!(begun.line(), "begun");
        let attach = Command::new("lxc-attach")
            .args(["--lxcpath".as_ref(), container.path("root").as_os_str()])
            .args(["--name", container.id(), "--clear-env", "--", "/bin/sh", "-c", TRY])
            .output();
        let attach = Output::new("lxc-attach", &attach.expect("lxc-attach"));
        attach.assert_ok().assert_stdout(&confined(&profile.0));
        container.kill("KILL").assert_ok();
        run.wait();
    }
}

/// Profiles that are made for a container.
mod generated {
    use super::*;

    tests![
        a_generated_profile_confines_the_program_and_every_exec,
        a_generated_profile_keeps_the_container_off_the_host,
        nesting_gives_mounts_and_a_namespace_of_policies,
        a_generated_profile_goes_with_a_failed_create,
        a_generated_profile_goes_with_a_create_that_was_killed,
        a_rule_that_is_none_is_an_error,
        rules_alone_are_refused,
    ];

    const PREFIX: &str = "org.linuxcontainers.lxc.apparmor.";

    /// With these settings, each allowed by this host's administrator.
    fn with(settings: &[(&str, &str)]) -> Bundle {
        let bundle = Bundle::busybox();
        let dir = bundle.make_dir("etc").display().to_string();
        let allow = "[annotations]\\nallow = [\"lxc.apparmor.*\"]\\n";
        let host = format!(
            "mount -t tmpfs tmpfs {dir} && mkdir {dir}/upper {dir}/work && \
             mount -t overlay -o lowerdir=/etc,upperdir={dir}/upper,workdir={dir}/work overlay /etc && \
             mkdir -p /etc/lxcrun && printf '{allow}' >/etc/lxcrun/lxcrun.toml"
        );
        let annotations: serde_json::Map<String, Value> =
            settings.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).into())).collect();
        bundle.host(host).set("/annotations", annotations)
    }

    fn generated(settings: &[(&str, &str)]) -> Bundle {
        with(&[&[("profile", "generated")], settings].concat())
    }

    fn name(container: &Container) -> String {
        let root = fs::canonicalize(container.path("root")).expect("the state root");
        format!("lxcrun-{}_<{}>", container.id(), root.display())
    }

    /// The profiles that are loaded for the container, with their namespaces.
    fn loaded(container: &Container) -> Vec<String> {
        let profiles = fs::read_to_string("/sys/kernel/security/apparmor/profiles").expect("profiles");
        let namespaces = fs::read_dir("/sys/kernel/security/apparmor/policy/namespaces").expect("namespaces");
        let namespaces =
            namespaces.map(|entry| entry.expect("one").file_name().to_string_lossy().into_owned());
        let all = profiles.lines().map(str::to_owned).chain(namespaces);
        all.filter(|text| text.contains(container.id())).collect()
    }

    fn a_generated_profile_confines_the_program_and_every_exec() {
        let bundle = generated(&[("raw", "deny /denied w,")]);
        let container = bundle.sh(&format!("{TRY}; exec sleep 1000")).start();
        let expected = confined(&name(&container));
        container.exec(["sh", "-c", TRY]).assert_ok().assert_stdout(&expected);
        assert_eq!(container.proc("attr/current"), format!("{} (enforce)\n", name(&container)));
        assert_eq!(loaded(&container).len(), 1);
        container.finish();
        assert_eq!(loaded(&container), [""; 0]);
    }

    /// Opens without writing.
    const REACH: &str = "for f in /proc/sys/vm/swappiness /proc/sys/kernel/core_pattern /sys/kernel/mm/ksm/run; do \
                         if (: >>$f) 2>/dev/null; then echo open; else echo denied; fi; done; \
                         (: >>/proc/sys/kernel/hostname) && mount -t tmpfs tmpfs /tmp && umount /tmp && \
                         mkdir -p /mnt && if mount -t proc proc /mnt; then echo open; else echo denied; fi";

    fn reaching(bundle: Bundle) -> Output {
        let bundle = bundle.capabilities(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
        let bundle = bundle.set("/linux/readonlyPaths", json!([])).set("/linux/maskedPaths", json!([]));
        let writable = bundle.edit(|spec| {
            for mount in spec["mounts"].as_array_mut().expect("a list") {
                if let Some(options) = mount["options"].as_array_mut() {
                    options.retain(|option| option != "ro");
                }
            }
        });
        writable.sh(REACH).run()
    }

    fn a_generated_profile_keeps_the_container_off_the_host() {
        reaching(Bundle::busybox()).assert_ok().assert_stdout("open\nopen\nopen\nopen\n");
        reaching(generated(&[])).assert_ok().assert_stdout("denied\ndenied\ndenied\ndenied\n");
    }

    fn nesting_gives_mounts_and_a_namespace_of_policies() {
        let nested = [("allow_nesting", "1")];
        reaching(generated(&nested)).assert_ok().assert_stdout("denied\ndenied\ndenied\nopen\n");
        let container = generated(&nested).args(["sleep", "1000"]).start();
        let exec = container.exec(["cat", "/proc/self/attr/current"]);
        exec.assert_ok().assert_stdout("unconfined\n");
        let label = container.proc("attr/current");
        let namespace = name(&container).replace('/', "-");
        assert!(label.contains(&format!("{}//&:{namespace}:unconfined", name(&container))), "{label}");
        assert_eq!(loaded(&container).len(), 2);
        container.finish();
        assert_eq!(loaded(&container), [""; 0]);
    }

    fn a_generated_profile_goes_with_a_failed_create() {
        let failing = generated(&[("allow_nesting", "1")]).args(["/no/such/program"]).build();
        failing.create().assert_fails();
        assert_eq!(loaded(&failing), [""; 0]);
    }

    fn a_generated_profile_goes_with_a_create_that_was_killed() {
        let bundle = generated(&[("allow_nesting", "1")]);
        let mut begun = Fifo::new(bundle.path("begun"));
        let go_on = Fifo::new(bundle.path("go-on"));
        let script = format!("echo begun > {}; read x < {}", begun.path().display(), go_on.path().display());
        let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
        let container = bundle.set("/hooks", json!({ "createRuntime": hook })).build();
        let create = container.call_with_bundle("create").arg(container.id()).spawn();
        assert_eq!(begun.line(), "begun");
        assert_eq!(loaded(&container).len(), 2);
        create.signal(Signal::KILL);
        drop(create);
        container.delete_force().assert_ok();
        drop(go_on); // the hook, which nobody waits for any more, ends
        assert_eq!(loaded(&container), [""; 0]);
    }

    fn a_rule_that_is_none_is_an_error() {
        let failing = generated(&[("raw", "no rule at all")]).build();
        failing.refuses(failing.create(), &["lxc.apparmor.raw", "apparmor_parser"]);
        assert_eq!(loaded(&failing), [""; 0]);
        assert!(!Path::new(&failing.path("root")).join(failing.id()).exists());
    }

    fn rules_alone_are_refused() {
        with(&[("raw", "deny /denied w,")]).refused(&["lxc.apparmor.profile=generated"]);
    }
}
