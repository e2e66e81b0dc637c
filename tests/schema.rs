//! Every property of the specification's JSON schema has a test that shows its effect in a container, or one that shows
//! that it is refused by its name. None falls through.
//!
//! The schema is that of Debian's golang-github-opencontainers-specs-dev; what newer releases added is listed here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use lxcrun_test::{Bundle, Cgroups, Container, Need, is_v2, tests};
use serde_json::{Value, json};

tests![
    every_property_has_a_test.needs(Need::File(SCHEMA)),
    conformance_names_real_tests,
    the_drivers_contract_names_real_tests,
    limits_of_block_io_are_set_or_refused_by_name.lxcrun_only("the suite asks for names of fields"),
    limits_of_processors_are_set_or_refused_by_name.lxcrun_only("the suite asks for names of fields"),
    limits_of_memory_are_set_or_refused_by_name.lxcrun_only("the suite asks for names of fields"),
    limits_of_networks_are_set_or_refused_by_name.lxcrun_only("the suite asks for names of fields"),
    limits_of_rdma_are_set_or_refused_by_name.lxcrun_only("the suite asks for names of fields"),
    limits_of_huge_pages_are_set_or_refused_by_name.lxcrun_only("the suite asks for names of fields"),
    a_unified_value_is_set_or_refused_by_name.lxcrun_only("the suite asks for names of fields"),
    properties_of_other_platforms_are_refused_by_name.lxcrun_only("others ignore them"),
    labels_of_other_hosts_are_refused_by_name.lxcrun_only("the suite asks for names of fields"),
];

const SCHEMA: &str = "/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema/config-schema.json";

/// Properties of releases that are newer than the schema. Source: runtime-spec, ChangeLog of 1.1 to 1.3.
const NEWER: [&str; 27] = [
    "process.scheduler.policy",
    "process.scheduler.nice",
    "process.scheduler.priority",
    "process.scheduler.flags",
    "process.scheduler.runtime",
    "process.scheduler.deadline",
    "process.scheduler.period",
    "process.ioPriority.class",
    "process.ioPriority.priority",
    "process.execCPUAffinity.initial",
    "process.execCPUAffinity.final",
    "domainname",
    "linux.timeOffsets.*.secs",
    "linux.timeOffsets.*.nanosecs",
    "linux.netDevices.*.name",
    "linux.memoryPolicy.mode",
    "linux.memoryPolicy.nodes",
    "linux.memoryPolicy.flags",
    "linux.intelRdt.schemata",
    "linux.intelRdt.enableMonitoring",
    "linux.resources.cpu.idle",
    "linux.resources.cpu.burst",
    "linux.resources.memory.checkBeforeUpdate",
    "linux.seccomp.flags",
    "mounts[].uidMappings",
    "mounts[].gidMappings",
    "vm.hwConfig",
];

