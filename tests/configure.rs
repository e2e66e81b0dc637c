//! `configure`: what it writes is what real engines read, and what was there stays.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use lxcrun_test::{Bundle, Container, Need, Output, tests};
use serde_json::Value;

tests![
    containerd_reads_what_is_written.needs(Need::Program("containerd")).lxcrun_only(WHY),
    podman_reads_what_is_written.needs(Need::Program("podman")).lxcrun_only(WHY),
    dockerd_reads_what_is_written.needs(Need::Program("dockerd")).lxcrun_only(WHY),
    what_is_removed_leaves_no_trace.lxcrun_only(WHY),
    the_default_that_was_replaced_comes_back.lxcrun_only(WHY),
    a_dry_run_writes_nothing.lxcrun_only(WHY),
    a_broken_file_stays_as_it_is.lxcrun_only(WHY),
    mode_owner_and_links_stay_and_there_is_a_backup.lxcrun_only(WHY),
    a_shim_is_for_those_who_have_shims.lxcrun_only(WHY),
];

const WHY: &str = "others have no such command";

/// `configure ENGINE --file FILE …`
#[track_caller]
fn configure(container: &Container, engine: &str, file: &Path, more: &[&str]) -> Output {
    let call = container.call("configure").arg(engine).arg("--file").arg(file);
    call.args(["--runtime", "/opt/bin/lxcrun"]).args(more).output()
}

/// A file of this test with this content.
fn file(container: &Container, name: &str, text: &str) -> PathBuf {
    let path = container.path(name);
    fs::write(&path, text).expect("a file");
    path
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("the file")
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new("timeout").args(["60", program]).args(arguments).output();
    Output::new(&format!("{program} {}", arguments.join(" ")), &output.expect("timeout of coreutils"))
}

const CONTAINERD: &str = r#"version = 2
# The default stays.
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "runc" # as ever
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = true
"#;

/// containerd 2 quotes in its own way.
fn seen_in(dump: &Output, word: &str) -> bool {
    dump.assert_ok().stdout.replace('\'', "\"").contains(word)
}

fn containerd_reads_what_is_written() {
    let container = Bundle::busybox().build();
    let path = file(&container, "config.toml", CONTAINERD);
    let said = configure(&container, "containerd", &path, &[]);
    said.assert_ok().assert_stdout_contains("systemctl restart containerd");
    assert!(read(&path).starts_with(CONTAINERD), "{}", read(&path));
    let dump = |path: &Path| run("containerd", &["--config", &path.display().to_string(), "config", "dump"]);
    let seen = dump(&path);
    for word in ["runtimes.lxcrun]", "BinaryName = \"/opt/bin/lxcrun\"", "default_runtime_name = \"runc\""] {
        assert!(seen_in(&seen, word), "{word}{seen}");
    }
    assert_eq!(read(&path).matches("SystemdCgroup = true").count(), 2, "{}", read(&path));
    configure(&container, "containerd", &path, &["--shim", "--default"]).assert_ok();
    let seen = dump(&path);
    let (name, by_path) =
        ("io.containerd.lxcrun.v2", "runtime_path = \"/opt/bin/containerd-shim-lxcrun-v2\"");
    // One before 1.7 would take runc's shim.
    assert!(seen_in(&seen, name) != seen_in(&seen, by_path), "{}", read(&path));
    assert!(seen_in(&seen, "default_runtime_name = \"lxcrun\""), "{}", read(&path));
    assert!(!read(&path).contains("BinaryName"), "{}", read(&path));
    // Where there is none yet.
    let new = container.path("etc/containerd/config.toml");
    configure(&container, "containerd", &new, &[]).assert_ok();
    assert!(seen_in(&dump(&new), "BinaryName = \"/opt/bin/lxcrun\""));
}

