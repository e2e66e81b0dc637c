use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use execdriver::{
    Command, Device, Driver, Interface, LxcDriver, Mount, Namespace, Network, Pipes, ProcessConfig,
    Resources, Rlimit, Signal, UserNamespace,
};
use nix::sched::CloneFlags;

use crate::common::{
    Bed, Running, apart, apart_network, cgroup_value, cgroups_named, host, ip, own_namespace, unique,
};
use crate::{memory_hog, role};

#[test]
fn row_01_a_driver_has_a_private_root_and_knows_its_host() {
    let bed = Bed::new();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(bed.driver.root()), 0o700);
    fs::set_permissions(bed.driver.root(), fs::Permissions::from_mode(0o755)).unwrap();
    let again = LxcDriver::builder().root(bed.driver.root()).build().unwrap();
    assert_eq!(mode(again.root()), 0o700);
    // What was somebody's for something else stays as it is.
    let others = bed.path().join("others");
    fs::create_dir(&others).unwrap();
    for (permissions, file) in [(0o1777, false), (0o777, false), (0o775, false), (0o755, true), (0o751, true)]
    {
        fs::set_permissions(&others, fs::Permissions::from_mode(permissions)).unwrap();
        if file {
            fs::write(others.join("file"), "").unwrap();
        }
        let refused = LxcDriver::builder().root(&others).build().unwrap_err().to_string();
        assert!(refused.contains("others: is there already and open to other users (mode "), "{refused}");
        assert_eq!(mode(&others), permissions);
    }
    fs::set_permissions(&others, fs::Permissions::from_mode(0o500)).unwrap();
    assert_eq!(mode(LxcDriver::builder().root(&others).build().unwrap().root()), 0o700);
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let kib: u64 = meminfo.lines().next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(again.machine_memory(), kib * 1024);
    let apparmor =
        fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|s| s.starts_with('Y'));
    assert_eq!(again.has_apparmor(), apparmor);

    // What is missing is named.
    let liblxc = r#"for f in $(find /usr/lib -name 'liblxc.so.1'); do mount --bind /dev/null $f; done; exec "$0" "$@""#;
    let cgroups = r#"umount -R -l /sys/fs/cgroup; exec "$0" "$@""#;
    let namespaces = r#"exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin "$0" "$@""#;
    let descriptors = r#"ulimit -n 63; exec "$0" "$@""#;
    for (what, script) in [
        ("liblxc", liblxc),
        ("cgroups", cgroups),
        ("namespaces", namespaces),
        ("file descriptors", descriptors),
    ] {
        let said = role("build", bed.path(), &["unshare", "-m", "sh", "-c", script]);
        assert!(said.contains(&format!("no containers can run here: {what}: ")), "{what}: {said}");
    }
}

#[test]
fn row_02_the_name_is_that_of_liblxc() {
    let output = host("lxc-start", &["--version"]);
    let version = String::from_utf8(output.stdout).unwrap();
    assert_eq!(Bed::new().driver.name(), format!("lxc-{}", version.trim()));
}

#[test]
fn row_03_run_blocks_and_returns_how_it_ended() {
    let bed = Bed::new();
    for code in [0, 1, 42, 255] {
        let ended = bed.run(bed.sh(&format!("exit {code}")));
        assert_eq!((ended.code, ended.oom_killed), (code, false));
    }
    // Without a PID namespace of its own a process can end itself by any signal.
    for (name, number) in [("TERM", 15), ("USR1", 10), ("KILL", 9), ("SEGV", 11)] {
        let ended = bed.run(bed.sh(&format!("kill -{name} $$")).pid(Namespace::Host));
        assert_eq!((ended.code, ended.oom_killed), (128 + number, false), "{name}");
    }
    let running = bed.idle();
    bed.driver.kill(&running.id, Signal::KILL).unwrap();
    assert_eq!(running.wait().exit_code, 137);
    let hog = bed.run(memory_hog(&bed));
    assert_eq!((hog.code, hog.oom_killed), (137, true), "{hog:?}");
}

