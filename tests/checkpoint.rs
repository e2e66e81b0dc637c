//! `checkpoint` and `restore`, through CRIU.

use std::fs::{self, File, OpenOptions};
use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use lxcrun_test::{
    Bundle, Call, Cgroups, ConsoleSocket, Container, Fifo, Need, Output, Running, SeccompAgent, pidfd,
    read_line, readable, tests, until_exit,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

tests![
    a_program_goes_on_where_it_was.needs(Need::Criu),
    fifos_become_those_of_the_caller.needs(Need::Criu).not_on("runc", "1.1 leaves it to criu to fail"),
    nothing_is_left_after_a_checkpoint_but_images.needs(Need::Criu),
    with_leave_running_it_runs_on.needs(Need::Criu),
    a_paused_container_is_saved.needs(Need::Criu),
    memory_is_saved_before_the_rest.needs(Need::CriuFeature("mem_dirty_track")),
    restored_under_another_id_and_bundle.needs(Need::Criu),
    mounts_are_the_same_again.needs(Need::Criu),
    a_mount_at_a_link_is_where_the_link_leads
        .needs(Need::Criu)
        .not_on("runc", "it tells criu the path of the specification"),
    lost_mount_points_are_made_again.needs(Need::Criu),
    lost_mount_points_in_mounts_are_made_again.needs(Need::Criu),
    own_cgroup_namespace_and_mount.needs(Need::Criu),
    limits_and_cgroups_are_made_again.needs(Need::Criu),
    one_that_may_have_no_more_processes_is_restored
        .needs(Need::Criu)
        .needs(Need::Controller("pids"))
        .not_on("runc", "criu is one too many"),
    a_joined_network_is_joined_again.needs(Need::Criu),
    a_network_of_its_own_has_its_loopback_again.needs(Need::Criu).not_on("runc", "it leaves the device down"),
    rights_are_the_same_again.needs(Need::Criu),
    the_user_is_the_same_again.needs(Need::Criu).needs(Need::SysResource),
    exec_works_in_a_restored_container.needs(Need::Criu),
    the_terminal_comes_over_the_console_socket_again.needs(Need::Criu),
    in_the_foreground_the_exit_code_is_the_programs.needs(Need::Criu),
    the_restored_init_is_a_child_of_the_subreaper.needs(Need::Criu),
    hooks_of_the_runtime_run_at_a_restore.needs(Need::Criu),
    a_failing_hook_fails_the_restore.needs(Need::Criu),
    a_restore_that_waits_for_a_hook_is_ended.needs(Need::Criu).lxcrun_only("others wait for the hook"),
    a_hook_of_a_killed_restore_is_ended.needs(Need::Criu).lxcrun_only("others leave it behind"),
    what_criu_cannot_save_is_an_error_and_the_container_runs_on
        .needs(Need::Criu)
        .not_on("runc", "its error has only a number and the name of the log"),
    a_restore_whose_criu_is_killed_fails.needs(Need::Criu).lxcrun_only("others wait for the hook"),
    who_pauses_waits_for_a_checkpoint.needs(Need::Criu).lxcrun_only("others pause it meanwhile"),
    a_container_whose_checkpoint_was_killed_is_deleted.needs(Need::Criu).lxcrun_only("others wait for criu"),
    only_what_runs_is_saved.needs(Need::Criu),
    an_id_that_is_taken_is_not_restored.needs(Need::Criu),
    images_that_are_none_are_refused.needs(Need::Criu),
    damaged_images_are_refused.needs(Need::Criu).not_on("runc", "its log stays"),
    without_criu_the_error_says_so.lxcrun_only("runc looks for it before it reads anything"),
    options_that_make_no_sense_are_refused.lxcrun_only("runc ignores some"),
    a_program_with_a_seccomp_agent_is_refused.lxcrun_only("others leave it to criu to fail"),
    lxc_settings_are_refused.needs(Need::Criu).lxcrun_only("other runtimes have no LXC"),
];

/// Numbers the words that it reads.
const COUNTER: &str = "n=0; while read word; do n=$((n+1)); echo $n $word; done; exit 7";

/// Executes what it reads.
const SHELL: &str = "while read -r command; do eval \"$command\"; done";

/// A container with pipes to us.
struct Counter {
    container: Container,
    input: PipeWriter,
    output: PipeReader,
}

impl Counter {
    #[track_caller]
    fn start(bundle: Bundle) -> Counter {
        let container = bundle.build();
        let ((stdin, input), (output, stdout)) = pipes();
        let stderr = stdout.try_clone().expect("a pipe");
        container.create_with(|call| call.stdio(stdin, stdout, stderr)).assert_ok();
        container.start().assert_ok();
        Counter { container, input, output }
    }

    #[track_caller]
    fn of_words() -> Counter {
        Counter::start(Bundle::busybox().sh(COUNTER))
    }

    /// Sends a word, and waits for this answer.
    #[track_caller]
    fn says(&mut self, word: &str, answer: &str) {
        writeln!(self.input, "{word}").expect("a pipe to the program");
        assert_eq!(read_line(&mut self.output), answer);
    }

    #[track_caller]
    fn checkpoint(&self, options: &[&str]) -> Output {
        self.container.checkpoint("images", options)
    }

    /// Restores it, with new pipes.
    #[track_caller]
    fn restore(&mut self) {
        let ((stdin, input), (output, stdout)) = pipes();
        let stderr = stdout.try_clone().expect("a pipe");
        (self.input, self.output) = (input, output);
        let call = self.container.restore_call("images").arg("--detach").stdio(stdin, stdout, stderr);
        call.arg(self.container.id()).output().assert_ok();
    }

    /// The restore fails, says all these words, and leaves nothing behind.
    #[track_caller]
    fn fails_to_restore(&self, words: &[&str]) {
        let call = self.container.restore_call("images").arg("--detach");
        self.container.refuses(call.arg(self.container.id()).output(), words);
    }

    /// Saves it, and makes it again.
    #[track_caller]
    fn save_and_restore(&mut self) {
        self.checkpoint(&[]).assert_ok();
        self.restore();
    }

    fn pid(&self) -> u32 {
        u32::try_from(self.container.state()["pid"].as_u64().expect("a pid")).expect("a pid")
    }
}

fn pipes() -> ((PipeReader, PipeWriter), (PipeReader, PipeWriter)) {
    (pipe().expect("a pipe"), pipe().expect("a pipe"))
}

/// The verbs of this module.
trait Checkpoint {
    fn checkpoint_call(&self, images: &str, options: &[&str]) -> Call;
    fn checkpoint(&self, images: &str, options: &[&str]) -> Output {
        self.checkpoint_call(images, options).output()
    }
    fn restore_call(&self, images: &str) -> Call;
}

impl Checkpoint for Container {
    fn checkpoint_call(&self, images: &str, options: &[&str]) -> Call {
        let call = self.call("checkpoint").arg("--image-path").arg(self.path(images));
        call.arg("--work-path").arg(self.path("work")).args(options).arg(self.id())
    }

    fn restore_call(&self, images: &str) -> Call {
        let call = self.call_with_bundle("restore").arg("--image-path").arg(self.path(images));
        call.arg("--work-path").arg(self.path("work"))
    }
}

fn a_program_goes_on_where_it_was() {
    let mut counter = Counter::of_words();
    counter.says("a", "1 a");
    for (word, answer) in [("b", "2 b"), ("c", "3 c")] {
        counter.save_and_restore();
        assert_eq!(counter.container.status(), "running");
        counter.says(word, answer);
    }
}

/// As containerd has them: neither is in the container.
fn fifos_become_those_of_the_caller() {
    let container = Bundle::busybox().sh(COUNTER).build();
    let fifos =
        |number: u32| ["in", "out"].map(|name| Fifo::new(container.path(&format!("{name}-{number}"))));
    let connect = |call: Call, [input, output]: &[Fifo; 2]| {
        let stdout = OpenOptions::new().write(true).open(output.path()).expect("the fifo");
        let stderr = stdout.try_clone().expect("the fifo");
        call.stdio(File::open(input.path()).expect("the fifo"), stdout, stderr)
    };
    let mut ends = fifos(0);
    container.create_with(|call| connect(call, &ends)).assert_ok();
    container.start().assert_ok();
    ends[0].send("a");
    assert_eq!(ends[1].line(), "1 a");
    for (number, word, answer) in [(1, "b", "2 b"), (2, "c", "3 c")] {
        container.checkpoint("images", &[]).assert_ok();
        let output = container.restore_call("images").arg("--detach").arg(container.id()).output();
        container.refuses(output, &["standard input", "a fifo or a pipe"]);
        ends = fifos(number);
        let call = container.restore_call("images").arg("--detach");
        connect(call, &ends).arg(container.id()).output().assert_ok();
        ends[0].send(word);
        assert_eq!(ends[1].line(), answer);
    }
    // A pipe instead, and a fifo instead of that.
    let mut counter =
        Counter { container, input: pipe().expect("a pipe").1, output: pipe().expect("a pipe").0 };
    counter.save_and_restore();
    counter.says("d", "4 d");
    counter.checkpoint(&[]).assert_ok();
    let call = counter.container.restore_call("images").arg("--detach");
    let mut ends = ["in", "out"].map(|name| Fifo::new(counter.container.path(name)));
    connect(call, &ends).arg(counter.container.id()).output().assert_ok();
    ends[0].send("e");
    assert_eq!(ends[1].line(), "5 e");
    drop(ends);
    until_exit(counter.pid());
}

fn nothing_is_left_after_a_checkpoint_but_images() {
    let counter = Counter::of_words();
    let pid = counter.pid();
    let saved = counter.checkpoint(&[]);
    counter.container.assert_gone(saved.assert_ok());
    until_exit(pid);
    counter.container.verb("state").assert_fails();
    assert!(counter.container.path("images/inventory.img").exists());
    assert!(counter.container.path("work/dump.log").exists());
}

fn with_leave_running_it_runs_on() {
    let mut counter = Counter::of_words();
    counter.says("a", "1 a");
    let pid = counter.pid();
    // Twice, as podman says it.
    counter.checkpoint(&["--leave-running", "--leave-running"]).assert_ok();
    assert_eq!((counter.container.status(), counter.pid()), ("running".into(), pid));
    counter.says("b", "2 b");
    counter.container.delete_force().assert_ok();
    counter.restore();
    counter.says("c", "2 c");
}

fn a_paused_container_is_saved() {
    let mut counter = Counter::of_words();
    counter.says("a", "1 a");
    counter.container.verb("pause").assert_ok();
    let saved = counter.checkpoint(&[]);
    counter.container.assert_gone(saved.assert_ok());
    counter.restore();
    counter.says("b", "2 b");
}

fn memory_is_saved_before_the_rest() {
    let mut counter = Counter::of_words();
    counter.container.checkpoint("before", &["--pre-dump"]).assert_ok();
    counter.says("a", "1 a");
    counter.checkpoint(&["--parent-path", "../before"]).assert_ok();
    counter.restore();
    counter.says("b", "2 b");
}

fn restored_under_another_id_and_bundle() {
    let mut counter = Counter::of_words();
    counter.says("a", "1 a");
    counter.checkpoint(&[]).assert_ok();
    let other = Bundle::busybox().sh(COUNTER).build();
    fs::rename(counter.container.path("images"), other.path("images")).expect("the images");
    counter.container = other;
    counter.restore();
    counter.says("b", "2 b");
    let cgroups = counter.container.proc("cgroup");
    assert!(cgroups.contains(counter.container.id()), "{cgroups}");
}

fn mounts_are_the_same_again() {
    let bundle = Bundle::busybox();
    let shared = bundle.make_dir("shared");
    let file = bundle.make_file("file", "of the host\n");
    let mut counter = Counter::start(
        bundle
            .bind(&shared, "/shared", &["rw"])
            .bind(&file, "/etc/file", &["ro"])
            .mount("/scratch", "tmpfs", "tmpfs", &["size=1m"])
            .set("/linux/maskedPaths", json!(["/proc/cpuinfo", "/sys/firmware"]))
            .sh(&format!("echo kept >/scratch/kept; {SHELL}")),
    );
    counter.says("cat /etc/file", "of the host");
    counter.save_and_restore();
    counter.says("cat /etc/file", "of the host");
    counter.says("cat /scratch/kept", "kept");
    counter.says("echo x 2>/dev/null >/etc/file || echo read-only", "read-only");
    counter.says("echo new >/shared/new; cat /proc/cpuinfo | wc -c", "0");
    assert_eq!(fs::read_to_string(shared.join("new")).expect("the new file"), "new\n");
}

fn a_mount_at_a_link_is_where_the_link_leads() {
    let bundle = Bundle::busybox();
    std::os::unix::fs::symlink("usr", bundle.rootfs("link")).expect("a link");
    let file = bundle.make_file("file", "of the host\n");
    let mut counter = Counter::start(bundle.bind(&file, "/link/file", &["ro"]).sh(SHELL));
    counter.says("cat /usr/file", "of the host");
    counter.save_and_restore();
    counter.says("cat /usr/file", "of the host");
}

fn lost_mount_points_are_made_again() {
    let bundle = Bundle::busybox();
    let file = bundle.make_file("file", "of the host\n");
    let mut counter = Counter::start(bundle.bind(&file, "/deep/place/file", &["ro"]).sh(SHELL));
    counter.says("cat /deep/place/file", "of the host");
    counter.checkpoint(&[]).assert_ok();
    fs::remove_dir_all(counter.container.path("rootfs/deep")).expect("the mount point");
    counter.restore();
    counter.says("cat /deep/place/file", "of the host");
}

fn lost_mount_points_in_mounts_are_made_again() {
    let bundle = Bundle::busybox();
    let [outer, inner] = ["outer", "inner"].map(|name| bundle.make_dir(name));
    fs::write(inner.join("file"), "of the host\n").expect("a file");
    let bundle = bundle.bind(&outer, "/test", &["bind"]).bind(&inner, "/test/for/nested", &["bind"]);
    let mut counter = Counter::start(bundle.sh(SHELL));
    counter.says("cat /test/for/nested/file", "of the host");
    counter.checkpoint(&[]).assert_ok();
    fs::remove_dir_all(outer.join("for")).expect("the mount point");
    counter.restore();
    counter.says("cat /test/for/nested/file", "of the host");
}

fn own_cgroup_namespace_and_mount() {
    let mut counter = Counter::start(Bundle::busybox().namespace("cgroup", None).sh(SHELL));
    let see = "cut -d: -f3 /proc/self/cgroup | sort -u";
    counter.says(see, "/");
    counter.save_and_restore();
    counter.says(see, "/");
    counter.says("ls /sys/fs/cgroup >/dev/null && echo there", "there");
}

fn limits_and_cgroups_are_made_again() {
    let mut counter = Counter::start(Bundle::busybox().resource("pids", json!({ "limit": 33 })).sh(COUNTER));
    counter.save_and_restore();
    counter.says("a", "1 a");
    let cgroups = Cgroups::of(counter.pid());
    assert_eq!(cgroups.read("pids", "pids.max", "pids.max"), "33");
}

fn one_that_may_have_no_more_processes_is_restored() {
    let mut counter = Counter::start(Bundle::busybox().sh(COUNTER).resource("pids", json!({ "limit": 1 })));
    counter.says("a", "1 a");
    counter.save_and_restore();
    counter.says("b", "2 b");
    let limit = Cgroups::of(counter.pid()).read("pids", "pids.max", "pids.max");
    assert_eq!(limit, "1");
}

fn a_joined_network_is_joined_again() {
    let mut holder = Command::new("unshare");
    holder.args(["--net", "sh", "-c", "echo; exec cat"]);
    let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare");
    read_line(holder.stdout.as_mut().expect("piped"));
    let path = format!("/proc/{}/ns/net", holder.id());
    let wanted = fs::read_link(&path).expect("its namespace").display().to_string();
    let bundle = Bundle::busybox().namespace("network", Some(&path));
    let mut counter = Counter::start(bundle.sh(SHELL));
    counter.says("readlink /proc/self/ns/net", &wanted);
    counter.save_and_restore();
    counter.says("readlink /proc/self/ns/net", &wanted);
    drop(counter);
    drop(holder.stdin.take());
    holder.wait().expect("our child");
}

fn a_network_of_its_own_has_its_loopback_again() {
    let mut counter = Counter::start(Bundle::busybox().sh(SHELL));
    let see = "ip -o addr show lo | grep -c 'inet 127.0.0.1/8'";
    counter.says(see, "1");
    counter.save_and_restore();
    counter.says(see, "1");
}

/// What the kernel says that the program may do is the same before and after, and contains these words.
fn same_rights(bundle: Bundle, words: &[&str]) -> Counter {
    let mut counter = Counter::start(bundle.sh(SHELL));
    let see =
        "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr '\\n\\t' '  '; echo";
    let rights = |counter: &mut Counter| {
        writeln!(counter.input, "{see}").expect("a pipe to the program");
        read_line(&mut counter.output)
    };
    let before = rights(&mut counter);
    assert!(words.iter().all(|word| before.contains(word)), "{before}");
    counter.save_and_restore();
    assert_eq!(rights(&mut counter), before);
    counter
}

fn rights_are_the_same_again() {
    let seccomp = json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }] });
    let bundle = Bundle::busybox().set("/linux/seccomp", seccomp);
    let mut counter = same_rights(bundle, &["Seccomp: 2", "NoNewPrivs: 1", "CapBnd: 0000000020000420"]);
    counter.says("mkdir /tmp/x 2>/dev/null || echo refused", "refused");
}

