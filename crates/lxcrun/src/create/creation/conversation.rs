//! What is said between the runtime and the init of a container that is being made: `protocol/src/init.rs` has it as a picture.

use std::io;
use std::os::fd::OwnedFd;

use oci_spec::runtime::Spec;
use protocol::Received;
use protocol::init::{FromInit, ToInit};
use protocol::monitor::Item;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Pid;

use super::Creation;
use crate::config::{self, Plan};
use crate::create::request::FdTable;
use crate::error::Context;
use crate::state::{ProcessId, State, Status};
use crate::state_dir::{CONFIG, StateDir};
use crate::{Error, Result, listener, mounts};

impl Creation {
    /// Waits for the init's first word, and sees that it is in its cgroup.
    pub(in crate::create) fn meet_init(&mut self, config: &[Item]) -> Result<Pid> {
        let enters = self.own_cgroups && !self.cgroup.is_of_unit();
        if enters {
            // While liblxc is at work.
            self.cgroup.make()?;
            self.cgroup.prepare_to_move();
        }
        let hello = self.receive(|m| matches!(m, FromInit::Hello))?;
        let pid = hello.sender.ok_or_else(|| self.gone("init's pid"))?;
        tracing::debug!("nsexec container setup is done; child process in init(): pid {pid}");
        let init = ProcessId::of(pid).at(&self.id, "the init has ended")?;
        if self.cgroup.is_none() {
            // Who deletes it after a kill -9 of this process finds the init in no cgroup. It has not been asked for anything
            // yet: a hook could keep it from seeing that we are gone.
            self.directory()?.write_state(&State { unfinished_init: Some(init), ..self.state.clone() })?;
        }
        self.state.init = Some(init);
        self.init_process = init.open().at(&self.id, "cannot open the init")?;
        if enters {
            self.cgroup.enter(pid, &[], None)?
        } else {
            self.cgroup.check_member(pid)?
        }
        // Only now: liblxc would read it when the monitor makes its handle, and lock it by a file of its own.
        let text = config::render(config, &self.id, &self.state.bundle);
        self.directory()?.write_unread(CONFIG, text.as_bytes())?;
        Ok(pid)
    }

    pub(in crate::create) fn send(&self, message: &ToInit, fds: &FdTable) -> Result<()> {
        match self.init.send(message, &fds.borrowed()) {
            // It has given up: what it said before tells why.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.expect(|_| false).map(drop),
            sent => sent.at(&self.id, "the init does not listen"),
        }
    }

    pub(in crate::create) fn proceed(&self) -> Result<()> {
        self.send(&ToInit::Proceed, &FdTable::default())
    }

    /// Waits until the init has made all mounts, and does what it can't do itself.
    pub(in crate::create) fn until_mounted(&self, plan: &Plan) -> Result<()> {
        loop {
            let said = self.receive(|m| matches!(m, FromInit::Mounted | FromInit::MapOwners(_)))?;
            let (FromInit::MapOwners(index), [tree]) = (said.message, said.fds.as_slice()) else {
                return Ok(());
            };
            mounts::map_part(&self.id, plan, index, tree)?;
            self.proceed()?;
        }
    }

    /// Waits until the init has done all that comes before `start`. Returns the master of its terminal.
    pub(in crate::create) fn until_ready(&self, spec: &Spec) -> Result<Option<OwnedFd>> {
        loop {
            let said = self.receive(|m| matches!(m, FromInit::Ready | FromInit::Listener))?;
            let (FromInit::Listener, Some(listener)) = (said.message, said.fds.first()) else {
                return Ok(said.fds.into_iter().next());
            };
            let state = self.state.oci(Status::Creating);
            listener::send(&self.id, spec, &state, state.pid, listener)?;
            self.proceed()?;
        }
    }

    /// Waits for one message of the init and returns the descriptors with it.
    fn expect(&self, wanted: impl Fn(&FromInit) -> bool) -> Result<Vec<OwnedFd>> {
        self.receive(wanted).map(|received| received.fds)
    }

    fn receive(&self, wanted: impl Fn(&FromInit) -> bool) -> Result<Received<FromInit>> {
        let monitor = self.monitor()?;
        let mut fds = vec![
            PollFd::new(&self.init, PollFlags::IN),
            PollFd::from_borrowed_fd(monitor.news(), PollFlags::IN),
        ];
        fds.extend(self.cancelled.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        rustix::io::retry_on_intr(|| poll(&mut fds, None)).at(&self.id, "cannot wait for the init")?;
        let init_speaks = !fds[0].revents().is_empty();
        if !init_speaks && fds[1].revents().is_empty() {
            return Err(Error::Cancelled { id: self.id.clone(), verb: "create" });
        }
        let log = || self.directory().map(StateDir::log_tail).unwrap_or_default();
        if init_speaks {
            let received = self.init.receive::<FromInit>().at(&self.id, "the init's message")?;
            match received {
                Some(received) if wanted(&received.message) => return Ok(received),
                Some(received) => match received.message {
                    FromInit::Failed(failure) => return Err(Error::Init { id: self.id.clone(), failure }),
                    message => {
                        let reason = format!("the init said {message:?} out of turn");
                        return Err(Error::Liblxc { id: self.id.clone(), reason, log: log() });
                    }
                },
                // Its end is closed in the monitor, too: the monitor knows more.
                None => return Err(self.blame_limit(monitor.reason(log))),
            }
        }
        Err(self.blame_limit(monitor.reason(log)))
    }
}
