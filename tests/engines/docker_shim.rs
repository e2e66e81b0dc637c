//! Docker with lxcrun's own shim, which Docker takes by name since release 23.

use lxcrun_test::Need;
use lxcrun_test::engines::{Docker, Engine, IDLE};

use super::docker;

struct DockerShim;

impl DockerShim {
    fn get() -> &'static Docker {
        Docker::with_shim()
    }
}

docker_like_tests! { DockerShim has [
    health_checks_run_in_the_container,
    containers_of_a_network_know_each_others_names,
    lxc_ls_shows_its_containers.needs(Need::Program("lxc-ls")),
] }

fn health_checks_run_in_the_container() {
    docker::follows_health_checks(DockerShim::get());
}

fn containers_of_a_network_know_each_others_names() {
    docker::resolves_names_of_a_network(DockerShim::get());
}

fn lxc_ls_shows_its_containers() {
    let docker = DockerShim::get();
    let (one, two) = (docker.start("", IDLE), docker.start("", IDLE));
    let list = docker.inside(&["lxc-ls", "-P", "/run/containerd/lxcrun/moby", "-f"]);
    for id in [one.id(), two.id()] {
        let row = list.assert_ok().lines().into_iter().find(|row| row.starts_with(&id)).map(str::to_owned);
        assert!(row.is_some_and(|row| row.contains("RUNNING")), "{id}{list}");
    }
    one.call(&["stop", "-t", "20"]).assert_ok();
    let list = docker.inside(&["lxc-ls", "-P", "/run/containerd/lxcrun/moby", "-f"]);
    list.assert_ok().assert_stdout_contains(&two.id());
    assert!(!list.stdout.contains(&one.id()), "{list}");
}