fn the_user_is_the_same_again() {
    same_rights(Bundle::busybox().user(1000, 1000), &["1000 1000"]);
}

fn exec_works_in_a_restored_container() {
    let mut counter = Counter::of_words();
    counter.save_and_restore();
    let output = counter.container.exec(["hostname"]);
    output.assert_ok().assert_stdout("box\n");
    counter.says("a", "1 a");
}

fn the_terminal_comes_over_the_console_socket_again() {
    let container = Bundle::busybox().terminal().sh(&format!("stty -echo; echo ready; {COUNTER}")).build();
    let socket = ConsoleSocket::new(container.path("console"));
    container.create_with(|call| call.arg("--console-socket").arg(socket.path())).assert_ok();
    container.start().assert_ok();
    let mut terminal = socket.receive();
    terminal.read_until("ready\r\n");
    terminal.write("a\n");
    terminal.read_until("1 a\r\n");
    container.checkpoint("images", &[]).assert_ok();
    let call = container.restore_call("images").arg("--detach").arg("--console-socket").arg(socket.path());
    call.arg(container.id()).output().assert_ok();
    let mut terminal = socket.receive();
    terminal.write("b\n");
    terminal.read_until("2 b\r\n");
}

fn in_the_foreground_the_exit_code_is_the_programs() {
    let mut counter = Counter::of_words();
    counter.says("a", "1 a");
    counter.checkpoint(&[]).assert_ok();
    let ((stdin, mut input), (mut output, stdout)) = pipes();
    let stderr = stdout.try_clone().expect("a pipe");
    let call = counter.container.restore_call("images").stdio(stdin, stdout, stderr);
    let running = call.arg(counter.container.id()).spawn();
    writeln!(input, "b").expect("a pipe to the program");
    assert_eq!(read_line(&mut output), "2 b");
    drop(input);
    let ended = running.wait();
    counter.container.assert_gone(ended.assert_exit(7));
}

