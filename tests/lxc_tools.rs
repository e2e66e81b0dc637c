//! LXC's own tools on containers whose monitor stays: what they say is true, what they do is seen, and what they give
//! is no more than the container has. docs/lxc-tools.md has these commands.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lxcrun_test::engines::until;
use lxcrun_test::{Bundle, Container, Fifo, Need, Output, Pty, Running, is_v2, read_line, readable, tests};
use serde_json::{Value, json};

tests![
    lxc_ls_lists_it.needs(TOOLS).lxcrun_only(WHY),
    lxc_info_tells_state_and_pid.needs(TOOLS).lxcrun_only(WHY),
    lxc_attach_runs_a_program_inside.needs(TOOLS).lxcrun_only(WHY),
    lxc_attach_gives_the_rights_of_the_container.needs(TOOLS).lxcrun_only(WHY),
    lxc_attach_gives_the_rights_of_a_user.needs(TOOLS).lxcrun_only(WHY),
    lxc_attach_gives_the_users_of_a_user_namespace.needs(TOOLS).lxcrun_only(WHY),
    lxc_attach_is_filtered_by_seccomp.needs(TOOLS).lxcrun_only(WHY),
    lxc_attach_is_filtered_by_the_profile_of_engines.needs(TOOLS).needs(Need::File(PROFILE)).lxcrun_only(WHY),
    lxc_attach_ends_where_lxc_cannot_say_the_filter.needs(TOOLS).lxcrun_only(WHY),
    lxc_freeze_and_unfreeze_are_seen.needs(TOOLS).lxcrun_only(WHY),
    lxc_stop_asks_the_program_to_end.needs(TOOLS).lxcrun_only(WHY),
    lxc_stop_kills_if_told_to.needs(TOOLS).lxcrun_only(WHY),
    lxc_top_shows_what_it_uses.needs(TOOLS).lxcrun_only(WHY),
    lxc_monitor_hears_of_the_end.needs(TOOLS).lxcrun_only(WHY),
    lxc_wait_returns_at_the_end.needs(TOOLS).lxcrun_only(WHY),
    lxc_device_adds_a_device
        .needs(TOOLS)
        .needs(Need::File("/dev/kmsg"))
        .needs(Need::CgroupV1("devices"))
        .lxcrun_only(WHY),
    lxc_device_is_refused_on_cgroup_v2.needs(TOOLS).needs(Need::CgroupV2).lxcrun_only(WHY),
    lxc_cgroup_reads_and_changes_a_limit.needs(TOOLS).needs(Need::Controller("memory")).lxcrun_only(WHY),
    a_container_without_a_monitor_is_unknown_to_them.needs(TOOLS).lxcrun_only(WHY),
];

const TOOLS: Need = Need::Program("lxc-info");
const WHY: &str = "others have nothing to do with LXC";

/// The profile of podman and its relatives, in their own form.
const PROFILE: &str = "/usr/share/containers/seccomp.json";

/// A container in the foreground, at work.
struct Guest {
    container: Container,
    running: Running,
    told: Fifo,
}

impl Guest {
    /// Runs `script`, which can say something by `tell WORD`.
    fn new(bundle: Bundle, script: &str) -> Guest {
        let meeting = bundle.make_dir("meeting");
        let told = Fifo::new(meeting.join("told"));
        // For any user of the container.
        fs::set_permissions(told.path(), Permissions::from_mode(0o666)).expect("a mode");
        let script =
            format!("tell() {{ echo $1 >/meeting/told; }}; trap 'tell TERM; exit 7' TERM; tell up; {script}");
        let container = bundle.bind(meeting, "/meeting", &[]).sh(&script).build();
        let running = container.spawn(|call| call);
        let mut guest = Guest { container, running, told };
        assert_eq!(guest.told.line(), "up");
        guest
    }

    /// One that waits for its end.
    fn idle(bundle: Bundle) -> Guest {
        Guest::new(bundle, "while :; do sleep 0.05; done")
    }

    fn root(&self) -> String {
        self.container.path("root").display().to_string()
    }

