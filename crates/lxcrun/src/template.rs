//! Specifications to begin with.

use oci_spec::runtime::Spec;

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

#[cfg(test)]
mod tests {
    #[test]
    fn the_default_specification_is_valid() {
        assert_eq!(super::default_spec().version(), crate::OCI_VERSION);
    }
}
