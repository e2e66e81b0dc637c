//! What happens to tasks, told to containerd in the order in which it happened.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use containerd_shim_protos::api::ForwardRequest;
use containerd_shim_protos::events::task::{
    TaskCheckpointed, TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::ttrpc::proto::{
    MESSAGE_HEADER_LENGTH, MESSAGE_LENGTH_MAX, MESSAGE_TYPE_REQUEST, Request, Response,
};

/// How long containerd may take to answer: somebody who waits for the last event waits no longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An event of the task API: its topic, and its name among containerd's messages.
pub trait Event: Message {
    const TOPIC: &'static str;
    const TYPE: &'static str;
}

macro_rules! events {
    ($($message:ident $topic:literal),* $(,)?) => {
        $(impl Event for $message {
            const TOPIC: &'static str = concat!("/tasks/", $topic);
            const TYPE: &'static str = concat!("containerd.events.", stringify!($message));
        })*
    };
}

events! {
    TaskCreate "create",
    TaskStart "start",
    TaskDelete "delete",
    TaskExit "exit",
    TaskOOM "oom",
    TaskExecAdded "exec-added",
    TaskExecStarted "exec-started",
    TaskPaused "paused",
    TaskResumed "resumed",
    TaskCheckpointed "checkpointed",
}

enum Note {
    Event(Box<Envelope>),
    /// containerd is there again.
    Retry,
    /// Nothing comes after this.
    Finish(Sender<()>),
}

/// The way to containerd.
#[derive(Clone)]
pub struct Events {
    namespace: String,
    notes: Sender<Note>,
    /// Whether events wait for containerd to come back.
    waiting: Arc<AtomicBool>,
}

impl Events {
    /// Events go to the ttrpc socket of containerd.
    pub fn new(namespace: &str, containerd: PathBuf) -> anyhow::Result<Self> {
        let (notes, received) = channel();
        let waiting = Arc::new(AtomicBool::new(false));
        let publisher = Publisher { containerd, connection: None, stream: 1, waiting: Arc::clone(&waiting) };
        std::thread::Builder::new()
            .name("events".into())
            .spawn(move || publisher.run(&received))
            .context("cannot start a thread")?;
        Ok(Self { namespace: namespace.into(), notes, waiting })
    }

    pub fn publish<E: Event>(&self, event: &E) {
        let value = event.write_to_bytes().unwrap_or_default();
        let event = Any { type_url: E::TYPE.into(), value, ..Any::default() };
        let envelope = Envelope {
            timestamp: MessageField::some(timestamp(SystemTime::now())),
            namespace: self.namespace.clone(),
            topic: E::TOPIC.into(),
            event: MessageField::some(event),
            ..Envelope::default()
        };
        self.send(Note::Event(Box::new(envelope)));
    }

    /// Somebody has called: if events could not be told before, now they can.
    pub fn containerd_is_there(&self) {
        if self.waiting.load(Ordering::Relaxed) {
            self.send(Note::Retry);
        }
    }

    /// Waits until containerd has heard everything, or can't.
    pub fn finish(&self) {
        let (done, wait) = channel();
        self.send(Note::Finish(done));
        let _ = wait.recv();
    }

    fn send(&self, note: Note) {
        let _ = self.notes.send(note);
    }
}

/// A moment, as messages have it.
pub fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: since.as_secs().try_into().unwrap_or(i64::MAX),
        nanos: since.subsec_nanos().try_into().unwrap_or(0),
        ..Timestamp::default()
    }
}

/// Waits for what there is to do. Telling of it is the last part of whatever has happened: when there is nothing more for a
/// second, what all that took is not needed until something happens again.
fn next(notes: &Receiver<Note>) -> Option<Note> {
    const IDLE_AFTER: Duration = Duration::from_secs(1);
    match notes.recv_timeout(IDLE_AFTER) {
        Err(RecvTimeoutError::Timeout) => {
            if let Err(e) = kernel::free_code() {
                tracing::debug!("the program stays in memory: {e}");
            }
            notes.recv().ok()
        }
        note => note.ok(),
    }
}

/// A client of ttrpc that has one call and makes it once at a time. The one of the crate wakes up a hundred times a second
/// for as long as it is connected.
struct Publisher {
    containerd: PathBuf,
    connection: Option<UnixStream>,
    stream: u32,
    waiting: Arc<AtomicBool>,
}

impl Publisher {
    fn run(mut self, notes: &Receiver<Note>) {
        let mut queue = VecDeque::new();
        while let Some(note) = next(notes) {
            let finish = match note {
                Note::Event(event) => {
                    queue.push_back(event);
                    None
                }
                Note::Retry => None,
                Note::Finish(done) => Some(done),
            };
            while let Some(event) = queue.front() {
                if let Err(e) = self.forward(event) {
                    tracing::warn!("containerd does not take the event {}: {e}", event.topic);
                    break;
                }
                queue.pop_front();
            }
            self.waiting.store(!queue.is_empty(), Ordering::Relaxed);
            if finish.is_some() {
                // Dropped, it tells.
                return;
            }
        }
    }

    /// Tells one event. A connection that was made before may have ended with the containerd of before.
    fn forward(&mut self, event: &Envelope) -> io::Result<()> {
        if let Some(connection) = self.connection.take()
            && self.call(connection, event).is_ok()
        {
            return Ok(());
        }
        let connection = UnixStream::connect(&self.containerd)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        self.call(connection, event)
    }

    fn call(&mut self, mut connection: UnixStream, event: &Envelope) -> io::Result<()> {
        let request =
            ForwardRequest { envelope: MessageField::some(event.clone()), ..ForwardRequest::default() };
        let request = Request {
            service: "containerd.services.events.ttrpc.v1.Events".into(),
            method: "Forward".into(),
            payload: request.write_to_bytes()?,
            ..Request::default()
        };
        let body = request.write_to_bytes()?;
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        let mut frame = Vec::with_capacity(MESSAGE_HEADER_LENGTH + body.len());
        frame.extend(length.to_be_bytes());
        frame.extend(self.stream.to_be_bytes());
        frame.extend([MESSAGE_TYPE_REQUEST, 0]);
        frame.extend(body);
        // A client's streams have odd numbers.
        self.stream = self.stream.wrapping_add(2);
        connection.write_all(&frame)?;

        let mut header = [0; MESSAGE_HEADER_LENGTH];
        connection.read_exact(&mut header)?;
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if length > MESSAGE_LENGTH_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut answer = vec![0; length];
        connection.read_exact(&mut answer)?;
        self.connection = Some(connection);
        let answer = Response::parse_from_bytes(&answer)?;
        if let Some(refused) = answer.status.as_ref().filter(|status| status.code.value() != 0) {
            // It has heard it: saying it again would change nothing.
            tracing::warn!("containerd refuses the event {}: {}", event.topic, refused.message);
        }
        Ok(())
    }
}
