//! What a daemon asks of whatever runs its containers.

use lxcrun::{ContainerId, OomWatch, Signal};

use crate::error::Result;
use crate::{Command, ExitStatus, Info, Pipes, ProcessConfig, ResourceStats, Terminal};

/// A container that really runs now: what the start callback gets.
#[derive(Debug)]
pub struct Started {
    /// The process as this process sees it: the container's init, or that of an exec.
    pub pid: i32,
    /// Its terminal, if it was to have one.
    pub terminal: Option<Terminal>,
}

/// Called once, after the program has been executed.
///
/// ```no_run
/// # use execdriver::{Command, Driver, LxcDriver, Pipes, Started};
/// # fn run(driver: &LxcDriver, command: &Command) -> execdriver::Result<()> {
/// let mut pid = None;
/// driver.run(command, Pipes::null(), &mut |started: Started| pid = Some(started.pid))?;
/// # Ok(())
/// # }
/// ```
pub type StartCallback<'a> = dyn FnMut(Started) + 'a;

/// Runs containers, each in a call of its own. Every call blocks, any thread may call at any time.
///
/// A container that has ended and one that never was are the same to [`kill`](Self::kill),
/// [`terminate`](Self::terminate) and [`clean`](Self::clean): both are as dead as asked. The other functions say of one that never
/// was, or that was removed, by an error for which [`Error::is_not_found`](crate::Error::is_not_found) is true. One whose daemon
/// was killed stays until somebody [cleans](Self::clean) it: when it has ended, [`list`](Self::list) and [`info`](Self::info) say
/// that it is stopped, and the rest are other errors.
///
/// Errors without a link below are those of the library that carries the commands out, [`lxcrun::Error`] in
/// [`Error::Lxcrun`](crate::Error::Lxcrun).
///
/// ```no_run
/// use execdriver::{Driver, LxcDriver};
///
/// fn count(driver: &dyn Driver, id: &str) -> execdriver::Result<usize> {
///     Ok(driver.pids(&id.parse()?)?.len())
/// }
/// count(&LxcDriver::new()?, "web")?;
/// # Ok::<(), execdriver::Error>(())
/// ```
pub trait Driver: Send + Sync {
    /// Runs a container from its beginning to its end, and leaves nothing of it behind.
    ///
    /// # Errors
    /// When it could not be started: then `start` was not called. [`Error::Field`](crate::Error::Field) names what is wrong
    /// with the command, [`Error::Pipes`](crate::Error::Pipes) what with its pipes, and
    /// [`Error::exit_code`](crate::Error::exit_code) tells a missing program (127) from one that can't be executed (126).
    /// Of the library's own: `Exists` when the id is taken, `Deleted` when somebody has ended it meanwhile, `Refused` and
    /// `Liblxc` with the end of liblxc's log, `Hook`, and `Init` for what the container's init could not do.
    ///
    /// When it has been started: [`Error::Pipes`](crate::Error::Pipes) when its input or output can't be copied any more, and
    /// `Io` when its end can't be waited for. It is ended then.
    fn run(&self, command: &Command, pipes: Pipes<'_>, start: &mut StartCallback<'_>) -> Result<ExitStatus>;

    /// Runs one more process in a running container until it ends. What [`ExitStatus`] says is about this process alone.
    ///
    /// The daemon may ignore SIGCHLD, or have somebody wait for whatever child ends: the status comes all the same.
    ///
    /// # Errors
    /// When it could not be started: [`Error::is_not_found`](crate::Error::is_not_found) when there is no such container,
    /// `Exec` of the library for one that is paused or has ended, [`Error::Field`](crate::Error::Field) for what is wrong with
    /// the process, like an unknown user, and [`Error::exit_code`](crate::Error::exit_code) tells a missing program (127) from
    /// one that can't be executed (126).
    ///
    /// When it has been started: [`Error::Pipes`](crate::Error::Pipes) when its input or output can't be copied any more. It
    /// is ended then.
    fn exec(
        &self,
        id: &ContainerId,
        process: &ProcessConfig,
        pipes: Pipes<'_>,
        start: &mut StartCallback<'_>,
    ) -> Result<ExitStatus>;

    /// Sends a signal to the container's init. KILL ends one that is still being made as [`terminate`](Self::terminate) does.
    ///
    /// # Errors
    /// `Io` of the library when the kernel refuses, which it does to nobody who could make the container, or at this process's
    /// limit of descriptors; `Status` for any signal but KILL when the container is still being made: there is nobody yet who
    /// could take it; those of [`clean`](Self::clean) when KILL ends one that is being made.
    fn kill(&self, id: &ContainerId, signal: Signal) -> Result<()>;

