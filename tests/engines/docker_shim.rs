//! Docker with lxcrun's own shim, which Docker takes by name since release 23.

use lxcrun_test::engines::Docker;

struct DockerShim;

impl DockerShim {
    fn get() -> &'static Docker {
        Docker::with_shim()
    }
}

docker_like_tests! { DockerShim has [] }
