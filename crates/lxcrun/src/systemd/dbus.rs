//! As much of D-Bus as a conversation with systemd needs: one connection, calls one after the other, signals between.
//! Blocking, without threads. The wire format is `zvariant`'s. Source: the D-Bus specification.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use zvariant::serialized::{Context, Data};
use zvariant::{DynamicType, LE, ObjectPath, SerializeValue, Signature, Str, Type, Value, to_bytes};

/// systemd answers at once, and ends its jobs for a scope nearly so. As in runc.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Nothing that systemd says is near as long as what the specification allows.
const LONGEST: u32 = 16 << 20;

/// Types of messages.
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Fields of a message's header.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// Endianness, type, flags, version; length of the body, serial, fields.
type Header<F> = (u8, u8, u8, u8, u32, u32, Vec<(u8, F)>);

/// A field on its way out.
enum Field<'f> {
    Value(Value<'f>),
    /// Of several arguments: theirs one after the other, which by itself is no signature that `zvariant` knows.
    Signature(SerializeValue<'f, Arguments>),
}

#[derive(Serialize)]
#[serde(transparent)]
struct Arguments(String);

impl Type for Arguments {
    const SIGNATURE: &'static Signature = &Signature::Signature;
}

impl Type for Field<'_> {
    const SIGNATURE: &'static Signature = &Signature::Variant;
}

impl Serialize for Field<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(serializer),
            Self::Signature(signature) => signature.serialize(serializer),
        }
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("D-Bus: {0}")]
    Format(#[from] zvariant::Error),
    /// The other side's answer.
    #[error("{message} ({name})")]
    Refused { name: String, message: String },
}

impl Error {
    /// Whether the other side answered with this error, without its prefix.
    pub(super) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { name, .. } if name.rsplit('.').next() == Some(wanted))
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("D-Bus: {what}"))
}

/// What came in.
pub(super) struct Message {
    kind: u8,
    fields: Vec<(u8, Value<'static>)>,
    body: Vec<u8>,
}

impl Message {
    fn read(from: &mut impl Read) -> Result<Self, Error> {
        let mut start = [0; 16];
        from.read_exact(&mut start)?;
        if start[0] != b'l' {
            return Err(broken("a big-endian message on this machine").into());
        }
        let number = |at: usize| start.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        let (Some(body), Some(fields)) = (number(4), number(12)) else {
            return Err(broken("no header").into());
        };
        if body > LONGEST || fields > LONGEST {
            return Err(broken("a message that is too long").into());
        }
        let mut header = start.to_vec();
        header.resize(16 + fields.next_multiple_of(8) as usize, 0);
        from.read_exact(&mut header[16..])?;
        let mut message = vec![0; body as usize];
        from.read_exact(&mut message)?;
        let data = Data::new(header, Context::new_dbus(LE, 0));
        let (header, _): (Header<Value<'_>>, _) = data.deserialize()?;
        let fields = header.6.into_iter().map(|(code, v)| Ok((code, v.try_to_owned()?.into())));
        Ok(Self { kind: header.1, fields: fields.collect::<zvariant::Result<_>>()?, body: message })
    }

    fn text(&self, field: u8) -> Option<&str> {
        match &self.fields.iter().find(|(code, _)| *code == field)?.1 {
            Value::Str(text) => Some(text.as_str()),
            Value::ObjectPath(path) => Some(path.as_str()),
            _ => None,
        }
    }

    fn answers(&self, serial: u32) -> bool {
        let wanted = |(code, value): &(u8, Value<'_>)| *code == REPLY_SERIAL && *value == Value::U32(serial);
        matches!(self.kind, RETURN | ERROR) && self.fields.iter().any(wanted)
    }

    pub(super) fn is_signal(&self, member: &str) -> bool {
        self.kind == SIGNAL && self.text(MEMBER) == Some(member)
    }

    /// The arguments, as a tuple.
    pub(super) fn arguments<T>(&self) -> Result<T, Error>
    where
        T: serde::de::DeserializeOwned + zvariant::Type,
    {
        Ok(Data::new(self.body.as_slice(), Context::new_dbus(LE, 0)).deserialize()?.0)
    }
}

/// An object that is called, and one of its interfaces.
#[derive(Clone, Copy)]
pub(super) struct Object<'o> {
    pub destination: &'o str,
    pub path: &'o str,
    pub interface: &'o str,
}

/// The bus itself.
const BUS: Object<'_> = Object {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

/// A connection, authenticated.
pub(super) struct Connection {
    socket: BufReader<UnixStream>,
    serial: u32,
    signals: VecDeque<Message>,
}

impl Connection {
    /// Connects to a bus and says hello.
    pub(super) fn to_bus(address: &SocketAddr) -> Result<Self, Error> {
        let mut connection = Self::direct(address)?;
        connection.call(BUS, "Hello", &())?;
        Ok(connection)
    }

    /// Connects to a program without a bus between.
    pub(super) fn direct(address: &SocketAddr) -> Result<Self, Error> {
        let socket = UnixStream::connect_addr(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut connection = Self { socket: BufReader::new(socket), serial: 0, signals: VecDeque::new() };
        // Without a name: the other side takes whom the kernel says we are, which is right in user namespaces, too.
        connection.socket.get_mut().write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        for wanted in ["DATA", "OK "] {
            let mut line = String::new();
            connection.socket.by_ref().take(4096).read_line(&mut line)?;
            if !line.starts_with(wanted) {
                let reason = format!("D-Bus: it does not accept this user: {:?}", line.trim_end());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason).into());
            }
        }
        Ok(connection)
    }