/// Properties, or all below one that ends in a dot or bracket, and the test that shows what they do.
const SHOWN: &[(&str, &str)] = &[
    ("ociVersion", "bad_input::an_unknown_major_version_is_refused"),
    ("annotations", "hooks::the_state_on_stdin_names_the_container"),
    ("hostname", "namespaces::the_host_name_is_set"),
    ("domainname", "namespaces::the_domain_name_is_set"),
    ("root.path", "bad_input::a_missing_root_is_refused"),
    ("root.readonly", "mounts::a_read_only_root_cannot_be_written"),
    ("hooks.prestart[].args", "hooks::hooks_get_their_arguments"),
    ("hooks.prestart[].env", "hooks::hooks_get_exactly_the_environment_of_the_spec"),
    ("hooks.prestart[].timeout", "hooks::a_hook_that_takes_too_long_is_killed"),
    ("hooks.", "hooks::all_hooks_run_in_order"),
    ("mounts[].destination", "mounts::a_missing_target_is_made"),
    ("mounts[].source", "mounts::a_relative_source_is_below_the_bundle"),
    ("mounts[].type", "mounts::a_tmpfs_has_its_size_and_mode"),
    ("mounts[].options", "mounts::flags_of_mounts_are_set"),
    ("mounts[].uidMappings", "userns::an_id_mapped_mount_may_have_mappings_of_its_own"),
    ("mounts[].gidMappings", "userns::an_id_mapped_mount_may_have_mappings_of_its_own"),
    ("process.args", "process::the_program_gets_its_arguments_exactly"),
    ("process.commandLine", "schema::properties_of_other_platforms_are_refused_by_name"),
    ("process.env", "process::the_environment_is_exactly_that_of_the_spec"),
    ("process.cwd", "process::the_program_starts_in_its_directory"),
    ("process.terminal", "terminal::the_terminal_comes_over_the_console_socket"),
    ("process.consoleSize.", "terminal::the_terminal_has_the_size_of_the_spec"),
    ("process.user.username", "schema::properties_of_other_platforms_are_refused_by_name"),
    ("process.user.umask", "process::a_umask_is_set"),
    ("process.user.", "process::a_user_and_groups_are_set"),
    ("process.rlimits[]", "process::limits_of_resources_are_set"),
    ("process.capabilities.", "process::capabilities_of_a_user_are_exact_in_all_five_sets"),
    ("process.noNewPrivileges", "process::no_new_privileges_is_on_where_asked_for"),
    ("process.oomScoreAdj", "process::the_oom_score_is_set"),
    ("process.apparmorProfile", "schema::labels_of_other_hosts_are_refused_by_name"),
    ("process.selinuxLabel", "schema::labels_of_other_hosts_are_refused_by_name"),
    ("process.scheduler.policy", "scheduling::the_scheduler_is_set"),
    ("process.scheduler.priority", "scheduling::a_realtime_policy_is_set_where_the_cgroup_has_time_for_it"),
    ("process.scheduler.nice", "scheduling::a_nice_value_is_set"),
    ("process.scheduler.flags", "scheduling::flags_of_the_scheduler_are_set"),
    ("process.scheduler.", "scheduling::parameters_of_another_policy_are_refused"),
    ("process.ioPriority.", "scheduling::the_io_priority_is_set"),
    ("process.execCPUAffinity.", "scheduling::an_exec_runs_on_its_processors"),
    ("linux.namespaces[].type", "namespaces::a_listed_namespace_is_new"),
    ("linux.namespaces[].path", "namespaces::a_namespace_with_a_path_is_entered"),
    ("linux.uidMappings[]", "userns::ids_are_mapped_in_ranges"),
    ("linux.gidMappings[]", "userns::ids_are_mapped_in_ranges"),
    ("linux.timeOffsets.", "namespaces::a_time_namespace_has_its_offsets"),
    ("linux.devices[]", "devices::a_listed_device_has_its_number_mode_and_owner"),
    ("linux.netDevices.", "netdevices::a_device_gets_another_name"),
    ("linux.cgroupsPath", "cgroups::the_cgroup_is_that_of_the_spec"),
    ("linux.resources.devices[].access", "devices::a_device_may_be_allowed_for_reading_alone"),
    ("linux.resources.devices[]", "devices::a_device_that_is_allowed_can_be_opened"),
    ("linux.resources.pids.limit", "cgroups::the_pids_limit_stops_forks"),
    ("linux.resources.cpu.", "schema::limits_of_processors_are_set_or_refused_by_name"),
    ("linux.resources.memory.", "schema::limits_of_memory_are_set_or_refused_by_name"),
    ("linux.resources.blockIO.", "schema::limits_of_block_io_are_set_or_refused_by_name"),
    ("linux.resources.network.", "schema::limits_of_networks_are_set_or_refused_by_name"),
    ("linux.resources.rdma.", "schema::limits_of_rdma_are_set_or_refused_by_name"),
    ("linux.resources.hugepageLimits[]", "schema::limits_of_huge_pages_are_set_or_refused_by_name"),
    ("linux.resources.unified", "schema::a_unified_value_is_set_or_refused_by_name"),
    ("linux.intelRdt.", "cgroups::a_class_of_service_needs_resctrl"),
    ("linux.memoryPolicy.", "scheduling::the_memory_policy_is_set"),
    ("linux.sysctl", "sysctl::a_parameter_of_ipc_is_set"),
    ("linux.seccomp.defaultAction", "seccomp::a_default_action_refuses_what_is_not_listed"),
    ("linux.seccomp.defaultErrnoRet", "seccomp::the_default_errno_is_that_of_the_spec"),
    ("linux.seccomp.flags", "seccomp::flags_of_the_filter_are_taken"),
    ("linux.seccomp.listener", "seccomp::an_agent_answers_for_the_container"),
    ("linux.seccomp.syscalls[].errnoRet", "seccomp::the_errno_is_that_of_the_rule"),
    ("linux.seccomp.syscalls[].args[]", "seccomp::every_comparison_of_arguments_works"),
    ("linux.seccomp.", "seccomp::a_listed_call_fails_and_others_work"),
    ("linux.rootfsPropagation", "propagation::every_propagation_of_the_root_is_set"),
    ("linux.maskedPaths", "mounts::masked_paths_are_empty"),
    ("linux.readonlyPaths", "mounts::readonly_paths_cannot_be_written"),
    ("linux.mountLabel", "schema::labels_of_other_hosts_are_refused_by_name"),
    ("linux.personality.domain", "scheduling::the_execution_domain_is_set"),
    ("linux.personality.flags", "scheduling::a_flag_of_the_execution_domain_is_refused"),
    ("solaris", "schema::properties_of_other_platforms_are_refused_by_name"),
    ("windows", "schema::properties_of_other_platforms_are_refused_by_name"),
    ("vm", "schema::properties_of_other_platforms_are_refused_by_name"),
    ("zos", "schema::properties_of_other_platforms_are_refused_by_name"),
];

