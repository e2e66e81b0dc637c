//! `start`: lets the program go.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use protocol::Channel;
use protocol::init::{FromGate, ToGate};
use rustix::fs::FlockOperation;

use crate::config::{HookKind, hooks};
use crate::error::Context;
use crate::state::{GATE, Status};
use crate::{Container, Error, Result};

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
        let answer = init.receive::<FromGate>().at(self.id(), what)?;
        let _ = std::fs::remove_file(self.directory.path().join(GATE));
        match answer.map(|received| received.message) {
            // The exec has closed it.
            None | Some(FromGate::Ack) => Ok(()),
            Some(FromGate::Failed(failure)) => Err(Error::Init { id: self.id().clone(), failure }),
        }
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
