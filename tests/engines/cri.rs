//! Kubernetes' container runtime interface: containerd's CRI plugin, asked over its socket as the kubelet does.

use std::fs;
use std::os::unix::fs::MetadataExt;

use lxcrun_test::engines::cri::messages::{
    Capabilities, ContainerConfig, Empty, IdMapping, Int64, Namespaces, PodConfig, PodSecurity, Profile,
    Resources, Security, Status, UserNamespace,
};
use lxcrun_test::engines::cri::{
    CONTAINER, Cri, EXITED, HANDLER, NODE, OWN_SHIM, POD, PodContainer, RUNNING,
};
use lxcrun_test::engines::{IDLE, until};
use lxcrun_test::{Cgroups, Runtime, Test};
use rustix::process::{Pid, Signal, kill_process};

/// Each test twice: the runtime below the runc shim, and lxcrun's own shim.
macro_rules! under_both_shims {
    ($($name:ident $(. $need:ident ($($arg:tt)*))*),* $(,)?) => {
        mod runc_shim {
            $(fn $name() { super::$name(super::HANDLER); })*
            lxcrun_test::tests![$($name $(.$need($($arg)*))*),*];
        }
        mod own_shim {
            const WHY: &str = "others have no shim of their own";
            $(fn $name() { super::$name(super::OWN_SHIM); })*
            lxcrun_test::tests![
                $($name.needs(lxcrun_test::Need::Shim) $(.$need($($arg)*))* .lxcrun_only(WHY)),*
            ];
        }
    };
}

under_both_shims![
    two_containers_of_a_pod_share_its_network_and_not_their_pids,
    a_shared_pid_namespace_is_that_of_the_pod,
    exec_runs_a_program_and_passes_its_exit_code,
    exec_on_a_terminal_has_its_size,
    logs_have_both_streams,
    stop_asks_and_then_kills,
    the_exit_code_is_the_programs,
    a_program_that_is_missing_is_an_error,
    a_pod_of_the_host_has_its_network,
    limits_are_in_the_cgroup_and_can_be_changed,
    stats_are_those_of_the_cgroup,
    user_and_groups_are_those_of_the_security_context,
    capabilities_are_those_of_the_security_context,
    paths_are_masked_or_read_only,
    a_privileged_container_sees_the_devices_of_the_host,
    the_seccomp_profile_is_the_one_asked_for,
    a_pod_has_users_of_its_own.needs(lxcrun_test::Need::Containerd(1, 7)),
    the_kubelet_is_told_what_the_runtime_can_do.needs(lxcrun_test::Need::Containerd(2, 0)),
    sysctls_of_a_pod_are_set,
    containers_outlive_containerd,
    a_killed_shim_is_noticed_and_leaves_nothing,
];

mod lxcrun_alone {
    const WHY: &str = "others have nothing to do with LXC";
    use super::{annotations_reach_liblxc_where_they_are_allowed, the_commands_of_the_documentation_work};
    lxcrun_test::tests![
        annotations_reach_liblxc_where_they_are_allowed.lxcrun_only(WHY),
        the_commands_of_the_documentation_work.lxcrun_only(WHY),
        a_pod_of_our_shim_is_seen_by_lxcs_tools.needs(lxcrun_test::Need::Shim).lxcrun_only(WHY),
        a_killed_monitor_is_the_end_of_its_container.needs(lxcrun_test::Need::Shim).lxcrun_only(WHY),
    ];

    fn a_pod_of_our_shim_is_seen_by_lxcs_tools() {
        super::a_pod_is_seen_by_lxcs_tools(super::OWN_SHIM);
    }

    fn a_killed_monitor_is_the_end_of_its_container() {
        super::a_killed_monitor_is_noticed(super::OWN_SHIM);
    }
}

pub fn tests() -> Vec<Test> {
    [runc_shim::tests(), own_shim::tests(), lxcrun_alone::tests()].into_iter().flatten().collect()
}

