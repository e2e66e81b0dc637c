use std::fs;
use std::time::{Duration, SystemTime};

use execdriver::{
    Command, Driver, Input, Mount, Namespace, Pipes, ProcessConfig, Resources, Signal, Status, UserNamespace,
};

use crate::common::{self, Bed, cgroup_value, cgroups_named, unique};
use crate::{hog, memory_hog, memory_hog_child, monitor_of, role_command};

#[test]
fn row_15_the_init_finds_user_directory_and_program() {
    let bed = Bed::new();
    let who = |user: &str| {
        bed.run(bed.sh("id -u; id -g; id -G; echo $HOME").user(user)).assert_ok().replace('\n', " ")
    };
    assert_eq!(who(""), "0 0 0 /root");
    assert_eq!(who("www"), "33 34 34 40 /www");
    assert_eq!(who("33"), "33 34 34 40 /www");
    assert_eq!(who("www:logs"), "33 40 40 /www");
    assert_eq!(who("1000:7"), "1000 7 7 /");
    let more = bed.run(bed.sh("id -G").group_add(["logs", "77"])).assert_ok().to_owned();
    assert_eq!(more, "0 40 77");
    assert!(bed.refusal(bed.sh("true").user("nobody")).contains("no user \"nobody\""));
    let open = Command::builder(unique(), bed.rootfs()).args(["ls", "/proc/self/fd"]);
    assert_eq!(bed.run(open).assert_ok(), "0\n1\n2\n3", "the last one is the directory that it reads");
    assert_eq!(bed.run(bed.sh("pwd").working_dir("/tmp")).assert_ok(), "/tmp");
    let code = |path: &str| {
        let command = Command::builder(unique(), bed.rootfs()).args([path]);
        bed.try_run(command).unwrap_err().exit_code()
    };
    fs::write(bed.rootfs().join("bin/plain"), "no program").unwrap();
    assert_eq!(code("nowhere"), Some(127));
    assert_eq!(code("/bin/nowhere"), Some(127));
    assert_eq!(code("/bin/plain"), Some(126));
    assert_eq!(code("/tmp"), Some(126));
    // A link out of the root leads to where it leads inside.
    std::os::unix::fs::symlink("../../../../../../tmp", bed.rootfs().join("out")).unwrap();
    assert_eq!(
        bed.run(bed.sh("pwd -P; ls -a /out/.. | grep -c rootfs").working_dir("/out")).out,
        "/tmp\n0\n"
    );
}

#[test]
fn row_16_a_terminal_has_a_size_and_loses_nothing() {
    let bed = Bed::new();
    let script = "stty size; tty; test /dev/console -ef /proc/self/fd/0 || echo other; \
        trap 'stty size; read x; exit 5' WINCH; echo ready; while :; do sleep 100 & wait $!; done";
    let mut running = bed.start(bed.sh(script).tty(true).console_size(132, 43));
    assert_eq!(running.line(), "43 132");
    assert!(running.line().starts_with("/dev/"));
    assert_eq!(running.line(), "ready");
    let terminal = running.terminal.clone().unwrap();
    terminal.resize(80, 25).unwrap();
    assert_eq!(terminal.size().unwrap(), (80, 25));
    assert_eq!(running.line(), "25 80");
    assert_eq!(running.finish().exit_code, 5);
    assert!(terminal.resize(1, 1).is_err(), "it is closed");

    // The last bytes before the end arrive.
    let command = bed.sh("stty -opost; seq 1 100000; printf end").tty(true).build().unwrap();
    let mut output = Vec::new();
    bed.driver.run(&command, Pipes::null().stdout(&mut output), &mut |_| ()).unwrap();
    let expected: String = (1..=100_000).map(|n| format!("{n}\n")).collect::<String>() + "end";
    assert!(output == expected.as_bytes(), "{} of {} bytes", output.len(), expected.len());
    // Input ends as at a keyboard, and a terminal that is closed hangs up.
    let echo = bed.sh("stty -echo; cat").tty(true).build().unwrap();
    let mut output = Vec::new();
    let pipes = Pipes::null().stdin(Input::reader(&b"text\n"[..])).stdout(&mut output);
    bed.driver.run(&echo, pipes, &mut |_| ()).unwrap();
    assert!(String::from_utf8(output).unwrap().contains("text"));
    // Also after half a line, and without any; one that has read a whole line is not told twice.
    for (input, script, said) in [
        ("half", "stty -echo; cat; echo; echo end", "half\r\nend\r\n"),
        ("", "stty -echo; cat; echo end", "end\r\n"),
        ("one\n", "stty -echo; read a; cat; echo $a end", "one end\r\n"),
    ] {
        let command = bed.sh(script).tty(true).build().unwrap();
        let mut output = Vec::new();
        let pipes = Pipes::null().stdin(Input::reader(input.as_bytes())).stdout(&mut output);
        bed.driver.run(&command, pipes, &mut |_| ()).unwrap();
        assert!(String::from_utf8(output).unwrap().ends_with(said), "{input:?}");
    }
    let mut hung = bed.start(bed.sh("echo ready; read x; exit 6").tty(true));
    assert_eq!(hung.line(), "ready");
    hung.terminal.as_ref().unwrap().close();
    assert_eq!(hung.wait().exit_code, 6);
}