fn every_property_has_a_test() {
    let tests: Vec<String> = crate::all().iter().map(|test| test.name().to_owned()).collect();
    for (property, test) in SHOWN {
        assert!(tests.iter().any(|name| name == test), "{property} names {test}, which is no test");
    }
    let mut properties = BTreeSet::from(NEWER.map(str::to_owned));
    Schema(Path::new(SCHEMA).parent().expect("a directory")).walk(
        "config-schema.json",
        "/",
        "",
        &mut properties,
    );
    assert!(properties.len() > 200, "the schema has {} properties", properties.len());
    // An object is shown by what is in it.
    let leaf = |property: &String| {
        let below = [format!("{property}."), format!("{property}[]")];
        !properties.iter().any(|other| below.iter().any(|b| other.starts_with(b)))
    };
    let is_shown = |property: &str| SHOWN.iter().any(|(shown, _)| property.starts_with(shown));
    let missing: Vec<&String> = properties.iter().filter(|p| leaf(p) && !is_shown(p)).collect();
    assert!(missing.is_empty(), "no test shows {missing:#?}");
}

/// docs/conformance.md says which test shows what: there is each of them, and in every row of its tables at least one, or a
/// word on why not.
fn conformance_names_real_tests() {
    let tests: Vec<String> = crate::all().iter().map(|test| test.name().to_owned()).collect();
    let modules: BTreeSet<&str> = tests.iter().filter_map(|name| name.split("::").next()).collect();
    let text = include_str!("../docs/conformance.md");
    // What stands between backquotes is every second part.
    let quoted = |line: &'static str| line.split('`').skip(1).step_by(2);
    let named = |line| quoted(line).filter(|w| w.split_once("::").is_some_and(|(m, _)| modules.contains(m)));
    let all: Vec<&str> = text.lines().flat_map(named).collect();
    assert!(all.len() > 200, "the document names {} tests", all.len());
    let unknown: Vec<&&str> = all.iter().filter(|name| !tests.iter().any(|test| test == **name)).collect();
    assert!(unknown.is_empty(), "docs/conformance.md names {unknown:#?}, which are no tests");
    let explained = ["unit test", "not applicable", "not yet", "of the document", "not provable here"];
    let is_row =
        |line: &&str| line.starts_with("| ") && !line.starts_with("| Section") && !line.starts_with("| Test");
    let bare: Vec<&str> = text
        .lines()
        .filter(is_row)
        .filter(|line| named(line).next().is_none() && !explained.iter().any(|word| line.contains(word)))
        .collect();
    assert!(bare.is_empty(), "no test and no reason in {bare:#?}");
}

/// docs/migrating-from-docker-lxc.md has a row for each test of the exec driver's contract.
fn the_drivers_contract_names_real_tests() {
    let sources = [
        include_str!("../crates/execdriver/tests/contract/starting.rs"),
        include_str!("../crates/execdriver/tests/contract/running.rs"),
        include_str!("../crates/execdriver/tests/contract/killed.rs"),
    ];
    let tests = sources.iter().flat_map(|text| text.lines());
    let tests = tests.filter_map(|line| line.strip_prefix("fn ")?.split('(').next());
    let tests: BTreeSet<&str> = tests.filter(|name| name.starts_with("row_")).collect();
    let text = include_str!("../docs/migrating-from-docker-lxc.md");
    let named: BTreeSet<&str> = text.split('`').filter(|word| word.starts_with("row_")).collect();
    assert_eq!(named, tests);
    let rows = text.lines().filter(|line| line.contains("`row_")).count();
    assert_eq!(rows, 26);
}

