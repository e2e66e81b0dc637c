//! Commands become specifications: one snapshot for each kind of command.

#![allow(clippy::unwrap_used)]

use execdriver::{
    Command, CommandBuilder, Device, Facts, IdMapping, Mount, Namespace, Network, ProcessConfig, Propagation,
    Resources, Rlimit, User, UserNamespace,
};

fn facts() -> Facts {
    Facts {
        capabilities: ["CAP_CHOWN", "CAP_SYS_ADMIN"].map(str::to_owned).into(),
        swap_is_counted: true,
        ..Facts::default()
    }
}

fn web() -> CommandBuilder {
    Command::builder("web", "/srv/web").args(["httpd", "-f"])
}

/// The specification as text, the same every time: sets of capabilities have no order of their own.
fn text(command: CommandBuilder, facts: &Facts) -> String {
    let spec = command.build().unwrap().compile(facts).unwrap();
    let mut json = serde_json::to_value(&spec).unwrap();
    if let Some(sets) = json["process"]["capabilities"].as_object_mut() {
        for set in sets.values_mut().filter_map(|s| s.as_array_mut()) {
            set.sort_by_key(ToString::to_string);
        }
    }
    serde_json::to_string_pretty(&json).unwrap()
}

#[test]
fn a_command_that_says_nothing_gets_what_docker_gave() {
    insta::assert_snapshot!(text(web(), &facts()));
}

#[test]
fn a_privileged_command_gets_everything() {
    let facts = Facts { apparmor: true, default_apparmor_profile: Some("docker-default".into()), ..facts() };
    insta::assert_snapshot!(text(web().privileged(true), &facts));
}