fn the_restored_init_is_a_child_of_the_subreaper() {
    let counter = Counter::start(Bundle::busybox().sh("read word; exit 9"));
    counter.checkpoint(&[]).assert_ok();
    let pid_file = counter.container.path("pid");
    let call = counter
        .container
        .restore_call("images")
        .args(["--detach", "-no-subreaper", "--pid-file"])
        .arg(&pid_file);
    let argv = call.arg(counter.container.id()).argv();
    let (stdin, mut input) = pipe().expect("a pipe");
    let mut helper = lxcrun_test::subreaper_command(&pid_file, &[argv]);
    let helper = helper.stdin(OwnedFd::from(stdin)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let helper = helper.spawn().expect("the helper");
    writeln!(input, "go").expect("a pipe to the program");
    let output = helper.wait_with_output().expect("the helper");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "exited 9\n", "{output:?}");
    counter.container.delete().assert_ok();
}

/// A hook that writes its name and the state's status and pid to a file.
fn hook(container: &Bundle, name: &str) -> serde_json::Value {
    let file = container.path("hooks").display().to_string();
    let script = format!(
        "state=$(cat); status=$(echo \"$state\" | sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); \
         echo {name} $(readlink /proc/$status/ns/pid) >>{file}"
    );
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
}

fn hooks_of_the_runtime_run_at_a_restore() {
    let bundle = Bundle::busybox().sh(COUNTER);
    let names = ["prestart", "createRuntime", "createContainer", "poststart"];
    let bundle = names.iter().fold(bundle, |bundle, name| {
        let hook = hook(&bundle, name);
        bundle.set(&format!("/hooks/{name}"), hook)
    });
    let mut counter = Counter::start(bundle);
    counter.checkpoint(&[]).assert_ok();
    fs::remove_file(counter.container.path("hooks")).expect("what hooks wrote");
    counter.restore();
    let pid = fs::read_link(format!("/proc/{}/ns/pid", counter.pid())).expect("its namespace");
    let ran = fs::read_to_string(counter.container.path("hooks")).expect("what hooks wrote");
    let wanted = format!("prestart {0}\ncreateRuntime {0}\n", pid.display());
    assert_eq!(ran, wanted);
}