    /// Asks the bus for a kind of signals.
    pub(super) fn listen(&mut self, rule: &str) -> Result<(), Error> {
        self.call(BUS, "AddMatch", &(rule,)).map(drop)
    }

    /// Calls a method, and waits for its answer.
    pub(super) fn call<A>(
        &mut self,
        object: Object<'_>,
        method: &str,
        arguments: &A,
    ) -> Result<Message, Error>
    where
        A: Serialize + DynamicType,
    {
        self.serial += 1;
        let serial = self.serial;
        let body = to_bytes(Context::new_dbus(LE, 0), arguments)?;
        let signature = Arguments(arguments.signature().to_string_no_parens());
        let text = |text| Field::Value(Value::from(Str::from(text)));
        let mut fields = vec![
            (PATH, Field::Value(Value::from(ObjectPath::try_from(object.path)?))),
            (INTERFACE, text(object.interface)),
            (MEMBER, text(method)),
            (DESTINATION, text(object.destination)),
        ];
        if !body.is_empty() {
            fields.push((SIGNATURE, Field::Signature(SerializeValue(&signature))));
        }
        let length = u32::try_from(body.len()).map_err(|_| broken("a message that is too long"))?;
        let header: Header<Field<'_>> = (b'l', CALL, 0, 1, length, serial, fields);
        let mut message = to_bytes(Context::new_dbus(LE, 0), &header)?.to_vec();
        message.resize(message.len().next_multiple_of(8), 0);
        message.extend_from_slice(&body);
        self.socket.get_mut().write_all(&message)?;
        loop {
            let message = Message::read(&mut self.socket).map_err(patience)?;
            if message.answers(serial) {
                return answer(message);
            }
            if message.kind == SIGNAL {
                self.signals.push_back(message);
            }
        }
    }

    /// Waits for the next signal, but not beyond `end`.
    pub(super) fn signal_until(&mut self, end: Instant) -> Result<Message, Error> {
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return Ok(signal);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(patience(io::Error::from(io::ErrorKind::WouldBlock).into()));
            }
            self.socket.get_ref().set_read_timeout(Some(left))?;
            let message = Message::read(&mut self.socket).map_err(patience);
            self.socket.get_ref().set_read_timeout(Some(PATIENCE))?;
            let message = message?;
            if message.kind == SIGNAL {
                return Ok(message);
            }
        }
    }
}

/// The kernel's word for a time-out is no help.
fn patience(e: Error) -> Error {
    match e {
        Error::Io(e) if e.kind() == io::ErrorKind::WouldBlock => {
            io::Error::new(io::ErrorKind::TimedOut, "no answer within 30 seconds").into()
        }
        e => e,
    }
}

fn answer(message: Message) -> Result<Message, Error> {
    if message.kind != ERROR {
        return Ok(message);
    }
    let name = message.text(ERROR_NAME).unwrap_or_default().to_owned();
    let text: String = message.arguments::<(String,)>().map(|(text,)| text).unwrap_or_default();
    Err(Error::Refused { name, message: text })
}

/// The first address of a list that is a socket of this machine.
pub(super) fn parse_address(list: &str) -> Option<SocketAddr> {
    list.split(';').find_map(|address| {
        let keys = address.strip_prefix("unix:")?;
        keys.split(',').find_map(|pair| match pair.split_once('=')? {
            ("path", path) => socket_at(&unescape(path)?),
            ("abstract", name) => {
                use std::os::unix::ffi::OsStrExt;
                SocketAddr::from_abstract_name(unescape(name)?.as_os_str().as_bytes()).ok()
            }
            _ => None,
        })
    })
}

/// The address of the socket in a file.
pub(super) fn socket_at(path: &Path) -> Option<SocketAddr> {
    SocketAddr::from_pathname(path).ok()
}

/// `%2f` and the like.
fn unescape(text: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Some(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_unix_sockets_are_found_in_a_list() {
        let path = |list: &str| parse_address(list).and_then(|a| a.as_pathname().map(Path::to_owned));
        assert_eq!(path("unix:path=/run/user/1000/bus,guid=00ff").unwrap(), Path::new("/run/user/1000/bus"));
        assert_eq!(path("tcp:host=a,port=1;unix:path=/a%20b").unwrap(), Path::new("/a b"));
        assert!(parse_address("unix:abstract=/tmp/dbus-x,guid=1").unwrap().as_abstract_name().is_some());
        for wrong in ["", "unix:", "unix:path=%2", "tcp:host=localhost", "unix:path=%zz"] {
            assert!(parse_address(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let body = to_bytes(Context::new_dbus(LE, 0), &("job", 7_u32)).unwrap();
        let fields =
            vec![(REPLY_SERIAL, Value::U32(3)), (SIGNATURE, Value::from(Signature::try_from("su").unwrap()))];
        let header: Header<Value<'_>> = (b'l', RETURN, 0, 1, u32::try_from(body.len()).unwrap(), 9, fields);
        let mut bytes = to_bytes(Context::new_dbus(LE, 0), &header).unwrap().to_vec();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend_from_slice(&body);
        let message = Message::read(&mut bytes.as_slice()).unwrap();
        assert!(message.answers(3) && !message.answers(4));
        assert_eq!(message.arguments::<(String, u32)>().unwrap(), ("job".into(), 7));
        for length in 0..bytes.len() {
            assert!(Message::read(&mut &bytes[..length]).is_err());
        }
    }
}
