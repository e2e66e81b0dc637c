//! A process on its way into a container.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use protocol::Channel;
use protocol::init::{CONTROL_FD, Exec, FromInit, ToInit, WAITER, WAITER_FD};
use protocol::monitor::Exit;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::ExecProcess;
use crate::cgroup::Cgroup;
use crate::create::FdTable;
use crate::error::{Context, unable};
use crate::helper::Helper;
use crate::{ContainerId, Error, Result, embedded, process};

/// The process of an exec until it has become its program. Dropped before that, it is killed and waited for.
pub(super) struct Joining<'a> {
    id: &'a ContainerId,
    channel: Channel,
    /// Becomes readable when nobody wants it any more.
    cancelled: Option<OwnedFd>,
    /// Where it may be frozen.
    cgroup: &'a Cgroup,
    /// Who enters the container's namespaces and makes the process, which only so gets into a PID namespace. Our child,
    /// unless there is a waiter, whose child it is then.
    helper: Option<Helper>,
    /// Who waits for it instead of us.
    waiter: Option<Waiter>,
    process: Option<(Pid, OwnedFd)>,
}

/// A process that waits for that of an exec: protocol's `WAITER`.
#[derive(Debug)]
pub(super) struct Waiter {
    process: Helper,
    /// What it says when the exec has ended.
    report: OwnedFd,
}

impl Waiter {
    /// How the exec has ended; the waiter ends with it.
    pub(super) fn wait(&self, id: &ContainerId) -> Result<Exit> {
        let mut status = [0; 4];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&self.report, &mut status));
        let read = read.at(id, "cannot wait for the process");
        self.process.wait().at(id, "cannot wait for a helper process")?;
        // Nothing was said by one that was killed.
        if read? != status.len() {
            return Err(Error::StatusTaken { id: id.clone() });
        }
        Ok(Exit::of_status(i32::from_ne_bytes(status)))
    }
}

impl<'a> Joining<'a> {
    /// Starts the helper, and before it the waiter where this program's children are not its own alone.
    pub(super) fn begin(
        id: &'a ContainerId,
        cgroup: &'a Cgroup,
        shared_children: bool,
        cancelled: Option<OwnedFd>,
    ) -> Result<Self> {
        let (channel, helper_end) = Channel::pair().at(id, "no channel for the exec")?;
        channel.learn_senders().at(id, "no channel for the exec")?;
        let program = embedded::init().at(id, "cannot start a helper process")?;
        let mut fds = vec![(helper_end.into(), CONTROL_FD)];
        let (mut helper, mut waiter) = (None, None);
        if shared_children && !kernel::statuses_outlive_reaping() {
            let (report, end) = pipe_with(PipeFlags::CLOEXEC).at(id, "no channel for the exec")?;
            fds.push((end, WAITER_FD));
            let process = Helper::spawn(program, WAITER, fds, None);
            waiter = Some(Waiter { process: process.at(id, "cannot start a helper process")?, report });
        } else {
            let process = Helper::spawn(program, "lxcrun: exec", fds, None);
            helper = Some(process.at(id, "cannot start a helper process")?);
        }
        Ok(Self { id, channel, cancelled, cgroup, helper, waiter, process: None })
    }

