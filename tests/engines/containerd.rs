//! containerd with runc's shim, by `ctr`.

use lxcrun_test::engines::Containerd;

ctr_tests! { Containerd has [] }
