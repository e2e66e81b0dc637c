//! One file for each command that is more than a call.

mod activation;
mod checkpoint;
mod configure;
mod doctor;
mod events;
mod exec;
mod friendly;
mod generate;
mod list;
mod mount;
mod ps;
mod rootless;
mod run;
mod size;
mod update;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use lxcrun::{Bundle, Container, ContainerId, CreateOptions};

use self::activation::Notice;
use crate::cli::{self, Cli, Command};

/// Takes over the descriptors that our caller has opened for this command, in the order of their numbers. To be called
/// before anything else opens some.
pub fn take_inherited(cli: &Cli) -> anyhow::Result<Vec<OwnedFd>> {
    match &cli.command {
        Some(Command::Create(args)) => inherited_by_bundle(&args.bundle),
        Some(Command::Run(args)) => inherited_by_bundle(&args.bundle),
        Some(Command::Exec(args)) => preserve_fds(args.preserve_fds),
        Some(Command::Checkpoint(args)) => checkpoint::take_status_fd(args),
        _ => Ok(Vec::new()),
    }
}

fn inherited_by_bundle(args: &cli::Bundle) -> anyhow::Result<Vec<OwnedFd>> {
    preserve_fds(activation::listen_fds()?.saturating_add(args.preserve_fds))
}

