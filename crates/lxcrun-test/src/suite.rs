//! What a test is, what it needs, and the run of all of them.

use std::any::Any;
use std::cell::RefCell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{OnceLock, RwLock};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{Runtime, cgroup, helper};

/// Lists the tests of a module as its `pub fn tests()`, each with what it needs.
///
/// A function that isn't listed is dead code, and the compiler says so.
#[macro_export]
macro_rules! tests {
    ($($name:ident $(. $need:ident ($($arg:tt)*))*),* $(,)?) => {
        pub fn tests() -> Vec<$crate::Test> {
            vec![$($crate::Test::new(module_path!(), stringify!($name), $name)$(.$need($($arg)*))*),*]
        }
    };
}

/// A test: a function, its name, and its needs.
pub struct Test {
    name: String,
    body: fn(),
    needs: Vec<Need>,
    alone: bool,
}

/// What a test can't do without. If it is missing, the test is skipped, and the report says why.
#[derive(Debug, Clone)]
pub enum Need {
    /// An effective uid of 0.
    Root,
    /// Any other effective uid.
    OrdinaryUser,
    /// cgroup v2 and nothing beside it.
    CgroupV2,
    /// systemd as the init: of the host, or for an ordinary user also their own.
    Systemd,
    /// AppArmor, enforcing.
    AppArmor,
    /// A cgroup controller, of either version.
    Controller(&'static str),
    /// A controller that is mounted as a cgroup v1 hierarchy.
    CgroupV1(&'static str),
    /// A file of the kernel's.
    File(&'static str),
    /// A kernel that does not have this file.
    NoFile(&'static str),
    /// A program on the PATH.
    Program(&'static str),
    /// lxcrun's containerd shim, beside the runtime under test.
    Shim,
    /// Docker of this release or newer.
    Docker(u32),
    /// containerd of this release, major and minor, or newer.
    Containerd(u32, u32),
    /// A CRIU that works on this kernel.
    Criu,
    /// The same, with a feature that `criu check --feature` knows.
    CriuFeature(&'static str),
    /// CAP_SYS_RESOURCE, which root lacks in some sandboxes.
    SysResource,
    /// The static program that users get, and not one for developers.
    Release,
    /// lxcrun itself: the test is about its own promise, which other runtimes don't make, for this reason.
    Lxcrun(&'static str),
    /// Any runtime but this one, which differs for this reason.
    Not(&'static str, &'static str),
}

/// If set, tests also run on the runtimes that are said to differ: do they still?
const UNSKIP: &str = "UNSKIP";

impl Need {
    fn missing(&self) -> Option<String> {
        let runtime = Runtime::get();
        if matches!(self, Need::Lxcrun(_) | Need::Not(..)) && std::env::var_os(UNSKIP).is_some() {
            return None;
        }
        match *self {
            Need::Root => (!rustix::process::geteuid().is_root()).then(|| "needs root".to_owned()),
            Need::OrdinaryUser => {
                rustix::process::geteuid().is_root().then(|| "needs an ordinary user".to_owned())
            }
            Need::CgroupV2 => (!cgroup::is_v2()).then(|| "needs cgroup v2 alone".to_owned()),
            Need::Systemd => (!has_systemd()).then(|| "needs systemd".to_owned()),
            Need::AppArmor => {
                let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
                (!enabled.is_ok_and(|e| e.starts_with('Y'))).then(|| "needs AppArmor".to_owned())
            }
            Need::Controller(name) => {
                (!cgroup::has_controller(name)).then(|| format!("needs the cgroup controller {name}"))
            }
            Need::CgroupV1(name) => {
                cgroup::v1(name).is_none().then(|| format!("needs {name} as a cgroup v1 hierarchy"))
            }
            Need::File(path) => (!Path::new(path).exists()).then(|| format!("needs {path}")),
            Need::NoFile(path) => Path::new(path).exists().then(|| format!("needs a host without {path}")),
            Need::Program(name) => {
                crate::runtime::on_path(name).is_none().then(|| format!("needs the program {name}"))
            }
            Need::Shim => runtime.shim().is_none().then(|| "needs containerd-shim-lxcrun-v2".to_owned()),
            Need::Docker(release) => docker_is_older(release),
            Need::Containerd(major, minor) => containerd_is_older(major, minor),
            Need::Criu => criu_fails(&[]),
            Need::CriuFeature(name) => criu_fails(&["--feature", name]),
            Need::SysResource => {
                let capability = rustix::thread::CapabilitySet::SYS_RESOURCE;
                let has =
                    rustix::thread::capabilities(None).is_ok_and(|own| own.effective.contains(capability));
                (!has).then(|| "needs CAP_SYS_RESOURCE".to_owned())
            }
            Need::Release => {
                is_dynamic(runtime.path()).then(|| "needs the program of `make build`".to_owned())
            }
            Need::Lxcrun(why) => (!runtime.is("lxcrun")).then(|| format!("lxcrun only: {why}")),
            Need::Not(name, why) => runtime.is(name).then(|| format!("{name} differs: {why}")),
        }
    }
}

/// Whether a program names a loader, which it does on its first page.
fn is_dynamic(program: &Path) -> bool {
    let text = fs::read(program).unwrap_or_default();
    let page = &text[..text.len().min(4096)];
    page.windows(8).any(|bytes| bytes == b"/ld-linu")
}

/// Whether systemd answers the user we are.
fn has_systemd() -> bool {
    let user = rustix::process::geteuid();
    Path::new("/run/systemd/system").is_dir()
        && (user.is_root() || Path::new(&format!("/run/user/{}/systemd", user.as_raw())).is_dir())
}

/// Says so when the daemon (clients may be of another release) is older than `release`, or none.
fn docker_is_older(release: u32) -> Option<String> {
    let output = Command::new("dockerd").arg("--version").output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let own =
        text.strip_prefix("Docker version ").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    own.is_none_or(|own| own < release).then(|| format!("needs Docker {release}"))
}

/// Says so when containerd is older than `major.minor`, or none. `containerd URL VERSION COMMIT` is what it prints.
pub(crate) fn containerd_is_older(major: u32, minor: u32) -> Option<String> {
    let output = Command::new("containerd").arg("--version").output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let own = text.split_whitespace().nth(2).and_then(|version| {
        let mut numbers = version.trim_start_matches('v').split(['.', '-', '~', '+']);
        Some((numbers.next()?.parse::<u32>().ok()?, numbers.next()?.parse::<u32>().ok()?))
    });
    own.is_none_or(|own| own < (major, minor)).then(|| format!("needs containerd {major}.{minor}"))
}

/// Why CRIU does not work here, if so.
fn criu_fails(options: &[&str]) -> Option<String> {
    let check = Command::new("criu").arg("check").args(options).output();
    match check {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Some(format!("needs criu: {} {options:?}", said.lines().next().unwrap_or("criu check fails")))
        }
        Err(e) => Some(format!("needs criu: {e}")),
    }
}

/// Ordinary tests hold it shared; a test that looks at the whole host holds it alone.
static HOST: RwLock<()> = RwLock::new(());

thread_local! {
    /// Where the last panic of this thread came from, if it runs a test: a caught panic has lost it.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

impl Test {
    /// A test that needs root, as all that run containers do. Use [`tests!`](crate::tests).
    pub fn new(module: &str, name: &str, body: fn()) -> Test {
        let module = module.split_once("::").map_or(module, |(_, rest)| rest);
        Test { name: format!("{module}::{name}"), body, needs: vec![Need::Root], alone: false }
    }

    /// Its name, `module::function`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a need.
    #[must_use]
    pub fn needs(mut self, need: Need) -> Test {
        self.needs.push(need);
        self
    }

    /// For an ordinary user, and not for root.
    #[must_use]
    pub fn for_ordinary_user(mut self) -> Test {
        self.needs.retain(|need| !matches!(need, Need::Root));
        self.needs(Need::OrdinaryUser)
    }

    /// Only lxcrun promises this; `why` says what others do.
    #[must_use]
    pub fn lxcrun_only(self, why: &'static str) -> Test {
        self.needs(Need::Lxcrun(why))
    }

    /// The runtime `name` does something else here, for the reason `why`.
    #[must_use]
    pub fn not_on(self, name: &'static str, why: &'static str) -> Test {
        self.needs(Need::Not(name, why))
    }

    /// No other test runs at the same time.
    #[must_use]
    pub fn alone(mut self) -> Test {
        self.alone = true;
        self
    }

    fn into_trial(self) -> Trial {
        Trial::ignorable_test(self.name, move || {
            if let Some(reason) = self.needs.iter().find_map(Need::missing) {
                return Ok(Completion::ignored_with(reason));
            }
            PLACE.set(Some(String::new()));
            let outcome = if self.alone {
                let _host = HOST.write().unwrap_or_else(|e| e.into_inner());
                catch_unwind(AssertUnwindSafe(self.body))
            } else {
                let _host = HOST.read().unwrap_or_else(|e| e.into_inner());
                catch_unwind(AssertUnwindSafe(self.body))
            };
            match outcome {
                Ok(()) => Ok(Completion::Completed),
                Err(panic) => {
                    Err(Failed::from(format!("{}: {}", PLACE.take().unwrap_or_default(), message(&*panic))))
                }
            }
        })
    }
}

/// The tests, of which the runtime `name` is known to fail some: lists of theirs, with the reason of each list.
///
/// # Panics
/// If a list names a test that doesn't exist.
pub fn differing(
    tests: impl IntoIterator<Item = Test>,
    name: &'static str,
    differences: &[(&'static str, &[&str])],
) -> Vec<Test> {
    let mut tests: Vec<Test> = tests.into_iter().collect();
    for (reason, names) in differences {
        for known in *names {
            let test = tests.iter_mut().find(|test| test.name == *known);
            let test = test.unwrap_or_else(|| panic!("{name} differs in {known}, which is no test"));
            test.needs.push(Need::Not(name, reason));
        }
    }
    tests
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("panicked")
}

static SCRATCH: OnceLock<PathBuf> = OnceLock::new();

/// The directory of this run; all that tests make lies below it, and it goes when they are done.
pub fn scratch() -> &'static Path {
    SCRATCH.get().expect("the suite's main made the scratch directory")
}

/// The `main` of a test binary: plays a part as a helper if asked to, else runs `tests` as libtest would.
pub fn main(tests: impl IntoIterator<Item = Test>) -> ExitCode {
    if let Some(status) = helper::main() {
        return status;
    }
    let scratch = tempfile::Builder::new().prefix("lxcrun-test-").tempdir().expect("a scratch directory");
    SCRATCH.set(scratch.path().to_owned()).expect("main runs once");
    std::panic::set_hook(Box::new(|info| {
        match PLACE.take() {
            Some(_) => PLACE.set(Some(info.location().map(ToString::to_string).unwrap_or_default())),
            // In a thread of a test's own: all that the test hears is that it panicked.
            None => eprintln!("{info}"),
        }
    }));
    let arguments = Arguments::from_args();
    if !arguments.list {
        eprintln!("runtime: {}", Runtime::get());
    }
    let conclusion = libtest_mimic::run(&arguments, tests.into_iter().map(Test::into_trial).collect());
    crate::engines::end();
    cgroup::remove_plain_directories();
    cgroup::remove_parent();
    // What liblxc keeps for state roots, of which ours are gone now. Other runtimes keep nothing there.
    let _ = fs::remove_dir_all(format!("/run/lxc/lock{}", scratch.path().display()));
    conclusion.exit_code()
}
