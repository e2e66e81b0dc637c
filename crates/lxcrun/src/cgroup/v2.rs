//! The files of cgroup version 2, with the specification's numbers of version 1 converted. Source: runtime-spec,
//! config-linux.md; runc's and crun's conversion rules; the kernel's admin-guide/cgroup-v2.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::limits::{Setting, hugepage_settings};
use super::v1::{self, Refusal};
use super::{Cgroup, LIMITS, read};

/// The settings for a cgroup; without one those for a cgroup that nobody has set anything in.
pub(super) fn settings(cgroup: Option<&Cgroup>, resources: &LinuxResources) -> Result<Vec<Setting>, Refusal> {
    let directory = cgroup.and_then(|c| c.directory("memory")).map(|(directory, _)| directory);
    let now = |file: &str| read(directory.as_ref()?, file).ok();
    let has = |file: &str| directory.as_ref().is_some_and(|d| d.join(file).exists());
    let mut all = Vec::new();
    if let Some(memory) = resources.memory() {
        all.extend(memory_settings(memory, &now)?);
    }
    if let Some(cpu) = resources.cpu() {
        all.extend(cpu_settings(cpu, &now)?);
    }
    if let Some(limit) =
        resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit).filter(|l| *l != 0)
    {
        all.push(Setting::new("linux.resources.pids.limit", "pids", "pids.max", or_max(limit)));
    }
    if let Some(io) = resources.block_io() {
        all.extend(io_settings(io, has("io.bfq.weight"))?);
    }
    all.extend(hugepage_settings(resources, ["max", "rsvd.max"]));
    if let Some(network) = resources.network() {
        for (field, asked) in [
            ("linux.resources.network.classID", network.class_id().is_some()),
            ("linux.resources.network.priorities", network.priorities().iter().flatten().next().is_some()),
        ] {
            if asked {
                return Err((field, "cgroup v2 has no network controller".into()));
            }
        }
    }
    all.extend(v1::rdma_settings(resources));
    // Last, so that they have the last word.
    all.extend(unified_settings(resources)?);
    let is_idle = || now("cpu.idle").is_some_and(|idle| idle == "1");
    settle_idle(&mut all, cgroup.is_some_and(Cgroup::has_unit) && is_idle());
    Ok(all)
}

/// A cgroup that is idle takes no weight. systemd makes one that gets a weight busy, and it has one of the container's: so
/// does an update of such a container (`reset`).
fn settle_idle(all: &mut Vec<Setting>, reset: bool) {
    let last = |file: &str| all.iter().rfind(|setting| setting.file == file).map(|setting| &*setting.value);
    match (last("cpu.idle"), last("cpu.weight")) {
        (Some("1"), Some(_)) => {
            // runc's words.
            tracing::warn!("unable to apply both cpu.weight and cpu.idle: an idle cgroup has no weight");
            all.retain(|setting| setting.file != "cpu.weight");
        }
        (None, Some(_)) if reset => {
            all.insert(0, Setting::new("linux.resources.cpu.shares", "cpu", "cpu.idle", 0));
        }
        _ => {}
    }
}