fn a_failing_hook_fails_the_restore() {
    let bundle = Bundle::busybox().sh(COUNTER);
    let mark = bundle.path("mark").display().to_string();
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("test ! -e {mark}")] }]);
    let counter = Counter::start(bundle.set("/hooks/createRuntime", hook));
    counter.checkpoint(&[]).assert_ok();
    File::create(mark).expect("a file");
    counter.fails_to_restore(&["hook"]);
}

/// A restore whose hook has begun a sleep, which its shell waits for, and the pid of that.
fn restore_in_a_hook() -> (Counter, Running, u32) {
    let bundle = Bundle::busybox().sh(COUNTER);
    let meeting = bundle.make_dir("meeting");
    let mut told = Fifo::new(meeting.join("told"));
    let (mark, told_path) = (meeting.join("mark"), told.path().display().to_string());
    let script = format!("test ! -e {} || {{ sleep 1000 & echo $! > {told_path}; wait; }}", mark.display());
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] }]);
    let counter = Counter::start(bundle.set("/hooks/createRuntime", hook));
    counter.checkpoint(&[]).assert_ok();
    File::create(mark).expect("a file");
    let restore =
        counter.container.restore_call("images").arg("--detach").arg(counter.container.id()).spawn();
    let pid = told.line().parse().expect("a pid");
    (counter, restore, pid)
}

