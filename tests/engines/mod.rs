//! The runtime under real engines. What all of them must show, or those with Docker's command line, is in
//! [`shared`]; each engine's module says which of it is its own, and adds what only that engine has.

/// Lists an engine's tests: those it shares with others, and its own.
macro_rules! engine_tests {
    ($engine:ident shares [$($shared:ident $(. $need:ident ($($arg:tt)*))*),* $(,)?] and has [$($own:tt)*]) => {
        $(fn $shared() { crate::engines::shared::$shared($engine::get()); })*
        lxcrun_test::tests![$($shared $(.$need($($arg)*))*,)* $($own)*];
    };
}

/// The same for an engine with Docker's command line.
macro_rules! docker_like_tests {
    ($engine:ident has [$($own:tt)*]) => {
        engine_tests! { $engine shares [
            what_the_program_prints_comes_through,
            input_reaches_the_program,
            the_exit_code_is_the_programs,
            a_program_that_is_missing_is_127_and_one_that_cannot_run_is_126
                .not_on("crun", "docker looks for other words in the error than crun's"),
            a_terminal_has_the_size_of_ours,
            the_pid_is_that_of_the_programs_process,
            logs_stop_and_rm_of_a_container_in_the_background,
            kill_sends_the_signal_asked_for,
            wait_prints_the_exit_code,
            attach_joins_what_runs,
            restart_starts_it_anew,
            restart_on_failure_tries_again,
            limits_are_in_the_cgroup,
            containers_reach_each_other_on_the_bridge,
            namespaces_are_new_or_whose_we_ask_for,
            volumes_are_writable_or_not,
            mounts_propagate_into_the_container_if_asked_to,
            temporary_file_systems_have_their_size,
            a_read_only_root_takes_no_writes,
            user_and_groups_are_those_asked_for,
            capabilities_are_those_asked_for,
            privileged_has_all_capabilities_and_devices,
            devices_are_those_asked_for,
            sysctls_and_ulimits_are_set,
            paths_of_proc_are_masked_or_read_only,
            host_name_directory_and_environment_are_set,
            a_seccomp_profile_is_loaded,
            no_new_privileges_is_set,
            diff_shows_nothing_of_the_runtimes,
            files_are_copied_in_and_out,
            a_mount_that_cannot_be_made_is_an_error,
            many_containers_run_at_once,
            nothing_is_left_of_any_container.alone(),
            exec_runs_a_program_and_passes_its_exit_code,
            exec_takes_user_directory_environment_and_terminal,
            top_lists_the_processes,
            pause_freezes_and_unpause_thaws,
            stats_are_those_of_the_cgroup,
            update_changes_the_limits,
        ] and has [$($own)*] }
    };
}

/// The same for containerd with its own client: by one shim or another.
macro_rules! ctr_tests {
    ($engine:ident has [$($own:tt)*]) => {
        ctr_tests! { $engine: [
            a_program_that_is_missing_is_an_error,
            the_spec_is_as_the_options_say,
            mounts_are_writable_or_not,
            a_namespace_is_joined_by_path,
            kill_ends_a_task_in_the_background,
            the_memory_limit_is_in_the_cgroup,
            exec_runs_a_program_and_passes_its_exit_code,
            pause_freezes_and_resume_thaws,
            metrics_are_those_of_the_cgroup,
        ] and [$($own)*] }
    };
    ($engine:ident: [$($name:ident,)*] and [$($own:tt)*]) => {
        $(fn $name() { super::ctr::$name($engine::get()); })*
        engine_tests! { $engine shares [
            what_the_program_prints_comes_through,
            the_exit_code_is_the_programs,
            a_terminal_has_the_size_of_ours,
            the_pid_is_that_of_the_programs_process,
            many_containers_run_at_once,
            nothing_is_left_of_any_container.alone(),
        ] and has [$($name,)* $($own)*] }
    };
}

use lxcrun_test::engines::Container;
use lxcrun_test::{Need, Test};

mod containerd;
mod cri;
mod ctr;
mod docker;
mod docker_shim;
mod podman;
mod shared;
mod shim;
mod systemd;
mod task_api;

/// Counts, and waits for somebody to ask for the next number: `/next` is a pipe. It stays open on both ends, or an asker
/// that has not gone yet would be taken for the next one.
const COUNTER: &str =
    "mkfifo /next; exec 3<>/next; n=0; while :; do n=$((n+1)); echo number $n; read line <&3; done";

/// Waits for this number, and asks for the next.
#[track_caller]
fn counts(container: &Container<'_>, number: u32) {
    container.await_log(&format!("number {number}\n"));
    container.exec("", "echo >/next").assert_ok();
    let log = container.await_log(&format!("number {}\n", number + 1));
    assert!(!log.contains(&format!("number {}\n", number + 2)), "{log}");
}

/// All tests of all engines.
pub fn tests() -> Vec<Test> {
    let with = |needs: &'static [Need], tests: Vec<Test>| {
        tests.into_iter().map(move |test| needs.iter().cloned().fold(test, Test::needs))
    };
    with(&[Need::Program("dockerd")], docker::tests())
        .chain(with(&[Need::Docker(23), Need::Shim], docker_shim::tests()))
        .chain(with(&[Need::Program("podman")], podman::tests()))
        .chain(with(&[Need::CgroupV2, Need::Systemd, Need::Program("dockerd")], systemd::docker::tests()))
        .chain(with(
            &[Need::CgroupV2, Need::Systemd, Need::Docker(23), Need::Shim],
            systemd::docker_shim::tests(),
        ))
        .chain(with(&[Need::CgroupV2, Need::Systemd, Need::Program("podman")], systemd::podman::tests()))
        .chain(with(
            &[Need::CgroupV2, Need::Systemd, Need::File("/usr/lib/cni/bridge")],
            systemd::cri::tests(),
        ))
        .chain(with(&[Need::Program("containerd")], containerd::tests()))
        .chain(with(&[Need::Program("containerd"), Need::Shim], shim::tests()))
        .chain(with(&[Need::Program("containerd"), Need::Shim], task_api::tests()))
        .chain(with(&[Need::Program("containerd"), Need::File("/usr/lib/cni/bridge")], cri::tests()))
        .collect()
}