/// The process of a program in a sandbox, as the machine counts.
fn idle<'p>(pod: &'p lxcrun_test::engines::cri::Pod<'_>, name: &str) -> PodContainer<'p> {
    pod.start(name, IDLE, |_| {})
}

/// Changes the security context of a container.
fn secured(change: impl FnOnce(&mut Security)) -> impl FnOnce(&mut ContainerConfig) {
    |config| {
        change(config.linux.get_or_insert_default().security_context.get_or_insert_default());
    }
}

/// Changes that of a pod.
fn pod_security(config: &mut PodConfig) -> &mut PodSecurity {
    let linux = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default()
}

fn two_containers_of_a_pod_share_its_network_and_not_their_pids(handler: &str) {
    let cri = Cri::get();
    let pod = cri.pod(handler, |_| {});
    assert!(pod.is_ready());
    let (one, two) = (idle(&pod, "one"), idle(&pod, "two"));
    let see =
        |container: &PodContainer<'_>, kind: &str| container.says(&format!("readlink /proc/1/ns/{kind}"));
    for (kind, shared) in [("net", true), ("ipc", true), ("uts", true), ("pid", false), ("mnt", false)] {
        assert_eq!(see(&one, kind) == see(&two, kind), shared, "{kind}");
    }
    // An address of the pod's own, on the bridge, where they meet.
    let address = one.says("ip -4 -o address show dev eth0");
    assert!(address.contains("inet 10.88."), "{address}");
    let server = pod.start("server", "while :; do echo hello | nc -l -p 7000; done", |_| {});
    assert_eq!(two.says("until nc 127.0.0.1 7000 </dev/null; do sleep 0.05; done"), "hello\n");
    server.stop(0);
    assert_eq!(server.status().state, EXITED);
    assert_eq!(two.status().state, RUNNING);
    server.remove();
    assert_eq!(one.says("hostname"), two.says("hostname"));
}

fn a_shared_pid_namespace_is_that_of_the_pod(handler: &str) {
    let cri = Cri::get();
    let shared = Namespaces { network: POD, pid: POD, ipc: POD, users: None };
    let pod = cri.pod(handler, |config| pod_security(config).namespace_options = Some(shared.clone()));
    let sharing = || secured(|security| security.namespace_options = Some(shared.clone()));
    let one = pod.start("one", "exec sleep 1001", sharing());
    let two = pod.start("two", "exec sleep 1002", sharing());
    let processes = two.says("cat /proc/[0-9]*/cmdline | tr '\\0' ' '");
    for program in ["sleep 1000000", "sleep 1001", "sleep 1002"] {
        assert!(processes.contains(program), "no {program}: {processes}");
    }
    one.stop(0);
    assert_eq!(two.status().state, RUNNING);
}

fn exec_runs_a_program_and_passes_its_exit_code(handler: &str) {
    let pod = Cri::get().pod(handler, |_| {});
    let container = idle(&pod, "one");
    let done = container.exec("echo out; echo err >&2; exit 6");
    assert_eq!(done, (6, "out\n".to_owned(), "err\n".to_owned()));
}

fn exec_on_a_terminal_has_its_size(handler: &str) {
    let pod = Cri::get().pod(handler, |_| {});
    let container = idle(&pod, "one");
    let script = r#"tty; until [ "$(stty size)" = "33 77" ]; do sleep 0.05; done; stty size; read line; echo "got $line""#;
    let mut session = container.exec_on_terminal(script);
    session.resize(33, 77);
    session.write("word\n");
    let (output, status) = session.read_to_end();
    for line in ["/dev/pts/", "33 77\n", "got word\n"] {
        assert!(output.contains(line), "no {line:?}: {output} {status}");
    }
    assert!(status.contains("Success"), "{status}");
}

fn logs_have_both_streams(handler: &str) {
    let pod = Cri::get().pod(handler, |_| {});
    let container = pod.start("one", "echo out; echo err >&2", |_| {});
    assert_eq!(container.exit_code(), 0);
    assert!(until(|| container.log().lines().count() == 2), "{}", container.log());
    let log = container.log();
    assert!(log.contains(" stdout F out\n") && log.contains(" stderr F err\n"), "{log}");
}

