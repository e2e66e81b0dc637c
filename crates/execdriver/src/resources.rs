//! What a container may use.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a container may use. What is not set is not limited. Numbers are those of cgroup version 1; on a host with
/// version 2 they are converted as the OCI runtime specification has it.
///
/// ```
/// use execdriver::Resources;
///
/// let small = Resources { memory: Some(32 << 20), cpu_shares: Some(512), ..Resources::default() };
/// # assert_eq!(small.memory, Some(33_554_432));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// Memory, in bytes; 0 and -1 for no limit. It is the soft limit, too, unless [`memory_reservation`](Self::memory_reservation) is set.
    pub memory: Option<i64>,
    /// Memory and swap together, in bytes: twice the memory by default and for 0, -1 for no limit.
    pub memory_swap: Option<i64>,
    /// The soft limit of memory, in bytes.
    pub memory_reservation: Option<i64>,
    /// How readily memory is swapped out, 0 to 100 (version 1).
    pub memory_swappiness: Option<u64>,
    /// Let programs wait for memory instead of killing them (version 1).
    pub oom_kill_disable: bool,
    /// Share of processor time, 2 to 262144; 1024 is the usual one.
    pub cpu_shares: Option<u64>,
    /// Length of a scheduling period, in µs.
    pub cpu_period: Option<u64>,
    /// Processor time in each period, in µs; 0 and -1 for no limit.
    pub cpu_quota: Option<i64>,
    /// Processors, for instance `0-2,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, likewise.
    pub cpuset_mems: Option<String>,
    /// Share of block device time, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Processes and threads; 0 and -1 for no limit, as in Docker.
    pub pids_limit: Option<i64>,
    /// Huge pages.
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Limits of each process: setrlimit(2).
    pub rlimits: Vec<Rlimit>,
}

/// A limit of each process: setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimit {
    /// Its name: `nofile`, `NOFILE` or `RLIMIT_NOFILE`.
    pub name: String,
    /// The limit that counts; `u64::MAX` for none.
    pub soft: u64,
    /// How far the program may raise it.
    pub hard: u64,
}

/// How much of one size of huge pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HugepageLimit {
    /// For instance `2MB`.
    pub page_size: String,
    /// In bytes.
    pub limit: u64,
}

/// What setrlimit(2) knows.
const RLIMITS: [&str; 16] = [
    "AS",
    "CORE",
    "CPU",
    "DATA",
    "FSIZE",
    "LOCKS",
    "MEMLOCK",
    "MSGQUEUE",
    "NICE",
    "NOFILE",
    "NPROC",
    "RSS",
    "RTPRIO",
    "RTTIME",
    "SIGPENDING",
    "STACK",
];

impl Rlimit {
    /// Its name as in [`RLIMITS`].
    fn short_name(&self) -> String {
        let upper = self.name.to_uppercase();
        upper.strip_prefix("RLIMIT_").unwrap_or(&upper).to_owned()
    }

    /// Why it can't be set, if it can't.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !RLIMITS.contains(&self.short_name().as_str()) {
            return Err(format!("{:?} is no limit of a process", self.name));
        }
        if self.soft > self.hard {
            return Err(format!("{}: soft {} is above hard {}", self.name, self.soft, self.hard));
        }
        Ok(())
    }

    pub(crate) fn oci(&self) -> Value {
        json!({ "type": format!("RLIMIT_{}", self.short_name()), "soft": self.soft, "hard": self.hard })
    }
}

impl Resources {
    /// Why they can't be had, if they can't: the member and the reason.
    pub(crate) fn check(&self) -> Result<(), (String, String)> {
        let outside = |field: &str, reason: String| Err((field.to_owned(), reason));
        // What is below -1 the kernel would refuse, or take for something else.
        let limits = [
            ("memory", self.memory),
            ("memory_swap", self.memory_swap),
            ("memory_reservation", self.memory_reservation),
            ("cpu_quota", self.cpu_quota),
            ("pids_limit", self.pids_limit),
        ];
        for (field, limit) in limits {
            if let Some(limit) = limit.filter(|limit| *limit < -1) {
                return outside(field, format!("{limit} is no limit; -1 is for none"));
            }
        }
        let ranges = [
            ("memory_swappiness", self.memory_swappiness, 0..=100),
            ("cpu_shares", self.cpu_shares, 2..=262_144),
            ("blkio_weight", self.blkio_weight.map(u64::from), 10..=1000),
        ];
        for (field, value, range) in ranges {
            if let Some(value) = value.filter(|value| !range.contains(value)) {
                return outside(field, format!("{value} is not from {} to {}", range.start(), range.end()));
            }
        }
        for (index, pages) in self.hugepage_limits.iter().enumerate() {
            if i64::try_from(pages.limit).is_err() {
                let field = format!("hugepage_limits[{index}].limit");
                return outside(&field, format!("{} is above {}", pages.limit, i64::MAX));
            }
        }
        for (index, limit) in self.rlimits.iter().enumerate() {
            let field = format!("rlimits[{index}]");
            if let Err(reason) = limit.check() {
                return outside(&field, reason);
            }
            if self.rlimits[..index].iter().any(|other| other.short_name() == limit.short_name()) {
                return outside(&field, format!("{} is set already", limit.name));
            }
        }
        Ok(())
    }

    /// The soft limit, and the limit of memory and swap together.
    ///
    /// As in Docker's driver both follow the memory limit. Where the kernel counts no swap there is nothing to limit,
    /// unless it was asked for by number: then the kernel's own refusal says so.
    pub(crate) fn derived_memory(&self, swap_is_counted: bool) -> (Option<i64>, Option<i64>) {
        let limit = self.memory.filter(|m| *m > 0);
        let reservation = self.memory_reservation.or(limit);
        let swap = match self.memory_swap.filter(|s| *s != 0) {
            Some(wanted) => Some(wanted).filter(|w| *w > 0 || swap_is_counted),
            None => limit.filter(|_| swap_is_counted).map(|m| m.saturating_mul(2)),
        };
        (reservation, swap)
    }
}