    /// `TOOL -P ROOT -n ID …`, which must come to an end.
    #[track_caller]
    fn tool(&self, tool: &str, args: &[&str]) -> Output {
        run(tool, &[&["-P", &self.root(), "-n", self.container.id()], args].concat())
    }

    #[track_caller]
    fn attach(&self, script: &str) -> Output {
        self.tool("lxc-attach", &["--", "/bin/sh", "-c", script])
    }

    /// Its end, after which nothing may be left.
    #[track_caller]
    fn ends_with(self, code: i32) {
        let run = self.running.wait();
        self.container.assert_gone(run.assert_exit(code));
    }

    /// Starts a tool that waits for the end, and returns when it does.
    #[track_caller]
    fn spawn(&self, tool: &str, args: &[&str]) -> Child {
        let root = self.root();
        let mut command = Command::new("timeout");
        command.args(["60", tool, "-P", &root, "-n", self.container.id()]).args(args);
        let child = command.spawn().expect("timeout of coreutils");
        let socket = format!("@{root}/{}/command", self.container.id());
        let connections = || fs::read_to_string("/proc/net/unix").expect("sockets").matches(&socket).count();
        // The other one listens.
        assert!(until(|| connections() > 1), "{tool} does not wait");
        child
    }

    /// The same, and a tool that has waited for it is content.
    #[track_caller]
    fn ends_with_tool(self, code: i32, mut tool: Child) {
        let run = self.running.wait();
        assert!(tool.wait().expect("our child").success(), "the tool failed{run}");
        self.container.assert_gone(run.assert_exit(code));
    }

    #[track_caller]
    fn end(self) {
        self.container.kill("KILL").assert_ok();
        self.ends_with(137);
    }
}

/// Runs a tool, for no longer than anything may take.
#[track_caller]
fn run(tool: &str, args: &[&str]) -> Output {
    let output = Command::new("timeout").args(["60", tool]).args(args).stdin(Stdio::null()).output();
    Output::new(&format!("{tool} {}", args.join(" ")), &output.expect("timeout of coreutils"))
}

fn lxc_ls_lists_it() {
    let guest = Guest::idle(Bundle::busybox());
    let id = guest.container.id();
    let list = run("lxc-ls", &["-P", &guest.root(), "--active", "-1"]);
    list.assert_ok().assert_stdout(&format!("{id}\n"));
    let list = run("lxc-ls", &["-P", &guest.root(), "-f", "-F", "NAME,STATE,PID"]);
    let words: Vec<&str> = list.assert_ok().stdout.split_whitespace().collect();
    assert_eq!(words, ["NAME", "STATE", "PID", id, "RUNNING", &guest.container.pid().to_string()], "{list}");
    guest.end();
}

fn lxc_info_tells_state_and_pid() {
    let guest = Guest::idle(Bundle::busybox());
    guest.tool("lxc-info", &["-sH"]).assert_ok().assert_stdout("RUNNING\n");
    guest.tool("lxc-info", &["-pH"]).assert_ok().assert_stdout(&format!("{}\n", guest.container.pid()));
    guest.end();
}

fn lxc_attach_runs_a_program_inside() {
    let guest = Guest::idle(Bundle::busybox());
    let output = guest.attach("hostname; cat /etc/passwd | head -n 1; exit 5");
    output.assert_exit(5).assert_stdout("box\nroot:x:0:0:root:/root:/bin/sh\n");
    guest.end();
}

/// What a process may do, and where it is.
const RIGHTS: &str = "for pid in self 1; do
    grep -E '^(Uid|Gid|Groups|Cap[PEBA]|NoNewPrivs|Seccomp)' /proc/$pid/status; cat /proc/$pid/cgroup; done";

/// Whoever attaches has the rights of the init, and is in its cgroups: in that of version 2 one below.
#[track_caller]
fn assert_same_rights(guest: &Guest) -> String {
    let output = guest.attach(RIGHTS);
    let text = output.assert_ok().stdout.replace("/.lxc\n", "\n");
    let lines: Vec<&str> = text.lines().collect();
    let (attached, init) = lines.split_at(lines.len() / 2);
    assert_eq!(attached, init, "{output}");
    assert!(attached.iter().any(|line| line.starts_with("CapEff:")), "{output}");
    attached.join("\n")
}