fn podman_reads_what_is_written() {
    let container = Bundle::busybox().build();
    let path = file(&container, "containers.conf", "[engine]\n# ours\nevents_logger = \"file\"\n");
    configure(&container, "podman", &path, &["--default"]).assert_ok();
    assert!(read(&path).starts_with("[engine]\n# ours\nevents_logger = \"file\"\n"), "{}", read(&path));
    // With a program that is there, as podman looks for it.
    let program = file(&container, "lxcrun", "#!/bin/sh\n");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode");
    let call = container.call("configure").args(["podman", "--file"]).arg(&path);
    call.arg("--runtime").arg(&program).output().assert_ok();
    let dir = |name: &str| container.path(name).display().to_string();
    let (root, state, temporary) = (dir("storage"), dir("state"), dir("temporary"));
    // With a /run of its own: it leaves things there.
    let script = "mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /dev/shm; exec timeout 60 podman \"$@\"";
    let info = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-ec", script, "podman"])
        .args(["--root", &root, "--runroot", &state, "--tmpdir", &temporary, "--storage-driver", "vfs"])
        .args(["info", "--format", "{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}"])
        .env("CONTAINERS_CONF", &path)
        .output();
    let info = Output::new("podman info", &info.expect("unshare"));
    info.assert_ok().assert_stdout(&format!("lxcrun {}\n", program.display()));
}

/// It has to be started to say whether it understands its file; `--validate` came with Docker 23.
fn dockerd_reads_what_is_written() {
    let container = Bundle::busybox().build();
    let text = "{\n\t\"log-level\": \"warn\",\n\t\"debug\": false\n}\n";
    let path = file(&container, "daemon.json", text);
    configure(&container, "docker", &path, &["--default"]).assert_ok();
    let written: Value = serde_json::from_str(&read(&path)).expect("JSON");
    assert_eq!(written["runtimes"]["lxcrun"]["path"], "/opt/bin/lxcrun");
    assert_eq!(written["default-runtime"], "lxcrun");
    assert!(
        read(&path).starts_with("{\n\t\"log-level\": \"warn\",\n\t\"debug\": false,\n\t"),
        "{}",
        read(&path)
    );
    let docker = lxcrun_test::engines::Docker::configured(&read(&path));
    let info = docker.inside(&["docker", "info", "--format", "{{.DefaultRuntime}} {{json .Runtimes}}"]);
    info.assert_ok().assert_stdout_contains("lxcrun {").assert_stdout_contains("/opt/bin/lxcrun");
}

fn what_is_removed_leaves_no_trace() {
    let container = Bundle::busybox().build();
    for (engine, text) in [
        ("docker", "{\n  \"z\": 1,\n  \"a\": { \"b\":  [] }\n}\n"),
        ("podman", "[engine]\nruntime_supports_json = [\"crun\", \"runc\"] # mine\n"),
        ("containerd", CONTAINERD),
        ("crio", "# nothing yet\n"),
    ] {
        let path = file(&container, engine, text);
        configure(&container, engine, &path, &["--default"]).assert_ok();
        configure(&container, engine, &path, &["--default"]).assert_ok().assert_stdout_contains("already");
        assert_ne!(read(&path), text);
        configure(&container, engine, &path, &["--remove"]).assert_ok();
        assert_eq!(read(&path), text, "{engine}");
        configure(&container, engine, &path, &["--remove"]).assert_ok().assert_stdout_contains("already");
    }
}