#[test]
fn row_04_the_start_callback_comes_once_when_it_runs() {
    let bed = Bed::new();
    let command = bed.sh("exit 3").build().unwrap();
    let mut pids = Vec::new();
    let status = bed.driver.run(&command, Pipes::null(), &mut |started| pids.push(started.pid)).unwrap();
    assert_eq!((status.exit_code, pids.len()), (3, 1), "one that ends at once is reported right");
    let running = bed.idle();
    let program = fs::read_link(format!("/proc/{}/exe", running.pid)).unwrap();
    assert!(program.ends_with("bin/busybox"), "it is the program by then: {program:?}");
    assert_eq!(bed.driver.info(&running.id).unwrap().pid, Some(running.pid));
    assert_eq!(running.finish().exit_code, 0);
    let mut called = false;
    let missing = Command::builder(unique(), bed.rootfs()).args(["/nowhere"]).build().unwrap();
    bed.driver.run(&missing, Pipes::null(), &mut |_| called = true).unwrap_err();
    assert!(!called, "what never ran was not started");
}

#[test]
fn row_05_networks_are_private_joined_or_made() {
    let bed = Bed::new();
    let network =
        |network| bed.run(bed.sh("readlink /proc/self/ns/net").network(network)).assert_ok().to_owned();
    assert_ne!(network(Network::None), own_namespace("net"));
    assert_eq!(bed.prints("cd /sys/class/net; echo *"), "lo");
    assert_eq!(network(Network::Host), own_namespace("net"));
    let other = bed.idle();
    let path = format!("/proc/{}/ns/net", other.pid);
    let theirs = fs::read_link(&path).unwrap().to_string_lossy().into_owned();
    assert_eq!(network(Network::Path(path.into())), theirs);
    assert_eq!(network(Network::Container(other.id.clone())), theirs);
    other.finish();
    let empty = bed.sh("true").network(Network::Path("".into()));
    assert!(bed.refusal(empty).contains("network: the path of the network namespace is empty"));
    let nobody = bed.sh("true").network(Network::Container("nobody".parse().unwrap()));
    assert!(bed.refusal(nobody).contains("there is no container nobody"));
    apart_network(|| {
        ip("link add br0 type bridge");
        ip("addr add 10.9.8.1/24 dev br0");
        ip("link set br0 up");
        let veth = Interface::veth("br0").address("10.9.8.7/24".parse().unwrap());
        let veth = veth.gateway("10.9.8.1".parse().unwrap()).mac("02:00:00:00:00:07").mtu(1400);
        let script = "ip -o -4 addr show eth0; ip link show eth0; ip route; ping -c 1 -w 5 10.9.8.1";
        let seen = bed.run(bed.sh(script).network(Network::Interfaces(vec![veth]))).assert_ok().to_owned();
        for part in
            ["10.9.8.7/24", "02:00:00:00:00:07", "mtu 1400", "default via 10.9.8.1", " 0% packet loss"]
        {
            assert!(seen.contains(part), "{part} is not in {seen}");
        }
    });
}