/// The schema's files.
struct Schema<'d>(&'d Path);

impl Schema<'_> {
    /// Collects the properties of the type at `pointer` in `file`, whose own name is `name`.
    fn walk(&self, file: &str, pointer: &str, name: &str, found: &mut BTreeSet<String>) {
        let text = fs::read_to_string(self.0.join(file)).expect("a file of the schema");
        let schema: Value = serde_json::from_str(&text).expect("JSON");
        let place = pointer.trim_end_matches('/');
        self.walk_type(file, schema.pointer(place).expect("a type of the schema"), name, found);
    }

    fn walk_type(&self, file: &str, kind: &Value, name: &str, found: &mut BTreeSet<String>) {
        if let Some(reference) = kind["$ref"].as_str() {
            let (other, pointer) = reference.split_once('#').unwrap_or((reference, "/"));
            return self.walk(if other.is_empty() { file } else { other }, pointer, name, found);
        }
        for choice in ["allOf", "anyOf", "oneOf"].iter().filter_map(|c| kind[*c].as_array()).flatten() {
            self.walk_type(file, choice, name, found);
        }
        if kind["items"].is_object() {
            self.walk_type(file, &kind["items"], &format!("{name}[]"), found);
        }
        let keys = |of: &str| kind[of].as_object().into_iter().flatten();
        for (key, property) in keys("properties") {
            let full = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            found.insert(full.clone());
            self.walk_type(file, property, &full, found);
        }
        let any = keys("patternProperties").map(|(_, property)| property);
        for property in any.chain(Some(&kind["additionalProperties"]).filter(|p| p.is_object())) {
            self.walk_type(file, property, &format!("{name}.*"), found);
        }
    }
}

/// One limit: its property below linux.resources, as JSON, and where it shows: controller, file of version 1, file of
/// version 2 ("" where that version has none), and the text that is in it.
struct Limit<'a> {
    field: &'a str,
    value: Value,
    controller: &'a str,
    v1: &'a str,
    v2: &'a str,
    text: &'a str,
}

impl Limit<'_> {
    /// Creates a container with the limit: its file has it, or the error names the field.
    #[track_caller]
    fn check(&self) {
        let (top, _) = self.field.split_once(['.', '[']).unwrap_or((self.field, ""));
        let container = Bundle::busybox().resource(top, self.value.clone()).build();
        let created = container.create();
        if created.status.success() {
            let shown = self.read(&container);
            assert!(shown.contains(self.text), "{}: {:?} is not in {shown:?}", self.field, self.text);
        } else {
            created.assert_stderr_contains(&format!("linux.resources.{}", self.field));
            container.assert_gone(&created);
        }
    }

    #[track_caller]
    fn read(&self, container: &Container) -> String {
        let text = Cgroups::of(container.pid()).read(self.controller, self.v1, self.v2);
        text.lines().map(|line| format!("{line}\n")).collect()
    }
}

