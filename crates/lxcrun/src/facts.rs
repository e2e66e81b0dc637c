//! What this library knows by name, for a features document.

use libseccomp::ScmpVersion;

/// Whether cgroup v2 is served with all that the specification asks for.
pub const CGROUP_V2: bool = true;

/// Whether systemd can be asked to make the cgroups.
pub const SYSTEMD_CGROUP: bool = true;

/// The hooks, in the order in which they run.
pub const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Prefixes and names of annotations that change more than what the container sees: engines let only those pass
/// whose user may do that.
pub const UNSAFE_ANNOTATIONS: [&str; 3] =
    [crate::ANNOTATION_PREFIX, "org.criu.config", "org.systemd.property."];

/// Modes of `linux.memoryPolicy`.
pub const MEMORY_POLICY_MODES: [&str; 7] = [
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

/// Flags of `linux.memoryPolicy`.
pub const MEMORY_POLICY_FLAGS: [&str; 3] =
    ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

/// Seccomp's comparisons of arguments.
pub const SECCOMP_OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// Mount options that mean something to every file system, by what they are about; others go to the file system itself.
const MOUNT_OPTIONS: [&[&str]; 4] = [
    &["bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup", "defaults"],
    &["async", "dirsync", "iversion", "lazytime", "loud", "mand", "noiversion", "nolazytime", "nomand"],
    &["private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"],
    &["silent", "sync"],
];

/// Attributes of a mount: each is there a second time with an `r`, for the mounts below.
const MOUNT_ATTRIBUTES: [&str; 18] = [
    "atime",
    "dev",
    "diratime",
    "exec",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "relatime",
    "ro",
    "rw",
    "strictatime",
    "suid",
    "symfollow",
];

/// Mount options that mean something to every file system.
#[must_use]
pub fn mount_options() -> Vec<String> {
    let attributes = MOUNT_ATTRIBUTES.iter().flat_map(|name| [(*name).to_owned(), format!("r{name}")]);
    let others = MOUNT_OPTIONS.iter().flat_map(|names| names.iter()).map(|name| (*name).to_owned());
    let mut all: Vec<String> =
        attributes.chain(others).filter(|o| crate::config::is_mount_option(o)).collect();
    all.sort();
    all
}

/// The types of namespaces.
#[must_use]
pub fn namespaces() -> Vec<&'static str> {
    let mut all: Vec<&str> = crate::config::namespace_names().collect();
    all.sort_unstable();
    all
}

/// Seccomp actions that are carried out.
pub const SECCOMP_ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// Seccomp flags that are passed on.
pub const SECCOMP_FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// Architectures that libseccomp compiles for.
pub const SECCOMP_ARCHITECTURES: [&str; 18] = [
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

/// Every capability by the specification's name.
#[must_use]
pub fn capability_names() -> Vec<String> {
    crate::config::CAPABILITIES.into_iter().map(crate::config::capability_name).collect()
}

/// Those of [`SECCOMP_FLAGS`] that this kernel knows, too.
#[must_use]
pub fn supported_seccomp_flags() -> Vec<&'static str> {
    let known = |name: &&str| {
        kernel::seccomp_flag_is_known(match *name {
            "SECCOMP_FILTER_FLAG_LOG" => libc::SECCOMP_FILTER_FLAG_LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            "SECCOMP_FILTER_FLAG_TSYNC" => libc::SECCOMP_FILTER_FLAG_TSYNC,
            _ => libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
        })
    };
    SECCOMP_FLAGS.into_iter().filter(known).collect()
}

/// The release of liblxc in use, or why there is none.
#[must_use]
pub fn liblxc_version() -> String {
    find_liblxc().unwrap_or_else(|e| e.to_string())
}

/// The release of the liblxc that containers are made by. It is LXC's monitor that loads it, never this program.
///
/// # Errors
/// When it can't be loaded, with the loader's reason, or no monitor be started.
pub fn find_liblxc() -> std::io::Result<String> {
    crate::monitor::about_liblxc().map(|liblxc| liblxc.version)
}

/// The release of libseccomp in use.
#[must_use]
pub fn libseccomp_version() -> String {
    ScmpVersion::current().map_or_else(|_| "unknown".into(), |v| v.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mount_option_is_understood() {
        let listed = MOUNT_OPTIONS.iter().map(|o| o.len()).sum::<usize>() + 2 * MOUNT_ATTRIBUTES.len();
        assert_eq!(mount_options().len(), listed);
        assert!(!crate::config::is_mount_option("size=64k"));
        assert!(!crate::config::is_mount_option("size"));
    }

    #[test]
    fn the_words_are_the_specifications() {
        fn words<T: serde::de::DeserializeOwned>(words: &[&str]) {
            for word in words {
                let parsed: Result<T, _> = serde_json::from_value((*word).into());
                assert!(parsed.is_ok(), "{word}");
            }
        }
        words::<oci_spec::runtime::LinuxSeccompAction>(&SECCOMP_ACTIONS);
        words::<oci_spec::runtime::LinuxSeccompOperator>(&SECCOMP_OPERATORS);
        words::<oci_spec::runtime::LinuxSeccompFilterFlag>(&SECCOMP_FLAGS);
        words::<oci_spec::runtime::Arch>(&SECCOMP_ARCHITECTURES);
        words::<oci_spec::runtime::MemoryPolicyModeType>(&MEMORY_POLICY_MODES);
        words::<oci_spec::runtime::MemoryPolicyFlagType>(&MEMORY_POLICY_FLAGS);
        words::<oci_spec::runtime::LinuxNamespaceType>(&namespaces());
    }

    #[test]
    fn this_kernel_knows_the_oldest_seccomp_flags() {
        assert!(supported_seccomp_flags().contains(&"SECCOMP_FILTER_FLAG_TSYNC"));
    }
}