#[test]
fn row_06_namespaces_are_own_the_hosts_or_anothers() {
    let bed = Bed::new();
    let other = bed.idle();
    let kinds = ["ipc", "pid", "uts", "cgroup", "time", "user"];
    let script = kinds.map(|kind| format!("readlink /proc/self/ns/{kind}")).join("; ");
    let seen = |namespace: &Namespace| {
        let n = || namespace.clone();
        let command = bed.sh(&script).ipc(n()).pid(n()).uts(n()).cgroupns(n()).timens(n());
        bed.run(command).assert_ok().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (own, host) = (seen(&Namespace::Own), seen(&Namespace::Host));
    for (index, kind) in kinds.iter().enumerate() {
        assert_eq!(host[index], own_namespace(kind));
        assert_eq!(own[index] == host[index], *kind == "user", "{kind}");
    }
    for kind in ["ipc", "uts", "cgroup"] {
        let namespace = Namespace::Container(other.id.clone());
        let command = bed.sh(&format!("readlink /proc/self/ns/{kind}"));
        let joined = bed.run(match kind {
            "ipc" => command.ipc(namespace),
            "uts" => command.uts(namespace),
            _ => command.cgroupns(namespace),
        });
        let theirs = fs::read_link(format!("/proc/{}/ns/{kind}", other.pid)).unwrap();
        assert_eq!(joined.assert_ok(), theirs.to_string_lossy());
    }
    other.finish();
    let users = bed.sh("cat /proc/self/uid_map; id -u").userns(UserNamespace::shifted(100_000, 65_536));
    let seen: Vec<String> = bed.run(users).assert_ok().split_whitespace().map(str::to_owned).collect();
    assert_eq!(seen, ["0", "100000", "65536", "0"]);
}

#[test]
fn row_07_the_hosts_mounts_never_change() {
    let bed = Bed::new();
    // A namespace of our own, where / is shared as systemd makes it: nobody else mounts here meanwhile.
    apart(CloneFlags::CLONE_NEWNS, || {
        let shared = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_SHARED;
        nix::mount::mount(None::<&str>, "/", None::<&str>, shared, None::<&str>).unwrap();
        let mounts = || fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let before = mounts();
        let mut during = String::new();
        let scratch = Mount::filesystem("tmpfs", "/tmp");
        let command = bed.sh("mount").mount(Mount::bind("/etc", "/host-etc")).mount(scratch).build().unwrap();
        let status = bed.driver.run(&command, Pipes::null(), &mut |_| during = mounts()).unwrap();
        assert_eq!(status.exit_code, 0);
        assert_eq!(before, during);
        assert_eq!(before, mounts());
    });
}

#[test]
fn row_08_devices_are_made_in_the_containers_dev_only() {
    let bed = Bed::new();
    let device = Device { mode: 0o640, uid: 33, gid: 40, ..Device::character("/dev/mine", 1, 5) };
    let script = "stat -c '%a %u %g %t %T' /dev/mine; head -c 2 /dev/mine | od -An -tx1";
    let seen = bed.run(bed.sh(script).create_device(device.clone())).assert_ok().to_owned();
    assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["640", "33", "40", "1", "5", "00", "00"]);
    assert_eq!(fs::read_dir(bed.rootfs().join("dev")).unwrap().count(), 0, "the image is as it was");
    let pipe = Device { kind: 'p', ..device.clone() };
    assert!(bed.refusal(bed.sh("true").create_device(pipe)).contains("type 'p' is neither c nor b"));
    // In a user namespace nobody can make one: the host's is bound.
    let shifted = bed.sh("stat -c '%t:%T' /dev/fuse").userns(UserNamespace::shifted(100_000, 65_536));
    assert_eq!(bed.run(shifted.create_device(Device::character("/dev/fuse", 10, 229))).assert_ok(), "a:e5");
    let elsewhere = || bed.sh("true").create_device(Device::character("/dev/nowhere", 1, 7));
    let refused = bed.refusal(elsewhere().userns(UserNamespace::shifted(100_000, 65_536)));
    assert!(refused.contains("(/dev/nowhere): the host's node: "), "{refused}");
    assert_eq!(bed.run(elsewhere()).code, 0);
    // What is not allowed can be made, but not opened.
    let disk = "mknod /dev/d c 1 11 && cat /dev/null && ! head -c 1 /dev/d";
    assert!(bed.run(bed.sh(disk)).err.contains("not permitted"));
}

#[test]
fn row_09_one_readable_config_and_any_path() {
    let bed = Bed::new();
    let odd = bed.path().join("a b\tc\nd\\e#f");
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("file"), "inside").unwrap();
    let mut command =
        bed.sh("cat \"$(printf '/x y\\tz\\\\#')/file\" '/one file'; echo; cat >/dev/null").build().unwrap();
    command.mounts =
        vec![Mount::bind(&odd, "/x y\tz\\#").read_only(), Mount::bind(odd.join("file"), "/one file")];
    command.hostname = Some("named".into());
    let id = command.id.clone();
    let mut running = Running::start(&bed.driver, command);
    assert_eq!(running.line(), "insideinside");
    let config = fs::read_to_string(bed.driver.root().join(id.as_str()).join("config")).unwrap();
    running.finish();
    let stable = config.replace(&bed.path().display().to_string(), "DIR").replace(id.as_str(), "ID");
    // Where LXC's monitor goes depends on the version of cgroups.
    let stable: Vec<&str> =
        stable.lines().filter(|line| !line.starts_with("lxc.cgroup.dir.monitor")).collect();
    insta::assert_snapshot!(stable.join("\n"));
}

