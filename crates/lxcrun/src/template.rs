//! Specifications to begin with.

use oci_spec::runtime::{LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType, Spec};

use crate::cgroup::{Hierarchies, Layout};

/// What `lxcrun spec` prints: the same as `runc spec`, for the bundle's `rootfs` directory.
pub const DEFAULT_SPEC: &str = include_str!("default-spec.json");

/// [`DEFAULT_SPEC`], parsed.
///
/// # Panics
/// Never: a test parses it.
#[must_use]
pub fn default_spec() -> Spec {
    #[allow(clippy::expect_used)] // part of the program, and tested
    serde_json::from_str(DEFAULT_SPEC).expect("the default specification is valid")
}

/// What `lxcrun spec --rootless` prints: for a user `(uid, gid)` who may do nothing on the host but be itself. Root of
/// its user namespace is that user; limits, other groups, a new sysfs and a network are not to be had.
#[must_use]
pub fn rootless_spec((uid, gid): (u32, u32)) -> Spec {
    let mut spec = default_spec();
    let mapping = |host: u32| {
        // Can't fail: every part is given.
        let mapping = LinuxIdMappingBuilder::default().container_id(0_u32).host_id(host).size(1_u32).build();
        Some(mapping.into_iter().collect())
    };
    if let Some(linux) = spec.linux_mut() {
        let mut namespaces = linux.namespaces().clone().unwrap_or_default();
        namespaces.retain(|n| n.typ() != LinuxNamespaceType::Network);
        let mut user = LinuxNamespace::default();
        user.set_typ(LinuxNamespaceType::User);
        namespaces.push(user);
        linux.set_namespaces(Some(namespaces)).set_resources(None);
        linux.set_uid_mappings(mapping(uid)).set_gid_mappings(mapping(gid));
    }
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let mut options = mount.options().clone().unwrap_or_default();
        options.retain(|o| !o.starts_with("gid=") && !o.starts_with("uid="));
        if mount.typ().as_deref() == Some("sysfs") {
            options.insert(0, "rbind".into());
            mount.set_typ(Some("none".into())).set_source(Some("/sys".into()));
        }
        mount.set_options(Some(options).filter(|o| !o.is_empty()));
    }
    spec
}

/// Leaves out what a specification for this host doesn't begin with: as in runc, a cgroup namespace where there is
/// version 1.
pub fn fit_to_host(spec: &mut Spec) {
    let unified = Hierarchies::probe().is_ok_and(|found| found.layout() == Layout::Unified);
    if let (false, Some(linux)) = (unified, spec.linux_mut()) {
        let mut namespaces = linux.namespaces().clone().unwrap_or_default();
        namespaces.retain(|n| n.typ() != LinuxNamespaceType::Cgroup);
        linux.set_namespaces(Some(namespaces));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_default_specification_is_valid() {
        assert_eq!(super::default_spec().version(), crate::OCI_VERSION);
    }

    #[test]
    fn the_rootless_specification_maps_root_to_the_user() {
        let spec = serde_json::to_value(super::rootless_spec((1000, 100))).unwrap();
        let linux = &spec["linux"];
        assert_eq!(
            linux["uidMappings"],
            serde_json::json!([{ "hostID": 1000, "containerID": 0, "size": 1 }])
        );
        assert_eq!(linux["gidMappings"][0]["hostID"], 100);
        assert!(linux["resources"].is_null());
        let text = spec.to_string();
        assert!(!text.contains("gid=5") && !text.contains("network") && !text.contains("sysfs"), "{text}");
    }
}