    /// Has the helper make the process, which is in the container's namespaces then, and in none of its cgroups: there the
    /// kernel may refuse one more process, but not to move one in.
    pub(super) fn join(&mut self, plan: Exec, fds: &FdTable) -> Result<Pid> {
        let id = self.id;
        if let Err(e) = self.channel.send(&ToInit::Exec(Box::new(plan)), &fds.borrowed()) {
            // It has given up: what it said before tells why.
            self.receive(|_| false)?;
            return Err(e).at(id, "the exec does not listen");
        }
        // Two say so: the helper, and then the process that it has made.
        self.receive(|m| matches!(m, FromInit::Hello))?;
        let (_, sender) = self.receive(|m| matches!(m, FromInit::Hello))?;
        let pid = sender.ok_or_else(|| unable(id, "exec", "its pid is unknown"))?;
        tracing::debug!("nsexec container setup is done; child process in init(): pid {pid}");
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(e) if process::is_gone(e) => {
                // Somebody else has waited for it already.
                self.receive(|_| false)?;
                return Err(e).at(id, "the exec has ended");
            }
            opened => opened.at(id, "the exec's process")?,
        };
        self.process = Some((pid, pidfd));
        if let Some(helper) = self.helper.take() {
            helper.wait().at(id, "cannot wait for a helper process")?;
        }
        Ok(pid)
    }

    /// Itself, if `done` to it was a success. Where the process has ended meanwhile, that is the failure.
    pub(super) fn unless_it_has_ended(&mut self, done: Result<()>) -> Result<&mut Self> {
        if done.is_err() && process::has_ended(self.pidfd()?) {
            self.receive(|_| false)?;
        }
        done.map(|()| self)
    }

    /// Lets the process take what the container gives it, and returns the master of its terminal.
    pub(super) fn get_ready(&mut self) -> Result<Option<OwnedFd>> {
        self.proceed()?;
        Ok(self.receive(|m| matches!(m, FromInit::Ready))?.0.into_iter().next())
    }

    /// Lets the process become its program. The listener of a seccomp filter is handed on by `send`.
    pub(super) fn become_program(&mut self, send: impl Fn(&OwnedFd) -> Result<()>) -> Result<()> {
        self.proceed()?;
        self.until_it_speaks()?;
        let receive = || self.channel.receive::<FromInit>();
        while let Some(received) = unless_gone(receive()).at(self.id, "the exec's message")?.flatten() {
            match (received.message, received.fds.first()) {
                (FromInit::Failed(failure), _) => {
                    return Err(Error::Init { id: self.id.clone(), failure });
                }
                (FromInit::Listener, Some(listener)) => {
                    send(listener)?;
                    self.channel.send(&ToInit::Proceed, &[]).at(self.id, "the exec does not listen")?;
                }
                (message, _) => return Err(self.out_of_turn(&message)),
            }
        }
        // Its program's execution has closed it.
        Ok(())
    }

    /// The process, which is its program now.
    pub(super) fn into_process(mut self, terminal: Option<OwnedFd>) -> Result<ExecProcess> {
        let (pid, pidfd) = self.process.take().ok_or_else(|| self.no_process())?;
        let (waiter, ended) = (self.waiter.take(), Mutex::new(None));
        Ok(ExecProcess { id: self.id.clone(), pid, pidfd, terminal, waiter, ended })
    }

    pub(super) fn pidfd(&self) -> Result<&OwnedFd> {
        self.process.as_ref().map(|(_, pidfd)| pidfd).ok_or_else(|| self.no_process())
    }

    fn no_process(&self) -> Error {
        unable(self.id, "exec", "its process is not there yet")
    }

    fn proceed(&self) -> Result<()> {
        unless_gone(self.channel.send(&ToInit::Proceed, &[])).at(self.id, "the exec does not listen")?;
        Ok(())
    }

    /// Waits for one message; a failure is the error.
    fn receive(&self, wanted: impl Fn(&FromInit) -> bool) -> Result<(Vec<OwnedFd>, Option<Pid>)> {
        self.until_it_speaks()?;
        match self.channel.receive::<FromInit>().at(self.id, "the exec's message")? {
            Some(received) => match received.message {
                FromInit::Failed(failure) => Err(Error::Init { id: self.id.clone(), failure }),
                message if wanted(&message) => Ok((received.fds, received.sender)),
                message => Err(self.out_of_turn(&message)),
            },
            None => Err(unable(self.id, "exec", "its process ended early: the container may have ended")),
        }
    }

    fn until_it_speaks(&self) -> Result<()> {
        let spoken = process::until_readable(&self.channel, self.cancelled.as_ref());
        if spoken.at(self.id, "cannot wait for the exec")? {
            return Ok(());
        }
        Err(Error::Cancelled { id: self.id.clone(), verb: "exec" })
    }

    fn out_of_turn(&self, message: &FromInit) -> Error {
        unable(self.id, "exec", format!("its process said {message:?} out of turn"))
    }
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        let made = self.process.take();
        if let Some((pid, pidfd)) = &made {
            // The container stays frozen; who leaves it is not. Killed it goes on to its end only.
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
            self.cgroup.leave_freezer(*pid);
            process::kill_and_reap(pidfd);
        }
        // The waiter ends with those that it waits for. After the helper alone there may be one that ends only with our channel.
        let others = self.helper.iter().chain(self.waiter.iter().map(|waiter| &waiter.process));
        for other in others {
            if made.is_none() {
                other.kill();
            }
            let _ = other.wait();
        }
    }
}

/// Whoever has the pidfd may have killed the process by now: then it says nothing, and its end tells how.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn all_who_wait_at_once_are_told_how_it_ended() {
        let (report, told) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (input, alive) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let helper =
            Helper::spawn(File::open("/bin/cat").unwrap().into(), "cat", vec![(input, 0)], None).unwrap();
        let process = ExecProcess {
            id: "web".parse().unwrap(),
            pid: helper.pid(),
            pidfd: helper.pidfd().try_clone_to_owned().unwrap(),
            terminal: None,
            waiter: Some(Waiter { process: helper, report }),
            ended: Mutex::new(None),
        };
        std::thread::scope(|scope| {
            let waiting = [(); 8].map(|()| scope.spawn(|| process.wait()));
            rustix::io::write(&told, &(7_i32 << 8).to_ne_bytes()).unwrap();
            drop((told, alive));
            for thread in waiting {
                assert_eq!(thread.join().unwrap().unwrap(), Exit::Code(7));
            }
        });
    }
}
