//! Containers under an async runtime: `under_tokio ROOTFS`
//!
//! Every call of the driver blocks, so each runs on a thread for blocking work. Output arrives on a socket that the
//! runtime polls: no thread copies it.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::Context;
use execdriver::{Command, Driver, LxcDriver, Pipes, Started};
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let rootfs = std::env::args().nth(1).context("usage: under_tokio ROOTFS")?;
    let rootfs = std::fs::canonicalize(rootfs)?;
    let driver: Arc<dyn Driver> = Arc::new(LxcDriver::new()?);
    let mut containers = Vec::new();
    for number in 0..4 {
        let id = format!("tokio-{}-{number}", std::process::id());
        let script = format!("echo I am {number}; exit {number}");
        let command = Command::builder(id, &rootfs).args(["sh", "-c", &script]).build()?;
        containers.push(tokio::spawn(run(driver.clone(), command)));
    }
    for container in containers {
        println!("{}", container.await??);
    }
    Ok(())
}

/// Runs one container and says what became of it.
async fn run(driver: Arc<dyn Driver>, command: Command) -> anyhow::Result<String> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut ours = tokio::net::UnixStream::from_std(ours)?;
    let (tell, started) = oneshot::channel();
    let id = command.id.clone();
    let ended = spawn_blocking(move || {
        let mut tell = Some(tell);
        let pipes = Pipes::null().stdout(theirs);
        driver.run(&command, pipes, &mut |s: Started| {
            if let Some(tell) = tell.take() {
                let _ = tell.send(s.pid);
            }
        })
    });
    let mut output = String::new();
    ours.read_to_string(&mut output).await?;
    let status = ended.await??;
    let pid = started.await?;
    Ok(format!("{id}: process {pid}, said {:?}, exit code {}", output.trim_end(), status.exit_code))
}
