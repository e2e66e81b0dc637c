//! `kubectl exec` as a websocket: Kubernetes' protocol v4.channel.k8s.io.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use crate::engines::Sandbox;

/// The channels: the first byte of each message.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;

/// A session at a URL that containerd has given.
pub struct Session {
    // netcat, as the address is one of the sandbox.
    pipe: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Session {
    /// Connects.
    #[track_caller]
    pub fn open(sandbox: &Sandbox, url: &str) -> Session {
        let (address, path) = url.strip_prefix("http://").and_then(|u| u.split_once('/')).expect("a URL");
        let (host, port) = address.rsplit_once(':').expect("a port");
        let mut command = sandbox.command("busybox");
        command.args(["nc", host, port]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut pipe = command.spawn().expect("busybox");
        let mut to = pipe.stdin.take().expect("piped");
        let mut from = BufReader::new(pipe.stdout.take().expect("piped"));
        let head = format!(
            "GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Sec-WebSocket-Protocol: v4.channel.k8s.io\r\nOrigin: http://{address}\r\n\r\n"
        );
        to.write_all(head.as_bytes()).expect("a request");
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\n") {
            assert!(from.read_line(&mut answer).expect("an answer") > 0, "it ended: {answer}");
        }
        assert!(answer.contains(" 101 "), "no websocket: {answer}");
        Session { pipe, to, from }
    }

    /// Types something.
    pub fn write(&mut self, text: &str) {
        self.send(STDIN, text);
    }

    /// Gives the terminal a size.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        self.send(RESIZE, &format!("{{\"Width\":{columns},\"Height\":{rows}}}"));
    }

    /// A binary message, masked with zeros as a client has to.
    fn send(&mut self, channel: u8, text: &str) {
        let length = u8::try_from(text.len() + 1).ok().filter(|&n| n < 126).expect("a short text");
        let mut frame = vec![0x82, 0x80 | length, 0, 0, 0, 0, channel];
        frame.extend_from_slice(text.as_bytes());
        self.to.write_all(&frame).expect("a message");
    }

    /// All that the program writes, and the status at the end.
    pub fn read_to_end(mut self) -> (String, String) {
        let (mut stdout, mut status) = (Vec::new(), Vec::new());
        while let Some(message) = self.message() {
            match message.split_first() {
                Some((&STDOUT, data)) => stdout.extend_from_slice(data),
                Some((&STATUS, data)) => status.extend_from_slice(data),
                _ => {}
            }
        }
        let _ = self.pipe.kill();
        let _ = self.pipe.wait();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\r', "");
        (text(&stdout), text(&status))
    }

    /// The next message; `None` at the end, which netcat's deadline brings at the latest.
    fn message(&mut self) -> Option<Vec<u8>> {
        const CLOSE: u8 = 8;
        let mut head = [0; 2];
        self.from.read_exact(&mut head).ok()?;
        let mut long = [0; 8];
        let length = match head[1] & 0x7f {
            126 => {
                self.from.read_exact(&mut long[6..]).ok()?;
                u64::from_be_bytes(long)
            }
            127 => {
                self.from.read_exact(&mut long).ok()?;
                u64::from_be_bytes(long)
            }
            short => short.into(),
        };
        let mut message = vec![0; usize::try_from(length).ok()?];
        self.from.read_exact(&mut message).ok()?;
        (head[0] & 0xf != CLOSE).then_some(message)
    }
}