/// By the backup, which follows what was replaced last; not by guessing.
fn the_default_that_was_replaced_comes_back() {
    let container = Bundle::busybox().build();
    let with = |default: &str| format!("{{\n  \"default-runtime\": \"{default}\",\n  \"debug\": true\n}}\n");
    let path = file(&container, "daemon.json", &with("runc"));
    let backup = container.path("daemon.json.lxcrun-backup");
    let docker = |more: &[&str]| configure(&container, "docker", &path, more);
    docker(&["--default"]).assert_ok();
    docker(&["--remove"]).assert_ok();
    assert_eq!(read(&path), with("runc"));
    // Another one since.
    fs::write(&path, with("crun")).expect("a file");
    docker(&["--default"]).assert_ok();
    docker(&["--default", "--shim"]).assert_ok();
    docker(&["--remove"]).assert_ok();
    assert_eq!(read(&path), with("crun"));
    // Another one beside us.
    docker(&[]).assert_ok();
    fs::write(&path, read(&path).replace("\"crun\"", "\"youki\"")).expect("a file");
    docker(&["--default"]).assert_ok();
    docker(&["--remove"]).assert_ok();
    assert_eq!(read(&path), with("youki"));
    // Nobody knows.
    docker(&["--default"]).assert_ok();
    let registered = read(&path);
    fs::remove_file(&backup).expect("a backup");
    let said = docker(&["--remove"]);
    said.assert_exit(1).assert_stderr_contains("default-runtime: is lxcrun").assert_stderr_contains("backup");
    assert_eq!(read(&path), registered);
    assert!(!backup.exists());
    // A file that was not there had no default.
    let new = container.path("new.json");
    configure(&container, "docker", &new, &["--default"]).assert_ok();
    configure(&container, "docker", &new, &["--default", "--shim"]).assert_ok();
    fs::write(&new, read(&new).replacen('{', "{\n  \"debug\": true,", 1)).expect("a file");
    configure(&container, "docker", &new, &["--remove"]).assert_ok();
    assert_eq!(
        serde_json::from_str::<Value>(&read(&new)).expect("JSON"),
        serde_json::json!({ "debug": true })
    );
}

fn a_dry_run_writes_nothing() {
    let container = Bundle::busybox().build();
    let path = container.path("new/daemon.json");
    let said = configure(&container, "docker", &path, &["--dry-run", "--shim"]);
    let printed: Value = serde_json::from_str(&said.assert_ok().stdout).expect("JSON");
    assert_eq!(printed["runtimes"]["lxcrun"]["runtimeType"], "io.containerd.lxcrun.v2");
    assert!(!container.path("new").exists());
}

fn a_broken_file_stays_as_it_is() {
    let container = Bundle::busybox().build();
    for (engine, text) in [
        ("docker", "{ \"runtimes\": "),
        ("docker", "{ \"runtimes\": [] }"),
        ("podman", "[engine\n"),
        ("containerd", "version = 1\n"),
        ("containerd", "version = 2\nplugins = 3\n"),
        ("crio", "crio = \"x\"\n"),
    ] {
        let path = file(&container, "broken", text);
        let said = configure(&container, engine, &path, &[]);
        said.assert_exit(1).assert_stderr_contains(&path.display().to_string());
        assert_eq!(read(&path), text);
        assert!(!container.path("broken.lxcrun-backup").exists());
    }
}

fn mode_owner_and_links_stay_and_there_is_a_backup() {
    let container = Bundle::busybox().build();
    let path = file(&container, "real.json", "{}\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    chown(&path, Some(1000), Some(1000)).expect("an owner");
    let link = container.path("link.json");
    symlink("real.json", &link).expect("a link");
    let said = configure(&container, "docker", &link, &[]);
    let backup = container.path("real.json.lxcrun-backup");
    said.assert_ok().assert_stdout_contains(&backup.display().to_string());
    assert!(link.is_symlink() && read(&link).contains("lxcrun"));
    assert_eq!(read(&backup), "{}\n");
    for path in [&path, &backup] {
        let metadata = path.metadata().expect("metadata");
        assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o600, 1000, 1000));
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("a mode");
    configure(&container, "docker", &link, &["--default"]).assert_ok();
    assert_eq!(read(&backup), "{}\n", "the file as it was before the first change");
    let mode = backup.metadata().expect("metadata").mode();
    assert_eq!(mode & 0o7777, 0o400, "who may not read the one may not read the other");
    let missing = container.path("missing.json");
    configure(&container, "docker", &missing, &["--remove"]).assert_ok();
    assert!(!missing.exists());
    let nowhere = container.path("nowhere.json");
    symlink("missing/file", &nowhere).expect("a link");
    configure(&container, "docker", &nowhere, &[]).assert_exit(1);
}

fn a_shim_is_for_those_who_have_shims() {
    let container = Bundle::busybox().build();
    for engine in ["podman", "crio"] {
        let path = container.path(engine);
        configure(&container, engine, &path, &["--shim"]).assert_exit(1).assert_stderr_contains("--shim");
        assert!(!path.exists());
    }
}
