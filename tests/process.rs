//! What the program gets: arguments, environment, directory, user, limits, capabilities.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lxcrun_test::{Bundle, tests};
use serde_json::json;

tests![
    a_program_may_have_as_few_descriptors_as_it_needs.not_on("runc", "1.1 runs out of them itself"),
    a_program_may_be_allowed_no_file,
    the_program_gets_its_arguments_exactly,
    the_environment_is_exactly_that_of_the_spec,
    home_comes_from_the_users_entry_in_passwd,
    home_of_the_spec_wins,
    the_last_variable_of_a_name_counts.not_on("runc", "1.1 leaves both to the program"),
    a_program_may_use_every_processor_whatever_its_caller_may.not_on("runc", "1.1 hands its own on"),
    the_program_is_looked_up_on_the_path_of_the_spec,
    nothing_is_looked_up_in_a_relative_directory,
    a_program_may_be_a_path,
    a_script_has_the_name_that_it_was_called_by.not_on("crun", "it calls it by its path"),
    the_program_starts_in_its_directory,
    a_missing_directory_is_made,
    a_user_and_groups_are_set,
    a_home_is_found_behind_a_name_in_another_encoding,
    a_user_need_not_be_in_passwd,
    a_umask_is_set,
    the_umask_is_022_by_default,
    limits_of_resources_are_set,
    capabilities_of_root_are_exact,
    capabilities_of_a_user_are_exact_in_all_five_sets,
    ambient_capabilities_that_are_not_inheritable_are_told
        .not_on("runc", "1.1 says nothing")
        .not_on("crun", "it says nothing"),
    capabilities_that_cannot_be_had_are_refused
        .lxcrun_only("about the words, and runc refuses as late as start"),
    without_capabilities_root_has_none,
    no_new_privileges_is_on_where_asked_for,
    no_new_privileges_is_off_where_not,
    the_oom_score_is_set,
    an_oom_score_that_is_not_given_is_the_callers,
    the_program_is_process_one_and_leads_its_session,
    the_program_inherits_no_descriptor_but_its_three,
    no_signal_is_blocked_or_ignored,
    a_thousand_arguments_arrive,
];

fn the_program_gets_its_arguments_exactly() {
    let script = r#"for a; do echo "[$a]"; done"#;
    let run = Bundle::busybox().args(["sh", "-c", script, "sh", "", "a b", "'\"$x", "ünï\n", "-x"]).run();
    run.assert_ok().assert_stdout("[]\n[a b]\n['\"$x]\n[ünï\n]\n[-x]\n");
}

fn the_environment_is_exactly_that_of_the_spec() {
    let env = json!(["PATH=/bin", "HOME=/h", "A=b=c", "EMPTY=", "SPACED= x y "]);
    let run = Bundle::busybox().args(["env"]).set("/process/env", env).run();
    let mut lines = run.assert_ok().lines();
    lines.sort_unstable();
    assert_eq!(lines, ["A=b=c", "EMPTY=", "HOME=/h", "PATH=/bin", "SPACED= x y "]);
}

fn home_comes_from_the_users_entry_in_passwd() {
    Bundle::busybox().sh("echo $HOME").user(1000, 1000).run().assert_ok().assert_stdout("/tmp\n");
}

fn home_of_the_spec_wins() {
    Bundle::busybox().sh("echo $HOME").env("HOME=/mine").run().assert_ok().assert_stdout("/mine\n");
}

fn the_last_variable_of_a_name_counts() {
    let env = json!(["ONE=1", "PATH=/bin", "ONE=2", "HOME=/x", "HOME="]);
    let run = Bundle::busybox().args(["env"]).set("/process/env", env).run();
    run.assert_ok().assert_stdout("PATH=/bin\nONE=2\nHOME=/root\n");
}

