//! What a container has used, as numbers.

mod types;

use std::collections::BTreeMap;
use std::path::Path;

pub use types::{
    BlkioEntry, BlkioStats, CpuStats, CpuUsage, CpusetStats, HugetlbStats, MemoryEvents, MemoryStats,
    MemoryUsage, NetworkInterface, PidsStats, Pressure, PressureLine, ResourceStats, Throttling,
};

use super::{Cgroup, read};

impl Cgroup {
    /// Reads everything. What a controller that this host lacks would say is 0.
    pub(crate) fn stats(&self) -> ResourceStats {
        ResourceStats {
            cpu: self.cpu(),
            cpuset: self.cpuset(),
            memory: self.memory(),
            pids: self.pids_stats(),
            blkio: self.blkio(),
            hugetlb: self.hugetlb(),
            intel_rdt: BTreeMap::new(),
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
                percpu_kernel: Vec::new(),
                percpu_user: Vec::new(),
                kernel: of("system_usec") * 1000,
                user: of("user_usec") * 1000,
            }
        } else {
            let (directory, _) = self.directory("cpuacct").unwrap_or((directory.clone(), false));
            let percpu = read(&directory, "cpuacct.usage_percpu").unwrap_or_default();
            let (percpu_user, percpu_kernel) =
                usage_all(&read(&directory, "cpuacct.usage_all").unwrap_or_default());
            CpuUsage {
                total: number(&directory, "cpuacct.usage"),
                percpu: percpu.split_whitespace().filter_map(|n| n.parse().ok()).collect(),
                percpu_kernel,
                percpu_user,
                kernel: number(&directory, "cpuacct.usage_sys"),
                user: number(&directory, "cpuacct.usage_user"),
            }
        };
        CpuStats { usage, throttling, psi: pressure(&directory, "cpu.pressure") }
    }

    fn cpuset(&self) -> CpusetStats {
        let Some((directory, false)) = self.directory("cpuset") else { return CpusetStats::default() };
        let list = |file: &str| ranges(&read(&directory, file).unwrap_or_default());
        let of = |file: &str| number(&directory, &format!("cpuset.{file}"));
        let level = read(&directory, "cpuset.sched_relax_domain_level").ok().and_then(|t| t.parse().ok());
        CpusetStats {
            cpus: list("cpuset.cpus"),
            cpu_exclusive: of("cpu_exclusive"),
            mems: list("cpuset.mems"),
            mem_hardwall: of("mem_hardwall"),
            mem_exclusive: of("mem_exclusive"),
            memory_migrate: of("memory_migrate"),
            memory_spread_page: of("memory_spread_page"),
            memory_spread_slab: of("memory_spread_slab"),
            memory_pressure: of("memory_pressure"),
            sched_load_balance: of("sched_load_balance"),
            sched_relax_domain_level: level.unwrap_or(0),
        }
    }

    fn memory(&self) -> MemoryStats {
        match self.directory("memory") {
            None => MemoryStats::default(),
            Some((directory, true)) => memory_v2(&directory),
            Some((directory, false)) => memory_v1(&directory),
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
                psi: None,
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
        let mut stats = BlkioStats { psi: pressure(&directory, "io.pressure"), ..BlkioStats::default() };
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
                    // There is no record of the most that was used.
                    let events = pairs(&directory, &format!("hugetlb.{size}.events"));
                    let failcnt = events.get("max").copied().unwrap_or(0);
                    HugetlbStats { usage: file("current"), max: 0, failcnt }
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

fn memory_v1(directory: &Path) -> MemoryStats {
    let raw = pairs(directory, "memory.stat");
    let usage = |prefix: &str| MemoryUsage {
        limit: number(directory, &format!("{prefix}.limit_in_bytes")),
        usage: number(directory, &format!("{prefix}.usage_in_bytes")),
        max: number(directory, &format!("{prefix}.max_usage_in_bytes")),
        failcnt: number(directory, &format!("{prefix}.failcnt")),
    };
    let kills = pairs(directory, "memory.oom_control").get("oom_kill").copied().unwrap_or(0);
    MemoryStats {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: usage("memory"),
        swap: usage("memory.memsw"),
        kernel: usage("memory.kmem"),
        kernel_tcp: usage("memory.kmem.tcp"),
        event_count: MemoryEvents { oom_kill: kills, ..MemoryEvents::default() },
        psi: None,
        raw,
    }
}

fn memory_v2(directory: &Path) -> MemoryStats {
    let raw = pairs(directory, "memory.stat");
    let events = pairs(directory, "memory.events");
    let of = |key: &str| events.get(key).copied().unwrap_or(0);
    let limit = |file: &str| match read(directory, file).as_deref() {
        Ok("max") => u64::MAX,
        Ok(text) => text.parse().unwrap_or(0),
        Err(_) => 0,
    };
    let usage = MemoryUsage {
        limit: limit("memory.max"),
        usage: number(directory, "memory.current"),
        max: number(directory, "memory.peak"),
        failcnt: of("max"),
    };
    // Version 2 counts swap alone; whoever reads this knows the sum of version 1.
    let swap = MemoryUsage {
        limit: limit("memory.swap.max").saturating_add(usage.limit),
        usage: number(directory, "memory.swap.current").saturating_add(usage.usage),
        max: number(directory, "memory.swap.peak"),
        failcnt: 0,
    };
    MemoryStats {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        swap,
        event_count: MemoryEvents {
            low: of("low"),
            high: of("high"),
            max: of("max"),
            oom: of("oom"),
            oom_kill: of("oom_kill"),
        },
        psi: pressure(directory, "memory.pressure"),
        raw,
        ..MemoryStats::default()
    }
}

/// cpuacct.usage_all: a header, then a line for each processor with its time in programs and in the kernel.
fn usage_all(text: &str) -> (Vec<u64>, Vec<u64>) {
    let line = |line: &str| {
        let mut numbers = line.split(' ').skip(1).map(|n| n.parse::<u64>().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    text.lines().skip(1).filter_map(line).unzip()
}

/// A list like `0-3,5`: cpuset(7), "List format".
fn ranges(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_told_apart() {
        assert_eq!(usage_all("cpu user system\n0 5 7\n1 11 13\n"), (vec![5, 11], vec![7, 13]));
        assert_eq!(usage_all(""), (vec![], vec![]));
    }

    #[test]
    fn lists_have_ranges() {
        assert_eq!(ranges("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(ranges("3"), [3]);
        assert!(ranges("").is_empty());
    }
}