fn a_restore_that_waits_for_a_hook_is_ended() {
    let (counter, restore, sleep) = restore_in_a_hook();
    let deleted = counter.container.delete_force();
    until_exit(sleep);
    restore.wait().assert_fails();
    counter.container.assert_gone(deleted.assert_ok());
}

fn a_hook_of_a_killed_restore_is_ended() {
    let (counter, restore, sleep) = restore_in_a_hook();
    restore.signal(Signal::KILL);
    restore.wait();
    let deleted = counter.container.delete_force();
    until_exit(sleep);
    counter.container.assert_gone(deleted.assert_ok());
}

fn a_restore_whose_criu_is_killed_fails() {
    let (counter, restore, sleep) = restore_in_a_hook();
    let state = counter.container.path("root").join(counter.container.id()).join("state.json");
    let state: serde_json::Value = serde_json::from_slice(&fs::read(state).expect("a state")).expect("JSON");
    let criu = state["monitor"]["pid"].as_i64().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
    // What it has begun to restore lives on, and has its socket.
    kill_process(criu.expect("its pid"), Signal::KILL).expect("it runs");
    until_exit(sleep);
    counter.container.refuses(restore.wait(), &["createRuntime"]);
}

/// A container whose `checkpoint` stands still with its processes in the hand, until more of the log is read.
fn slow_checkpoint() -> (Container, Fifo, Running) {
    let container = Counter::start(Bundle::busybox().sh("sleep 1000 & exec sleep 1000")).container;
    fs::create_dir(container.path("work")).expect("a directory");
    let mut log = Fifo::new(container.path("work/dump.log"));
    log.hold_little();
    let checkpoint = container.checkpoint_call("images", &[]).spawn();
    while !log.line().contains("Seized task") {}
    (container, log, checkpoint)
}

