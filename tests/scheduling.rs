//! How the kernel treats the program: scheduler, priorities, processors, memory policy, execution domain.

use lxcrun_test::{Bundle, Need, hierarchies, tests};
use serde_json::json;

tests![
    the_scheduler_is_set.not_on("runc", "1.1 does not know it"),
    a_realtime_policy_is_set_where_the_cgroup_has_time_for_it.not_on("runc", "1.1 does not know it"),
    a_deadline_needs_every_processor.needs(Need::Controller("cpuset")).not_on("runc", "1.1 does not know it"),
    a_nice_value_is_set.not_on("runc", "1.1 does not know it"),
    flags_of_the_scheduler_are_set.not_on("runc", "1.1 does not know them"),
    the_io_priority_is_set.not_on("runc", "1.1 does not know it"),
    a_priority_that_is_none_is_refused.not_on("runc", "1.1 does not know it"),
    parameters_of_another_policy_are_refused.not_on("runc", "1.1 does not know them"),
    an_exec_has_the_scheduler_of_its_own_process.not_on("runc", "1.1 does not know it"),
    an_exec_runs_on_its_processors.not_on("runc", "1.1 does not know them"),
    processors_of_execs_that_are_none_are_refused_at_once
        .not_on("runc", "1.1 knows none")
        .not_on("crun", "1.8 knows none"),
    processors_that_are_none_are_refused.not_on("runc", "1.1 does not know them"),
    the_memory_policy_is_set.needs(Need::File("/proc/self/numa_maps")).not_on("runc", "1.1 does not know it"),
    a_memory_node_that_is_not_there_is_refused.not_on("runc", "1.1 does not know it"),
    a_memory_policy_that_is_none_is_refused.not_on("runc", "1.1 does not know it"),
    the_execution_domain_is_set.not_on("runc", "1.1 does not know it"),
    a_flag_of_the_execution_domain_is_refused.not_on("runc", "1.1 does not know it"),
];

/// Prints a process's realtime priority and policy: proc_pid_stat(5), fields 40 and 41.
const SHOW: &str = "cut -d' ' -f40,41 /proc/self/stat";

fn the_scheduler_is_set() {
    for (wanted, shown) in
        [(json!({ "policy": "SCHED_BATCH" }), "0 3\n"), (json!({ "policy": "SCHED_IDLE" }), "0 5\n")]
    {
        let run = Bundle::busybox().sh(SHOW).set("/process/scheduler", wanted).run();
        run.assert_ok().assert_stdout(shown);
    }
}

fn a_realtime_policy_is_set_where_the_cgroup_has_time_for_it() {
    let wanted = json!({ "policy": "SCHED_FIFO", "priority": 7 });
    let container = Bundle::busybox().sh(SHOW).set("/process/scheduler", wanted).build();
    let run = container.run();
    // Where version 1 shares out realtime, a new cgroup has none of it.
    if hierarchies().iter().any(|h| h.mount.join("cpu.rt_runtime_us").exists()) {
        run.assert_fails().assert_stderr_contains("process.scheduler");
        container.assert_gone(&run);
    } else {
        run.assert_ok().assert_stdout("7 1\n");
    }
}

fn a_deadline_needs_every_processor() {
    let wanted =
        json!({ "policy": "SCHED_DEADLINE", "runtime": 42_000, "deadline": 1_000_000, "period": 1_000_000 });
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").expect("processors");
    let Some((first, _)) = online.trim().split_once(['-', ',']) else { return };
    let bundle = Bundle::busybox().resource("cpu", json!({ "cpus": first }));
    let run = bundle.set("/process/scheduler", wanted).run();
    run.assert_fails().assert_stderr_contains("process.scheduler").assert_stderr_contains("AllowedCPUs");
}

fn a_nice_value_is_set() {
    let nice = json!({ "policy": "SCHED_OTHER", "nice": 5 });
    let bundle = Bundle::busybox().sh("cut -d' ' -f19 /proc/self/stat").set("/process/scheduler", nice);
    bundle.run().assert_ok().assert_stdout("5\n");
}

fn flags_of_the_scheduler_are_set() {
    // A child gets the default again.
    let wanted = json!({ "policy": "SCHED_OTHER", "nice": -5, "flags": ["SCHED_FLAG_RESET_ON_FORK"] });
    let script = "cut -d' ' -f19 /proc/1/stat; cut -d' ' -f19 /proc/self/stat; true";
    let run = Bundle::busybox().sh(script).set("/process/scheduler", wanted).run();
    run.assert_ok().assert_stdout("-5\n0\n");
}

fn the_io_priority_is_set() {
    let wanted = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
    let run = Bundle::busybox().sh("ionice -p 1").set("/process/ioPriority", wanted).run();
    run.assert_ok().assert_stdout_contains("best-effort: prio 6");
}

