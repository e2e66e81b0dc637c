//! `run -- CMD` of an ordinary user: what the kernel allows them.

use anyhow::Context;
use lxcrun::oci_spec::runtime::{
    LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType, Spec,
};

/// Gives the container a user namespace: the user is its root, and its other ids are the user's subordinate ones.
pub fn adapt(spec: &mut Spec) -> anyhow::Result<()> {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return Ok(());
    }
    let (uid, gid) = (uid.as_raw(), rustix::process::getegid().as_raw());
    let uids = mappings(uid, uid, "/etc/subuid")?;
    let gids = mappings(gid, uid, "/etc/subgid")?;
    let has_tty_group = gids.iter().any(|m| (m.container_id()..m.container_id() + m.size()).contains(&5));

    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    let own_network = namespaces.iter().any(|n| n.typ() == LinuxNamespaceType::Network);
    let mut user = LinuxNamespace::default();
    user.set_typ(LinuxNamespaceType::User);
    namespaces.push(user);
    linux.set_namespaces(Some(namespaces)).set_uid_mappings(Some(uids)).set_gid_mappings(Some(gids));
    spec.set_linux(Some(linux));

    for mount in spec.mounts_mut().iter_mut().flatten() {
        let mut options = mount.options().clone().unwrap_or_default();
        if !has_tty_group {
            options.retain(|o| o != "gid=5");
        }
        // A sysfs shows a network namespace, and only who owns that may mount it.
        if mount.typ().as_deref() == Some("sysfs") && !own_network {
            options.insert(0, "rbind".into());
            mount.set_typ(Some("none".into())).set_source(Some("/sys".into()));
        }
        mount.set_options(Some(options));
    }
    Ok(())
}

/// `own` as root, then every subordinate range of the user in `file`: subuid(5).
fn mappings(own: u32, uid: u32, file: &str) -> anyhow::Result<Vec<LinuxIdMapping>> {
    let names = [uid.to_string(), lxcrun::user_name(uid).unwrap_or_default()];
    let text = match std::fs::read_to_string(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.with_context(|| file.to_owned())?,
    };
    let ranges = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let ours = fields.next().is_some_and(|name| !name.is_empty() && names.iter().any(|n| n == name));
        let (start, count) = (fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
        ours.then_some((start, count))
    });
    let mut all = Vec::new();
    let mut next: u32 = 0;
    for (start, count) in std::iter::once((own, 1)).chain(ranges) {
        all.push(LinuxIdMappingBuilder::default().container_id(next).host_id(start).size(count).build()?);
        next = next.checked_add(count).with_context(|| format!("{file}: more ids than there are"))?;
    }
    Ok(all)
}