    /// Stops every process of the container, and returns when all stand still.
    ///
    /// # Errors
    /// No such container ([`Error::is_not_found`](crate::Error::is_not_found)); of the library `Status` unless it is running,
    /// `Io` when the kernel does not stop them all, which a process may delay that waits for a broken disk, and `Spec` on a
    /// host without a freezer cgroup.
    fn pause(&self, id: &ContainerId) -> Result<()>;

    /// Lets every process of a paused container go on, and returns when all do.
    ///
    /// # Errors
    /// No such container ([`Error::is_not_found`](crate::Error::is_not_found)); of the library `Status` unless it is paused,
    /// and `Io` when the kernel refuses.
    fn unpause(&self, id: &ContainerId) -> Result<()>;

    /// Kills every process of the container, and returns when all have ended. One that is still being made is removed as by
    /// [`clean`](Self::clean): the [`run`](Self::run) that makes it fails, and its program never runs.
    ///
    /// One whose making ends at that very moment is removed, too: its [`run`](Self::run) would remove it next, and whoever
    /// asked has been told of no container yet. Its program may just have begun then, and that [`run`](Self::run) returns 137.
    ///
    /// # Errors
    /// Those of [`kill`](Self::kill) with KILL.
    fn terminate(&self, id: &ContainerId) -> Result<()>;

    /// Kills the container if it is there, and removes every trace of it, also after a crash of any part.
    ///
    /// # Errors
    /// `Cleanup` of the library with all that could not be removed; the container stays known then, and can be cleaned again.
    /// `Io` when its directory can't be read or removed, or at this process's limit of descriptors.
    fn clean(&self, id: &ContainerId) -> Result<()>;

    /// The driver's name and release.
    fn name(&self) -> String;

    /// The containers that are there, by id: what each is doing, or why that is not known. A damaged one hides no other, and
    /// its error names it, so that it can be [cleaned](Self::clean).
    ///
    /// ```no_run
    /// use execdriver::{Driver, LxcDriver};
    ///
    /// for container in LxcDriver::new()?.list()? {
    ///     match container {
    ///         Ok(info) => println!("{} is {}", info.id, info.status),
    ///         Err(error) => eprintln!("{}", error.report()),
    ///     }
    /// }
    /// # Ok::<(), execdriver::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Root`](crate::Error::Root) when the driver's directory can't be read.
    fn list(&self) -> Result<Vec<Result<Info>>>;

    /// What the container is doing.
    ///
    /// # Errors
    /// No such container ([`Error::is_not_found`](crate::Error::is_not_found)); of the library `Unfinished` for one whose daemon
    /// was killed before it had made more than its directory, and `State` for one whose state is damaged.
    fn info(&self, id: &ContainerId) -> Result<Info>;

    /// Every process of the container, as this process sees them; none of one that has ended.
    ///
    /// # Errors
    /// Those of [`info`](Self::info), and `Io` of the library when this host's cgroups can't be found.
    fn pids(&self, id: &ContainerId) -> Result<Vec<i32>>;

    /// Watches for kills by the kernel's out-of-memory killer in the container, from now on, also in one that another
    /// process runs.
    ///
    /// The watch is a descriptor for poll(2), or for an async runtime, and is readable when there may be news:
    /// [`OomWatch::next`] takes them and says whether somebody was killed since the last call. It is readable once more when
    /// the container has ended, or its cgroup is gone. [`info`](Self::info) then says that it is stopped, when nobody was there to
    /// remove it, or returns an error. Nobody needs one to be told the end: [`run`](Self::run) returns whether there was any
    /// kill.
    ///
    /// ```no_run
    /// use execdriver::rustix::event::{PollFd, PollFlags, poll};
    /// use execdriver::{ContainerId, Driver, LxcDriver, Status};
    ///
    /// /// Says each kill, until the container has ended.
    /// fn follow(driver: &LxcDriver, id: &ContainerId) -> Result<(), Box<dyn std::error::Error>> {
    ///     let watch = driver.watch_oom(id)?;
    ///     while driver.info(id).is_ok_and(|info| info.status != Status::Stopped) {
    ///         poll(&mut [PollFd::new(&watch, PollFlags::IN)], None)?;
    ///         if watch.next()? {
    ///             println!("{id}: out of memory");
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// Those of [`info`](Self::info); of the library `Io` when the container has no cgroup any more, because it has ended, or at
    /// this process's limit of descriptors, and `Spec` on a host without a memory cgroup.
    fn watch_oom(&self, id: &ContainerId) -> Result<OomWatch>;

    /// What the container uses; nothing, once it has ended.
    ///
    /// # Errors
    /// Those of [`pids`](Self::pids).
    fn stats(&self, id: &ContainerId) -> Result<ResourceStats>;
}