fn lxc_attach_gives_the_rights_of_the_container() {
    let guest = Guest::idle(Bundle::busybox());
    assert_same_rights(&guest);
    let see = |pid| format!("for ns in /proc/{pid}/ns/*; do readlink $ns; done; ");
    let namespaces = guest.attach(&format!("{}echo; {}", see("self"), see("1")));
    let (attached, init) = namespaces.assert_ok().stdout.split_once("\n\n").expect("two lists");
    assert_eq!(attached, init.trim_end(), "{namespaces}");
    guest.end();
    let guest = Guest::idle(Bundle::busybox().set("/process/noNewPrivileges", false));
    assert!(assert_same_rights(&guest).contains("NoNewPrivs:\t0"));
    guest.end();
}

fn lxc_attach_gives_the_rights_of_a_user() {
    let guest = Guest::idle(Bundle::busybox().user(1000, 1000).edit(|spec| {
        spec["process"]["capabilities"] = json!({ "bounding": ["CAP_CHOWN"] });
    }));
    let user = ["--uid", "1000", "--gid", "1000", "--", "grep", "CapEff", "/proc/self/status"];
    guest.tool("lxc-attach", &user).assert_ok().assert_stdout("CapEff:\t0000000000000000\n");
    // Unless it is told otherwise, it attaches root: with what a program can get in this container at most.
    let output = guest.attach("grep -E '^Cap[EB]' /proc/self/status; grep NoNewPrivs /proc/self/status");
    output.assert_stdout("CapEff:\t0000000000000001\nCapBnd:\t0000000000000001\nNoNewPrivs:\t1\n");
    guest.end();
}

fn lxc_attach_gives_the_users_of_a_user_namespace() {
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let bundle = Bundle::busybox()
        .namespace("user", None)
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .without_mount("/dev/mqueue");
    let meeting = bundle.make_dir("meeting");
    // The user of the namespace has to write there.
    for directory in [meeting.as_path(), &bundle.rootfs("/")] {
        fs::set_permissions(directory, Permissions::from_mode(0o777)).expect("a mode");
    }
    let guest = Guest::idle(bundle);
    assert_same_rights(&guest);
    guest.attach("cat /proc/self/uid_map").assert_ok().assert_stdout_contains("100000");
    guest.end();
}

/// The architectures that LXC puts every rule on.
fn with_filter(default: &str, calls: &Value) -> Bundle {
    let architectures =
        ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];
    let profile = json!({ "defaultAction": default, "architectures": architectures, "syscalls": calls });
    Bundle::busybox().set("/linux/seccomp", profile)
}

fn lxc_attach_is_filtered_by_seccomp() {
    let no_mkdir = json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }]);
    let guest = Guest::idle(with_filter("SCMP_ACT_ALLOW", &no_mkdir));
    let output = guest.attach("touch /tmp/file && echo works; mkdir /tmp/dir");
    output.assert_exit(1).assert_stdout("works\n").assert_stderr_contains("no space left on device");
    // One filter each, also on the init.
    assert!(assert_same_rights(&guest).contains("Seccomp_filters:\t1"));
    guest.end();
    let on_an_argument = json!([{ "names": ["chmod"], "action": "SCMP_ACT_ERRNO", "args": [
        { "index": 1, "value": 0o777, "op": "SCMP_CMP_EQ" }] },
        { "names": ["fchmodat"], "action": "SCMP_ACT_ERRNO", "args": [
        { "index": 2, "value": 0o777, "op": "SCMP_CMP_EQ" }] }]);
    let guest = Guest::idle(with_filter("SCMP_ACT_ALLOW", &on_an_argument));
    let output = guest.attach("touch /tmp/f; chmod 700 /tmp/f && echo works; chmod 777 /tmp/f");
    output.assert_exit(1).assert_stdout("works\n").assert_stderr_contains("operation not permitted");
    guest.end();
}