fn who_pauses_waits_for_a_checkpoint() {
    let (container, mut log, checkpoint) = slow_checkpoint();
    let pause = container.call("pause").arg(container.id()).spawn();
    let waits = || {
        let locks = fs::read_to_string("/proc/locks").expect("the locks");
        let own = pause.pid().to_string();
        locks.lines().any(|line| line.contains("-> FLOCK") && line.split_whitespace().any(|word| word == own))
    };
    let ended = pidfd(pause.pid());
    let has_ended = || ended.as_ref().is_none_or(|pause| readable(pause, Duration::ZERO));
    while !waits() && !has_ended() {
        std::thread::yield_now();
    }
    assert!(!has_ended(), "it does not wait");
    // Nobody writes more when nobody has it open.
    let reader = std::thread::spawn(move || while !log.line().contains("Dumping finished successfully") {});
    let saved = checkpoint.wait();
    container.assert_gone(saved.assert_ok());
    reader.join().expect("all of the log");
    pause.wait().assert_fails().assert_stderr_contains("stopped");
}

fn a_container_whose_checkpoint_was_killed_is_deleted() {
    let (container, _log, checkpoint) = slow_checkpoint();
    // Its processes can't end before CRIU lets them go.
    checkpoint.signal(Signal::KILL);
    checkpoint.wait();
    let deleted = container.delete_force();
    container.assert_gone(deleted.assert_ok());
}

