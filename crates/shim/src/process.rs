//! A process of a task, the init or an exec, as containerd knows it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::io::{Io, Uris};

/// How and when a process ended.
#[derive(Debug, Clone, Copy)]
pub struct Exited {
    /// The shell's number.
    pub status: u32,
    pub at: SystemTime,
}

impl Exited {
    pub fn now(status: u32) -> Self {
        Self { status, at: SystemTime::now() }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    pid: u32,
    started: bool,
    exited: Option<Exited>,
}

/// What the init and execs have in common.
pub struct Process {
    pub uris: Uris,
    io: Mutex<Io>,
    state: Mutex<State>,
    ended: Condvar,
    starting: Mutex<()>,
}

impl Process {
    pub fn new(uris: Uris) -> Self {
        Self {
            uris,
            io: Mutex::default(),
            state: Mutex::default(),
            ended: Condvar::new(),
            starting: Mutex::new(()),
        }
    }

    /// Held until containerd is told of the creation, or the start, so that it hears of the end only afterwards.
    pub fn starting(&self) -> MutexGuard<'_, ()> {
        lock(&self.starting)
    }

    pub fn io(&self) -> MutexGuard<'_, Io> {
        lock(&self.io)
    }

    pub fn pid(&self) -> u32 {
        lock(&self.state).pid
    }

    /// It is there, and may be started.
    pub fn created(&self, pid: Option<i32>) {
        lock(&self.state).pid = pid.and_then(|pid| pid.try_into().ok()).unwrap_or(0);
    }

    pub fn started(&self) {
        lock(&self.state).started = true;
    }

    pub fn is_started(&self) -> bool {
        lock(&self.state).started
    }

    /// The same, when whoever is starting it has done so.
    pub fn has_started(&self) -> bool {
        let _starting = self.starting();
        self.is_started()
    }

    pub fn exited(&self) -> Option<Exited> {
        lock(&self.state).exited
    }

    /// Tells everybody who waits.
    pub fn end(&self, exited: Exited) {
        self.end_telling(exited, |_| {});
    }

    /// The same, and gives the pid to `tell`: who hears of the end from it finds the process ended, and no other event can
    /// come before.
    pub fn end_telling(&self, exited: Exited, tell: impl FnOnce(u32)) {
        let mut state = lock(&self.state);
        state.exited.get_or_insert(exited);
        tell(state.pid);
        drop(state);
        self.ended.notify_all();
    }

    pub fn wait(&self) -> Exited {
        let mut state = lock(&self.state);
        loop {
            match state.exited {
                Some(exited) => return exited,
                None => state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// A mutex whose holder has panicked holds what it held.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
