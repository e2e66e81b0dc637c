//! CRIU: a process of it for each checkpoint and restore, spoken to by messages (`criu swrk`), as runc does it.
//!
//! liblxc has a `migrate` of its own. It needs its monitor alive and a root that it has mounted itself, writes options
//! of CRIU's command line, and knows nothing of the specification's mounts and pipes: no container of ours fits it.

pub(crate) mod mounts;
pub(crate) mod rpc;

use std::fs::File;
use std::io::{self, IoSliceMut, Read, Seek};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use command_fds::{CommandFdExt, FdMapping};
use kernel::ChildNote;
use prost::Message;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, Shutdown,
    SocketFlags, SocketType, recvmsg, send, shutdown, socketpair,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use self::rpc::{Features, Kind, Notify, Options, Request, Response};
use crate::error::Context;
use crate::{ContainerId, Error, Result};

/// CRIU's end of the conversation, in its process; descriptors for it to inherit follow.
const SOCKET_FD: i32 = 3;
/// What Debian 12 has, and the first that knows all options that we use. An older one would ignore some.
const OLDEST: (i32, i32) = (3, 17);
/// Answers are short: the longest has one sentence in it.
const LONGEST_ANSWER: usize = 1 << 16;
/// So many of a log that goes away are in the error.
const LAST_LINES: usize = 3;
/// All that CRIU says when it is not debugged.
const LOG_LEVEL: i32 = 4;

/// What CRIU does about cgroups at a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupsMode {
    /// Nothing: processes are where CRIU is, in the container's cgroup.
    Ignore,
    /// Restores the properties of those that it makes itself.
    Soft,
    /// Restores all properties.
    Full,
    /// Fails when one is there already.
    Strict,
}

impl CgroupsMode {
    /// Its number in `criu_cg_mode`.
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Ignore => 0,
            Self::Soft => 3,
            Self::Full => 4,
            Self::Strict => 5,
        }
    }
}

/// A directory that CRIU writes to or reads from.
#[derive(Debug)]
pub(crate) struct Directory {
    pub path: PathBuf,
    fd: OwnedFd,
}

impl Directory {
    pub(crate) fn open(id: &ContainerId, path: &Path) -> Result<Self> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .at(id, format!("cannot open the directory {}", path.display()))?;
        Ok(Self { path: path.into(), fd })
    }

    /// Its number, for CRIU to open through /proc.
    pub(crate) fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}

/// What a notification brings along.
pub(crate) struct Notification {
    /// Its name: `setup-namespaces`, `post-restore` and others.
    pub script: String,
    /// Of the restored init, in this PID namespace.
    pub pid: Option<Pid>,
    pub fd: Option<OwnedFd>,
}

/// A CRIU process that waits for requests. Dropped before its last answer it is killed.
#[derive(Debug)]
pub(crate) struct Criu {
    id: ContainerId,
    verb: &'static str,
    child: Child,
    socket: OwnedFd,
    /// What it says when it can't even open its log.
    output: File,
}