/// Those of its rules that hold without further capabilities, in the specification's form.
fn engine_profile() -> Bundle {
    let profile: Value =
        serde_json::from_str(&fs::read_to_string(PROFILE).expect("the profile")).expect("JSON");
    let has = |list: &Value, word: &str| list.as_array().is_some_and(|l| l.iter().any(|w| w == word));
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let rules = profile["syscalls"].as_array().expect("rules").iter();
    let rules = rules.filter(|rule| {
        let includes = &rule["includes"];
        let other = includes["arches"].is_array() && !has(&includes["arches"], arch);
        includes["caps"].is_null() && !other && !has(&rule["excludes"]["arches"], arch)
    });
    let rules = rules.map(|rule| {
        json!({ "names": rule["names"], "action": rule["action"],
            "args": rule["args"].as_array().cloned().unwrap_or_default() })
    });
    let default = profile["defaultAction"].as_str().expect("an action");
    with_filter(default, &rules.collect())
}

fn lxc_attach_is_filtered_by_the_profile_of_engines() {
    let guest = Guest::idle(engine_profile());
    let output = guest
        .attach("grep Seccomp: /proc/self/status; ls / >/dev/null && sleep 0 && echo works; nc 127.0.0.1 1");
    output.assert_exit(1).assert_stdout("Seccomp:\t2\nworks\n");
    if cfg!(target_arch = "x86_64") {
        // LXC can't express the rule that allows it.
        output.assert_stderr_contains("socket").assert_stderr_contains("not permitted");
    }
    guest.end();
}

fn lxc_attach_ends_where_lxc_cannot_say_the_filter() {
    let logged = json!([{ "names": ["mkdir"], "action": "SCMP_ACT_LOG" }]);
    let guest = Guest::idle(with_filter("SCMP_ACT_ALLOW", &logged));
    let output = guest.attach("touch /tmp/file");
    assert_ne!(output.code(), 0, "{output}");
    assert!(!guest.container.path("rootfs/tmp/file").exists(), "the program ran{output}");
    guest.end();
}

fn lxc_freeze_and_unfreeze_are_seen() {
    let guest = Guest::idle(Bundle::busybox());
    guest.tool("lxc-freeze", &[]).assert_ok();
    assert_eq!(guest.container.status(), "paused");
    guest.tool("lxc-info", &["-sH"]).assert_ok().assert_stdout("FROZEN\n");
    guest.tool("lxc-unfreeze", &[]).assert_ok();
    assert_eq!(guest.container.status(), "running");
    guest.end();
}

fn lxc_stop_asks_the_program_to_end() {
    let mut guest = Guest::idle(Bundle::busybox());
    let stop = guest.spawn("lxc-stop", &["--nokill", "-t", "50"]);
    assert_eq!(guest.told.line(), "TERM");
    guest.ends_with_tool(7, stop);
}

fn lxc_stop_kills_if_told_to() {
    let guest = Guest::idle(Bundle::busybox());
    guest.tool("lxc-stop", &["-k"]).assert_ok();
    guest.ends_with(137);
}

/// A tool that goes on until it is dropped, and its first lines.
struct Lines(Child);

impl Lines {
    fn of(tool: &str, args: &[&str], stdin: impl Into<Stdio>) -> Lines {
        let mut command = Command::new("stdbuf");
        command.args(["-oL", tool]).args(args).stdin(stdin).stdout(Stdio::piped());
        Lines(command.spawn().expect(tool))
    }

