//! What a container uses, in containerd's messages: one for each version of cgroups.

use std::collections::BTreeMap;

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::{cgroups, cgroups_v2};
use lxcrun::{BlkioEntry, Container, MemoryUsage, NetworkInterface, ResourceStats};

use crate::service::any;

/// All numbers of a container.
pub fn of(container: &Container) -> lxcrun::Result<Any> {
    let stats = container.stats()?;
    let unified = lxcrun::cgroups_are_unified();
    let (name, value) = if unified {
        ("io.containerd.cgroups.v2.Metrics", v2(&stats).write_to_bytes())
    } else {
        ("io.containerd.cgroups.v1.Metrics", v1(&stats).write_to_bytes())
    };
    Ok(any(name, value.unwrap_or_default()))
}

fn v1(stats: &ResourceStats) -> cgroups::metrics::Metrics {
    use cgroups::metrics::{HugetlbStat, MemoryOomControl, Metrics, PidsStat};
    let hugetlb = stats.hugetlb.iter().map(|(size, of_size)| HugetlbStat {
        usage: of_size.usage,
        max: of_size.max,
        failcnt: of_size.failcnt,
        pagesize: size.clone(),
        ..HugetlbStat::default()
    });
    Metrics {
        hugetlb: hugetlb.collect(),
        pids: MessageField::some(PidsStat {
            current: stats.pids.current,
            limit: stats.pids.limit,
            ..PidsStat::default()
        }),
        cpu: MessageField::some(cpu_v1(stats)),
        memory: MessageField::some(memory_v1(stats)),
        blkio: MessageField::some(blkio_v1(stats)),
        network: stats.network_interfaces.iter().map(network_v1).collect(),
        memory_oom_control: MessageField::some(MemoryOomControl {
            oom_kill: stats.memory.event_count.oom_kill,
            ..MemoryOomControl::default()
        }),
        ..Metrics::default()
    }
}

fn cpu_v1(stats: &ResourceStats) -> cgroups::metrics::CPUStat {
    use cgroups::metrics::{CPUStat, CPUUsage, Throttle};
    let (usage, throttling) = (&stats.cpu.usage, &stats.cpu.throttling);
    CPUStat {
        usage: MessageField::some(CPUUsage {
            total: usage.total,
            kernel: usage.kernel,
            user: usage.user,
            per_cpu: usage.percpu.clone(),
            ..CPUUsage::default()
        }),
        throttling: MessageField::some(Throttle {
            periods: throttling.periods,
            throttled_periods: throttling.throttled_periods,
            throttled_time: throttling.throttled_time,
            ..Throttle::default()
        }),
        ..CPUStat::default()
    }
}

fn blkio_v1(stats: &ResourceStats) -> cgroups::metrics::BlkIOStat {
    use cgroups::metrics::{BlkIOEntry, BlkIOStat};
    let entry = |e: &BlkioEntry| BlkIOEntry {
        op: e.op.clone(),
        major: e.major,
        minor: e.minor,
        value: e.value,
        ..BlkIOEntry::default()
    };
    BlkIOStat {
        io_service_bytes_recursive: stats.blkio.io_service_bytes_recursive.iter().map(entry).collect(),
        io_serviced_recursive: stats.blkio.io_serviced_recursive.iter().map(entry).collect(),
        ..BlkIOStat::default()
    }
}

fn network_v1(interface: &NetworkInterface) -> cgroups::metrics::NetworkStat {
    cgroups::metrics::NetworkStat {
        name: interface.name.clone(),
        rx_bytes: interface.rx_bytes,
        rx_packets: interface.rx_packets,
        rx_errors: interface.rx_errors,
        rx_dropped: interface.rx_dropped,
        tx_bytes: interface.tx_bytes,
        tx_packets: interface.tx_packets,
        tx_errors: interface.tx_errors,
        tx_dropped: interface.tx_dropped,
        ..cgroups::metrics::NetworkStat::default()
    }
}

