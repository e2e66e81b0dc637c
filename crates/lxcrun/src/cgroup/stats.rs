//! What a container has used, as numbers. Serialized it has the names of `runc events --stats`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Cgroup, read};

/// What a container has used and may use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ResourceStats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes and threads.
    pub pids: PidsStats,
    /// Block devices.
    pub blkio: BlkioStats,
    /// Huge pages, by page size.
    pub hugetlb: BTreeMap<String, HugetlbStats>,
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

/// Memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// Page cache, in bytes.
    pub cache: u64,
    /// Memory.
    pub usage: MemoryUsage,
    /// Memory and swap (version 1), swap (version 2).
    pub swap: MemoryUsage,
    /// Every line of memory.stat.
    pub raw: BTreeMap<String, u64>,
    /// How many of its processes the kernel has killed for want of memory.
    pub oom_kills: u64,
    /// Pressure stall information, where the kernel has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Use of one kind of memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUsage {
    /// What it may use; the machine's memory when it is not limited below that.
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlkioStats {
    /// Bytes, by device and operation.
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Operations, by device and operation.
    pub io_serviced_recursive: Vec<BlkioEntry>,
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

/// Counters of one network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs)]
pub struct NetworkInterface {
    /// Its name.
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
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

impl Cgroup {
    /// Reads everything. What a controller that this host lacks would say is 0.
    pub(crate) fn stats(&self) -> ResourceStats {
        ResourceStats {
            cpu: self.cpu(),
            memory: self.memory(),
            pids: self.pids_stats(),
            blkio: self.blkio(),
            hugetlb: self.hugetlb(),
            network_interfaces: Vec::new(),
        }
    }

    fn cpu(&self) -> CpuStats {
        let Some((directory, unified)) = self.directory("cpu") else { return CpuStats::default() };
        let stat = pairs(&directory, "cpu.stat");
        let of = |key: &str| stat.get(key).copied().unwrap_or(0);
        let throttling = Throttling {
            periods: of("nr_periods"),
            throttled_periods: of("nr_throttled"),
            throttled_time: if unified { of("throttled_usec") * 1000 } else { of("throttled_time") },
        };
        let usage = if unified {
            CpuUsage {
                total: of("usage_usec") * 1000,
                percpu: Vec::new(),
                kernel: of("system_usec") * 1000,
                user: of("user_usec") * 1000,
            }
        } else {
            let (directory, _) = self.directory("cpuacct").unwrap_or((directory.clone(), false));
            let percpu = read(&directory, "cpuacct.usage_percpu").unwrap_or_default();
            CpuUsage {
                total: number(&directory, "cpuacct.usage"),
                percpu: percpu.split_whitespace().filter_map(|n| n.parse().ok()).collect(),
                kernel: number(&directory, "cpuacct.usage_sys"),
                user: number(&directory, "cpuacct.usage_user"),
            }
        };
        CpuStats { usage, throttling, psi: pressure(&directory, "cpu.pressure") }
    }

    fn memory(&self) -> MemoryStats {
        let Some((directory, unified)) = self.directory("memory") else { return MemoryStats::default() };
        let raw = pairs(&directory, "memory.stat");
        let machine = machine_memory();
        let at_most = |limit: u64| if limit == 0 || limit > machine { machine } else { limit };
        if unified {
            let events = pairs(&directory, "memory.events");
            let of = |key: &str| events.get(key).copied().unwrap_or(0);
            return MemoryStats {
                cache: raw.get("file").copied().unwrap_or(0),
                usage: MemoryUsage {
                    limit: at_most(number(&directory, "memory.max")),
                    usage: number(&directory, "memory.current"),
                    max: number(&directory, "memory.peak"),
                    failcnt: of("max"),
                },
                swap: MemoryUsage {
                    limit: number(&directory, "memory.swap.max"),
                    usage: number(&directory, "memory.swap.current"),
                    max: number(&directory, "memory.swap.peak"),
                    failcnt: 0,
                },
                oom_kills: of("oom_kill"),
                psi: pressure(&directory, "memory.pressure"),
                raw,
            };
        }
        let usage = |prefix: &str| MemoryUsage {
            limit: at_most(number(&directory, &format!("{prefix}.limit_in_bytes"))),
            usage: number(&directory, &format!("{prefix}.usage_in_bytes")),
            max: number(&directory, &format!("{prefix}.max_usage_in_bytes")),
            failcnt: number(&directory, &format!("{prefix}.failcnt")),
        };
        MemoryStats {
            cache: raw.get("cache").copied().unwrap_or(0),
            usage: usage("memory"),
            swap: usage("memory.memsw"),
            oom_kills: pairs(&directory, "memory.oom_control").get("oom_kill").copied().unwrap_or(0),
            psi: None,
            raw,
        }
    }

    fn pids_stats(&self) -> PidsStats {
        let Some((directory, _)) = self.directory("pids") else { return PidsStats::default() };
        PidsStats { current: number(&directory, "pids.current"), limit: number(&directory, "pids.max") }
    }

    fn blkio(&self) -> BlkioStats {
        if let Some((directory, false)) = self.directory("blkio") {
            let entries = |files: [&str; 2]| {
                let found = files.iter().map(|f| read(&directory, f).unwrap_or_default());
                let lines = found.map(|text| text.lines().filter_map(v1_entry).collect::<Vec<_>>());
                lines.into_iter().find(|entries| !entries.is_empty()).unwrap_or_default()
            };
            return BlkioStats {
                io_service_bytes_recursive: entries([
                    "blkio.bfq.io_service_bytes_recursive",
                    "blkio.throttle.io_service_bytes_recursive",
                ]),
                io_serviced_recursive: entries([
                    "blkio.bfq.io_serviced_recursive",
                    "blkio.throttle.io_serviced_recursive",
                ]),
            };
        }
        let Some((directory, _)) = self.directory("io") else { return BlkioStats::default() };
        let mut stats = BlkioStats::default();
        for line in read(&directory, "io.stat").unwrap_or_default().lines() {
            let mut words = line.split(' ');
            let Some((major, minor)) = words.next().and_then(|w| w.split_once(':')) else { continue };
            let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
            for (key, value) in words.filter_map(|w| w.split_once('=')) {
                let Ok(value) = value.parse() else { continue };
                let entry = |op: &str| BlkioEntry { major, minor, op: op.into(), value };
                match key {
                    "rbytes" => stats.io_service_bytes_recursive.push(entry("Read")),
                    "wbytes" => stats.io_service_bytes_recursive.push(entry("Write")),
                    "rios" => stats.io_serviced_recursive.push(entry("Read")),
                    "wios" => stats.io_serviced_recursive.push(entry("Write")),
                    _ => {}
                }
            }
        }
        stats
    }

    fn hugetlb(&self) -> BTreeMap<String, HugetlbStats> {
        let Some((directory, unified)) = self.directory("hugetlb") else { return BTreeMap::new() };
        let Ok(entries) = std::fs::read_dir(&directory) else { return BTreeMap::new() };
        let suffix = if unified { ".current" } else { ".usage_in_bytes" };
        let sizes = entries.flatten().filter_map(|e| {
            let name = e.file_name().into_string().ok()?;
            let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
            (!size.contains("rsvd")).then(|| size.to_owned())
        });
        sizes
            .map(|size| {
                let file = |name: &str| number(&directory, &format!("hugetlb.{size}.{name}"));
                let stats = if unified {
                    HugetlbStats { usage: file("current"), max: 0, failcnt: 0 }
                } else {
                    HugetlbStats {
                        usage: file("usage_in_bytes"),
                        max: file("max_usage_in_bytes"),
                        failcnt: file("failcnt"),
                    }
                };
                (size, stats)
            })
            .collect()
    }
}

fn v1_entry(line: &str) -> Option<BlkioEntry> {
    let mut words = line.split(' ');
    let (major, minor) = words.next()?.split_once(':')?;
    let op = words.next()?.to_owned();
    Some(BlkioEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        op,
        value: words.next()?.parse().ok()?,
    })
}

/// A file with one number; `max` and files that aren't there are 0.
fn number(directory: &Path, file: &str) -> u64 {
    read(directory, file).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A file of lines with a key and a number.
fn pairs(directory: &Path, file: &str) -> BTreeMap<String, u64> {
    let text = read(directory, file).unwrap_or_default();
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

fn pressure(directory: &Path, file: &str) -> Option<Pressure> {
    let text = read(directory, file).ok()?;
    let line = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name))?;
        let of = |key: &str| line.split(' ').find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
        let share = |key: &str| of(key).and_then(|n| n.parse().ok()).unwrap_or(0.0);
        Some(PressureLine {
            avg10: share("avg10"),
            avg60: share("avg60"),
            avg300: share("avg300"),
            total: of("total").and_then(|n| n.parse().ok()).unwrap_or(0),
        })
    };
    Some(Pressure { some: line("some")?, full: line("full").unwrap_or_default() })
}

/// The machine's memory, in bytes.
fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib = line.and_then(|l| l.trim().strip_suffix(" kB")).and_then(|n| n.parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib * 1024)
}