/// Does what the command line says, with the descriptors of [`take_inherited`].
pub fn run(cli: &Cli, inherited: Vec<OwnedFd>) -> anyhow::Result<ExitCode> {
    let Some(command) = &cli.command else {
        return if cli.global.version { version() } else { bail!("a command is needed: see lxcrun --help") };
    };
    let root = match (command, state_root(cli)?) {
        (_, Some(root)) => root,
        // It tells that, beside the rest.
        (Command::Doctor(args), None) => return doctor::doctor(None, args),
        (_, None) => bail!("--root is needed: this user is not root and has no XDG_RUNTIME_DIR"),
    };
    let id = |text: &str| text.parse::<ContainerId>();
    let load = |text: &str| -> anyhow::Result<Container> { Ok(Container::load(&root, &id(text)?)?) };
    match command {
        Command::Create(args) => create(&root, cli, args, inherited)?,
        Command::Start(args) => start(&load(&args.id)?)?,
        Command::State(args) => print_json(&load(&args.id)?.oci_state())?,
        Command::Kill(args) => kill(&load(&args.id)?, args)?,
        Command::Delete(args) => lxcrun::delete(&root, &id(&args.id)?, args.force)?,
        Command::Run(args) => return run::run(&root, cli, args, inherited),
        Command::List(args) => list::list(&root, cli::given(&cli.global.root).is_some(), args)?,
        Command::Exec(args) => return exec::exec(&load(args.id())?, args, inherited),
        Command::Ps(args) => ps::ps(&load(args.id())?, args)?,
        Command::Pause(args) => load(&args.id)?.pause()?,
        Command::Resume(args) => load(&args.id)?.resume()?,
        Command::Events(args) => events::events(&load(&args.id)?, args)?,
        Command::Update(args) => update::update(&load(&args.id)?, args)?,
        Command::Checkpoint(args) => checkpoint::checkpoint(&root, args, inherited)?,
        Command::Restore(args) => return checkpoint::restore(&root, cli, args),
        Command::Spec(args) => spec(args)?,
        Command::Features => print_json(&lxcrun::features())?,
        Command::Doctor(args) => return doctor::doctor(Some(&root), args),
        Command::Configure(args) => configure::configure(args)?,
        Command::LxcConfig(args) => {
            print_text(&lxcrun::plain_lxc_config(&Bundle::open(directory(&args.bundle))?))?
        }
        Command::Completion(args) => generate::completion(args)?,
        Command::Man(args) => generate::man(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// As runc prints it, because engines read it.
fn version() -> anyhow::Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    print_line(&format!(
        "{} version {version}\ncommit: v{version}\nspec: {}\nliblxc: {}\nlibseccomp: {}",
        cli::program(),
        lxcrun::OCI_VERSION,
        lxcrun::liblxc_version(),
        lxcrun::libseccomp_version()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// `--root`, or the default for this user, if there is one. An empty `XDG_RUNTIME_DIR` counts as none.
fn state_root(cli: &Cli) -> anyhow::Result<Option<PathBuf>> {
    if let Some(root) = cli::given(&cli.global.root) {
        // It is written down, in JSON and in lines.
        match root.to_str() {
            None => bail!("--root {}: is not UTF-8", root.display()),
            Some(text) if text.contains(char::is_control) => {
                bail!("--root {text:?}: has a control character")
            }
            Some(_) => {}
        }
        return std::path::absolute(root).with_context(|| format!("--root {}", root.display())).map(Some);
    }
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty());
    Ok(match own {
        _ if !lxcrun::is_ordinary_user() => Some("/run/lxcrun".into()),
        Some(directory) => Some(Path::new(&directory).join("lxcrun")),
        // Root of a user namespace, with the host's /run or one of its own.
        None => rustix::process::geteuid().is_root().then(|| "/run/lxcrun".into()),
    })
}

fn create(root: &Path, cli: &Cli, args: &cli::Create, inherited: Vec<OwnedFd>) -> anyhow::Result<()> {
    let id: ContainerId = args.id.parse()?;
    let bundle = open_bundle(&args.bundle)?;
    lxcrun::create(root, &id, &bundle, create_options(cli, &args.bundle, inherited)?)?;
    Ok(())
}

fn start(container: &Container) -> anyhow::Result<()> {
    let notice = Notice::prepare(container, true)?;
    container.start()?;
    notice.map_or(Ok(()), |notice| notice.pass_on())
}

/// Opens `--bundle`.
fn open_bundle(args: &cli::Bundle) -> anyhow::Result<Bundle> {
    Ok(Bundle::open(directory(&args.bundle))?)
}

/// A bundle's directory: an empty one is this.
fn directory(bundle: &Path) -> &Path {
    if bundle.as_os_str().is_empty() { Path::new(".") } else { bundle }
}

/// The options of `create` and `run` that go to the library as they are. Paths are the caller's.
fn create_options(cli: &Cli, args: &cli::Bundle, inherited: Vec<OwnedFd>) -> anyhow::Result<CreateOptions> {
    let sockets = activation::listen_fds()?;
    Ok(CreateOptions {
        environment: activation::environment(sockets),
        notify: activation::wants_notice(),
        console_socket: absolute(&args.console_socket)?,
        pidfd_socket: absolute(&args.pidfd_socket)?,
        pid_file: absolute(&args.pid_file)?,
        preserve_fds: inherited,
        systemd_cgroup: cli.global.systemd_cgroup,
        no_pivot: args.no_pivot,
        plain_newlines: true,
        no_new_keyring: args.no_new_keyring,
        ..CreateOptions::default()
    })
}

/// A path that was given, from here: whoever uses it may be elsewhere.
fn absolute(path: &Option<PathBuf>) -> std::io::Result<Option<PathBuf>> {
    cli::given(path).map(std::path::absolute).transpose()
}

/// Takes over the descriptors from 3 on that our caller wants the program to have.
fn preserve_fds(count: u32) -> anyhow::Result<Vec<OwnedFd>> {
    (3..count.saturating_add(3))
        .map(|number| {
            let number = i32::try_from(number)?;
            kernel::take_inherited(number).with_context(|| {
                format!("--preserve-fds: preserved-fd {} (descriptor {number}) is not open", number - 3)
            })
        })
        .collect()
}

fn kill(container: &Container, args: &cli::Kill) -> anyhow::Result<()> {
    // As in kill(2): no signal, but it is an error when there is nobody.
    if args.signal == "0" {
        return if args.all { Ok(()) } else { Ok(container.check_running()?) };
    }
    // As in runc, none is the default.
    let signal = if args.signal.is_empty() { "TERM" } else { &args.signal };
    let signal = lxcrun::parse_signal(signal)
        .map_err(|reason| anyhow::anyhow!("container {}: kill: {reason}", container.id()))?;
    if args.all {
        container.kill_all(signal)?
    } else {
        container.kill(signal)?
    }
    Ok(())
}

fn spec(args: &cli::Spec) -> anyhow::Result<()> {
    let path = directory(&args.bundle).join("config.json");
    let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut spec = if args.rootless { lxcrun::rootless_spec(ids) } else { lxcrun::default_spec() };
    lxcrun::fit_to_host(&mut spec);
    let text = serde_json::to_string_pretty(&spec)? + "\n";
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    file.and_then(|mut f| f.write_all(text.as_bytes())).with_context(|| path.display().to_string())
}

/// Prints what programs read: JSON on standard output, by lines.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print_line(&serde_json::to_string_pretty(value)?)
}

fn print_line(text: &str) -> anyhow::Result<()> {
    print_text(&format!("{text}\n"))
}

fn print_text(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has read enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