#[test]
fn a_privileged_command_gets_what_it_asks_for_by_name() {
    let seccomp = serde_json::from_str(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap();
    let on = Facts { apparmor: true, ..facts() };
    let command = || web().privileged(true);
    let spec = |command: CommandBuilder| command.build().unwrap().compile(&on).unwrap();
    assert!(spec(command().seccomp(seccomp)).linux().as_ref().unwrap().seccomp().is_some());
    let process = |command| spec(command).process().clone().unwrap();
    assert_eq!(process(command().apparmor_profile("web")).apparmor_profile().as_deref(), Some("web"));
    let refused = command().apparmor_profile("web").build().unwrap().compile(&facts()).unwrap_err();
    assert_eq!(refused.to_string(), "container web: apparmor_profile: AppArmor is off on this host");
    let bounding = |command| {
        let set = process(command).capabilities().as_ref().unwrap().bounding().clone().unwrap();
        let mut names: Vec<String> = set.iter().map(ToString::to_string).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(bounding(command().cap_drop(["chown"])), "SYS_ADMIN");
    assert_eq!(bounding(command().cap_drop(["all"])), "");
    assert_eq!(bounding(command().cap_drop(["all"]).cap_add(["kill"])), "KILL");
}

#[test]
fn a_command_that_says_everything() {
    let user = User { uid: 33, gid: 34, additional_gids: vec![40], home: "/www".into() };
    let facts = Facts {
        user,
        namespaces: [("network", "/proc/7/fd/3".into()), ("ipc", "/proc/7/fd/4".into())].into(),
        apparmor: true,
        ..facts()
    };
    let resources = Resources {
        memory: Some(64 << 20),
        memory_swappiness: Some(10),
        oom_kill_disable: true,
        cpu_shares: Some(512),
        cpu_period: Some(100_000),
        cpu_quota: Some(50_000),
        cpuset_cpus: Some("0".into()),
        cpuset_mems: Some("0".into()),
        blkio_weight: Some(300),
        pids_limit: Some(64),
        hugepage_limits: vec![execdriver::HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 }],
        rlimits: vec![Rlimit { name: "nofile".into(), soft: 512, hard: 1024 }],
        ..Resources::default()
    };
    let mapping = IdMapping { container_id: 0, host_id: 100_000, size: 65_536 };
    let command = web()
        .user("www")
        .working_dir("/www")
        .env("HOSTNAME", "from-env")
        .env("PATH", "/bin")
        .hostname("explicit")
        .tty(true)
        .console_size(80, 24)
        .readonly_rootfs(true)
        .network(Network::Container("db".parse().unwrap()))
        .ipc(Namespace::Container("db".parse().unwrap()))
        .pid(Namespace::Host)
        .cgroupns(Namespace::Host)
        .timens(Namespace::Own)
        .userns(UserNamespace::Own { uid_mappings: vec![mapping], gid_mappings: vec![mapping] })
        .resources(resources)
        .mount(Mount {
            propagation: Some(Propagation::Private),
            ..Mount::bind("/srv/www", "/www").read_only()
        })
        .mount(Mount::filesystem("tmpfs", "/run").option("size=1m"))
        .allow_device(Device { minor: None, permissions: "r".into(), ..Device::block("/dev/sda", 8, 0) })
        .create_device(Device { mode: 0o600, uid: 33, gid: 34, ..Device::character("/dev/fuse", 10, 229) })
        .cap_add(["sys_admin"])
        .cap_drop(["MKNOD", "cap_net_raw"])
        .process_label("system_u:system_r:svirt_lxc_net_t:s0:c1,c2")
        .mount_label("system_u:object_r:svirt_sandbox_file_t:s0:c1,c2")
        .apparmor_profile("web")
        .cgroup_parent("/daemon")
        .seccomp(serde_json::from_str(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap());
    insta::assert_snapshot!(text(command, &facts));
}

#[test]
fn host_namespaces_are_those_that_are_not_named() {
    let command =
        web().network(Network::Host).ipc(Namespace::Host).uts(Namespace::Host).env("HOSTNAME", "ignored");
    let spec = command.build().unwrap().compile(&facts()).unwrap();
    let linux = spec.linux().as_ref().unwrap();
    let kinds: Vec<String> = linux.namespaces().iter().flatten().map(|n| n.typ().to_string()).collect();
    assert_eq!(kinds, ["mnt", "pid", "cgroup"]);
    assert_eq!(spec.hostname(), &None);
}

#[test]
fn memory_has_a_soft_limit_and_twice_as_much_swap() {
    let memory = |resources: Resources, facts: &Facts| {
        let spec = web().resources(resources).build().unwrap().compile(facts).unwrap();
        let memory =
            spec.linux().as_ref().unwrap().resources().as_ref().unwrap().memory().unwrap_or_default();
        (memory.limit(), memory.reservation(), memory.swap())
    };
    let limit = |memory, memory_swap| Resources { memory, memory_swap, ..Resources::default() };
    assert_eq!(memory(limit(Some(100), None), &facts()), (Some(100), Some(100), Some(200)));
    assert_eq!(memory(limit(Some(100), Some(-1)), &facts()), (Some(100), Some(100), Some(-1)));
    assert_eq!(memory(limit(Some(100), Some(150)), &facts()), (Some(100), Some(100), Some(150)));
    assert_eq!(memory(limit(None, None), &facts()), (None, None, None));
    let own = Resources { memory_reservation: Some(50), ..limit(Some(100), None) };
    assert_eq!(memory(own, &facts()), (Some(100), Some(50), Some(200)));
    // Where the kernel does not count swap there is nothing to limit.
    let without = Facts { swap_is_counted: false, ..facts() };
    assert_eq!(memory(limit(Some(100), None), &without), (Some(100), Some(100), None));
    assert_eq!(memory(limit(Some(100), Some(-1)), &without), (Some(100), Some(100), None));
}

fn exactly_none() -> CommandBuilder {
    let process = ProcessConfig { capabilities: Some(vec![]), ..ProcessConfig::new(["httpd"]) };
    web().process(process)
}

fn shared_ids() -> UserNamespace {
    let range = |container_id, host_id| IdMapping { container_id, host_id, size: 10 };
    UserNamespace::Own {
        uid_mappings: vec![range(0, 100), range(10, 110)],
        gid_mappings: vec![range(0, 100), range(10, 109)],
    }
}

fn rlimit(name: &str, soft: u64, hard: u64) -> CommandBuilder {
    web().resources(Resources {
        rlimits: vec![Rlimit { name: name.into(), soft, hard }],
        ..Resources::default()
    })
}

#[test]
fn what_is_wrong_is_refused_by_field() {
    let refusals = [
        (Command::builder("a/b", "/r").args(["x"]), "a/b"),
        (Command::builder("x", "relative").args(["x"]), "rootfs"),
        (Command::builder("x", "/r"), "process_config.entrypoint"),
        (web().env("", "x"), "process_config.env"),
        (web().working_dir("tmp"), "working_dir"),
        (web().network(Network::Path("".into())), "network: the path of the network namespace is empty"),
        (web().ipc(Namespace::Path("".into())), "ipc"),
        (web().uts(Namespace::Host).hostname("x"), "hostname"),
        (web().uts(Namespace::Path("/proc/1/ns/uts".into())).hostname("x"), "hostname: cannot be set"),
        (web().cap_add(["CAP_NOPE"]), "cap_add: unknown capability \"CAP_NOPE\""),
        (web().cap_drop(["nope"]), "cap_drop: unknown capability \"nope\""),
        (
            web().allow_device(Device { kind: 'p', ..Device::block("/dev/x", 1, 1) }),
            "type 'p' is neither c nor b",
        ),
        (
            web().create_device(Device { kind: 'u', ..Device::block("/dev/x", 1, 1) }),
            "type 'u' is neither c nor b",
        ),
        (web().create_device(Device { major: None, ..Device::block("/dev/x", 1, 1) }), "needs both numbers"),
        (web().create_device(Device::block("x", 1, 1)), "no path below /dev"),
        (web().create_device(Device::block("/", 1, 1)), "no path below /dev"),
        (web().create_device(Device::block("/dev", 1, 1)), "no path below /dev"),
        (web().create_device(Device::block("/device", 1, 1)), "no path below /dev"),
        (
            web().create_device(Device::block("/srv/x", 1, 1)),
            "autocreated_devices[0]: \"/srv/x\" is no path below /dev",
        ),
        (web().create_device(Device::block("/dev/../srv/x", 1, 1)), "no path below /dev"),
        (web().create_device(Device::block("/dev/x/../y", 1, 1)), "no path below /dev"),
        (web().lxc_config("", "x"), "lxc_config"),
        (web().lxc_config("lxc.prlimit.nofile", ""), "lxc_config: lxc.prlimit.nofile has no value"),
        (
            web().lxc_config("lxc.prlimit.nofiles", "5").lxc_config("prlimit.nofile", " "),
            "lxc_config: prlimit.nofile has no value",
        ),
        (exactly_none().cap_add(["kill"]), "cap_add: has no effect: process_config.capabilities"),
        (exactly_none().cap_drop(["all"]), "cap_drop: has no effect: process_config.capabilities"),
        (web().mount(Mount::bind("etc", "/x")), "mounts[0].source: \"etc\" is not absolute"),
        (
            web().mount(Mount::bind("/a", "/b")).mount(Mount::bind("", "/x")),
            "mounts[1].source: \"\" is not absolute",
        ),
        (
            web().mount(Mount { source: "etc".into(), ..Mount::filesystem("none", "/x").option("rbind") }),
            "mounts[0].source: \"etc\" is not absolute",
        ),
        (web().mount(Mount::bind("/etc", "../x")), "mounts[0].destination: \"../x\" is not absolute"),
        (web().ipc(Namespace::Path("x".into())), "ipc: \"x\" is not absolute"),
        (web().network(Network::Path("x".into())), "network: \"x\" is not absolute"),
        (web().userns(UserNamespace::Path("".into())), "userns: the path of the namespace is empty"),
        (web().userns(UserNamespace::shifted(100_000, 0)), "userns: a range of 0 users"),
        (web().userns(UserNamespace::shifted(u32::MAX, 10)), "userns: 10 users from 0 on"),
        (
            web().userns(UserNamespace::Own { uid_mappings: vec![], gid_mappings: vec![] }),
            "userns: no user of the container is one of the host's",
        ),
        (web().userns(shared_ids()), "userns: two ranges of groups share some"),
        (rlimit("bogus", 1, 1), "resources.rlimits[0]: \"bogus\" is no limit of a process"),
        (rlimit("RLIMIT_NOFILE", 2, 1), "resources.rlimits[0]: RLIMIT_NOFILE: soft 2 is above hard 1"),
    ];
    for (command, reason) in refusals {
        let error = command.build().unwrap_err().to_string();
        assert!(error.contains(reason), "{error:?} does not say {reason:?}");
    }
    web().lxc_config("lxc.prlimit.nofile", "5").lxc_config("prlimit.nofile", "").build().unwrap();
    let refused = web().apparmor_profile("web").build().unwrap().compile(&facts()).unwrap_err();
    assert_eq!(refused.to_string(), "container web: apparmor_profile: AppArmor is off on this host");
}

#[test]
fn json_is_a_command_and_back() {
    let command =
        web().network(Network::Path("/run/netns/a".into())).mount(Mount::bind("/a", "/b")).build().unwrap();
    let json = serde_json::to_string(&command).unwrap();
    assert_eq!(serde_json::from_str::<Command>(&json).unwrap(), command);
    let least =
        r#"{"id":"web","rootfs":"/srv/web","process_config":{"entrypoint":"httpd","arguments":["-f"]}}"#;
    assert_eq!(serde_json::from_str::<Command>(least).unwrap(), web().build().unwrap());
}

#[test]
fn a_name_that_is_none_is_refused_wherever_it_is() {
    let refusals = [
        (r#""readonly_rootfss":true"#, "readonly_rootfss"),
        (r#""resources":{"memroy":5}"#, "memroy"),
        (r#""resources":{"rlimits":[{"name":"nofile","soft":1,"hard":1,"hart":2}]}"#, "hart"),
        (r#""resources":{"hugepage_limits":[{"page_size":"2MB","limit":1,"limits":2}]}"#, "limits"),
        (r#""network":{"interfaces":[{"type":"veth","gatway":"10.0.0.1"}]}"#, "gatway"),
        (r#""mounts":[{"destination":"/x","writeable":false}]"#, "writeable"),
        (r#""allowed_devices":[{"type":"c","permission":"r"}]"#, "permission"),
        (r#""userns":{"own":{"uid_mappings":[],"gid_mappings":[],"gid_mapping":[]}}"#, "gid_mapping"),
        (
            r#""userns":{"own":{"uid_mappings":[{"container_id":0,"host_id":0,"size":1,"sise":1}],"gid_mappings":[]}}"#,
            "sise",
        ),
        (r#""ipc":"hosts""#, "hosts"),
        (r#""seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscals":[]}"#, "seccomp.syscals"),
        (
            r#""seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","arg":[]}]}"#,
            "seccomp.syscalls.0.arg",
        ),
    ];
    for (member, name) in refusals {
        let json =
            format!(r#"{{"id":"web","rootfs":"/srv/web","process_config":{{"entrypoint":"x"}},{member}}}"#);
        let error = serde_json::from_str::<Command>(&json).unwrap_err().to_string();
        assert!(error.contains(&format!("`{name}`")), "{error:?} does not name {name}");
    }
    let process = r#"{"id":"web","rootfs":"/srv/web","process_config":{"entrypoint":"x","tYy":true}}"#;
    let error = serde_json::from_str::<Command>(process).unwrap_err().to_string();
    assert!(error.contains("`tYy`"), "{error}");
}

#[test]
fn what_cannot_be_is_refused_by_its_field() {
    use execdriver::{
        Device, HugepageLimit, IdMapping, Interface, Mount, Network, Resources, Rlimit, UserNamespace,
    };
    let web = |change: &dyn Fn(&mut Command)| {
        let mut command = Command::builder("web", "/srv/web").args(["x"]).build().unwrap();
        change(&mut command);
        command.check().unwrap_err().to_string()
    };
    let limited = |limits: Resources| web(&|command| command.resources = limits.clone());
    let made = |devices: &[Device]| web(&|command| command.autocreated_devices = devices.to_vec());
    let null = || Device::character("/dev/x", 1, 3);
    let lan = |interface: Interface| web(&|c| c.network = Network::Interfaces(vec![interface.clone()]));
    let limit = |name: &str| Rlimit { name: name.into(), soft: 1, hard: 1 };
    let from_one = || vec![IdMapping { container_id: 1, host_id: 100_000, size: 9 }];
    for (message, field) in [
        (Command::builder("a..b", "/srv/web").args(["x"]).build().unwrap_err().to_string(), "id"),
        (
            web(&|c| c.process_config.arguments = vec!["a".into(), "b\0".into()]),
            "process_config.arguments[1]",
        ),
        (web(&|c| c.process_config.env = vec!["A=\0".into()]), "process_config.env[0]"),
        (web(&|c| c.mounts = vec![Mount::bind("/a\0", "/b")]), "mounts[0].source"),
        (web(&|c| c.process_config.capabilities = Some(vec!["zz".into()])), "process_config.capabilities"),
        (web(&|c| c.hostname = Some("h".repeat(65))), "hostname"),
        (web(&|c| c.process_config.env = vec![format!("HOSTNAME={}", "h".repeat(65))]), "process_config.env"),
        (web(&|c| c.cgroup_parent = Some("a/../b".into())), "cgroup_parent"),
        (
            web(&|c| c.userns = UserNamespace::Own { uid_mappings: from_one(), gid_mappings: from_one() }),
            "userns",
        ),
        (limited(Resources { pids_limit: Some(-5), ..Resources::default() }), "resources.pids_limit"),
        (limited(Resources { cpu_quota: Some(-2), ..Resources::default() }), "resources.cpu_quota"),
        (limited(Resources { cpu_quota: Some(i64::MIN), ..Resources::default() }), "resources.cpu_quota"),
        (limited(Resources { cpu_shares: Some(1), ..Resources::default() }), "resources.cpu_shares"),
        (limited(Resources { blkio_weight: Some(1), ..Resources::default() }), "resources.blkio_weight"),
        (
            limited(Resources { memory_swappiness: Some(101), ..Resources::default() }),
            "resources.memory_swappiness",
        ),
        (
            limited(Resources {
                hugepage_limits: vec![HugepageLimit { page_size: "2MB".into(), limit: u64::MAX }],
                ..Resources::default()
            }),
            "resources.hugepage_limits[0].limit",
        ),
        (
            limited(Resources {
                rlimits: vec![limit("nofile"), limit("RLIMIT_NOFILE")],
                ..Resources::default()
            }),
            "resources.rlimits[1]",
        ),
        (made(&[Device { major: Some(u32::MAX), ..null() }]), "autocreated_devices[0]"),
        (made(&[Device { minor: Some(1 << 20), ..null() }]), "autocreated_devices[0]"),
        (made(&[Device { uid: u32::MAX, ..null() }]), "autocreated_devices[0]"),
        (made(&[Device { mode: 0o4777, ..null() }]), "autocreated_devices[0]"),
        (made(&[null(), null()]), "autocreated_devices[1]"),
        (lan(Interface::veth("br0").name("a%d")), "network.interfaces[0].name"),
        (lan(Interface::veth("br0").mtu(0)), "network.interfaces[0].mtu"),
    ] {
        assert!(message.contains(&format!(": {field}: ")), "{field}: {message}");
        assert!(!message.contains('\0'), "{message:?}");
    }
    // No limit is a limit, too.
    for limit in [-1, 0] {
        let none = Resources { pids_limit: Some(limit), cpu_quota: Some(limit), ..Resources::default() };
        Command::builder("web", "/srv/web").args(["x"]).resources(none).build().unwrap();
    }
}
