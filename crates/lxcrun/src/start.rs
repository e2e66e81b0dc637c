//! `start`: lets the program go.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use protocol::init::{FromGate, ToGate};
use protocol::{Channel, Received};
use rustix::fs::FlockOperation;
use rustix::process::Signal;

use crate::config::{HookKind, hooks};
use crate::error::Context;
use crate::state::{GATE, Status};
use crate::{Container, Error, Result, listener};

impl Container {
    /// Executes the program of a created container.
    ///
    /// # Errors
    /// [`Error::Status`] unless it is created, [`Error::Init`] when the program can't be executed: the container has
    /// ended then.
    pub fn start(&self) -> Result<()> {
        self.directory.lock(FlockOperation::LockExclusive)?;
        let started = self.open_gate();
        self.directory.unlock();
        started?;
        self.run_poststart_hooks()
    }

    fn open_gate(&self) -> Result<()> {
        let status = self.status();
        if status != Status::Created {
            return Err(self.cannot("start", status));
        }
        let gate = self.directory.short_path(GATE);
        let what = "the init does not answer";
        let init = Channel::from(OwnedFd::from(UnixStream::connect(gate).at(self.id(), what)?));
        let Some(_) = init.receive::<FromGate>().at(self.id(), what)? else {
            return Err(self.cannot("start", self.status()));
        };
        init.send(&ToGate::Start, &[]).at(self.id(), what)?;
        let mut answer = init.receive::<FromGate>().at(self.id(), what)?;
        let _ = std::fs::remove_file(self.directory.path().join(GATE));
        if let Some(Received { message: FromGate::Listener, fds, .. }) = &answer {
            if let Err(e) = self.hand_over_listener(fds) {
                // It waits for an agent that will never answer.
                let _ = self.kill(Signal::KILL);
                return Err(e);
            }
            init.send(&ToGate::Proceed, &[]).at(self.id(), what)?;
            answer = init.receive::<FromGate>().at(self.id(), what)?;
        }
        match answer.map(|received| received.message) {
            // The exec has closed it.
            None | Some(FromGate::Ack | FromGate::Listener) => Ok(()),
            Some(FromGate::Failed(failure)) => Err(Error::Init { id: self.id().clone(), failure }),
        }
    }

    fn hand_over_listener(&self, fds: &[OwnedFd]) -> Result<()> {
        let Some(listener) = fds.first() else {
            return Err(self.cannot("start", self.status()));
        };
        let state = self.state.oci(Status::Created);
        listener::send(self.id(), &self.directory.spec()?, &state, state.pid, listener)
    }

    /// A failure is logged and changes nothing (runtime-spec, runtime.md, "Lifecycle", step 9).
    fn run_poststart_hooks(&self) -> Result<()> {
        if !self.state.poststart {
            return Ok(());
        }
        let state = self.state.oci(Status::Running).json();
        for hook in hooks(self.id(), &self.directory.spec()?, HookKind::Poststart)? {
            if let Err(e) = hook.run(&state, &self.state.bundle) {
                tracing::warn!("container {}: {e}", self.id());
            }
        }
        Ok(())
    }
}
