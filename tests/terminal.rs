//! Terminals: handed over a console socket, or passed through in the foreground.

use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::process::Stdio;

use lxcrun_test::{Bundle, ConsoleSocket, Container, Fifo, Pty, tests};
use rustix::process::Signal;
use serde_json::json;

tests![
    the_terminal_comes_over_the_console_socket,
    the_terminal_is_the_controlling_one_and_on_all_three,
    the_terminal_has_the_size_of_the_spec,
    a_size_without_a_terminal_is_ignored,
    a_new_size_reaches_the_program,
    the_terminal_belongs_to_the_user,
    the_interrupt_character_sends_a_signal,
    dev_console_is_the_terminal,
    no_byte_is_lost_at_the_end_over_the_socket,
    run_in_the_foreground_passes_the_terminal_through,
    run_in_the_foreground_loses_no_byte_at_the_end,
    run_in_the_foreground_passes_what_is_typed,
    run_in_the_foreground_ends_the_input_of_the_terminal.not_on("runc", "never ends it"),
    run_in_the_foreground_restores_the_terminal,
    run_in_the_foreground_outlives_its_reader.not_on("runc", "SIGPIPE ends it"),
    run_in_the_foreground_writes_to_a_pipe_that_does_not_block
        .not_on("runc", "1.1 loses what cannot be written at once"),
    exec_in_the_foreground_writes_to_a_pipe_that_does_not_block
        .not_on("runc", "1.1 loses what cannot be written at once"),
    a_slow_reader_gets_the_end_of_the_output.not_on("runc", "1.1 loses what cannot be written at once"),
    a_signal_passes_while_nobody_reads.not_on("runc", "1.1 loses what cannot be written at once"),
    a_terminal_without_a_console_socket_is_refused,
    a_console_socket_without_a_terminal_is_refused,
    a_console_socket_that_is_none_is_refused,
];

/// Creates it with a terminal, starts it, and returns it with its terminal.
fn on_terminal(bundle: Bundle) -> (Container, Pty) {
    let container = bundle.terminal().build();
    let socket = ConsoleSocket::new(container.path("console"));
    container.create_with(|call| call.arg("--console-socket").arg(socket.path())).assert_ok();
    let pty = socket.receive();
    container.pid();
    container.start().assert_ok();
    (container, pty)
}

fn the_terminal_comes_over_the_console_socket() {
    let (_container, mut pty) = on_terminal(Bundle::busybox().sh("echo hello"));
    assert_eq!(pty.read_to_end(), "hello\r\n");
}

fn the_terminal_is_the_controlling_one_and_on_all_three() {
    let script = "for fd in 0 1 2; do test -t $fd && echo terminal; done; echo controlling > /dev/tty";
    let (_container, mut pty) = on_terminal(Bundle::busybox().sh(script));
    assert_eq!(pty.read_to_end(), "terminal\r\nterminal\r\nterminal\r\ncontrolling\r\n");
}

fn the_terminal_has_the_size_of_the_spec() {
    let size = json!({ "height": 33, "width": 77 });
    let (_container, mut pty) =
        on_terminal(Bundle::busybox().set("/process/consoleSize", size).args(["stty", "size"]));
    assert_eq!(pty.read_to_end(), "33 77\r\n");
}

fn a_size_without_a_terminal_is_ignored() {
    let size = json!({ "height": 33, "width": 77 });
    let bundle = Bundle::busybox().set("/process/consoleSize", size);
    bundle.sh("test -t 0 || echo none").run().assert_ok().assert_stdout("none\n");
}

fn a_new_size_reaches_the_program() {
    let script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done";
    let (_container, mut pty) = on_terminal(Bundle::busybox().sh(script));
    pty.read_until("ready");
    pty.resize(44, 99);
    assert!(pty.read_to_end().contains("44 99"));
}

fn the_terminal_belongs_to_the_user() {
    let bundle = Bundle::busybox().user(1000, 1000).sh("stat -L -c %u /proc/self/fd/0; echo x > /dev/tty");
    let (_container, mut pty) = on_terminal(bundle);
    assert_eq!(pty.read_to_end(), "1000\r\nx\r\n");
}