/// A terminal's output to a descriptor that somebody else has made non-blocking.
#[test]
fn row_16_output_waits_for_who_reads_slowly() {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let bed = Bed::new();
    let (output, ours) = std::io::pipe().unwrap();
    fcntl_setfl(&ours, fcntl_getfl(&ours).unwrap() | OFlags::NONBLOCK).unwrap();
    let same = ours.try_clone().unwrap();
    let command = bed.sh("stty -opost; head -c 1000000 /dev/zero; exit 3").tty(true).build().unwrap();
    let status = std::thread::scope(|scope| {
        let run = scope.spawn(|| bed.driver.run(&command, Pipes::null().stdout(ours), &mut |_| ()));
        // Nobody reads before the pipe is full.
        while !run.is_finished() && common::takes_more(&same) {
            std::thread::yield_now();
        }
        drop(same);
        let count = std::io::copy(&mut &output, &mut std::io::sink()).unwrap();
        assert_eq!(count, 1_000_000);
        run.join().unwrap().unwrap()
    });
    assert_eq!(status.exit_code, 3);
}

/// A program that ends before its input, under a daemon that SIGPIPE kills.
#[test]
fn row_16_a_closed_pipe_does_not_kill_the_daemon() {
    let bed = Bed::new();
    let output = role_command("default-sigpipe", bed.path(), &[]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn row_17_signals_reach_the_init_and_terminate_everybody() {
    let bed = Bed::new();
    let script = "trap 'echo usr1' USR1; trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done";
    let mut running = bed.start(bed.sh(script));
    assert_eq!(running.line(), "ready");
    bed.driver.kill(&running.id, Signal::USR1).unwrap();
    assert_eq!(running.line(), "usr1");
    let id = running.id.clone();
    bed.driver.kill(&id, Signal::TERM).unwrap();
    assert_eq!(running.wait().exit_code, 9);
    // It is as dead as asked.
    bed.driver.kill(&id, Signal::KILL).unwrap();
    bed.driver.terminate(&id).unwrap();
    bed.driver.clean(&id).unwrap();

    // Without a PID namespace of its own nothing dies with the init.
    let script = "(trap '' TERM HUP; echo $$; while :; do sleep 1000; done) & read x";
    let mut shared = bed.start(bed.sh(script).pid(Namespace::Host));
    shared.line();
    let pids = bed.driver.pids(&shared.id).unwrap();
    assert!(pids.len() >= 2, "{pids:?}");
    bed.driver.terminate(&shared.id).unwrap();
    assert_eq!(shared.wait().exit_code, 137);
    assert!(!pids.iter().any(|pid| common::lives(*pid)), "{pids:?}");
}

/// A container that is being made waits for a hook of LXC's for as long as `held` is not dropped.
fn held_command(bed: &Bed) -> (Command, std::io::PipeReader, std::io::PipeWriter) {
    use std::os::fd::AsRawFd;
    let (reached, says) = std::io::pipe().unwrap();
    let (waits, held) = std::io::pipe().unwrap();
    let own = |fd: &dyn AsRawFd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
    let hook = bed.path().join("hook");
    let script = format!("#!/bin/sh\nexec <{} >{}\necho reached\nread x\n", own(&waits), own(&says));
    fs::write(&hook, script).unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let command = bed.sh("sleep 1000").lxc_config("lxc.hook.pre-start", hook.to_str().unwrap());
    // The hook opens both by their paths, so they stay open here.
    std::mem::forget((waits, says));
    (command.build().unwrap(), reached, held)
}

#[test]
fn row_17_one_that_is_being_made_is_ended_before_its_program_runs() {
    let bed = Bed::new();
    for how in ["terminate", "kill", "clean"] {
        let (command, mut reached, held) = held_command(&bed);
        let id = command.id.clone();
        std::thread::scope(|scope| {
            let run = scope.spawn(|| bed.driver.run(&command, Pipes::null(), &mut |_| panic!("it began")));
            assert_eq!(common::until_line(&mut reached, "reached"), "reached");
            assert_eq!(bed.driver.info(&id).unwrap().status, Status::Creating);
            let message = bed.driver.kill(&id, Signal::TERM).unwrap_err().to_string();
            assert!(message.contains("not running yet") && message.contains("creating"), "{message}");
            match how {
                "terminate" => bed.driver.terminate(&id).unwrap(),
                "kill" => bed.driver.kill(&id, Signal::KILL).unwrap(),
                _ => bed.driver.clean(&id).unwrap(),
            }
            common::assert_no_trace(&bed.driver, &id);
            let message = run.join().unwrap().unwrap_err().to_string();
            assert!(message.contains(id.as_str()) && message.contains("being deleted"), "{message}");
        });
        drop(held);
        bed.driver.kill(&id, Signal::TERM).unwrap();
    }
}

#[test]
fn row_17_whenever_it_is_terminated_it_ends() {
    let bed = Bed::new();
    for _ in 0..30 {
        let command = bed.sh("exec sleep 1000").build().unwrap();
        std::thread::scope(|scope| {
            let run = scope.spawn(|| bed.driver.run(&command, Pipes::null(), &mut |_| ()));
            // One that has not begun is none yet.
            while !run.is_finished() {
                bed.driver.terminate(&command.id).unwrap();
            }
            match run.join().unwrap() {
                Ok(status) => assert_eq!(status.exit_code, 137),
                Err(error) => assert!(error.to_string().contains("is being deleted"), "{error}"),
            }
        });
        common::assert_no_trace(&bed.driver, &command.id);
    }
}

#[test]
fn row_18_a_pause_is_confirmed() {
    let bed = Bed::new();
    let mut running = bed.start(bed.sh("echo ready; while read x; do echo $x; done"));
    assert_eq!(running.line(), "ready");
    let id = running.id.clone();
    bed.driver.pause(&id).unwrap();
    assert_eq!(bed.driver.info(&id).unwrap().status, Status::Paused);
    let frozen = cgroup_value(&id, "freezer", "freezer.state", "cgroup.freeze");
    assert!(frozen == "FROZEN" || frozen == "1", "{frozen}");
    bed.driver.pause(&id).unwrap_err();
    assert!(bed.try_exec(&id, &ProcessConfig::new(["true"])).is_err());
    running.say("text\n");
    bed.driver.unpause(&id).unwrap();
    assert_eq!(running.line(), "text");
    assert_eq!(bed.driver.info(&id).unwrap().status, Status::Running);
    bed.driver.unpause(&id).unwrap_err();
    // Also a paused one can be terminated.
    bed.driver.pause(&id).unwrap();
    bed.driver.terminate(&id).unwrap();
    assert_eq!(running.wait().exit_code, 137);
    assert!(bed.driver.pause(&id).unwrap_err().is_not_found());
}

#[test]
fn row_19_info_is_typed() {
    let bed = Bed::new();
    let before = SystemTime::now();
    let running = bed.idle();
    let info = bed.driver.info(&running.id).unwrap();
    assert!(info.is_running());
    assert_eq!((info.status, info.pid), (Status::Running, Some(running.pid)));
    assert!(before <= info.created && info.created <= info.started.unwrap());
    assert!(info.started.unwrap() <= SystemTime::now());
    let id = running.id.clone();
    running.finish();
    assert!(bed.driver.info(&id).unwrap_err().is_not_found());

    // One that waits for its start, and one that has ended and was not removed: made by the library.
    let command = bed.sh("exit 4").build().unwrap();
    let spec = command.compile(&execdriver::Facts::default()).unwrap();
    let bundle = lxcrun::Bundle::from_spec(bed.path(), &spec).unwrap();
    let options = lxcrun::CreateOptions { keep_monitor: true, ..Default::default() };
    let mut made = lxcrun::create(bed.driver.root(), &command.id, &bundle, options).unwrap();
    let info = bed.driver.info(&command.id).unwrap();
    assert_eq!((info.status, info.started, info.is_running()), (Status::Created, None, false));
    made.start().unwrap();
    made.wait().unwrap();
    let info = bed.driver.info(&command.id).unwrap();
    assert_eq!((info.status, info.pid, info.is_running()), (Status::Stopped, None, false));
    bed.driver.clean(&command.id).unwrap();
}

#[test]
fn row_20_pids_are_all_of_them() {
    let bed = Bed::new();
    let mut running = bed.start(bed.sh("sleep 1000 & sleep 1000 & echo ready; cat; kill $(jobs -p)"));
    assert_eq!(running.line(), "ready");
    let pids = bed.driver.pids(&running.id).unwrap();
    assert!(pids.len() >= 3 && pids.contains(&running.pid), "{pids:?}");
    // One that the container has put into a cgroup below its own counts, too.
    let name = running.id.to_string();
    for cgroup in cgroups_named(&name).iter().filter(|c| c.ends_with(&name)) {
        let below = cgroup.join("below");
        fs::create_dir(&below).unwrap();
        for file in ["cpuset.cpus", "cpuset.mems"].iter().filter(|f| below.join(f).exists()) {
            fs::write(below.join(file), fs::read_to_string(cgroup.join(file)).unwrap()).unwrap();
        }
        fs::write(below.join("cgroup.procs"), pids[1].to_string()).unwrap();
    }
    let again = bed.driver.pids(&running.id).unwrap();
    assert!(pids.iter().all(|pid| again.contains(pid)), "{pids:?} {again:?}");
    assert_eq!(running.finish().exit_code, 0);
}

#[test]
fn row_22_exec_works() {
    let bed = Bed::new();
    let seccomp = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_AARCH64"],
        "syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    let mut running = bed.start(
        bed.sh("echo ready; cat >/dev/null")
            .env("FROM", "first")
            .seccomp(serde_json::from_str(seccomp).unwrap()),
    );
    assert_eq!(running.line(), "ready");
    let id = running.id.clone();
    let sh = |script: &str| ProcessConfig::new(["sh", "-c", script]);
    assert_eq!(bed.exec(&id, &sh("echo out; echo err >&2; exit 7")).code, 7);
    // Namespaces, cgroups, label, filter.
    for file in ["mnt", "pid", "ipc", "uts", "net", "cgroup", "user"].map(|ns| format!("ns/{ns}")) {
        let theirs = fs::read_link(format!("/proc/{}/{file}", running.pid)).unwrap();
        assert_eq!(
            bed.exec(&id, &sh(&format!("readlink /proc/self/{file}"))).assert_ok(),
            theirs.to_string_lossy()
        );
    }
    let cgroup = bed.exec(&id, &sh("diff /proc/1/cgroup /proc/self/cgroup && cat /proc/self/cgroup"));
    assert!(cgroup.assert_ok().lines().all(|l| l.ends_with(":/")), "{cgroup:?}");
    assert!(bed.exec(&id, &sh("mkdir /tmp/x || grep Seccomp: /proc/self/status")).out.contains('2'));
    // Its own user, environment, directory and capabilities.
    let process = ProcessConfig {
        user: "www:logs".into(),
        env: vec!["A=b".into()],
        working_dir: Some("/tmp".into()),
        ..sh("id -u; id -g; echo $A $FROM $HOME; pwd")
    };
    assert_eq!(bed.exec(&id, &process).assert_ok(), "33\n40\nb first /www\n/tmp");
    let none = ProcessConfig { capabilities: Some(vec![]), ..sh("grep CapBnd /proc/self/status") };
    assert!(bed.exec(&id, &none).assert_ok().ends_with("\t0000000000000000"));
    let unknown = ProcessConfig { capabilities: Some(vec!["fly".into()]), ..sh("true") };
    assert!(bed.try_exec(&id, &unknown).unwrap_err().to_string().contains("fly"));
    // A terminal of its own, resized while it runs.
    let terminal = ProcessConfig {
        tty: true,
        console_size: Some((99, 33)),
        ..sh("trap 'stty size; exit 8' WINCH; stty size; while :; do sleep 0.01; done")
    };
    let (output, ours) = std::io::pipe().unwrap();
    let (input, _open) = std::io::pipe().unwrap();
    let mut output = std::io::BufReader::new(output);
    let status = std::thread::scope(|scope| {
        let (tell, terminal_of) = std::sync::mpsc::channel();
        let exec = scope.spawn(|| {
            let tell = tell;
            let pipes = Pipes::null().stdin(input).stdout(ours);
            bed.driver.exec(&id, &terminal, pipes, &mut |s| tell.send(s.terminal.unwrap()).unwrap())
        });
        let terminal = terminal_of.recv().unwrap();
        assert_eq!(common::line_of(&mut output), "33 99");
        terminal.resize(44, 11).unwrap();
        assert_eq!(common::line_of(&mut output), "11 44");
        exec.join().unwrap().unwrap()
    });
    assert_eq!(status.exit_code, 8);
    // Input reaches it, programs that aren't there have their codes, signals theirs.
    let mut output = Vec::new();
    let pipes = Pipes::null().stdin(Input::reader(&b"through"[..])).stdout(&mut output);
    bed.driver.exec(&id, &ProcessConfig::new(["cat"]), pipes, &mut |_| ()).unwrap();
    assert_eq!(output, b"through");
    assert_eq!(bed.try_exec(&id, &ProcessConfig::new(["nowhere"])).unwrap_err().exit_code(), Some(127));
    assert_eq!(bed.try_exec(&id, &ProcessConfig::new(["/tmp"])).unwrap_err().exit_code(), Some(126));
    assert_eq!(bed.exec(&id, &sh("kill -TERM $$")).code, 143);
    // What it leaves behind may print for ever: nobody waits for that.
    let left = bed.exec(&id, &sh("echo first; yes & exit 9"));
    assert!(left.code == 9 && left.out.starts_with("first\n"), "{}", left.code);
    running.finish();
    assert!(bed.try_exec(&id, &sh("true")).unwrap_err().is_not_found());
}

/// A daemon may ignore SIGCHLD, or be a subreaper that waits for whatever ends.
#[test]
fn row_22_an_exec_ends_right_whoever_waits_for_children() {
    let bed = Bed::new();
    let running = bed.idle();
    let alone = bed.driver.pids(&running.id).unwrap();
    let ignoring = ["sh", "-c", r#"trap '' CHLD; exec "$0" "$@""#];
    for (before, name) in [(&[][..], "exec"), (&ignoring[..], "exec"), (&[][..], "exec-beside-a-reaper")] {
        for old_kernel in [false, true] {
            let mut command = role_command(name, bed.path(), before);
            command.env("ROLE_ID", running.id.as_str());
            if old_kernel {
                command.env("ROLE_OLD_KERNEL", "1");
            }
            let output = command.output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            let said = text.lines().find(|line| line.starts_with("ROLE codes"));
            let expected = Some("ROLE codes 0 7 143 255 3 4 5 6 127");
            assert_eq!(said, expected, "{before:?} {name} {old_kernel} {output:?}");
            assert!(output.status.success(), "{before:?} {name} {old_kernel} {output:?}");
        }
    }
    // Nobody who waited is left.
    assert_eq!(bed.driver.pids(&running.id).unwrap(), alone);
    running.finish();
}

#[test]
fn row_23_stats_are_those_of_the_kernel() {
    let bed = Bed::new();
    let limited = Resources { memory: Some(64 << 20), pids_limit: Some(9), ..Resources::default() };
    let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo ready; cat";
    let mut running = bed.start(bed.sh(script).resources(limited));
    assert_eq!(running.line(), "ready");
    let stats = bed.driver.stats(&running.id).unwrap();
    assert_eq!((stats.memory_limit, stats.container.memory.usage.limit), (64 << 20, 64 << 20));
    assert!(stats.read.elapsed().unwrap() < Duration::from_secs(60));
    assert_eq!(stats.container.pids.limit, 9);
    assert!(stats.container.pids.current >= 1);
    assert!(stats.container.cpu.usage.total > 0);
    assert!(stats.container.memory.usage.usage > 0);
    assert!(stats.container.network_interfaces.iter().any(|i| i.name == "lo"));
    let json = serde_json::to_value(&stats).unwrap();
    assert!(
        json["read"].as_str().unwrap().ends_with('Z') && json["memory"]["usage"]["usage"].is_u64(),
        "{json}"
    );
    running.finish();
    let running = bed.idle();
    assert_eq!(bed.driver.stats(&running.id).unwrap().memory_limit, bed.driver.machine_memory());
    running.finish();
}

#[test]
fn row_25_the_oom_killer_is_noticed() {
    let bed = Bed::new();
    let mut running = bed.start(memory_hog(&bed));
    let id = running.id.clone();
    let events = bed.driver.watch_oom(&id).unwrap();
    running.say("go\n");
    common::until_readable(&events, Duration::from_secs(20));
    let status = running.wait();
    assert_eq!((status.exit_code, status.oom_killed), (137, true));
    // The watch tells also when the container has gone, of which there is none any more.
    events.next().unwrap();
    assert!(bed.driver.watch_oom(&id).unwrap_err().is_not_found());
    // Somebody who was killed from outside is none of its victims.
    let running = bed.idle();
    bed.driver.terminate(&running.id).unwrap();
    assert!(!running.wait().oom_killed);
    // A child of an exec: the exec's own program ends as it likes, the container was hit.
    let mut running = bed.start(hog(&bed, "echo ready; cat >/dev/null"));
    assert_eq!(running.line(), "ready");
    let exec = bed.exec(&running.id, &ProcessConfig::new(["sh", "-c", "tail /dev/zero; exit 2"]));
    assert_eq!((exec.code, exec.oom_killed), (2, false), "{exec:?}");
    let exec = bed.exec(&running.id, &ProcessConfig::new(["tail", "/dev/zero"]));
    assert_eq!((exec.code, exec.oom_killed), (137, true), "{exec:?}");
    let status = running.finish();
    assert_eq!((status.exit_code, status.oom_killed), (137, true));
    // The hog is one of many: the flag says so although the init lives on.
    let child = bed.run(memory_hog_child(&bed));
    assert_eq!((child.code, child.oom_killed), (137, true), "{child:?}");
}

#[test]
fn row_26_users_filters_readonly_roots_and_labels() {
    let bed = Bed::new();
    let seccomp = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_AARCH64"],
        "syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#;
    let command = bed
        .sh("id -u; mkdir /tmp/a; touch /new; cat /proc/self/uid_map")
        .userns(UserNamespace::shifted(100_000, 65_536))
        .seccomp(serde_json::from_str(seccomp).unwrap())
        .readonly_rootfs(true)
        .mount(Mount::filesystem("tmpfs", "/tmp"));
    let seen = bed.run(command);
    assert!(seen.out.starts_with("0\n") && seen.out.contains("100000"), "{seen:?}");
    assert!(seen.err.contains("not supported") && seen.err.contains("Read-only"), "{seen:?}");
    // What programs print to /dev/stdout and /dev/stderr arrives, whoever they are.
    for user in ["", "www"] {
        let script = "echo out >/dev/stdout; echo err >/dev/stderr; cat /dev/stdin";
        let users = UserNamespace::shifted(100_000, 65_536);
        let mut running = bed.start(bed.sh("echo ready; cat >/dev/null").userns(users.clone()).user(user));
        assert_eq!(running.line(), "ready");
        let exec = bed.exec(&running.id, &ProcessConfig::new(["sh", "-c", script]));
        running.finish();
        let first = bed.run(bed.sh(script).userns(users).user(user));
        for seen in [exec, first] {
            assert_eq!((seen.out.as_str(), seen.err.as_str()), ("out\n", "err\n"), "{user:?}");
        }
    }
    // A label is set, or it is an error: it is never ignored.
    for command in [bed.sh("true").process_label("a:b:c:d"), bed.sh("true").mount_label("a:b:c:d")] {
        if !fs::exists("/sys/fs/selinux/enforce").unwrap() {
            let message = bed.refusal(command);
            assert!(message.contains("abel"), "{message}");
        }
    }
    if !bed.driver.has_apparmor() {
        let message = bed.refusal(bed.sh("true").apparmor_profile("web"));
        assert!(message.contains("AppArmor is off on this host"), "{message}");
    }
}

/// The monitor of a command stays, so LXC's tools know it by its id, below the driver's root.
#[test]
fn lxcs_own_tools_see_a_command() {
    let bed = Bed::new();
    let mut running = bed.idle();
    let (root, id) = (bed.path().join("state").display().to_string(), running.id.to_string());
    let tool = |tool: &str, more: &[&str]| {
        let args = [&["60", tool, "-P", &root, "-n", &id], more].concat();
        let output = common::host("timeout", &args);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(tool("lxc-info", &["-sH"]), (Some(0), "RUNNING\n".into()));
    assert_eq!(tool("lxc-info", &["-pH"]), (Some(0), format!("{}\n", running.pid)));
    assert_eq!(tool("lxc-attach", &["--", "sh", "-c", "echo inside; exit 4"]), (Some(4), "inside\n".into()));
    assert_eq!(tool("lxc-freeze", &[]).0, Some(0));
    assert_eq!(bed.driver.info(&running.id).unwrap().status, Status::Paused);
    assert_eq!(tool("lxc-unfreeze", &[]).0, Some(0));
    assert_eq!(bed.driver.info(&running.id).unwrap().status, Status::Running);
    running.say("more\n");
    assert_eq!(tool("lxc-stop", &["-k"]).0, Some(0));
    assert_eq!(running.wait().exit_code, 137);
}

/// Whoever waits for the end of a pipe, or wants an address again, would wait for the container's.
#[test]
fn the_monitor_has_no_descriptor_of_the_embedder() {
    use std::os::fd::AsRawFd;
    let bed = Bed::new();
    let (_reader, writer) = std::io::pipe().unwrap();
    // Beyond the numbers that the monitor has for its own.
    let writer = rustix::io::fcntl_dupfd_cloexec(&writer, 60).unwrap();
    rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty()).unwrap();
    let running = bed.idle();
    let pipe = fs::read_link(format!("/proc/self/fd/{}", writer.as_raw_fd())).unwrap();
    let open = fs::read_dir(format!("/proc/{}/fd", monitor_of(running.pid))).unwrap().flatten();
    let open: Vec<_> = open.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    assert!(!open.is_empty() && !open.contains(&pipe), "{open:?}");
    running.finish();
}