fn what_criu_cannot_save_is_an_error_and_the_container_runs_on() {
    let container = Bundle::busybox().sh(COUNTER).build();
    let ((stdin, mut input), (mut output, stdout)) = pipes();
    let stderr = File::create(container.path("a file outside the container")).expect("a file");
    container.create_with(|call| call.stdio(stdin, stdout, stderr)).assert_ok();
    container.start().assert_ok();
    let saved = container.checkpoint("images", &[]);
    saved.assert_fails().assert_stderr_contains("checkpoint").assert_stderr_contains("dump.log");
    assert_eq!(container.status(), "running");
    writeln!(input, "a").expect("a pipe to the program");
    assert_eq!(read_line(&mut output), "1 a");
}

fn only_what_runs_is_saved() {
    let container = Bundle::busybox().sh("exit 0").create();
    let refused = |status: &str| {
        let output = container.checkpoint("images", &[]);
        output.assert_fails().assert_stderr_contains("checkpoint").assert_stderr_contains(status);
        assert!(!container.path("images/inventory.img").exists());
    };
    refused("created");
    container.start().assert_ok();
    container.until_stopped();
    refused("stopped");
    let nobody = container.call("checkpoint").arg("nobody-here").output();
    nobody.assert_fails().assert_stderr_contains("does not exist");
}

fn an_id_that_is_taken_is_not_restored() {
    let mut counter = Counter::of_words();
    counter.says("a", "1 a");
    let (mut input, mut output) = {
        counter.checkpoint(&["--leave-running"]).assert_ok();
        let refused =
            counter.container.restore_call("images").arg("--detach").arg(counter.container.id()).output();
        refused.assert_fails().assert_stderr_contains("exist");
        (&counter.input, &mut counter.output)
    };
    writeln!(input, "b").expect("a pipe to the program");
    assert_eq!(read_line(&mut output), "2 b");
}

