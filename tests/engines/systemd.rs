//! Engines whose cgroups systemd keeps, as is their default today: each container is in a scope.

use std::process::Command;

use lxcrun_test::Output;
use lxcrun_test::engines::{Engine, IDLE, until};

macro_rules! tests_with_systemd {
    ($engine:ident, $prefix:literal) => {
        fn the_scope_has_the_limits_and_goes_with_the_container() {
            super::the_scope_has_the_limits_and_goes_with_the_container($engine::get(), $prefix);
        }
        fn who_needs_too_much_memory_is_killed() {
            super::who_needs_too_much_memory_is_killed($engine::get());
        }
        engine_tests! { $engine shares [
            what_the_program_prints_comes_through,
            the_exit_code_is_the_programs,
            a_terminal_has_the_size_of_ours,
            logs_stop_and_rm_of_a_container_in_the_background,
            limits_are_in_the_cgroup,
            exec_runs_a_program_and_passes_its_exit_code,
            pause_freezes_and_unpause_thaws,
            stats_are_those_of_the_cgroup,
            update_changes_the_limits,
        ] and has [the_scope_has_the_limits_and_goes_with_the_container, who_needs_too_much_memory_is_killed] }
    };
}

pub mod docker {
    struct Docker;

    impl Docker {
        fn get() -> &'static lxcrun_test::engines::Docker {
            lxcrun_test::engines::Docker::with_systemd()
        }
    }

    tests_with_systemd! { Docker, "docker" }
}

pub mod docker_shim {
    struct Docker;

    impl Docker {
        fn get() -> &'static lxcrun_test::engines::Docker {
            lxcrun_test::engines::Docker::with_systemd_and_shim()
        }
    }

    tests_with_systemd! { Docker, "docker" }
}

pub mod podman {
    struct Podman;

    impl Podman {
        fn get() -> &'static lxcrun_test::engines::Podman {
            lxcrun_test::engines::Podman::with_systemd()
        }
    }

    tests_with_systemd! { Podman, "libpod" }
}

/// The CRI plugin as the kubelet's own default has it.
pub mod cri {
    use lxcrun_test::Need;
    use lxcrun_test::engines::cri::messages::Resources;
    use lxcrun_test::engines::cri::{Cri, HANDLER, OWN_SHIM, RUNNING};
    use lxcrun_test::engines::{IDLE, until};

    use super::systemctl;

    const WHY: &str = "it configures itself";

    lxcrun_test::tests![
        containers_of_a_pod_are_in_scopes.lxcrun_only(WHY),
        containers_of_our_shim_are_in_scopes.needs(Need::Shim).lxcrun_only(WHY),
    ];

    fn containers_of_a_pod_are_in_scopes() {
        each_container_has_a_scope(HANDLER);
    }

    fn containers_of_our_shim_are_in_scopes() {
        each_container_has_a_scope(OWN_SHIM);
    }

    fn each_container_has_a_scope(handler: &str) {
        let pod = Cri::with_systemd().pod(handler, |_| {});
        let limits =
            Resources { cpu_period: 100_000, cpu_quota: 50_000, cpu_shares: 512, memory_limit: 64 << 20 };
        let container = pod.start("one", IDLE, |config| {
            config.linux.get_or_insert_default().resources = Some(limits.clone());
        });
        let scope = format!("cri-containerd-{}.scope", container.id());
        let show = systemctl(&["show", "--property", "ActiveState,MemoryMax,CPUQuotaPerSecUSec", &scope]);
        show.assert_ok().assert_stdout_contains("ActiveState=active").assert_stdout_contains("=67108864");
        show.assert_stdout_contains("CPUQuotaPerSecUSec=500ms");
        assert_eq!(container.exec("echo in; exit 3"), (3, "in\n".to_owned(), String::new()));
        assert_eq!(container.status().state, RUNNING);
        container.stop(20);
        container.remove();
        // "No such unit"
        assert!(until(|| systemctl(&["status", &scope]).code() == 4), "{}", systemctl(&["status", &scope]));
    }
}

fn systemctl(args: &[&str]) -> Output {
    let output = Command::new("systemctl").args(args).output().expect("systemctl");
    Output::new(&format!("systemctl {args:?}"), &output)
}

fn the_scope_has_the_limits_and_goes_with_the_container(engine: &impl Engine, prefix: &str) {
    let container = engine.start("--memory 64m --pids-limit 50", IDLE);
    let scope = format!("{prefix}-{}.scope", container.id());
    systemctl(&["status", "--no-pager", &scope]).assert_ok().assert_stdout_contains("active (running)");
    let show = systemctl(&["show", "--property", "MemoryMax,TasksMax", &scope]);
    show.assert_ok().assert_stdout_contains("MemoryMax=67108864").assert_stdout_contains("TasksMax=50");
    assert!(container.cgroups().dir("memory").iter().any(|part| part == scope.as_str()));
    container.call(&["stop", "-t", "20"]).assert_ok();
    // "No such unit"
    assert!(until(|| systemctl(&["status", &scope]).code() == 4), "{}", systemctl(&["status", &scope]));
}

/// The engine learns of it beside the exit: the program outlives its child so that it surely does.
fn who_needs_too_much_memory_is_killed(engine: &impl Engine) {
    // systemd takes the scope away with the last process, and what it says of the kill with it: so long the engine has to see
    // that, where processors are emulated.
    let hog = "tail /dev/zero; code=$?; sleep 3; exit $code";
    let container = engine.start("--memory 32m --memory-swap 32m", hog);
    container.call(&["wait"]).assert_stdout("137\n");
    assert_eq!(container.inspect("{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137");
}