fn a_priority_that_is_none_is_refused() {
    let io = json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 });
    Bundle::busybox().set("/process/ioPriority", io).refused(&["process.ioPriority", "8"]);
    let nice = json!({ "policy": "SCHED_OTHER", "nice": 20 });
    Bundle::busybox().set("/process/scheduler", nice).refused(&["process.scheduler.nice", "20"]);
}

fn parameters_of_another_policy_are_refused() {
    let priority = json!({ "policy": "SCHED_OTHER", "priority": 1 });
    Bundle::busybox().set("/process/scheduler", priority).refused(&["process.scheduler.priority"]);
    let times = json!({ "policy": "SCHED_RR", "priority": 1, "runtime": 1000 });
    Bundle::busybox().set("/process/scheduler", times).refused(&["SCHED_DEADLINE"]);
}

fn an_exec_has_the_scheduler_of_its_own_process() {
    let container = Bundle::busybox().args(["sleep", "1000"]).start();
    let process = json!({
        "args": ["sh", "-c", "cut -d' ' -f41 /proc/self/stat; ionice -p $$"], "cwd": "/", "user": { "uid": 0, "gid": 0 },
        "env": ["PATH=/bin"], "scheduler": { "policy": "SCHED_IDLE" }, "ioPriority": { "class": "IOPRIO_CLASS_IDLE" },
    });
    std::fs::write(container.path("process.json"), process.to_string()).expect("a file");
    let file = container.path("process.json").display().to_string();
    let run = container.call("exec").args(["--process", &file]).arg(container.id()).output();
    run.assert_ok().assert_stdout("5\nidle\n");
}

fn an_exec_runs_on_its_processors() {
    let affinity = json!({ "initial": "0", "final": "0" });
    let container =
        Bundle::busybox().args(["sleep", "1000"]).set("/process/execCPUAffinity", affinity).start();
    let run = container.exec(["grep", "Cpus_allowed_list", "/proc/self/status"]);
    run.assert_ok().assert_stdout("Cpus_allowed_list:\t0\n");
}

fn processors_of_execs_that_are_none_are_refused_at_once() {
    let affinity = json!({ "final": "5000" });
    Bundle::busybox().set("/process/execCPUAffinity", affinity).refused(&["process.execCPUAffinity.final"]);
}

fn processors_that_are_none_are_refused() {
    let container = Bundle::busybox().args(["sleep", "1000"]).start();
    let process = json!({
        "args": ["true"], "cwd": "/", "user": { "uid": 0, "gid": 0 }, "env": ["PATH=/bin"],
        "execCPUAffinity": { "initial": "8000" },
    });
    std::fs::write(container.path("process.json"), process.to_string()).expect("a file");
    let file = container.path("process.json").display().to_string();
    let run = container.call("exec").args(["--process", &file]).arg(container.id()).output();
    run.assert_fails().assert_stderr_contains("process.execCPUAffinity");
}

fn the_memory_policy_is_set() {
    let wanted = json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
    let run = Bundle::busybox().sh("cat /proc/self/numa_maps").set("/linux/memoryPolicy", wanted).run();
    run.assert_ok().assert_stdout_contains("bind=static:0");
}

fn a_memory_node_that_is_not_there_is_refused() {
    let wanted = json!({ "mode": "MPOL_BIND", "nodes": "999" });
    Bundle::busybox()
        .set("/linux/memoryPolicy", wanted)
        .run()
        .assert_fails()
        .assert_stderr_contains("linux.memoryPolicy: set_mempolicy: invalid argument");
}

fn a_memory_policy_that_is_none_is_refused() {
    // The words are runc's.
    for (wanted, reason) in [
        (json!({ "mode": "MPOL_BIND", "nodes": "x" }), "nodes: invalid memory policy node"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0-9876543210" }), "nodes: invalid memory policy node"),
        (json!({ "mode": "INTERLEAVE", "nodes": "0" }), "mode: invalid memory policy mode"),
        (json!({ "nodes": "0" }), "memoryPolicy: invalid memory policy mode"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["none"] }), "invalid memory policy flag"),
    ] {
        Bundle::busybox().set("/linux/memoryPolicy", wanted).refused(&["linux.memoryPolicy", reason]);
    }
    // Without anything it asks for nothing.
    Bundle::busybox().set("/linux/memoryPolicy", json!({})).run().assert_ok();
}

fn the_execution_domain_is_set() {
    let bundle = Bundle::busybox().sh("uname -m").set("/linux/personality", json!({ "domain": "LINUX32" }));
    bundle.run().assert_ok().assert_stdout("i686\n");
}

fn a_flag_of_the_execution_domain_is_refused() {
    let wanted = json!({ "domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"] });
    Bundle::busybox().set("/linux/personality", wanted).run().assert_fails();
}