#[test]
fn row_09_a_privileged_command_may_use_every_device() {
    let bed = Bed::new();
    // Opening the kernel's log for writing writes nothing.
    let sh = || bed.sh("mknod /dev/log11 c 1 11 && echo made; true >/dev/log11 && echo opened");
    assert_eq!(bed.run(sh().privileged(true)).assert_ok(), "made\nopened");
    let denied = bed.run(sh());
    assert!(denied.out == "made\n" && denied.err.contains("not permitted"), "{denied:?}");
}

#[test]
fn row_10_resources_reach_the_kernel() {
    let bed = Bed::new();
    let resources = Resources {
        memory: Some(64 << 20),
        cpu_shares: Some(512),
        cpu_period: Some(100_000),
        cpu_quota: Some(50_000),
        cpuset_cpus: Some("0".into()),
        cpuset_mems: Some("0".into()),
        pids_limit: Some(50),
        rlimits: vec![Rlimit { name: "nofile".into(), soft: 100, hard: 200 }],
        ..Resources::default()
    };
    let mut running = bed.start(bed.sh("ulimit -Sn; ulimit -Hn; cat >/dev/null").resources(resources));
    assert_eq!((running.line(), running.line()), ("100".into(), "200".into()));
    let value = |controller, v1, v2| cgroup_value(&running.id, controller, v1, v2);
    assert_eq!(value("memory", "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(value("memory", "memory.soft_limit_in_bytes", "memory.low"), "67108864");
    let swap = value("memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
    assert!(swap == "134217728" || swap == "67108864", "version 1 counts both, version 2 swap alone: {swap}");
    assert!(["512", "59"].contains(&value("cpu", "cpu.shares", "cpu.weight").as_str()));
    assert!(value("cpu", "cpu.cfs_quota_us", "cpu.max").starts_with("50000"));
    assert_eq!(value("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(value("pids", "pids.max", "pids.max"), "50");
    running.finish();
    let unlimited = Resources { memory: Some(64 << 20), memory_swap: Some(-1), ..Resources::default() };
    let running = bed.start(bed.sh("cat").resources(unlimited));
    let swap = cgroup_value(&running.id, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
    assert!(swap == "max" || swap.parse::<u64>().unwrap() > 1 << 60, "{swap}");
    running.finish();
    // Below a cgroup of the daemon's, which stays.
    let parent = format!("parent-{}", unique());
    let running = bed.start(bed.sh("cat").cgroup_parent(format!("/{parent}")));
    let parents = cgroups_named(&parent);
    assert!(
        parents.iter().all(|p| p.join(running.id.as_str()).is_dir()) && !parents.is_empty(),
        "{parents:?}"
    );
    running.finish();
    parents.iter().for_each(|p| fs::remove_dir(p).unwrap());
    // What this kernel lacks is refused by name, never left out.
    let weight = bed.sh("true").resources(Resources { blkio_weight: Some(300), ..Resources::default() });
    if let Err(error) = bed.try_run(weight) {
        assert!(error.to_string().contains(": resources.blkio_weight: "), "{error}");
    }
}

#[test]
fn row_11_raw_lxc_settings_are_kept_checked_and_translated() {
    let bed = Bed::new();
    for key in ["lxc.prlimit.nofile", "prlimit.nofile"] {
        assert_eq!(bed.run(bed.sh("ulimit -n").lxc_config(key, "512")).assert_ok(), "512");
    }
    assert_eq!(bed.run(bed.sh("hostname").lxc_config("lxc.utsname", "old-name")).assert_ok(), "old-name");
    let is_v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let limit = if is_v2 { "cgroup2.memory.max" } else { "cgroup.memory.limit_in_bytes" };
    let limited = bed.start(bed.sh("cat").lxc_config(limit, "33554432"));
    assert_eq!(cgroup_value(&limited.id, "memory", "memory.limit_in_bytes", "memory.max"), "33554432");
    limited.finish();
    apart_network(|| {
        ip("link add br0 type bridge");
        let old = bed
            .sh("ip -o -4 addr show dev lan")
            .lxc_config("lxc.network.type", "veth")
            .lxc_config("lxc.network.flags", "up")
            .lxc_config("lxc.network.link", "br0")
            .lxc_config("lxc.network.name", "lan")
            .lxc_config("lxc.network.ipv4", "10.7.7.7/24");
        assert!(bed.run(old).assert_ok().contains("10.7.7.7/24"));
    });
    let bad = [
        ("lxc.no.such.key", "1", "lxc.no.such.key"),
        ("lxc.prlimit.nofile", "many", "lxc.prlimit.nofile"),
        ("lxc.idmap", "nonsense", "lxc.idmap"),
        ("lxc.net.0.type", "telepathy", "lxc.net.0.type"),
        ("lxc.net.0.ipv4.address", "10.0.0.300/24", "lxc.net.0.ipv4.address"),
        ("lxc.namespace.clone", "nothing", "lxc.namespace.clone"),
        ("lxc.rootfs.path", "/", "lxc.rootfs.path"),
        ("lxc.init.cmd", "/bin/evil", "lxc.init.cmd"),
        ("lxc.monitor.signal.pdeath", "0", "lxc.monitor.signal.pdeath"),
        ("lxc.cgroup.dir.container", "elsewhere", "lxc.cgroup.dir.container"),
        ("lxc.cgroup.memory.limit_in_bytes", "12q", "memory.limit_in_bytes"),
        ("lxc.hook.pre-start", "/bin/true\n/bin/false", "lxc.hook.pre-start"),
    ];
    for (key, value, named) in bad {
        let message = match bed.try_run(bed.sh("true").lxc_config(key, value)) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{key} = {value} was not refused"),
        };
        println!("{message}");
        assert!(message.contains(named), "{key} = {value}: {message}");
    }
}

/// What only the host shows is told by the field that the daemon has written, not by that of a specification.
#[test]
fn row_11_refusals_name_fields_of_the_command() {
    let bed = Bed::new();
    let sh = || bed.sh("true");
    let own = bed.path().join("file");
    fs::write(&own, "").unwrap();
    for (command, named) in [
        (sh().mount(Mount::bind("/nowhere", "/x")), ": mounts[0].source: "),
        (sh().ipc(Namespace::Path(own.clone())), ": ipc: "),
        (sh().uts(Namespace::Path("/proc/1/ns/net".into())), ": uts: "),
        (sh().group_add(["nope"]), ": group_add: the container's /etc/group has no group \"nope\""),
        (sh().lxc_config("lxc.rootfs.path", "/"), "the root file system is rootfs"),
        (sh().lxc_config("lxc.cap.drop", "kill"), "capabilities are cap_add and cap_drop"),
    ] {
        let message = bed.refusal(command);
        assert!(message.contains(named), "{named}: {message}");
    }
}

#[test]
fn row_12_capabilities_are_the_default_ones_with_changes() {
    let bed = Bed::new();
    let sets = |command: execdriver::CommandBuilder| {
        let seen = bed.run(command);
        let number = |l: &str| u64::from_str_radix(l.split_whitespace().last().unwrap(), 16).unwrap();
        seen.assert_ok().lines().map(number).collect::<Vec<_>>()
    };
    let sh = || bed.sh("grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status");
    const DEFAULT: u64 = 0xa804_25fb;
    const NET_ADMIN: u64 = 1 << 12;
    const CHOWN: u64 = 1;
    assert_eq!(sets(sh()), [DEFAULT; 3]);
    for name in ["net_admin", "NET_ADMIN", "cap_net_admin", "CAP_NET_ADMIN"] {
        assert_eq!(sets(sh().cap_add([name]).cap_drop(["Chown"])), [DEFAULT & !CHOWN | NET_ADMIN; 3]);
    }
    assert_eq!(sets(sh().cap_drop(["all"])), [0; 3]);
    assert_eq!(sets(sh().cap_drop(["ALL"]).cap_add(["net_admin"])), [NET_ADMIN; 3]);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let own = status.lines().find_map(|l| l.strip_prefix("CapPrm:")).unwrap();
    let own = u64::from_str_radix(own.trim(), 16).unwrap();
    assert_eq!(sets(sh().cap_add(["all"])), [own; 3]);
    assert_eq!(sets(sh().privileged(true)), [own; 3]);
    let unknown = bed.refusal(bed.sh("true").cap_add(["CAP_FLY"]));
    assert!(unknown.contains("cap_add: unknown capability \"CAP_FLY\""), "{unknown}");
}

#[test]
fn row_13_the_host_name_is_a_field_or_a_variable() {
    let bed = Bed::new();
    let name = |command| bed.run(command).assert_ok().to_owned();
    assert_eq!(name(bed.sh("hostname").env("HOSTNAME", "from-env")), "from-env");
    assert_eq!(name(bed.sh("hostname").hostname("explicit")), "explicit");
    assert_eq!(name(bed.sh("hostname").hostname("explicit").env("HOSTNAME", "from-env")), "explicit");
    let own = name(bed.sh("hostname").uts(Namespace::Host).env("HOSTNAME", "ignored"));
    assert_eq!(own, fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim());
}

#[test]
fn row_14_the_environment_is_exact_and_nothing_is_left_in_the_image() {
    let bed = Bed::new();
    let tree = || {
        let output = host("find", &[bed.rootfs().to_str().unwrap(), "-printf", "%p %m %s %T@\n"]);
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let before = tree();
    let command = Command::builder(unique(), bed.rootfs())
        .args(["env"])
        .env("PATH", "/bin")
        .env("HOME", "/h")
        .env("EMPTY", "")
        .env("ODD", "a=b \"c\"\n'd' é");
    let seen = bed.run(command);
    assert_eq!(seen.assert_ok(), "PATH=/bin\nHOME=/h\nEMPTY=\nODD=a=b \"c\"\n'd' é");
    assert_eq!(bed.run(bed.sh("ls -a / | grep docker; mount | grep -c dockerenv")).out, "0\n");
    assert_eq!(before, tree());
}

#[test]
fn errors_of_the_init_name_the_field_of_the_command() {
    let bed = Bed::new();
    let refused = |command: execdriver::CommandBuilder, field: &str| {
        let message = bed.refusal(command);
        assert!(message.contains(&format!(": {field}: ")), "{field}: {message}");
    };
    let in_passwd =
        || ProcessConfig { working_dir: Some("/etc/passwd".into()), ..ProcessConfig::new(["true"]) };
    refused(bed.sh("true").mount(Mount::filesystem("nofs", "/mnt")), "mounts[0]");
    refused(bed.sh("true").working_dir("/etc/passwd"), "working_dir");
    refused(bed.sh("true").process(in_passwd()), "process_config.working_dir");
    let users = UserNamespace::shifted(100_000, 1000);
    refused(bed.sh("true").userns(users).user("5000"), "process_config.user");
    let nowhere = execdriver::Command::builder(crate::common::unique(), "/nowhere").args(["true"]);
    assert!(bed.refusal(nowhere).contains("rootfs: /nowhere: "));
    let running = bed.idle();
    let exec = |process: ProcessConfig, field: &str| {
        let message = bed.try_exec(&running.id, &process).unwrap_err().to_string();
        assert!(message.contains(&format!(": {field}: ")), "{field}: {message}");
    };
    exec(in_passwd(), "process_config.working_dir");
    exec(ProcessConfig::new(["true", "\0"]), "process_config.arguments[0]");
    exec(ProcessConfig { env: vec!["A=\0".into()], ..ProcessConfig::new(["true"]) }, "process_config.env[0]");
    let unknown = Some(vec!["zz".into()]);
    exec(
        ProcessConfig { capabilities: unknown, ..ProcessConfig::new(["true"]) },
        "process_config.capabilities",
    );
    running.finish();
}