fn a_program_may_use_every_processor_whatever_its_caller_may() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let of_all = || sched_getaffinity(None).expect("processors");
    let before = of_all();
    let mut first = CpuSet::new();
    let number = (0..CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu)).expect("a processor");
    first.set(number);
    // Of this thread alone, which the runtime inherits them from.
    sched_setaffinity(None, &first).expect("one processor");
    let count = "grep Cpus_allowed: /proc/self/status";
    let run = Bundle::busybox().sh(count).run();
    sched_setaffinity(None, &before).expect("all processors");
    let mask = run.assert_ok().lines()[0].split_whitespace().last().unwrap_or_default().replace(',', "");
    let allowed = u128::from_str_radix(&mask, 16).unwrap_or_default().count_ones();
    assert!(allowed >= before.count(), "{run}");
}

fn the_program_is_looked_up_on_the_path_of_the_spec() {
    let bundle = Bundle::busybox().args(["hello"]).set("/process/env", json!(["PATH=/nowhere:/opt"]));
    std::fs::create_dir(bundle.rootfs("opt")).expect("set up the root");
    std::fs::copy("/bin/busybox", bundle.rootfs("opt/busybox")).expect("set up the root");
    let script = "#!/bin/sh\necho hello from $0\n";
    std::fs::write(bundle.rootfs("opt/hello"), script).expect("set up the root");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bundle.rootfs("opt/hello"), executable).expect("set up the root");
    bundle.run().assert_ok().assert_stdout("hello from /opt/hello\n");
}

fn nothing_is_looked_up_in_a_relative_directory() {
    // All of them lead to /bin, where the program is.
    for env in [json!([]), json!(["PATH="]), json!(["PATH=/nowhere:"]), json!(["PATH=.:../bin"])] {
        Bundle::busybox().args(["echo", "x"]).cwd("/bin").set("/process/env", env).refused(&["echo"]);
    }
    let env = json!(["PATH=../nowhere:/bin"]);
    Bundle::busybox().args(["echo", "x"]).cwd("/tmp").set("/process/env", env).run().assert_stdout("x\n");
}

fn a_program_may_be_a_path() {
    Bundle::busybox().args(["/bin/echo", "x"]).run().assert_ok().assert_stdout("x\n");
    Bundle::busybox().args(["./echo", "x"]).cwd("/bin").run().assert_ok().assert_stdout("x\n");
}

fn a_script_has_the_name_that_it_was_called_by() {
    for (directory, name) in [("/opt", "./script"), ("/", "opt/script"), ("/", "/opt/script")] {
        let bundle = Bundle::busybox();
        fs::create_dir(bundle.rootfs("opt")).expect("set up the root");
        fs::write(bundle.rootfs("opt/script"), "#!/bin/sh\necho $0\n").expect("set up the root");
        fs::set_permissions(bundle.rootfs("opt/script"), fs::Permissions::from_mode(0o755))
            .expect("its mode");
        bundle.args([name]).cwd(directory).run().assert_ok().assert_stdout(&format!("{name}\n"));
    }
}

fn the_program_starts_in_its_directory() {
    Bundle::busybox().sh("/bin/pwd; echo $PWD").cwd("/tmp").run().assert_ok().assert_stdout("/tmp\n/tmp\n");
}

fn a_missing_directory_is_made() {
    Bundle::busybox().args(["/bin/pwd"]).cwd("/new/er").run().assert_ok().assert_stdout("/new/er\n");
}

fn a_user_and_groups_are_set() {
    let bundle = Bundle::busybox().sh("id -u; id -g; id -G; grep -E 'Uid|Gid' /proc/self/status");
    let run = bundle.user(1000, 1001).set("/process/user/additionalGids", json!([10, 20])).run();
    let ids = "Uid:\t1000\t1000\t1000\t1000\nGid:\t1001\t1001\t1001\t1001\n";
    run.assert_ok().assert_stdout(&format!("1000\n1001\n1001 10 20\n{ids}"));
}