fn memory_v1(stats: &ResourceStats) -> cgroups::metrics::MemoryStat {
    use cgroups::metrics::{MemoryEntry, MemoryStat};
    let of = named(&stats.memory.raw);
    let entry = |usage: &MemoryUsage| {
        MessageField::some(MemoryEntry {
            limit: usage.limit,
            usage: usage.usage,
            max: usage.max,
            failcnt: usage.failcnt,
            ..MemoryEntry::default()
        })
    };
    MemoryStat {
        cache: of("cache"),
        rss: of("rss"),
        rss_huge: of("rss_huge"),
        mapped_file: of("mapped_file"),
        dirty: of("dirty"),
        writeback: of("writeback"),
        pg_pg_in: of("pgpgin"),
        pg_pg_out: of("pgpgout"),
        pg_fault: of("pgfault"),
        pg_maj_fault: of("pgmajfault"),
        inactive_anon: of("inactive_anon"),
        active_anon: of("active_anon"),
        inactive_file: of("inactive_file"),
        active_file: of("active_file"),
        unevictable: of("unevictable"),
        hierarchical_memory_limit: of("hierarchical_memory_limit"),
        hierarchical_swap_limit: of("hierarchical_memsw_limit"),
        total_cache: of("total_cache"),
        total_rss: of("total_rss"),
        total_rss_huge: of("total_rss_huge"),
        total_mapped_file: of("total_mapped_file"),
        total_dirty: of("total_dirty"),
        total_writeback: of("total_writeback"),
        total_pg_pg_in: of("total_pgpgin"),
        total_pg_pg_out: of("total_pgpgout"),
        total_pg_fault: of("total_pgfault"),
        total_pg_maj_fault: of("total_pgmajfault"),
        total_inactive_anon: of("total_inactive_anon"),
        total_active_anon: of("total_active_anon"),
        total_inactive_file: of("total_inactive_file"),
        total_active_file: of("total_active_file"),
        total_unevictable: of("total_unevictable"),
        usage: entry(&stats.memory.usage),
        swap: entry(&stats.memory.swap),
        kernel: entry(&stats.memory.kernel),
        kernel_tcp: entry(&stats.memory.kernel_tcp),
        ..MemoryStat::default()
    }
}

fn v2(stats: &ResourceStats) -> cgroups_v2::metrics::Metrics {
    use cgroups_v2::metrics::{CPUStat, HugeTlbStat, IOStat, MemoryEvents, Metrics, PidsStat};
    let cpu = CPUStat {
        usage_usec: stats.cpu.usage.total / 1000,
        user_usec: stats.cpu.usage.user / 1000,
        system_usec: stats.cpu.usage.kernel / 1000,
        nr_periods: stats.cpu.throttling.periods,
        nr_throttled: stats.cpu.throttling.throttled_periods,
        throttled_usec: stats.cpu.throttling.throttled_time / 1000,
        psi: pressure(stats.cpu.psi.as_ref()),
        ..CPUStat::default()
    };
    let hugetlb = stats.hugetlb.iter().map(|(size, of_size)| HugeTlbStat {
        current: of_size.usage,
        max: of_size.max,
        pagesize: size.clone(),
        failcnt: of_size.failcnt,
        ..HugeTlbStat::default()
    });
    let events = &stats.memory.event_count;
    Metrics {
        pids: MessageField::some(PidsStat {
            current: stats.pids.current,
            // As containerd's own: none is the largest, and not 0 as in `events`.
            limit: if stats.pids.limit == 0 { u64::MAX } else { stats.pids.limit },
            ..PidsStat::default()
        }),
        cpu: MessageField::some(cpu),
        memory: MessageField::some(memory_v2(stats)),
        io: MessageField::some(IOStat {
            usage: io(stats),
            psi: pressure(stats.blkio.psi.as_ref()),
            ..IOStat::default()
        }),
        hugetlb: hugetlb.collect(),
        memory_events: MessageField::some(MemoryEvents {
            low: events.low,
            high: events.high,
            max: events.max,
            oom: events.oom,
            oom_kill: events.oom_kill,
            ..MemoryEvents::default()
        }),
        ..Metrics::default()
    }
}