#[track_caller]
fn check(controller: &str, limits: &[(&str, Value, &str, &str, &str)]) {
    for (field, value, v1, v2, text) in limits {
        Limit { field, value: value.clone(), controller, v1, v2, text }.check();
    }
}

fn limits_of_block_io_are_set_or_refused_by_name() {
    let disk = fs::read_dir("/sys/block").expect("block devices").flatten().find_map(|disk| {
        // Loop devices without a file have no queue to limit.
        let virtual_disk = disk.file_name().to_string_lossy().starts_with("loop");
        if virtual_disk { None } else { fs::read_to_string(disk.path().join("dev")).ok() }
    });
    let disk = disk.expect("a disk").trim().to_owned();
    let (major, minor) = disk.split_once(':').expect("a device number");
    let [major, minor]: [i64; 2] = [major, minor].map(|n| n.parse().expect("a number"));
    let rate = json!([{ "major": major, "minor": minor, "rate": 1_048_576 }]);
    let throttle = |name: &str| json!({ name: rate });
    check(
        "blkio",
        &[
            // 1..10000 instead of 10..1000, but for the BFQ scheduler.
            (
                "blockIO.weight",
                json!({ "weight": 500 }),
                weight(),
                "io.weight",
                if is_v2() { "4950" } else { "500" },
            ),
            ("blockIO.leafWeight", json!({ "leafWeight": 500 }), "blkio.leaf_weight", "", "500"),
            (
                "blockIO.weightDevice",
                json!({ "weightDevice": [{ "major": major, "minor": minor, "weight": 300 }] }),
                "blkio.bfq.weight_device",
                "io.bfq.weight",
                "300",
            ),
            (
                "blockIO.throttleReadBpsDevice",
                throttle("throttleReadBpsDevice"),
                "blkio.throttle.read_bps_device",
                "io.max",
                &disk,
            ),
            (
                "blockIO.throttleWriteBpsDevice",
                throttle("throttleWriteBpsDevice"),
                "blkio.throttle.write_bps_device",
                "io.max",
                &disk,
            ),
            (
                "blockIO.throttleReadIOPSDevice",
                throttle("throttleReadIOPSDevice"),
                "blkio.throttle.read_iops_device",
                "io.max",
                &disk,
            ),
            (
                "blockIO.throttleWriteIOPSDevice",
                throttle("throttleWriteIOPSDevice"),
                "blkio.throttle.write_iops_device",
                "io.max",
                &disk,
            ),
        ],
    );
}

/// Kernels with the BFQ scheduler call it so.
fn weight() -> &'static str {
    if Path::new("/sys/fs/cgroup/blkio/blkio.weight").exists() { "blkio.weight" } else { "blkio.bfq.weight" }
}

fn limits_of_processors_are_set_or_refused_by_name() {
    check(
        "cpu",
        &[
            ("cpu.shares", json!({ "shares": 512 }), "cpu.shares", "cpu.weight", ""),
            (
                "cpu.quota",
                json!({ "quota": 50_000, "period": 100_000 }),
                "cpu.cfs_quota_us",
                "cpu.max",
                "50000",
            ),
            ("cpu.period", json!({ "period": 50_000 }), "cpu.cfs_period_us", "cpu.max", "50000"),
            (
                "cpu.burst",
                json!({ "quota": 50_000, "burst": 10_000 }),
                "cpu.cfs_burst_us",
                "cpu.max.burst",
                "10000",
            ),
            ("cpu.idle", json!({ "idle": 1 }), "cpu.idle", "cpu.idle", "1"),
            ("cpu.realtimePeriod", json!({ "realtimePeriod": 500_000 }), "cpu.rt_period_us", "", "500000"),
            ("cpu.realtimeRuntime", json!({ "realtimeRuntime": 1000 }), "cpu.rt_runtime_us", "", "1000"),
        ],
    );
    check(
        "cpuset",
        &[
            ("cpu.cpus", json!({ "cpus": "0" }), "cpuset.cpus", "cpuset.cpus", "0"),
            ("cpu.mems", json!({ "mems": "0" }), "cpuset.mems", "cpuset.mems", "0"),
        ],
    );
}