fn the_interrupt_character_sends_a_signal() {
    let script = "trap 'echo interrupted; exit' INT; echo ready; while :; do sleep 0.01; done";
    let (_container, mut pty) = on_terminal(Bundle::busybox().sh(script));
    pty.read_until("ready");
    pty.write("\x03");
    assert!(pty.read_to_end().contains("interrupted"));
}

fn dev_console_is_the_terminal() {
    let script = "echo to the console > /dev/console; stat -c %F /dev/console";
    let (_container, mut pty) = on_terminal(Bundle::busybox().sh(script));
    assert_eq!(pty.read_to_end(), "to the console\r\ncharacter special file\r\n");
}

const MANY: &str = "seq 1 20000; printf end";

/// Over a terminal lines end with `\r\n`.
fn assert_all_came(text: &str, newline: &str) {
    let lines: Vec<&str> = text.split(newline).collect();
    assert_eq!(lines.len(), 20001);
    assert!(lines[..20000].iter().enumerate().all(|(i, line)| line.parse() == Ok(i + 1)));
    assert_eq!(lines[20000], "end");
}

fn no_byte_is_lost_at_the_end_over_the_socket() {
    for _ in 0..5 {
        let (_container, mut pty) = on_terminal(Bundle::busybox().sh(MANY));
        assert_all_came(&pty.read_to_end(), "\r\n");
    }
}

/// Runs it in the foreground on a terminal of ours, on which `use_it` acts.
fn in_foreground(bundle: Bundle, use_it: impl FnOnce(&mut Pty)) -> i32 {
    let container = bundle.terminal().build();
    let (mut pty, side) = Pty::open();
    pty.resize(30, 90);
    let side = || side.try_clone().expect("a copy");
    let (stdin, stdout, stderr) = (side(), side(), side());
    let running = container.spawn(|call| call.stdio(stdin, stdout, stderr));
    use_it(&mut pty);
    let output = running.wait();
    container.assert_gone(&output);
    output.code()
}

fn run_in_the_foreground_passes_the_terminal_through() {
    // The size may be set only after the program has begun.
    let script = "test -t 0 || exit; until [ \"$(stty size 2>&1)\" = '30 90' ]; do sleep 0.01; done; exit 5";
    assert_eq!(in_foreground(Bundle::busybox().sh(script), |_| {}), 5);
}

fn run_in_the_foreground_loses_no_byte_at_the_end() {
    for _ in 0..5 {
        let mut seen = String::new();
        assert_eq!(in_foreground(Bundle::busybox().sh(MANY), |pty| seen = pty.read_until("end")), 0);
        assert_all_came(&seen, "\r\n");
    }
}

fn run_in_the_foreground_passes_what_is_typed() {
    let script = "stty -echo; echo ready; read line; echo \"got $line\"; cat; echo end";
    let code = in_foreground(Bundle::busybox().sh(script), |pty| {
        pty.read_until("ready\r\n");
        pty.write("some words\n");
        pty.read_until("got some words\r\n");
        pty.write("\x04");
        pty.read_until("end");
    });
    assert_eq!(code, 0);
}

/// Where our own input is no terminal: after a whole line, after half a line, and without any.
fn run_in_the_foreground_ends_the_input_of_the_terminal() {
    for input in ["line\n", "half", ""] {
        let container = Bundle::busybox().sh("stty -echo; cat; echo end").terminal().build();
        let (stdin, mut writer) = std::io::pipe().expect("a pipe");
        let (mut reader, stdout) = std::io::pipe().expect("a pipe");
        writer.write_all(input.as_bytes()).expect("input");
        drop(writer);
        let running = container.spawn(|call| call.stdio(stdin, stdout, Stdio::null()));
        running.wait().assert_ok();
        let mut seen = String::new();
        reader.read_to_string(&mut seen).expect("output");
        assert!(seen.ends_with("end\n") || seen.ends_with("end\r\n"), "{input:?}: {seen:?}");
        assert!(seen.contains(input.trim_end()), "{input:?}: {seen:?}");
    }
}