fn a_home_is_found_behind_a_name_in_another_encoding() {
    let container = Bundle::busybox().sh("echo $HOME").user(1000, 1000).build();
    fs::write(
        container.path("rootfs/etc/passwd"),
        b"x:x:1:1:Ren\xe9:/x:/x\nuser:x:1000:1000::/tmp:/bin/sh\n",
    )
    .expect("a file of the image");
    container.run().assert_ok().assert_stdout("/tmp\n");
}

fn a_user_need_not_be_in_passwd() {
    Bundle::busybox().sh("id -u; echo $HOME").user(4242, 4242).run().assert_ok().assert_stdout("4242\n/\n");
}

fn a_umask_is_set() {
    Bundle::busybox().sh("umask").set("/process/user/umask", 0o027).run().assert_ok().assert_stdout("0027\n");
}

fn the_umask_is_022_by_default() {
    Bundle::busybox().sh("umask").run().assert_ok().assert_stdout("0022\n");
}

fn limits_of_resources_are_set() {
    let limits = json!([
        { "type": "RLIMIT_NOFILE", "soft": 512, "hard": 1000 },
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 4096 },
        { "type": "RLIMIT_CPU", "soft": 77, "hard": 88 },
    ]);
    let script = "for l in n c t; do ulimit -S$l; ulimit -H$l; done";
    let run = Bundle::busybox().sh(script).set("/process/rlimits", limits).run();
    // The shell counts cores in blocks of 512 bytes.
    run.assert_ok().assert_stdout("512\n1000\n0\n8\n77\n88\n");
}

/// The sets of a process with these capabilities: inheritable, permitted, effective, bounding, ambient.
fn capability_sets(bundle: Bundle, capabilities: serde_json::Value) -> Vec<String> {
    let bundle = bundle.args(["grep", "^Cap", "/proc/self/status"]);
    let run = bundle.set("/process/capabilities", capabilities).run();
    let hex = |line: &&str| line.split_once('\t').expect("a value").1.trim_start_matches('0').to_owned();
    run.assert_ok().lines().iter().map(hex).collect()
}

fn capabilities_of_root_are_exact() {
    // CHOWN is bit 0, KILL bit 5, NET_RAW bit 13. A root that executes a file gets all it may, which is bounding.
    let three = json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"]);
    let sets = capability_sets(
        Bundle::busybox(),
        json!({ "bounding": three, "effective": ["CAP_CHOWN"], "permitted": three }),
    );
    assert_eq!(sets, ["", "2021", "2021", "2021", ""]);
}

fn capabilities_of_a_user_are_exact_in_all_five_sets() {
    let sets = capability_sets(
        Bundle::busybox().user(1000, 1000),
        json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
            "effective": ["CAP_KILL", "CAP_CHOWN"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "inheritable": ["CAP_KILL", "CAP_CHOWN"],
            "ambient": ["CAP_KILL"],
        }),
    );
    // What a user keeps over exec is what is ambient; the bounding and inheritable sets stay.
    assert_eq!(sets, ["21", "20", "20", "2021", "20"]);
}

/// Not where nothing is inheritable, as buildah has it: its builds print what the runtime says.
fn ambient_capabilities_that_are_not_inheritable_are_told() {
    let run = |inheritable: serde_json::Value| {
        let both = json!(["CAP_KILL", "CAP_CHOWN"]);
        let sets = json!({ "bounding": both, "effective": both, "permitted": both, "ambient": both, "inheritable": inheritable });
        let run = Bundle::busybox().set("/process/capabilities", sets).args(["true"]).run();
        run.assert_ok().stderr.clone()
    };
    let told = run(json!(["CAP_KILL"]));
    assert!(told.contains("can't raise ambient capability CAP_CHOWN: "), "{told}");
    assert!(!told.contains("CAP_KILL"), "{told}");
    assert_eq!(run(json!([])), "");
}