fn memory_v2(stats: &ResourceStats) -> cgroups_v2::metrics::MemoryStat {
    use cgroups_v2::metrics::MemoryStat;
    let of = named(&stats.memory.raw);
    let (memory, swap) = (&stats.memory.usage, &stats.memory.swap);
    MemoryStat {
        anon: of("anon"),
        file: of("file"),
        kernel_stack: of("kernel_stack"),
        slab: of("slab"),
        sock: of("sock"),
        shmem: of("shmem"),
        file_mapped: of("file_mapped"),
        file_dirty: of("file_dirty"),
        file_writeback: of("file_writeback"),
        anon_thp: of("anon_thp"),
        inactive_anon: of("inactive_anon"),
        active_anon: of("active_anon"),
        inactive_file: of("inactive_file"),
        active_file: of("active_file"),
        unevictable: of("unevictable"),
        slab_reclaimable: of("slab_reclaimable"),
        slab_unreclaimable: of("slab_unreclaimable"),
        pgfault: of("pgfault"),
        pgmajfault: of("pgmajfault"),
        workingset_refault: of("workingset_refault_anon") + of("workingset_refault_file"),
        workingset_activate: of("workingset_activate_anon") + of("workingset_activate_file"),
        workingset_nodereclaim: of("workingset_nodereclaim"),
        pgrefill: of("pgrefill"),
        pgscan: of("pgscan"),
        pgsteal: of("pgsteal"),
        pgactivate: of("pgactivate"),
        pgdeactivate: of("pgdeactivate"),
        pglazyfree: of("pglazyfree"),
        pglazyfreed: of("pglazyfreed"),
        thp_fault_alloc: of("thp_fault_alloc"),
        thp_collapse_alloc: of("thp_collapse_alloc"),
        usage: memory.usage,
        usage_limit: memory.limit,
        // The library adds memory to swap, as version 1 does.
        swap_usage: swap.usage.saturating_sub(memory.usage),
        swap_limit: if swap.limit == u64::MAX { u64::MAX } else { swap.limit.saturating_sub(memory.limit) },
        max_usage: memory.max,
        swap_max_usage: swap.max,
        psi: pressure(stats.memory.psi.as_ref()),
        ..MemoryStat::default()
    }
}

/// One entry for each device, from one for each number.
fn io(stats: &ResourceStats) -> Vec<cgroups_v2::metrics::IOEntry> {
    let mut devices: BTreeMap<(u64, u64), cgroups_v2::metrics::IOEntry> = BTreeMap::new();
    let bytes = stats.blkio.io_service_bytes_recursive.iter().map(|entry| (entry, true));
    let operations = stats.blkio.io_serviced_recursive.iter().map(|entry| (entry, false));
    for (entry, is_bytes) in bytes.chain(operations) {
        let device = devices.entry((entry.major, entry.minor)).or_default();
        (device.major, device.minor) = (entry.major, entry.minor);
        match (&*entry.op, is_bytes) {
            ("Read", true) => device.rbytes = entry.value,
            ("Write", true) => device.wbytes = entry.value,
            ("Read", false) => device.rios = entry.value,
            ("Write", false) => device.wios = entry.value,
            // Version 1 also counts what is synchronous, or discarded, and the sum: containerd has no place for them here.
            _ => {}
        }
    }
    devices.into_values().collect()
}

fn pressure(psi: Option<&lxcrun::Pressure>) -> MessageField<cgroups_v2::metrics::PSIStats> {
    use cgroups_v2::metrics::{PSIData, PSIStats};
    let line = |line: &lxcrun::PressureLine| {
        MessageField::some(PSIData {
            avg10: line.avg10,
            avg60: line.avg60,
            avg300: line.avg300,
            total: line.total,
            ..PSIData::default()
        })
    };
    psi.map(|psi| PSIStats { some: line(&psi.some), full: line(&psi.full), ..PSIStats::default() }).into()
}

/// The numbers of memory.stat by name.
fn named(raw: &BTreeMap<String, u64>) -> impl Fn(&str) -> u64 {
    |name| raw.get(name).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_writes_count_as_writes() {
        let entries = |values: [(&str, u64); 4]| {
            let entry = |(op, value): (&str, u64)| BlkioEntry { major: 8, minor: 1, op: op.into(), value };
            values.map(entry).to_vec()
        };
        let mut stats = ResourceStats::default();
        stats.blkio.io_service_bytes_recursive =
            entries([("Read", 1), ("Write", 2), ("Discard", 3), ("Total", 6)]);
        stats.blkio.io_serviced_recursive =
            entries([("Read", 10), ("Write", 20), ("Discard", 30), ("Total", 60)]);
        let found = io(&stats);
        let numbers = found.iter().map(|e| (e.major, e.minor, e.rbytes, e.wbytes, e.rios, e.wios));
        assert_eq!(numbers.collect::<Vec<_>>(), [(8, 1, 1, 2, 10, 20)]);
    }
}