fn limits_of_memory_are_set_or_refused_by_name() {
    const MIB: i64 = 1 << 20;
    let text = &(64 * MIB).to_string();
    check(
        "memory",
        &[
            ("memory.limit", json!({ "limit": 64 * MIB }), "memory.limit_in_bytes", "memory.max", text),
            (
                "memory.reservation",
                json!({ "reservation": 64 * MIB }),
                "memory.soft_limit_in_bytes",
                "memory.low",
                text,
            ),
            (
                "memory.swap",
                json!({ "limit": 64 * MIB, "swap": 128 * MIB }),
                "memory.memsw.limit_in_bytes",
                "memory.swap.max",
                "",
            ),
            (
                "memory.kernelTCP",
                json!({ "kernelTCP": 64 * MIB }),
                "memory.kmem.tcp.limit_in_bytes",
                "memory.max",
                text,
            ),
            ("memory.swappiness", json!({ "swappiness": 7 }), "memory.swappiness", "memory.max", "7"),
            (
                "memory.disableOOMKiller",
                json!({ "disableOOMKiller": true }),
                "memory.oom_control",
                "memory.max",
                "oom_kill_disable 1",
            ),
            (
                "memory.useHierarchy",
                json!({ "useHierarchy": true }),
                "memory.use_hierarchy",
                "cgroup.type",
                "",
            ),
        ],
    );
}

fn limits_of_networks_are_set_or_refused_by_name() {
    let class = json!({ "classID": 1_048_577 });
    check("net_cls", &[("network.classID", class, "net_cls.classid", "", "1048577")]);
    let priorities = json!({ "priorities": [{ "name": "lo", "priority": 3 }] });
    check("net_prio", &[("network.priorities", priorities, "net_prio.ifpriomap", "", "lo 3")]);
}

fn limits_of_rdma_are_set_or_refused_by_name() {
    let limits = json!({ "mlx5_1": { "hcaHandles": 3, "hcaObjects": 10_000 } });
    check("rdma", &[("rdma", limits, "rdma.max", "rdma.max", "hca_handle=3 hca_object=10000")]);
}

fn limits_of_huge_pages_are_set_or_refused_by_name() {
    let limits = json!([{ "pageSize": "2MB", "limit": 4_194_304 }]);
    check(
        "hugetlb",
        &[("hugepageLimits", limits, "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max", "4194304")],
    );
}

fn a_unified_value_is_set_or_refused_by_name() {
    check("memory", &[("unified", json!({ "memory.high": "67108864" }), "", "memory.high", "67108864")]);
}

fn properties_of_other_platforms_are_refused_by_name() {
    for platform in ["solaris", "windows", "vm", "zos", "freebsd"] {
        let value = match platform {
            "windows" => json!({ "layerFolders": ["C:\\"] }),
            "vm" => json!({ "kernel": { "path": "/vmlinuz" } }),
            _ => json!({}),
        };
        Bundle::busybox().set(&format!("/{platform}"), value).refused(&[platform]);
    }
    Bundle::busybox().set("/process/commandLine", "cmd").refused(&["process.commandLine"]);
    Bundle::busybox().set("/process/user/username", "root").refused(&["process.user.username"]);
}

fn labels_of_other_hosts_are_refused_by_name() {
    let has = |module: &str| {
        fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|l| l.split(',').any(|m| m.trim() == module))
    };
    let label = "system_u:system_r:container_t:s0";
    if !has("selinux") {
        Bundle::busybox().set("/process/selinuxLabel", label).refused(&["process.selinuxLabel"]);
        Bundle::busybox().set("/linux/mountLabel", label).refused(&["linux.mountLabel"]);
    }
    // Where there is AppArmor, there is no profile of this name.
    Bundle::busybox().set("/process/apparmorProfile", "lxcrun-none").refused(&["process.apparmorProfile"]);
}
