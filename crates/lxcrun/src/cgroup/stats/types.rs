//! The numbers themselves. Serialized they have the names of `runc events --stats`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a container has used and may use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ResourceStats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Processors and memory nodes (version 1 only).
    pub cpuset: CpusetStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes and threads.
    pub pids: PidsStats,
    /// Block devices.
    pub blkio: BlkioStats,
    /// Huge pages, by page size.
    pub hugetlb: BTreeMap<String, HugetlbStats>,
    /// Cache and memory bandwidth: always empty.
    pub intel_rdt: BTreeMap<String, String>,
    /// Network interfaces of the container, as seen inside.
    pub network_interfaces: Vec<NetworkInterface>,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuStats {
    /// Time used.
    pub usage: CpuUsage,
    /// Time not got.
    pub throttling: Throttling,
    /// Pressure stall information, where the kernel has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Processor time used, in ns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuUsage {
    /// All of it.
    pub total: u64,
    /// By processor (version 1 only).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub percpu: Vec<u64>,
    /// In the kernel, by processor (version 1 only).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub percpu_kernel: Vec<u64>,
    /// In programs, by processor (version 1 only).
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In programs.
    pub user: u64,
}

/// How often the quota was used up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods that have passed.
    pub periods: u64,
    /// Periods in which it was used up.
    pub throttled_periods: u64,
    /// Time spent waiting, in ns.
    pub throttled_time: u64,
}

/// Processors and memory nodes, with the switches of cpuset(7): 1 for on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpusetStats {
    /// Processors that it may use, by number.
    pub cpus: Vec<u16>,
    /// Whether no cgroup beside it may use them.
    pub cpu_exclusive: u64,
    /// Memory nodes that it may use, by number.
    pub mems: Vec<u16>,
    /// Whether the kernel, too, takes memory for it from these nodes alone.
    pub mem_hardwall: u64,
    /// Whether no cgroup beside it may use the nodes.
    pub mem_exclusive: u64,
    /// Whether its memory moves along when it gets other nodes.
    pub memory_migrate: u64,
    /// Whether its page cache is spread over its nodes.
    pub memory_spread_page: u64,
    /// Whether the kernel's caches of inodes and directories are.
    pub memory_spread_slab: u64,
    /// How often its processes have had to free memory of its nodes: a thousand times the recent rate per second, 0 where
    /// the host does not measure it (`cpuset.memory_pressure_enabled`).
    pub memory_pressure: u64,
    /// Whether the scheduler balances load over its processors.
    pub sched_load_balance: u64,
    /// How far the scheduler searches for an idle processor, or for work: -1 for the system's default, 0 for not at all,
    /// and the wider the larger.
    pub sched_relax_domain_level: i64,
}

/// Memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// Page cache, in bytes.
    pub cache: u64,
    /// Memory.
    pub usage: MemoryUsage,
    /// Memory and swap together.
    pub swap: MemoryUsage,
    /// The kernel's for the container (version 1 only).
    pub kernel: MemoryUsage,
    /// Buffers of TCP (version 1 only).
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryUsage,
    /// Every line of memory.stat.
    pub raw: BTreeMap<String, u64>,
    /// What has happened to it for want of memory, if anything: whoever looks for a word of it in the output of `events`
    /// must not find one before.
    #[serde(skip_serializing_if = "MemoryEvents::is_none", default)]
    pub event_count: MemoryEvents,
    /// Pressure stall information, where the kernel has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// How often something has happened to a container for want of memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryEvents {
    /// It was made to give some back although it had less than its protection (version 2 only).
    pub low: u64,
    /// It was slowed down above its high mark (version 2 only).
    pub high: u64,
    /// It came to its limit (version 2 only).
    pub max: u64,
    /// It had none left (version 2 only).
    pub oom: u64,
    /// One of its processes was killed.
    pub oom_kill: u64,
}

impl MemoryEvents {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Use of one kind of memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUsage {
    /// What it may use; more than any machine has when there is no limit.
    pub limit: u64,
    /// What it uses.
    pub usage: u64,
    /// The most that it has used.
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Processes and threads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidsStats {
    /// How many there are.
    pub current: u64,
    /// How many there may be; 0 for no limit.
    pub limit: u64,
}

/// Block devices.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlkioStats {
    /// Bytes, by device and operation.
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Operations, by device and operation.
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Pressure stall information, where the kernel has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One number of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkioEntry {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// `Read`, `Write` and others.
    pub op: String,
    /// The number.
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugetlbStats {
    /// What it uses.
    pub usage: u64,
    /// The most that it has used.
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Counters of one network interface, since it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkInterface {
    /// Its name.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets that arrived damaged.
    pub rx_errors: u64,
    /// Packets that arrived and were thrown away.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets that were thrown away before they were sent.
    pub tx_dropped: u64,
}

/// Pressure stall information. Source: the kernel's accounting/psi.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    /// Some task was waiting.
    pub some: PressureLine,
    /// All tasks were waiting.
    pub full: PressureLine,
}

/// One line of a pressure file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PressureLine {
    /// Share of the last 10 s, in percent.
    pub avg10: f64,
    /// Share of the last 60 s, in percent.
    pub avg60: f64,
    /// Share of the last 300 s, in percent.
    pub avg300: f64,
    /// Since it began, in µs.
    pub total: u64,
}

impl NetworkInterface {
    /// One line of /proc/PID/net/dev: proc_pid_net(5).
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let at = |index: usize| numbers.get(index).copied();
        Some(Self {
            name: name.trim().into(),
            rx_bytes: at(0)?,
            rx_packets: at(1)?,
            rx_errors: at(2)?,
            rx_dropped: at(3)?,
            tx_bytes: at(8)?,
            tx_packets: at(9)?,
            tx_errors: at(10)?,
            tx_dropped: at(11)?,
        })
    }
}
