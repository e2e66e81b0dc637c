//! `start`: lets the program go.

use std::os::fd::{AsFd, OwnedFd};

use protocol::init::{Failure, FailureKind, FromGate, Step, ToGate};
use protocol::{Channel, Watch};
use rustix::fs::FlockOperation;
use rustix::process::Signal;

use crate::config::{HookKind, hooks};
use crate::error::Context;
use crate::state::Status;
use crate::state_dir::GATE;
use crate::{Container, Error, Result, process};

impl Container {
    /// Executes the program of a created container.
    ///
    /// # Errors
    /// [`Error::Status`] unless it is created, [`Error::Init`] when the program can't be executed, [`Error::Hook`] when
    /// a poststart hook fails: the container has ended then.
    pub fn start(&self) -> Result<()> {
        if self.state.init.is_none() {
            return self.completed()?.start_completed();
        }
        self.start_completed()
    }

    /// The same container, looked at again when whoever makes it has done so.
    fn completed(&self) -> Result<Self> {
        let directory = self.directory.reopen()?;
        let gone = Error::NotFound { id: self.id().clone(), root: directory.root().into() };
        if !directory.lock_if_there()? {
            return Err(gone);
        }
        directory.unlock();
        Self::load_from(directory)?.ok_or(gone)
    }

    fn start_completed(&self) -> Result<()> {
        self.directory.lock(FlockOperation::LockExclusive)?;
        let started = self.open_gate();
        self.directory.unlock();
        started?;
        self.run_poststart_hooks()
    }

    fn open_gate(&self) -> Result<()> {
        let gate = match self.status_and_gate() {
            (_, Some(gate)) => gate,
            (status, None) => return Err(self.cannot("start", status)),
        };
        let what = "the init does not answer";
        let init = Channel::from(OwnedFd::from(gate));
        let Some(ack) = init.receive::<FromGate>().at(self.id(), what)? else {
            return Err(self.cannot("start", self.status()));
        };
        init.send(&ToGate::Start, &[]).at(self.id(), what)?;
        if !process::until_readable(&init, self.cancelled.as_ref()).at(self.id(), what)? {
            let _ = self.kill(Signal::KILL);
            return Err(Error::Cancelled { id: self.id().clone(), verb: "start" });
        }
        let answer = init.receive::<FromGate>().at(self.id(), what)?;
        self.directory.remove_file(GATE);
        match answer.map(|received| received.message) {
            None | Some(FromGate::Ack) => self.check_executed(ack.fds.first()),
            Some(FromGate::Failed(failure)) => Err(Error::Init { id: self.id().clone(), failure }),
        }
    }

    /// The connection is closed: by the exec, or by the end of an init that could not say why. `step` tells.
    fn check_executed(&self, step: Option<&OwnedFd>) -> Result<()> {
        let step = step.and_then(|fd| Step::of(kernel::read_shared(fd).ok()?)).unwrap_or(Step::Gate);
        if step == Step::Execute {
            return Ok(());
        }
        let message = format!(
            "{}: the init was ended there, before it executed the program; a seccomp filter does that when it \
             forbids what it needs, and is loaded before without process.noNewPrivileges",
            step.field()
        );
        Err(Error::Init { id: self.id().clone(), failure: Failure { kind: FailureKind::Other, message } })
    }

    /// A failure stops the container (runtime-spec, runtime.md, "Lifecycle", step 9).
    fn run_poststart_hooks(&self) -> Result<()> {
        if !self.state.poststart {
            return Ok(());
        }
        self.try_poststart_hooks().inspect_err(|_| {
            // It may have ended by itself.
            let _ = self.kill(Signal::KILL);
        })
    }

    fn try_poststart_hooks(&self) -> Result<()> {
        let state = self.state.oci(Status::Running).json();
        for hook in hooks(self.id(), &self.directory.spec()?, HookKind::Poststart)? {
            let (cancelled, note) =
                (self.cancelled.as_ref().map(AsFd::as_fd), self.directory.note_for_hook()?);
            let watch = Watch { client: None, cancelled, note: Some(note) };
            let ran = hook.run_under(&state, &self.state.bundle, watch);
            ran.map_err(|source| Error::Hook { id: self.id().clone(), source })?;
        }
        Ok(())
    }
}
