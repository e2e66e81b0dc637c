//! Where and of what a run was: without it the figures say nothing.

use std::fs;
use std::process::Command;

use anyhow::Result;
use rustix::system::uname;
use serde_json::{Value, json};

use crate::peer::Peer;

pub struct Machine {
    /// UTC, to the minute.
    pub date: String,
    pub host: String,
    pub kernel: String,
    pub processor: String,
    pub cpus: usize,
    pub memory: String,
    pub cgroups: &'static str,
    pub runs: u32,
    /// Name, version and command line of each peer.
    pub peers: Vec<[String; 3]>,
}

impl Machine {
    pub fn probe(runs: u32, peers: &[Peer]) -> Result<Self> {
        let date = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M"]).output()?.stdout;
        let uname = uname();
        let unified = fs::exists("/sys/fs/cgroup/cgroup.controllers")?;
        Ok(Self {
            date: String::from_utf8(date)?.trim().to_owned(),
            host: uname.nodename().to_string_lossy().into_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            processor: field("/proc/cpuinfo", "model name"),
            cpus: std::thread::available_parallelism()?.get(),
            memory: field("/proc/meminfo", "MemTotal"),
            cgroups: if unified { "version 2" } else { "version 1" },
            runs,
            peers: peers
                .iter()
                .map(|peer| [peer.name.clone(), peer.version(), peer.command_line()])
                .collect(),
        })
    }

    pub fn json(&self) -> Value {
        let peer =
            |[name, version, run]: &[String; 3]| json!({ "name": name, "version": version, "run": run });
        json!({
            "date": self.date,
            "host": self.host,
            "kernel": self.kernel,
            "processor": self.processor,
            "cpus": self.cpus,
            "memory": self.memory,
            "cgroups": self.cgroups,
            "runs": self.runs,
            "peers": self.peers.iter().map(peer).collect::<Vec<Value>>(),
        })
    }
}

/// The first `NAME: VALUE` of a file.
fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}