fn images_that_are_none_are_refused() {
    let container = Bundle::busybox().build();
    let restore = |images: &str| container.restore_call(images).arg("--detach").arg(container.id()).output();
    let output = restore("nowhere");
    output.assert_fails().assert_stderr_contains("nowhere");
    container.assert_gone(&output);
    fs::create_dir(container.path("empty")).expect("a directory");
    let output = restore("empty");
    container.assert_gone(output.assert_fails());
}

fn damaged_images_are_refused() {
    let counter = Counter::of_words();
    counter.checkpoint(&[]).assert_ok();
    fs::write(counter.container.path("images/core-1.img"), "nonsense").expect("an image");
    counter.fails_to_restore(&["restore.log"]);
    // Without --work-path the log goes away, and its end is told.
    let container = &counter.container;
    let call = container.call_with_bundle("restore").arg("--image-path").arg(container.path("images"));
    let output =
        container.refuses(call.arg("--detach").arg(container.id()).output(), &["restore", "log, which"]);
    assert!(!output.stderr.contains("restore.log"), "{output}");
}

fn without_criu_the_error_says_so() {
    let mut counter = Counter::of_words();
    let call = counter.container.call("checkpoint").env("PATH", "/nowhere").arg("--image-path");
    let output = call.arg(counter.container.path("images")).arg(counter.container.id()).output();
    output.assert_fails().assert_stderr_contains("criu is not installed");
    assert!(!counter.container.path("images").exists());
    counter.says("a", "1 a");

    let other = Bundle::busybox().build();
    fs::create_dir(other.path("images")).expect("a directory");
    fs::write(other.path("images/descriptors.json"), "[]").expect("a file");
    let output =
        other.restore_call("images").env("PATH", "/nowhere").arg("--detach").arg(other.id()).output();
    other.refuses(output, &["criu is not installed"]);
}

fn options_that_make_no_sense_are_refused() {
    let counter = Counter::of_words();
    let refused = |options: &[&str], word: &str| {
        counter.checkpoint(options).assert_fails().assert_stderr_contains(word);
        assert_eq!(counter.container.status(), "running");
        assert!(!counter.container.path("images").exists());
    };
    refused(&["--page-server", "here"], "--page-server");
    refused(&["--page-server", "127.0.0.1:65536"], "--page-server");
    refused(&["--status-fd", "77"], "--status-fd");
    refused(&["--parent-path", "/absolute"], "--parent-path");
    refused(&["--parent-path", "../missing"], "missing");
    refused(&["--manage-cgroups-mode", "odd"], "odd");
    refused(&["--empty-ns", "pid"], "pid");
}

fn lxc_settings_are_refused() {
    let bundle = Bundle::busybox().sh("sleep 1000");
    let container =
        bundle.set("/annotations", json!({ "org.linuxcontainers.lxc.prlimit.nofile": "77" })).start();
    let output = container.checkpoint("images", &[]);
    output.assert_fails().assert_stderr_contains("LXC");
    assert!(!container.path("images").exists());
    // Those of the command line are in no specification.
    let container = Bundle::busybox().build();
    let call =
        container.call("run").args(["-d", "--name", container.id(), "--lxc-conf", "lxc.signal.halt=SIGINT"]);
    call.args(["--", "sleep", "1000"]).output().assert_ok();
    let output = container.checkpoint("images", &[]);
    output.assert_fails().assert_stderr_contains("raw LXC settings");
    assert_eq!(container.status(), "running");
    container.delete_force().assert_ok();
}

fn a_program_with_a_seccomp_agent_is_refused() {
    let bundle = Bundle::busybox().args(["sleep", "1000"]);
    let agent = SeccompAgent::new(bundle.path("agent.sock"));
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": agent.path(),
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }],
    });
    let container = bundle.set("/linux/seccomp", filter).create();
    let start = container.call("start").arg(container.id()).spawn();
    let _notifications = agent.receive();
    start.wait().assert_ok();
    let output = container.checkpoint("images", &[]);
    output.assert_fails().assert_stderr_contains("linux.seccomp.listenerPath");
    assert_eq!(container.status(), "running");
    assert!(!container.path("images").exists());
}
