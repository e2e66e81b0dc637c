//! `update`: what a container may use.

use std::path::PathBuf;

use clap::Args;

use super::path;

#[derive(Debug, Args)]
pub struct Update {
    /// File with linux.resources as JSON; - is standard input. Other limits have no effect beside it, as in runc
    #[arg(short, long, value_name = "FILE", value_parser = path())]
    pub resources: Option<PathBuf>,
    /// Weight of block IO, 10 to 1000
    #[arg(long, value_name = "NUMBER")]
    pub blkio_weight: Option<u16>,
    /// Period of the processor quota, in µs
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<u64>,
    /// Processor time in each period, in µs; -1 is no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Processor time that can be saved up, in µs
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_burst: Option<u64>,
    /// Relative weight of processor time
    #[arg(long, value_name = "NUMBER")]
    pub cpu_share: Option<u64>,
    /// Period of the realtime quota, in µs
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_rt_period: Option<u64>,
    /// Realtime processor time in each period, in µs
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// Processors
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Limit of memory: bytes, or with k, m, g; -1 is none
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Memory that is left alone when others want some
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// Limit of memory and swap together; -1 is none
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Limit of processes and threads; -1 is none
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Only run when nothing else wants the processor
    #[arg(long, value_name = "0|1")]
    pub cpu_idle: Option<i64>,
    /// Schema of Intel's L3 cache allocation, for instance L3:0=f;1=f
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Schema of Intel's memory bandwidth allocation, for instance MB:0=50;1=50
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
    /// Obsolete: a warning, and no effect
    #[arg(long, value_name = "SIZE", hide = true)]
    pub kernel_memory: Option<String>,
    /// Obsolete: a warning, and no effect
    #[arg(long, value_name = "SIZE", hide = true)]
    pub kernel_memory_tcp: Option<String>,
    /// The container
    #[arg(value_name = "ID")]
    pub id: String,
}