fn run_in_the_foreground_restores_the_terminal() {
    let container = Bundle::busybox().sh("echo done").terminal().build();
    let (mut pty, side) = Pty::open();
    let side = || side.try_clone().expect("a copy");
    let settings = || {
        let t = rustix::termios::tcgetattr(side()).expect("settings");
        (t.input_modes, t.output_modes, t.control_modes, t.local_modes)
    };
    let before = settings();
    let (stdin, stdout, stderr) = (side(), side(), side());
    let running = container.spawn(|call| call.stdio(stdin, stdout, stderr));
    pty.read_until("done");
    running.wait().assert_ok();
    assert_eq!(settings(), before);
}

fn run_in_the_foreground_outlives_its_reader() {
    let container = Bundle::busybox().sh("seq 1 20000; echo over > /over; exit 4").terminal().build();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    container.run_with(|call| call.stdio(Stdio::null(), writer, Stdio::null())).assert_exit(4);
    assert_eq!(fs::read_to_string(container.path("rootfs/over")).expect("the end"), "over\n");
}

/// A pipe that is full before anything is read from it, and whose writer does not block.
fn nonblocking_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).expect("O_NONBLOCK");
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).expect("a small pipe");
    (reader, writer)
}

fn assert_all_come(mut reader: PipeReader) {
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("text");
    // What is no terminal gets the lines as they are, as from runc.
    assert_all_came(&text, "\n");
}

fn run_in_the_foreground_writes_to_a_pipe_that_does_not_block() {
    let container = Bundle::busybox().sh(MANY).terminal().build();
    let (reader, writer) = nonblocking_pipe();
    let running = container.spawn(|call| call.stdio(Stdio::null(), writer, Stdio::null()));
    assert_all_come(reader);
    container.assert_gone(running.wait().assert_ok());
}

fn exec_in_the_foreground_writes_to_a_pipe_that_does_not_block() {
    let container = Bundle::busybox().args(["sleep", "100"]).start();
    let (reader, writer) = nonblocking_pipe();
    let call = container.call("exec").args(["--tty", container.id(), "sh", "-c", MANY]);
    let running = call.stdio(Stdio::null(), writer, Stdio::null()).spawn();
    assert_all_come(reader);
    running.wait().assert_ok();
}

fn a_slow_reader_gets_the_end_of_the_output() {
    // All of it fits into the terminal and the runtime's buffer, so the program ends before anything is read.
    let bundle = Bundle::busybox();
    let (mut over, mut go) = (Fifo::new(bundle.rootfs("over")), Fifo::new(bundle.rootfs("go")));
    let container = bundle.sh("seq 1 2000; echo over > /over; read line < /go").terminal().build();
    let (mut reader, writer) = nonblocking_pipe();
    let running = container.spawn(|call| call.stdio(Stdio::null(), writer, Stdio::null()));
    assert_eq!(over.line(), "over");
    container.pid();
    go.send("go");
    container.until_stopped();
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("text");
    assert!(text.split('\n').take(2000).map(str::parse).eq((1..=2000).map(Ok)), "{} bytes came", text.len());
    container.assert_gone(running.wait().assert_ok());
}

fn a_signal_passes_while_nobody_reads() {
    let script = "trap 'exit 7' TERM; echo ready > /ready; yes & while :; do wait; done";
    let bundle = Bundle::busybox();
    let mut ready = Fifo::new(bundle.rootfs("ready"));
    let container = bundle.sh(script).terminal().build();
    let (reader, writer) = nonblocking_pipe();
    let running = container.spawn(|call| call.stdio(Stdio::null(), writer, Stdio::null()));
    assert_eq!(ready.line(), "ready");
    container.pid();
    running.signal(Signal::TERM);
    container.until_stopped();
    drop(reader);
    container.assert_gone(running.wait().assert_exit(7));
}

fn a_terminal_without_a_console_socket_is_refused() {
    Bundle::busybox().terminal().refused(&["console"]);
}

fn a_console_socket_without_a_terminal_is_refused() {
    let container = Bundle::busybox().build();
    let socket = ConsoleSocket::new(container.path("console"));
    let created = container.create_with(|call| call.arg("--console-socket").arg(socket.path()));
    container.refuses(created, &["console"]);
}

fn a_console_socket_that_is_none_is_refused() {
    let container = Bundle::busybox().terminal().build();
    let created = container.create_with(|call| call.arg("--console-socket").arg(container.path("nothing")));
    container.refuses(created, &["nothing"]);
}