    #[track_caller]
    fn until(&mut self, found: impl Fn(&str) -> bool) -> String {
        loop {
            let line = read_line(self.0.stdout.as_mut().expect("piped"));
            assert!(!line.is_empty(), "it ended, or said nothing");
            if found(&line) {
                return line;
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lxc_top_shows_what_it_uses() {
    let guest = Guest::idle(Bundle::busybox());
    // It wants a terminal, and prints as many containers as that has rows.
    let (terminal, peer) = Pty::open();
    terminal.resize(33, 77);
    let mut top = Lines::of("lxc-top", &["-P", &guest.root(), "-b", "-d", "1"], peer);
    let row = top.until(|line| line.contains(guest.container.id()));
    drop(top);
    assert!(row.split(',').count() > 5, "{row}");
    guest.end();
}

/// lxc-monitord, which lxc-monitor starts, ends with this.
struct Monitord(String);

impl Drop for Monitord {
    fn drop(&mut self) {
        run("lxc-monitor", &["-P", &self.0, "-Q"]);
    }
}

fn lxc_monitor_hears_of_the_end() {
    let guest = Guest::idle(Bundle::busybox());
    let root = guest.root();
    let monitord = Monitord(root.clone());
    let mut monitor = Lines::of("lxc-monitor", &["-P", &root, "-n", guest.container.id()], Stdio::null());
    // It is there when it says something: it hears of every freezing.
    let heard = |monitor: &mut Lines| readable(monitor.0.stdout.as_ref().expect("piped"), Duration::ZERO);
    assert!(until(|| {
        guest.tool("lxc-freeze", &[]).assert_ok();
        guest.tool("lxc-unfreeze", &[]).assert_ok();
        heard(&mut monitor)
    }));
    let Guest { container, running, told: _told } = guest;
    container.kill("KILL").assert_ok();
    let ended = running.wait();
    monitor.until(|line| line.contains("[STOPPED]"));
    drop(monitor);
    drop(monitord);
    container.assert_gone(ended.assert_exit(137));
}

fn lxc_wait_returns_at_the_end() {
    let guest = Guest::idle(Bundle::busybox());
    guest.tool("lxc-wait", &["-s", "RUNNING"]).assert_ok();
    let wait = guest.spawn("lxc-wait", &["-s", "STOPPED"]);
    guest.container.kill("KILL").assert_ok();
    guest.ends_with_tool(137, wait);
}

fn lxc_device_adds_a_device() {
    let guest = Guest::idle(Bundle::busybox());
    device(&guest, "add").assert_ok();
    // Opening the kernel's log for writing writes nothing.
    guest.container.exec(["sh", "-c", "true >/dev/kmsg"]).assert_ok();
    device(&guest, "del").assert_ok();
    guest.container.exec(["test", "-e", "/dev/kmsg"]).assert_exit(1);
    guest.end();
}

/// The tool looks at the network namespace of process 1, which not every root may: we show it another.
#[track_caller]
fn device(guest: &Guest, verb: &str) -> Output {
    let script = "mount --bind /proc/$$ /proc/1; exec lxc-device -P \"$0\" -n \"$1\" -- \"$2\" /dev/kmsg";
    let root = guest.root();
    let args = ["-m", "--propagation", "private", "sh", "-c", script, &root, guest.container.id(), verb];
    run("unshare", &args)
}

/// The devices of cgroup v2 are a program of ours, which liblxc doesn't know.
fn lxc_device_is_refused_on_cgroup_v2() {
    let guest = Guest::idle(Bundle::busybox());
    device(&guest, "add");
    guest.container.exec(["sh", "-c", "true >/dev/kmsg"]).assert_fails();
    guest.end();
}

fn lxc_cgroup_reads_and_changes_a_limit() {
    let guest = Guest::idle(Bundle::busybox().resource("memory", json!({ "limit": 64 << 20 })));
    let file = if is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
    let limit = || guest.tool("lxc-cgroup", &[file]).assert_ok().stdout.trim().to_owned();
    assert_eq!(limit(), "67108864");
    guest.tool("lxc-cgroup", &[file, "83886080"]).assert_ok();
    assert_eq!(limit(), "83886080");
    guest.end();
}

fn a_container_without_a_monitor_is_unknown_to_them() {
    let container = Bundle::busybox().args(["sleep", "1000"]).start();
    let root = container.path("root").display().to_string();
    let list = run("lxc-ls", &["-P", &root, "--active", "-1"]);
    list.assert_ok().assert_stdout("");
    container.finish();
}