impl Criu {
    /// Starts one, in the mount namespace of this thread. `inherited` get the numbers from [`inherited_fd`] on. With a `note` it
    /// is in a process group of its own: it goes on when this process is killed, until somebody ends it by that note.
    pub(crate) fn spawn(
        id: &ContainerId,
        verb: &'static str,
        inherited: Vec<OwnedFd>,
        note: Option<ChildNote>,
    ) -> Result<Self> {
        let what = "cannot start criu";
        let (socket, its_end) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .at(id, what)?;
        let output = File::from(memfd_create("criu", MemfdFlags::CLOEXEC).at(id, what)?);
        let mut command = Command::new("criu");
        command.arg("swrk").arg(SOCKET_FD.to_string()).stdin(std::process::Stdio::null());
        command.stdout(output.try_clone().at(id, what)?).stderr(output.try_clone().at(id, what)?);
        let fds = std::iter::once(its_end).chain(inherited);
        let mappings =
            (SOCKET_FD..).zip(fds).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd }).collect();
        command.fd_mappings(mappings).map_err(io::Error::other).at(id, what)?;
        if let Some(note) = note {
            kernel::note_child_in(command.process_group(0), note);
        }
        let child = match kernel::block_none_in(&mut command).spawn() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let reason = "criu is not installed, or not in PATH".into();
                return Err(Error::Criu { id: id.clone(), verb, reason });
            }
            spawned => spawned.at(id, what)?,
        };
        Ok(Self { id: id.clone(), verb, child, socket, output })
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Fails when it is too old, or can't do on this host what `wanted` says.
    pub(crate) fn check(&mut self, wanted: Features) -> Result<()> {
        let kept_open =
            |kind: Kind| Request { kind: kind.into(), keep_open: Some(true), ..Request::default() };
        let answer = self.ask(&kept_open(Kind::Version), &mut |_| Ok(()))?;
        let version = answer.version.map_or((0, 0), |v| (v.major, v.minor));
        if version < OLDEST {
            let ((major, minor), (old_major, old_minor)) = (version, OLDEST);
            return Err(self.error(format!(
                "criu {major}.{minor} is too old: {old_major}.{old_minor} or newer is needed"
            )));
        }
        if wanted == Features::default() {
            return Ok(());
        }
        let request = Request { features: Some(wanted), ..kept_open(Kind::FeatureCheck) };
        let has = self.ask(&request, &mut |_| Ok(()))?.features.unwrap_or_default();
        let lacks = |wanted: Option<bool>, has: Option<bool>| wanted == Some(true) && has != Some(true);
        if lacks(wanted.mem_track, has.mem_track) {
            return Err(
                self.error("this kernel does not track changed memory (CONFIG_MEM_SOFT_DIRTY)".into())
            );
        }
        if lacks(wanted.lazy_pages, has.lazy_pages) {
            return Err(self.error("this kernel cannot restore memory lazily (userfaultfd)".into()));
        }
        Ok(())
    }

    /// The last request: returns when CRIU is done with it and has ended. `log` is the file that `options` name.
    pub(crate) fn run(
        mut self,
        kind: Kind,
        options: Options,
        log: &Log,
        mut notified: impl FnMut(Notification) -> Result<()>,
    ) -> Result<()> {
        let request = Request { kind: kind.into(), options: Some(options), ..Request::default() };
        let answer = self.ask(&request, &mut notified);
        // It may wait for one more request, or for an answer that it does not get. It may write on while it undoes what it has done.
        let _ = shutdown(&self.socket, Shutdown::Both);
        let ended = self.child.wait().at(&self.id, "cannot wait for criu");
        match answer {
            Ok(_) => ended.map(drop),
            Err(Error::Criu { id, verb, reason }) => {
                Err(Error::Criu { id, verb, reason: log.reason(reason) })
            }
            Err(other) => Err(other),
        }
    }

    /// Sends a request and waits for its answer, through all notifications before it.
    fn ask(
        &mut self,
        request: &Request,
        notified: &mut dyn FnMut(Notification) -> Result<()>,
    ) -> Result<Response> {
        self.send(request)?;
        let mut failed = None;
        loop {
            let Some((response, fd)) = self.receive()? else {
                return Err(failed.unwrap_or_else(|| self.error(self.last_words())));
            };
            if response.kind == i32::from(Kind::Notify) && response.success {
                let Notify { script, pid } = response.notify.unwrap_or_default();
                let notification =
                    Notification { script: script.unwrap_or_default(), pid: pid.and_then(Pid::from_raw), fd };
                let outcome = notified(notification);
                self.send(&Request {
                    kind: Kind::Notify.into(),
                    notify_success: Some(outcome.is_ok()),
                    ..Request::default()
                })?;
                failed = failed.or(outcome.err());
                continue;
            }
            return match failed {
                Some(error) => Err(error),
                None if response.success && response.kind == request.kind => Ok(response),
                None => Err(self.error(match errors(&response.error.unwrap_or_default()) {
                    said if said.is_empty() => "criu failed".into(),
                    said => said,
                })),
            };
        }
    }

    fn send(&self, request: &Request) -> Result<()> {
        match send(&self.socket, &request.encode_to_vec(), SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(self.error(self.last_words())),
            sent => sent.at(&self.id, "criu does not listen").map(drop),
        }
    }

    /// `None` when it has ended without saying anything more.
    fn receive(&self) -> Result<Option<(Response, Option<OwnedFd>)>> {
        if !self.speaks().at(&self.id, "criu's answer")? {
            return Ok(None);
        }
        let mut buffer = vec![0; LONGEST_ANSWER];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            recvmsg(&self.socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)
        });
        let received = match received {
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            received => received.at(&self.id, "criu's answer")?,
        };
        let length = received.bytes;
        if length == 0 {
            return Ok(None);
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(rustix::io::Errno::MFILE).at(&self.id, "criu's answer");
        }
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        match Response::decode(&buffer[..length]) {
            Ok(response) => Ok(Some((response, fd))),
            Err(e) => Err(self.error(format!("its answer makes no sense: {e}"))),
        }
    }

    /// Waits until it has said something, or closed its socket; false when it has ended instead. What it has started, and
    /// has its socket, lives on when it is killed.
    fn speaks(&self) -> rustix::io::Result<bool> {
        // It is no other process: nobody has waited for it yet.
        let process = pidfd_open(self.pid(), PidfdFlags::empty())?;
        // In this order, so that what it said before its end is seen.
        let mut fds = [PollFd::new(&process, PollFlags::IN), PollFd::new(&self.socket, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        Ok(!fds[1].revents().is_empty())
    }

    fn error(&self, reason: String) -> Error {
        Error::Criu { id: self.id.clone(), verb: self.verb, reason }
    }

    /// What it printed before it went away without an answer.
    fn last_words(&self) -> String {
        let mut text = Vec::new();
        let mut output = &self.output;
        let _ = output.rewind();
        let _ = output.read_to_end(&mut text);
        match errors(&String::from_utf8_lossy(&text)) {
            said if said.is_empty() => "criu ended without an answer".into(),
            said => said,
        }
    }
}

impl Drop for Criu {
    fn drop(&mut self) {
        // Without effect on one that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number in CRIU's process of the descriptor that is `index` in the list of those to inherit.
pub(crate) fn inherited_fd(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX - SOCKET_FD).saturating_add(SOCKET_FD + 1)
}

/// `CLONE_NEW*` of the namespaces that CRIU does not fill. What is in the network's is the engine's: it makes devices
/// there, by hooks or by path, at a restore as at `create`.
pub(crate) const EMPTY_NAMESPACES: u32 = libc::CLONE_NEWNET.unsigned_abs();

/// Whether CRIU can do its work on this kernel, by its own word: what it says is missing. It takes seconds.
pub(crate) fn works(program: &Path) -> std::result::Result<(), String> {
    let mut command = Command::new(program);
    command.arg("check").stdin(std::process::Stdio::null());
    let output = kernel::block_none_in(&mut command).output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    let said = String::from_utf8_lossy(&said);
    // Without its errors' form it is at least something.
    let first = sentences(&said).into_iter().chain(said.lines()).find(|line| !line.trim().is_empty());
    Err(first.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned()))
}

/// What every request says.
pub(crate) fn options(images: &Directory, work: &Directory, log: &str) -> Options {
    Options {
        images_dir_fd: images.number(),
        work_dir_fd: Some(work.number()),
        log_level: Some(LOG_LEVEL),
        log_file: Some(log.into()),
        notify_scripts: Some(true),
        manage_cgroups: Some(true),
        orphan_pts_master: Some(true),
        ..Options::default()
    }
}

/// Where CRIU writes what it does.
pub(crate) struct Log {
    pub path: PathBuf,
    /// Whether it is still there after a failure, for people to read.
    pub stays: bool,
}

impl Log {
    /// The errors in it, which say more than CRIU's answer, and where all of it is; or how it ends.
    fn reason(&self, answer: String) -> String {
        let Ok(text) = std::fs::read(&self.path) else { return answer };
        let text = String::from_utf8_lossy(&text);
        let said = errors(&text);
        let reason = if said.is_empty() { answer } else { said };
        if self.stays {
            return format!("{reason} (log: {})", self.path.display());
        }
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let end = lines[lines.len().saturating_sub(LAST_LINES)..].join("; ");
        format!("{reason} (the log, which --work-path keeps, ends: {end})")
    }
}

/// The sentences of a log that say what went wrong. The first is the cause, those after it who was affected by it.
fn errors(log: &str) -> String {
    sentences(log).into_iter().take(3).collect::<Vec<_>>().join("; ")
}

fn sentences(log: &str) -> Vec<&str> {
    let said = log.lines().filter_map(|line| {
        let (_, error) = line.split_once("Error (")?;
        let (_, sentence) = error.split_once("): ")?;
        // No failure: CRIU wants more descriptors than it needs.
        (!sentence.starts_with("rlimit:")).then(|| sentence.trim())
    });
    // It looks for tools by executing them, and what is not there is an "error" of these words; but where one that it needs
    // has failed, nothing else may be said.
    let (tools, causes): (Vec<&str>, Vec<&str>) =
        said.partition(|sentence| sentence.starts_with("exited, status="));
    if causes.is_empty() { tools } else { causes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errors_of_a_log_are_its_reason() {
        let log = "(00.05) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self\n\
                   (00.05) Warn  (criu/x.c:1): odd\n\
                   (00.17) Error (criu/files-reg.c:1790): Can't lookup mount=27 for fd=1 path=/out\n\
                   (00.17) Error (criu/cr-dump.c:1681): Dump files (pid: 1) failed with -1\n";
        assert_eq!(
            errors(log),
            "Can't lookup mount=27 for fd=1 path=/out; Dump files (pid: 1) failed with -1"
        );
    }

    #[test]
    fn a_tool_that_criu_has_looked_for_is_no_cause() {
        let log = "Error (criu/util.c:642): exited, status=1\nError (criu/util.c:642): exited, status=1\n\
                   Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds\n";
        assert_eq!(errors(log), "vdso: Unexpected rt vDSO area bounds");
        assert_eq!(errors("Error (criu/util.c:642): exited, status=1\n"), "exited, status=1");
    }

    #[test]
    fn messages_have_the_numbers_of_the_protocol() {
        let request = Request {
            kind: Kind::Dump.into(),
            options: Some(Options { images_dir_fd: 5, pid: Some(7), ..Options::default() }),
            ..Request::default()
        };
        assert_eq!(request.encode_to_vec(), [0x08, 1, 0x12, 4, 0x08, 5, 0x10, 7]);
    }
}
