//! The process that serves the task API, until containerd says `Shutdown`.

use std::fs;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use containerd_shim_protos::ttrpc::Server;
use containerd_shim_protos::{Task, create_task};

use crate::events::Events;
use crate::flags::Flags;
use crate::service::Service;
use crate::start::SOCKET_FD;

/// The API of containerd 2 under the name that containerd 1 has for the very same one.
const TASK_V3: &str = "/containerd.task.v3.Task/";
const TASK_V2: &str = "/containerd.task.v2.Task/";

pub fn serve(flags: &Flags) -> anyhow::Result<()> {
    let listener = UnixListener::from(
        kernel::take_inherited(SOCKET_FD).context("containerd starts this program: there is no socket")?,
    );
    kernel::close_on_exec_from(3).context("close_range")?;
    // Memory that a request has used goes back to the kernel, instead of waiting for the next one.
    kernel::share_one_heap();
    crate::log::install(flags.debug);
    let socket = listener.local_addr().ok().and_then(|address| address.as_pathname().map(PathBuf::from));

    let events = Events::new(&flags.namespace, std::env::var_os("TTRPC_ADDRESS").unwrap_or_default().into())?;
    let (service, ended) = Service::new(&flags.namespace, events);
    let service: Arc<dyn Task + Send + Sync> = Arc::new(service);
    let v2 = create_task(Arc::clone(&service))
        .into_iter()
        .map(|(name, method)| (name.replace(TASK_V3, TASK_V2), method));
    let mut server = Server::new()
        .set_thread_count_min(1)
        .set_thread_count_default(2)
        .set_thread_count_max(3)
        .add_listener(listener.into_raw_fd())?
        .register_service(v2.collect())
        .register_service(create_task(service));
    server.start()?;

    let events = ended.recv().context("the service has ended")?;
    if let Some(socket) = socket {
        let _ = fs::remove_file(socket);
    }
    events.finish();
    Ok(())
}