fn unified_settings(resources: &LinuxResources) -> Result<Vec<Setting>, Refusal> {
    let field = "linux.resources.unified";
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    unified
        .into_iter()
        .map(|(file, value)| match file.split_once('.') {
            _ if file.contains('/') => Err((field, format!("{file:?} must be a file name (no slashes)"))),
            None | Some(("", _)) => {
                // crun's words.
                Err((field, format!("the specified key has not the form CONTROLLER.VALUE `{file}`")))
            }
            Some(("cgroup", _)) if !LIMITS.contains(&file.as_str()) => {
                Err((field, format!("{file} is no limit")))
            }
            _ => Ok(Setting::new(field, "unified", file, value.trim())),
        })
        .collect()
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

/// A limit that is set now, `None` for none.
fn limit_now(now: &impl Fn(&str) -> Option<String>, file: &str) -> Option<i64> {
    now(file)?.parse().ok()
}

fn memory_settings(
    memory: &LinuxMemory,
    now: &impl Fn(&str) -> Option<String>,
) -> Result<Vec<Setting>, Refusal> {
    if memory.kernel_tcp().is_some_and(|k| k != 0) {
        return Err(("linux.resources.memory.kernelTCP", "cgroup v2 has no such limit".into()));
    }
    if memory.swappiness().is_some() {
        return Err(("linux.resources.memory.swappiness", "cgroup v2 has no such setting".into()));
    }
    if memory.disable_oom_killer() == Some(true) {
        return Err(("linux.resources.memory.disableOOMKiller", "cgroup v2 has no such setting".into()));
    }
    v1::check_usage(memory, || limit_now(now, "memory.current"))?;
    let mut all = Vec::new();
    if let Some(swap) = swap_max(memory, now)? {
        let setting = Setting::new("linux.resources.memory.swap", "memory", "memory.swap.max", or_max(swap));
        // A kernel without swap has no such file. No limit is what it does, and none to use, too.
        all.push(if swap <= 0 { setting.optional() } else { setting });
    }
    if let Some(limit) = memory.limit().filter(|l| *l != 0) {
        all.push(Setting::new("linux.resources.memory.limit", "memory", "memory.max", or_max(limit)));
    }
    if let Some(low) = memory.reservation().filter(|r| *r != 0) {
        all.push(Setting::new("linux.resources.memory.reservation", "memory", "memory.low", or_max(low)));
    }
    Ok(all)
}

/// Version 1 counts memory and swap together, version 2 swap alone. -1 is no limit, `None` leaves it as it is.
fn swap_max(memory: &LinuxMemory, now: &impl Fn(&str) -> Option<String>) -> Result<Option<i64>, Refusal> {
    let field = "linux.resources.memory.swap";
    let limit = memory.limit().filter(|l| *l != 0);
    match (memory.swap().filter(|s| *s != 0), limit) {
        // As on version 1, where a limit of both would be in the way.
        (None, Some(..0)) => Ok(Some(-1)),
        // The sum of an earlier `update` or of `create` stays.
        (None, Some(limit)) => match (limit_now(now, "memory.max"), limit_now(now, "memory.swap.max")) {
            (Some(max), Some(swap)) if swap > 0 && max + swap >= limit => Ok(Some(max + swap - limit)),
            (Some(max), Some(swap)) if swap > 0 => {
                Err((field, format!("{} is below memory.limit, {limit}", max + swap)))
            }
            _ => Ok(None),
        },
        (None, None) => Ok(None),
        (Some(..0), _) => Ok(Some(-1)),
        (Some(swap), Some(..0)) => Ok(Some(swap)),
        (Some(swap), given) => match given.or_else(|| limit_now(now, "memory.max")) {
            Some(limit) if swap >= limit => Ok(Some(swap - limit)),
            Some(limit) => Err((field, format!("{swap} is below memory.limit, {limit}"))),
            None => Err((field, "needs memory.limit".into())),
        },
    }
}

/// 2..262144 to 1..10000, so that the defaults, 1024 and 100, meet. Source: runtime-spec and the announcement of
/// Kubernetes of January 2026; runc from 1.3.2 and crun from 1.23 on.
fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        // The cast is exact: there are less than 2^18.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        shares => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

fn cpu_settings(cpu: &LinuxCpu, now: &impl Fn(&str) -> Option<String>) -> Result<Vec<Setting>, Refusal> {
    for (field, asked) in [
        ("linux.resources.cpu.realtimePeriod", cpu.realtime_period().is_some_and(|p| p != 0)),
        ("linux.resources.cpu.realtimeRuntime", cpu.realtime_runtime().is_some_and(|r| r != 0)),
    ] {
        if asked {
            return Err((field, "cgroup v2 has no realtime limits".into()));
        }
    }
    let mut all = Vec::new();
    let weight = cpu
        .shares()
        .filter(|s| *s != 0)
        .map(|s| Setting::new("linux.resources.cpu.shares", "cpu", "cpu.weight", weight_of_shares(s)));
    let idle = cpu.idle().map(|i| Setting::new("linux.resources.cpu.idle", "cpu", "cpu.idle", i));
    // An idle cgroup takes no weight: it loses the one before it gets the other.
    if cpu.idle() == Some(0) {
        all.extend(idle.into_iter().chain(weight));
    } else {
        all.extend(weight.into_iter().chain(idle));
    }
    let quota = cpu.quota().filter(|q| *q != 0).map(|q| if q > 0 { q.to_string() } else { "max".into() });
    let period = cpu.period().filter(|p| *p != 0);
    let max = match (quota, period) {
        (None, None) => None,
        // The kernel keeps the period.
        (Some(quota), None) => Some(quota),
        (Some(quota), Some(period)) => Some(format!("{quota} {period}")),
        (None, Some(period)) => {
            let both = now("cpu.max").unwrap_or_default();
            Some(format!("{} {period}", both.split(' ').next().filter(|q| !q.is_empty()).unwrap_or("max")))
        }
    };
    all.extend(max.map(|max| Setting::new("linux.resources.cpu.quota", "cpu", "cpu.max", max)));
    if let Some(burst) = cpu.burst() {
        all.push(Setting::new("linux.resources.cpu.burst", "cpu", "cpu.max.burst", burst));
    }
    if let Some(cpus) = cpu.cpus().as_ref().filter(|c| !c.is_empty()) {
        all.push(Setting::new("linux.resources.cpu.cpus", "cpuset", "cpuset.cpus", cpus));
    }
    if let Some(mems) = cpu.mems().as_ref().filter(|m| !m.is_empty()) {
        all.push(Setting::new("linux.resources.cpu.mems", "cpuset", "cpuset.mems", mems));
    }
    Ok(all)
}

/// Where the BFQ scheduler is, weights are its own, from 1 to 1000; elsewhere those of the io controller.
fn io_settings(io: &LinuxBlockIo, bfq: bool) -> Result<Vec<Setting>, Refusal> {
    let mut all = Vec::new();
    // 10..1000 of version 1 to 1..10000 of version 2.
    let (file, convert): (_, fn(u16) -> u64) = if bfq {
        ("io.bfq.weight", u64::from)
    } else {
        ("io.weight", |weight| 1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990)
    };
    let devices = io.weight_device().iter().flatten();
    let weights = devices.filter_map(|d| Some(("linux.resources.blockIO.weightDevice", d.weight()?)));
    let weights = io.weight().map(|w| ("linux.resources.blockIO.weight", w)).into_iter().chain(weights);
    for (field, weight) in weights.filter(|(_, weight)| *weight != 0) {
        if !(10..=1000).contains(&weight) {
            return Err((field, format!("{weight} is not between 10 and 1000")));
        }
    }
    if let Some(weight) = io.weight().filter(|w| *w != 0) {
        all.push(Setting::new("linux.resources.blockIO.weight", "io", file, convert(weight)));
    }
    if io.leaf_weight().is_some_and(|w| w != 0) {
        return Err(("linux.resources.blockIO.leafWeight", "cgroup v2 has no leaf weights".into()));
    }
    for device in io.weight_device().iter().flatten() {
        let field = "linux.resources.blockIO.weightDevice";
        if device.leaf_weight().is_some_and(|w| w != 0) {
            return Err((field, "cgroup v2 has no leaf weights".into()));
        }
        let Some(weight) = device.weight() else { continue };
        let value = format!("{}:{} {}", device.major(), device.minor(), convert(weight));
        all.push(Setting::new(field, "io", file, value));
    }
    for (field, key, list) in [
        ("linux.resources.blockIO.throttleReadBpsDevice", "rbps", io.throttle_read_bps_device()),
        ("linux.resources.blockIO.throttleWriteBpsDevice", "wbps", io.throttle_write_bps_device()),
        ("linux.resources.blockIO.throttleReadIOPSDevice", "riops", io.throttle_read_iops_device()),
        ("linux.resources.blockIO.throttleWriteIOPSDevice", "wiops", io.throttle_write_iops_device()),
    ] {
        for device in list.iter().flatten() {
            // 0 takes a limit away, as on version 1.
            let rate = if device.rate() == 0 { "max".into() } else { device.rate().to_string() };
            let value = format!("{}:{} {key}={rate}", device.major(), device.minor());
            all.push(Setting::new(field, "io", "io.max", value));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `json` becomes in a cgroup whose files hold `now`.
    fn update(json: &str, now: &[(&str, &str)]) -> Result<Vec<String>, Refusal> {
        let directory = tempfile::tempdir().unwrap();
        for (file, text) in now {
            std::fs::write(directory.path().join(file), text).unwrap();
        }
        let cgroup = Cgroup::at(&"x".parse().unwrap(), directory.path());
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        Ok(settings(Some(&cgroup), &resources)?
            .into_iter()
            .map(|s| format!("{}={}", s.file, s.value))
            .collect())
    }

    fn values(json: &str) -> Result<Vec<String>, Refusal> {
        update(json, &[])
    }

    #[test]
    fn memory_and_swap_of_version_1_are_converted() {
        let memory = r#"{"memory":{"limit":100,"swap":150,"reservation":50}}"#;
        assert_eq!(values(memory).unwrap(), ["memory.swap.max=50", "memory.max=100", "memory.low=50"]);
        let none = r#"{"memory":{"limit":100,"swap":100}}"#;
        assert_eq!(values(none).unwrap(), ["memory.swap.max=0", "memory.max=100"]);
        let unlimited = r#"{"memory":{"limit":-1}}"#;
        assert_eq!(values(unlimited).unwrap(), ["memory.swap.max=max", "memory.max=max"]);
        assert_eq!(values(r#"{"memory":{"limit":0}}"#).unwrap(), [""; 0]);
        assert_eq!(values(r#"{"memory":{"limit":-1,"swap":7}}"#).unwrap()[0], "memory.swap.max=7");
        assert!(values(r#"{"memory":{"limit":100,"swap":99}}"#).is_err());
        assert!(values(r#"{"memory":{"swap":99}}"#).is_err());
    }

    #[test]
    fn an_update_of_memory_or_swap_counts_with_the_other() {
        let now = [("memory.max", "100\n"), ("memory.swap.max", "50\n"), ("memory.current", "90\n")];
        let of = |json: &str| update(json, &now);
        assert_eq!(of(r#"{"memory":{"swap":300}}"#).unwrap(), ["memory.swap.max=200"]);
        assert_eq!(of(r#"{"memory":{"limit":120}}"#).unwrap(), ["memory.swap.max=30", "memory.max=120"]);
        assert!(of(r#"{"memory":{"limit":200}}"#).is_err());
        assert!(of(r#"{"memory":{"limit":90,"checkBeforeUpdate":true}}"#).is_err());
        assert!(of(r#"{"memory":{"limit":91,"checkBeforeUpdate":true}}"#).is_ok());
    }

    #[test]
    fn the_default_shares_are_the_default_weight() {
        for (shares, weight) in [(1, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        for (shares, weight) in [(3, 2), (512, 60), (2048, 170), (10_000, 620), (100_000, 4500)] {
            let got = weight_of_shares(shares);
            assert!(got.abs_diff(weight) <= weight / 10, "{shares}: {got}");
        }
    }

    #[test]
    fn quota_and_period_are_one_file() {
        assert_eq!(values(r#"{"cpu":{"quota":50000}}"#).unwrap(), ["cpu.max=50000"]);
        assert_eq!(values(r#"{"cpu":{"quota":-1,"period":9}}"#).unwrap(), ["cpu.max=max 9"]);
        assert_eq!(values(r#"{"cpu":{"period":9}}"#).unwrap(), ["cpu.max=max 9"]);
        let now = [("cpu.max", "70000 100000\n")];
        assert_eq!(update(r#"{"cpu":{"period":80000}}"#, &now).unwrap(), ["cpu.max=70000 80000"]);
    }

    #[test]
    fn an_idle_cgroup_takes_no_weight() {
        assert_eq!(values(r#"{"cpu":{"shares":1024,"idle":1}}"#).unwrap(), ["cpu.idle=1"]);
        assert_eq!(values(r#"{"cpu":{"shares":1024,"idle":0}}"#).unwrap(), ["cpu.idle=0", "cpu.weight=100"]);
    }

    #[test]
    fn block_devices_have_weights_and_limits() {
        let json = r#"{"blockIO":{"weight":10,"weightDevice":[{"major":8,"minor":0,"weight":1000}],
                       "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":0}],
                       "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":7}]}}"#;
        assert_eq!(
            values(json).unwrap(),
            ["io.weight=1", "io.weight=8:0 10000", "io.max=8:0 rbps=max", "io.max=8:0 wiops=7"]
        );
        let bfq = update(json, &[("io.bfq.weight", "default 100\n")]).unwrap();
        assert_eq!(bfq[..2], ["io.bfq.weight=10", "io.bfq.weight=8:0 1000"]);
    }

    #[test]
    fn the_rest() {
        assert_eq!(values(r#"{"pids":{"limit":-1}}"#).unwrap(), ["pids.max=max"]);
        let pages = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":5}]}"#;
        assert_eq!(values(pages).unwrap(), ["hugetlb.2MB.max=5", "hugetlb.2MB.rsvd.max=5"]);
        let unified = r#"{"pids":{"limit":5},"unified":{"pids.max":" 7\n"}}"#;
        assert_eq!(values(unified).unwrap(), ["pids.max=5", "pids.max=7"]);
        for file in ["cgroup.procs", "a/b", "memory", ".max"] {
            assert!(values(&format!(r#"{{"unified":{{"{file}":"1"}}}}"#)).is_err(), "{file}");
        }
    }

    #[test]
    fn what_version_2_does_not_have_is_refused() {
        for (json, field) in [
            (r#"{"memory":{"swappiness":10}}"#, "linux.resources.memory.swappiness"),
            (r#"{"network":{"classID":1}}"#, "linux.resources.network.classID"),
            (
                r#"{"network":{"priorities":[{"name":"lo","priority":3}]}}"#,
                "linux.resources.network.priorities",
            ),
            (r#"{"cpu":{"realtimeRuntime":1}}"#, "linux.resources.cpu.realtimeRuntime"),
            (r#"{"cpu":{"realtimePeriod":1}}"#, "linux.resources.cpu.realtimePeriod"),
            (r#"{"blockIO":{"leafWeight":100}}"#, "linux.resources.blockIO.leafWeight"),
        ] {
            assert_eq!(values(json).unwrap_err().0, field);
        }
    }
}
