//! What a service manager hands over: sockets, and where to say that the service is ready.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use lxcrun_test::{Bundle, Container, DEADLINE, Fifo, pidfd, readable, tests};

tests![
    sockets_of_a_service_manager_reach_the_program,
    sockets_for_another_process_do_not,
    the_word_that_it_is_ready_goes_on_in_the_foreground.not_on("runc", "1.1 says nothing in the foreground"),
    start_waits_for_the_word_that_it_is_ready.not_on("runc", "1.1 names no main process"),
    start_does_not_wait_for_a_program_that_has_ended,
];

/// Runs a command with LISTEN_PID set to its own pid, as a service manager does it.
const AS_SERVICE: &str = "export LISTEN_PID=$$ LISTEN_FDS=2";

fn sockets_of_a_service_manager_reach_the_program() {
    let bundle = Bundle::busybox();
    let [first, second] = ["first", "second"].map(|name| bundle.make_file(name, name));
    let script = "echo $LISTEN_FDS $LISTEN_PID; cat <&3; cat <&4; [ -e /proc/self/fd/5 ] && echo more";
    let container = bundle.sh(script).host(AS_SERVICE).build();
    let run = container.run_with(|call| {
        call.fd(3, File::open(first).expect("a file")).fd(4, File::open(second).expect("a file"))
    });
    run.assert_exit(1).assert_stdout("2 1\nfirstsecond");
}

fn sockets_for_another_process_do_not() {
    let bundle = Bundle::busybox();
    let file = bundle.make_file("file", "");
    let container = bundle.sh("echo [$LISTEN_FDS]; ls /proc/self/fd | grep -c '^3$'").build();
    let run = container.run_with(|call| {
        call.fd(9, File::open(file).expect("a file")).env("LISTEN_PID", "1").env("LISTEN_FDS", "1")
    });
    assert!(run.stdout.starts_with("[]\n"), "{}", run.stdout);
}

/// A service manager's socket, and what came to it.
struct Manager(UnixDatagram, std::path::PathBuf);

impl Manager {
    fn new(bundle: &Bundle) -> Manager {
        let path = bundle.path("manager.sock");
        Manager(UnixDatagram::bind(&path).expect("a socket"), path)
    }

    #[track_caller]
    fn hears(&self) -> String {
        assert!(readable(&self.0, DEADLINE), "nobody said anything");
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}

/// Says `words` at the container's notify socket, as its program would.
#[track_caller]
fn say(container: &Container, words: &str) {
    let socket = format!("/proc/{}/root/run/notify/notify.sock", container.pid());
    let program = UnixDatagram::unbound().expect("a socket");
    program.send_to(words.as_bytes(), socket).expect("somebody who listens");
}

fn with_manager(bundle: Bundle) -> (Container, Manager, Fifo) {
    let fifo = Fifo::new(bundle.path("fifo"));
    let manager = Manager::new(&bundle);
    let bundle = bundle.bind(fifo.path(), "/fifo", &["bind"]);
    (bundle.sh("echo $NOTIFY_SOCKET >/fifo; exec sleep 1000").build(), manager, fifo)
}

fn the_word_that_it_is_ready_goes_on_in_the_foreground() {
    let (container, manager, mut fifo) = with_manager(Bundle::busybox());
    let run = container.spawn(|call| call.env("NOTIFY_SOCKET", &manager.1));
    assert_eq!(fifo.line(), "/run/notify/notify.sock");
    say(&container, "STATUS=busy\nMAINPID=1\nREADY=1\n");
    assert_eq!(manager.hears(), "READY=1\n");
    container.kill("KILL").assert_ok();
    run.wait().assert_exit(137);
}

fn start_waits_for_the_word_that_it_is_ready() {
    let (container, manager, mut fifo) = with_manager(Bundle::busybox());
    container.create_with(|call| call.env("NOTIFY_SOCKET", &manager.1)).assert_ok();
    let start = container.call("start").env("NOTIFY_SOCKET", &manager.1).arg(container.id()).spawn();
    fifo.line();
    say(&container, "STATUS=not yet");
    assert!(pidfd(start.pid()).is_some_and(|fd| !readable(fd, Duration::from_millis(100))), "it waits");
    say(&container, "READY=1");
    start.wait().assert_ok();
    assert_eq!(manager.hears(), format!("READY=1\nMAINPID={}\n", container.pid()));
}

fn start_does_not_wait_for_a_program_that_has_ended() {
    let bundle = Bundle::busybox().args(["true"]);
    let manager = Manager::new(&bundle);
    let container = bundle.build();
    container.create_with(|call| call.env("NOTIFY_SOCKET", &manager.1)).assert_ok();
    container.call("start").env("NOTIFY_SOCKET", &manager.1).arg(container.id()).output().assert_ok();
    assert!(!readable(&manager.0, Duration::ZERO), "it was never ready");
}