fn stop_asks_and_then_kills(handler: &str) {
    let pod = Cri::get().pod(handler, |_| {});
    let polite = pod.start("polite", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done", |_| {});
    assert!(until(|| polite.log().contains("up\n")));
    polite.stop(50);
    assert_eq!((polite.status().state, polite.status().exit_code), (EXITED, 7));
    let deaf = pod.start("deaf", "trap '' TERM; echo up; while :; do sleep 0.05; done", |_| {});
    assert!(until(|| deaf.log().contains("up\n")));
    deaf.stop(1);
    assert_eq!((deaf.status().state, deaf.status().exit_code), (EXITED, 137));
}

fn the_exit_code_is_the_programs(handler: &str) {
    let pod = Cri::get().pod(handler, |_| {});
    for code in [0, 3, 255] {
        let container = pod.start(&format!("code-{code}"), &format!("exit {code}"), |_| {});
        assert_eq!(container.exit_code(), code);
        container.remove();
    }
}

fn a_program_that_is_missing_is_an_error(handler: &str) {
    let cri = Cri::get();
    let pod = cri.pod(handler, |_| {});
    let container = pod.create("one", "", |config| config.command = vec!["nothere".into()]);
    let id = lxcrun_test::engines::cri::messages::ContainerId { id: container.id().into() };
    let started = cri.call::<lxcrun_test::engines::cri::messages::Empty>("StartContainer", &id);
    assert!(started.clone().is_err_and(|reason| reason.contains("nothere")), "{started:?}");
    assert_eq!(container.status().state, EXITED);
}

fn a_pod_of_the_host_has_its_network(handler: &str) {
    let cri = Cri::get();
    let node = Namespaces { network: NODE, pid: NODE, ipc: NODE, users: None };
    let pod = cri.pod(handler, |config| {
        config.hostname = String::new();
        pod_security(config).namespace_options = Some(node.clone());
    });
    let on_host = secured(|security| security.namespace_options = Some(node.clone()));
    let container = pod.start("one", IDLE, on_host);
    for kind in ["net", "pid", "ipc"] {
        let ours = cri.sandbox().read_link(format!("/proc/1/ns/{kind}"));
        assert_eq!(container.says(&format!("readlink /proc/self/ns/{kind}")).trim(), ours.to_string_lossy());
    }
}

/// `hostUsers: false`: root of the pod is somebody without rights on the node.
fn a_pod_has_users_of_its_own(handler: &str) {
    let map = || vec![IdMapping { host: 200_000, container: 0, length: 65536 }];
    let users = UserNamespace { mode: POD, uids: map(), gids: map() };
    let own = Namespaces { network: POD, pid: CONTAINER, ipc: POD, users: Some(users) };
    let cri = Cri::get();
    let pod = cri.pod(handler, |config| pod_security(config).namespace_options = Some(own.clone()));
    let secured = || secured(|security| security.namespace_options = Some(own.clone()));
    let (one, two) = (pod.start("one", IDLE, secured()), pod.start("two", IDLE, secured()));
    let script =
        "cat /proc/self/uid_map; id -u; touch /new; stat -c %u /new /bin; ip -4 -o address show dev eth0";
    let words = one.says(script);
    let words: Vec<&str> = words.split_whitespace().collect();
    assert_eq!(words[..6], ["0", "200000", "65536", "0", "0", "0"], "{words:?}");
    assert!(words.iter().any(|word| word.starts_with("10.88.")), "{words:?}");
    let namespace = |container: &PodContainer<'_>| container.says("readlink /proc/1/ns/user");
    assert_eq!(namespace(&one), namespace(&two));
    let pid = cri.sandbox().machine_pid(&one.init());
    assert_eq!(fs::metadata(format!("/proc/{pid}")).expect("a process").uid(), 200_000);
    assert_ne!(two.exec("mount -t tmpfs tmpfs /tmp").0, 0);
}

/// Without that it refuses `hostUsers: false`.
fn the_kubelet_is_told_what_the_runtime_can_do(handler: &str) {
    let status: Status = Cri::get().must("Status", &Empty {});
    let ours = status.handlers.iter().find(|one| one.name == handler).expect("the handler");
    let features = ours.features.as_ref().unwrap_or_else(|| panic!("no features: {status:?}"));
    assert!(features.user_namespaces && features.recursive_read_only_mounts, "{features:?}");
}

fn limits_are_in_the_cgroup_and_can_be_changed(handler: &str) {
    let cri = Cri::get();
    let pod = cri.pod(handler, |_| {});
    let limits =
        Resources { cpu_period: 100_000, cpu_quota: 50_000, cpu_shares: 512, memory_limit: 64 << 20 };
    let container = pod.start("one", IDLE, |config| {
        config.linux.get_or_insert_default().resources = Some(limits.clone());
    });
    let cgroups = Cgroups::of(cri.sandbox().machine_pid(&container.init()));
    let memory = || cgroups.read("memory", "memory.limit_in_bytes", "memory.max");
    let quota = || cgroups.read("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert_eq!(memory(), "67108864");
    assert!(["50000", "50000 100000"].contains(&&*quota()), "{}", quota());
    container.update(Resources { cpu_quota: 25_000, memory_limit: 80 << 20, ..limits });
    assert_eq!(memory(), "83886080");
    assert!(["25000", "25000 100000"].contains(&&*quota()), "{}", quota());
}

fn stats_are_those_of_the_cgroup(handler: &str) {
    let pod = Cri::get().pod(handler, |_| {});
    let container = pod.start(
        "one",
        "dd if=/dev/zero of=/dev/shm/x bs=1M count=8 2>/dev/null; echo up; sleep 1000",
        |_| {},
    );
    assert!(until(|| container.log().contains("up\n")));
    let stats = || {
        let stats = container.stats();
        let memory = stats.memory.and_then(|m| m.working_set).map_or(0, |m| m.value);
        (memory, stats.cpu.and_then(|c| c.nanoseconds).map_or(0, |c| c.value))
    };
    // The plugin collects them now and then.
    assert!(until(|| stats().0 > 8 << 20 && stats().1 > 0), "{:?}", stats());
}

fn user_and_groups_are_those_of_the_security_context(handler: &str) {
    let pod = Cri::get().pod(handler, |_| {});
    let container = pod.start(
        "one",
        IDLE,
        secured(|security| {
            security.run_as_user = Some(Int64 { value: 1000 });
            security.run_as_group = Some(Int64 { value: 1000 });
            security.supplemental_groups = vec![2000];
            security.no_new_privs = true;
        }),
    );
    assert_eq!(
        container.says("id -u; id -g; id -G; grep NoNewPrivs /proc/1/status"),
        "1000\n1000\n1000 2000\nNoNewPrivs:\t1\n"
    );
}

fn capabilities_are_those_of_the_security_context(handler: &str) {
    let pod = Cri::get().pod(handler, |_| {});
    let container = pod.start(
        "one",
        IDLE,
        secured(|security| {
            security.capabilities =
                Some(Capabilities { add: vec!["NET_RAW".into()], drop: vec!["ALL".into()] });
        }),
    );
    let see = "grep -E '^Cap(Prm|Eff|Bnd)' /proc/1/status";
    let only_net_raw = "CapPrm:\t0000000000002000\nCapEff:\t0000000000002000\nCapBnd:\t0000000000002000\n";
    assert_eq!(container.says(see), only_net_raw);
}

fn paths_are_masked_or_read_only(handler: &str) {
    let pod = Cri::get().pod(handler, |_| {});
    let container = pod.start(
        "one",
        IDLE,
        secured(|security| {
            security.readonly_rootfs = true;
            security.masked_paths = vec!["/proc/timer_list".into(), "/proc/keys".into()];
            security.readonly_paths = vec!["/proc/sys".into()];
        }),
    );
    assert_eq!(container.says("cat /proc/keys /proc/timer_list | wc -c"), "0\n");
    for path in ["/new", "/proc/sys/kernel/domainname"] {
        let (code, _, said) = container.exec(&format!("echo x >{path}"));
        assert!(code != 0 && said.contains("Read-only file system"), "{path}: {code} {said}");
    }
}

/// Where the machine's root lacks a capability, containerd asks for those that it has.
fn a_privileged_container_sees_the_devices_of_the_host(handler: &str) {
    let pod = Cri::get().pod(handler, |config| pod_security(config).privileged = true);
    let container = pod.start("one", IDLE, secured(|security| security.privileged = true));
    container.says("test -c /dev/kmsg && true >/dev/kmsg && mount -t tmpfs tmpfs /tmp");
    let ours = fs::read_to_string("/proc/self/status").expect("our status");
    let ours = ours.lines().find(|line| line.starts_with("CapEff:")).expect("our capabilities").to_owned();
    assert_eq!(container.says("grep CapEff /proc/1/status").trim_end(), ours);
}

fn the_seccomp_profile_is_the_one_asked_for(handler: &str) {
    const RUNTIME_DEFAULT: i32 = 0;
    const UNCONFINED: i32 = 1;
    const LOCALHOST: i32 = 2;
    let cri = Cri::get();
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#;
    let volume = cri.sandbox().volume("profile.json", profile);
    let pod = cri.pod(handler, |_| {});
    let with = |name: &str, kind: i32| {
        let localhost = if kind == LOCALHOST { format!("{volume}/profile.json") } else { String::new() };
        pod.start(name, IDLE, secured(|security| security.seccomp = Some(Profile { kind, localhost })))
    };
    let see = "grep ^Seccomp: /proc/1/status";
    assert_eq!(with("default", RUNTIME_DEFAULT).says(see), "Seccomp:\t2\n");
    assert_eq!(with("unconfined", UNCONFINED).says(see), "Seccomp:\t0\n");
    let own = with("localhost", LOCALHOST);
    assert_eq!(own.says(see), "Seccomp:\t2\n");
    let (code, _, said) = own.exec("mkdir /tmp/new");
    assert!(code == 1 && said.contains("Permission denied"), "{code} {said}");
}

fn sysctls_of_a_pod_are_set(handler: &str) {
    let pod = Cri::get().pod(handler, |config| {
        let sysctls = &mut config.linux.get_or_insert_default().sysctls;
        sysctls.insert("net.ipv4.ip_forward".into(), "1".into());
        sysctls.insert("kernel.msgmax".into(), "4242".into());
    });
    let container = idle(&pod, "one");
    assert_eq!(container.says("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax"), "1\n4242\n");
}

fn annotations_reach_liblxc_where_they_are_allowed() {
    let pod = Cri::get().pod(HANDLER, |config| {
        config.annotations.insert("org.linuxcontainers.lxc.prlimit.nofile".into(), "512".into());
    });
    let container = idle(&pod, "one");
    let limits = container.says("grep 'open files' /proc/1/limits");
    assert_eq!(limits.split_whitespace().collect::<Vec<_>>()[3..5], ["512", "512"], "{limits}");
}

/// Every command of docs/kubernetes.md but for those that ask systemd or a cluster.
fn the_commands_of_the_documentation_work() {
    let cri = Cri::get();
    let pod = cri.pod(HANDLER, |_| {});
    let container = idle(&pod, "one");
    let text = include_str!("../../docs/kubernetes.md");
    let blocks = text.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap_or_default());
    let commands: Vec<&str> =
        blocks.flat_map(str::lines).filter(|line| !line.starts_with("systemctl ")).collect();
    assert!(commands.len() >= 5, "{commands:?}");
    let runtime = Runtime::get().path().parent().expect("a directory").display().to_string();
    for command in commands {
        let output = cri.inside("sh", &["-c", &format!("PATH={runtime}:$PATH; {command}")]);
        output.assert_ok();
        if command.ends_with(" list") && !command.contains("containers") {
            output.assert_stdout_contains(container.id());
        }
    }
}

/// The pid of the process of the sandbox whose command line has all these words, as the machine counts.
#[track_caller]
fn process(cri: &Cri, words: &[&str]) -> Pid {
    let found = fs::read_dir(cri.sandbox().path("/proc")).expect("/proc").flatten().find_map(|entry| {
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        words
            .iter()
            .all(|word| command.contains(word))
            .then(|| entry.file_name().to_string_lossy().into_owned())
    });
    let inside = found.unwrap_or_else(|| panic!("no process {words:?}"));
    let ours = fs::read_dir("/proc").expect("/proc").flatten().find_map(|entry| {
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        let same = entry.path().join("ns/pid").read_link().ok()? == cri.sandbox().read_link("/proc/1/ns/pid");
        (same && pids.split_whitespace().nth(1) == Some(&inside)).then(|| entry.file_name())
    });
    let pid = ours.and_then(|name| name.to_str()?.parse().ok()).and_then(Pid::from_raw);
    pid.expect("the process, as the machine counts")
}

fn containers_outlive_containerd(handler: &str) {
    // One of its own: others would miss theirs.
    let cri = Cri::start().expect("a containerd");
    let pod = cri.pod(handler, |_| {});
    let container =
        pod.start("one", "n=0; while :; do n=$((n+1)); echo $n >/tmp/n; sleep 0.05; done", |_| {});
    let init = container.init();
    kill_process(process(&cri, &["containerd "]), Signal::KILL).expect("containerd");
    cri.start_daemon().expect("containerd again");
    assert_eq!(container.status().state, RUNNING);
    assert_eq!(container.init(), init);
    assert!(!container.says("cat /tmp/n").is_empty());
    container.stop(0);
    assert_eq!((container.status().state, container.status().exit_code), (EXITED, 137));
    drop(pod);
}

fn a_killed_shim_is_noticed_and_leaves_nothing(handler: &str) {
    let cri = Cri::start().expect("a containerd");
    let pod = cri.pod(handler, |_| {});
    let container = idle(&pod, "one");
    kill_process(process(&cri, &["containerd-shim-", pod.id()]), Signal::KILL).expect("a shim");
    assert!(until(|| container.status().state == EXITED), "{:?}", container.status());
    assert!(until(|| !pod.is_ready()));
    drop(pod);
}

fn a_pod_is_seen_by_lxcs_tools(handler: &str) {
    const ROOT: &str = "/run/containerd/lxcrun/k8s.io";
    // One of its own: a tool that lists all leaves locks for those that end meanwhile.
    let cri = Cri::start().expect("a containerd");
    let pod = cri.pod(handler, |_| {});
    let container = idle(&pod, "one");
    let list = cri.inside("lxc-ls", &["-P", ROOT, "--active", "-1"]);
    list.assert_ok();
    for id in [pod.id(), container.id()] {
        list.assert_stdout_contains(&format!("{id}\n"));
    }
    let info = cri.inside("lxc-info", &["-P", ROOT, "-n", container.id(), "-sH"]);
    info.assert_ok().assert_stdout("RUNNING\n");
    let attached = cri.inside("lxc-attach", &["-P", ROOT, "-n", container.id(), "--", "sh", "-c", "exit 5"]);
    attached.assert_exit(5);
    cri.inside("lxc-stop", &["-P", ROOT, "-n", container.id(), "-k"]).assert_ok();
    assert_eq!(container.exit_code(), 137);
}

fn a_killed_monitor_is_noticed(handler: &str) {
    let cri = Cri::get();
    let pod = cri.pod(handler, |_| {});
    let (one, two) = (idle(&pod, "one"), idle(&pod, "two"));
    kill_process(process(cri, &["monitor of", one.id()]), Signal::KILL).expect("a monitor");
    assert_eq!(one.exit_code(), 137);
    assert_eq!(two.status().state, RUNNING);
    one.remove();
}
