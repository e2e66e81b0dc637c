//! `linux.intelRdt`.

use oci_spec::runtime::Linux;

use crate::error::refuse;
use crate::{ContainerId, Result};

/// What is asked of resctrl: the kernel's interface to cache allocation and memory bandwidth of processors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IntelRdt {
    /// The class of service; `None` is one of the container's own.
    pub class: Option<String>,
    /// Lines for its schemata file.
    pub schemata: Vec<String>,
    /// Whether the container gets a monitoring group.
    pub monitoring: bool,
}

/// Checks `linux.intelRdt`. Source: runtime-spec, config-linux.md, "IntelRdt".
pub(super) fn intel_rdt(id: &ContainerId, linux: &Linux) -> Result<Option<IntelRdt>> {
    let Some(wanted) = linux.intel_rdt() else { return Ok(None) };
    let class = wanted.clos_id().clone().filter(|c| !c.is_empty());
    if let Some(class) = &class
        && (class.contains('/') || matches!(class.as_str(), "." | ".." | "info" | "mon_data" | "mon_groups"))
    {
        return Err(refuse(id, "linux.intelRdt.closID", format!("{class:?} is no name of a class")));
    }
    let mut schemata = Vec::new();
    let single =
        [("l3CacheSchema", "L3", wanted.l3_cache_schema()), ("memBwSchema", "MB", wanted.mem_bw_schema())];
    for (name, resource, schema) in single {
        let Some(schema) = schema.as_ref().filter(|s| !s.is_empty()) else { continue };
        if schema.lines().any(|line| !line.trim_start().starts_with(resource)) {
            let reason = format!("{schema:?} has a line that does not begin with {resource}");
            return Err(refuse(id, format!("linux.intelRdt.{name}"), reason));
        }
        schemata.extend(schema.lines().map(str::to_owned));
    }
    // The complete list has the last word.
    schemata.extend(wanted.schemata().clone().unwrap_or_default());
    #[allow(deprecated)] // by the specification; both are monitoring
    let monitoring = [wanted.enable_cmt(), wanted.enable_mbm(), wanted.enable_monitoring()];
    Ok(Some(IntelRdt { class, schemata, monitoring: monitoring.iter().any(|m| **m == Some(true)) }))
}