fn capabilities_that_cannot_be_had_are_refused() {
    let all = json!(["CAP_KILL", "CAP_CHOWN"]);
    for (set, lacks) in [("permitted", "effective"), ("bounding", "inheritable")] {
        let mut sets = json!({ "bounding": all, "effective": all, "permitted": all, "inheritable": all });
        sets[set] = json!(["CAP_KILL"]);
        let bundle = Bundle::busybox().set("/process/capabilities", sets);
        bundle.refused(&[lacks, "CAP_CHOWN", "unable to apply caps: operation not permitted"]);
    }
}

fn without_capabilities_root_has_none() {
    let none = json!({ "bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": [] });
    assert_eq!(capability_sets(Bundle::busybox(), none), [""; 5]);
}

fn no_new_privileges(value: Option<bool>) -> String {
    let bundle = Bundle::busybox().args(["grep", "NoNewPrivs", "/proc/self/status"]);
    let run = bundle.set("/process/noNewPrivileges", value).run();
    run.assert_ok().stdout.clone()
}

fn no_new_privileges_is_on_where_asked_for() {
    assert_eq!(no_new_privileges(Some(true)), "NoNewPrivs:\t1\n");
}

fn no_new_privileges_is_off_where_not() {
    assert_eq!(no_new_privileges(Some(false)), "NoNewPrivs:\t0\n");
    assert_eq!(no_new_privileges(None), "NoNewPrivs:\t0\n");
}

fn the_oom_score_is_set() {
    let bundle = Bundle::busybox().args(["cat", "/proc/self/oom_score_adj"]);
    bundle.set("/process/oomScoreAdj", 500).run().assert_ok().assert_stdout("500\n");
}

fn an_oom_score_that_is_not_given_is_the_callers() {
    let bundle = Bundle::busybox().args(["cat", "/proc/self/oom_score_adj"]);
    let bundle = bundle.host("echo 77 > /proc/self/oom_score_adj");
    bundle.run().assert_ok().assert_stdout("77\n");
}

fn the_program_is_process_one_and_leads_its_session() {
    let run = Bundle::busybox().args(["cat", "/proc/self/stat"]).run();
    let stat: Vec<&str> = run.assert_ok().stdout.split(' ').collect();
    // pid, parent, group, session
    assert_eq!([stat[0], stat[3], stat[4], stat[5]], ["1", "0", "1", "1"]);
}

fn the_program_inherits_no_descriptor_but_its_three() {
    // The shell of the first stage only waits, so what its directory shows are the descriptors it was given.
    let run = Bundle::busybox().sh("(ls /proc/1/fd); exit").run();
    run.assert_ok().assert_stdout("0\n1\n2\n");
}

fn no_signal_is_blocked_or_ignored() {
    let run = Bundle::busybox().args(["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]).run();
    for line in run.assert_ok().lines() {
        let set =
            u64::from_str_radix(line.split_once('\t').expect("a value").1, 16).expect("a set of signals");
        // The last one of the lower half is the C library's own.
        assert_eq!(set & 0x7fff_ffff, 0, "{run}");
    }
}

fn a_thousand_arguments_arrive() {
    let many = (0..1000).map(|n| format!("argument-{n}"));
    let args = ["sh", "-c", "echo $# ${1000}", "sh"].map(str::to_owned).into_iter().chain(many);
    Bundle::busybox().args(args).run().assert_ok().assert_stdout("1000 argument-999\n");
}

fn a_program_may_be_allowed_no_file() {
    let limits = serde_json::json!([{ "type": "RLIMIT_FSIZE", "soft": 0, "hard": 0 }]);
    Bundle::busybox().set("/process/rlimits", limits).sh("test $(ulimit -f) = 0").run().assert_ok();
}

fn a_program_may_have_as_few_descriptors_as_it_needs() {
    for nnp in [true, false] {
        let limits = serde_json::json!([{ "type": "RLIMIT_NOFILE", "soft": 4, "hard": 4 }]);
        let bundle = Bundle::busybox().set("/process/rlimits", limits).set("/process/noNewPrivileges", nnp);
        bundle.sh("ulimit -n; ulimit -Hn").run().assert_ok().assert_stdout("4\n4\n");
    }
}
