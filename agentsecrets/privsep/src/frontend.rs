//! The frontend reads clients' bytes. It runs as the daemon's user without a capability, reaches no file and may
//! make few system calls. It forwards well-formed requests with the client's own connection, so that the
//! session worker asks the kernel, not the frontend, who the client is.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use agentsecrets_sys as sys;
use agentsecrets_types::failure::Exit;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Pid, getppid};
use tokio::io::AsyncReadExt;
use tokio::task::{LocalSet, spawn_blocking, spawn_local};
use tokio::time::timeout;

use crate::request::{CLIENT_LIMITS, ClientRequest, FORWARDED_LIMITS, REQUEST_TIMEOUT, Reply};
use crate::{AsyncChannel, Channel};

/// Clients of one user that have not yet sent a request.
const MAX_WAITING_PER_USER: usize = 32;
/// Running commands of one user.
const MAX_RUNNING_PER_USER: usize = 32;
/// Clients of all users that have not yet sent a request.
const MAX_WAITING: usize = 2048;
/// Delay after a failed accept, such as without a free descriptor.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The steps by which the frontend gives up its rights, in this order.
#[derive(Debug, Clone, Copy)]
pub struct Confinement<U, F, S> {
    /// Becomes the daemon's user, if this process is root.
    pub drop_privileges: U,
    /// Denies all files and connections.
    pub restrict_files: F,
    /// Denies all system calls that serving does not need.
    pub restrict_system_calls: S,
}

/// Serves clients until the process ends and forwards their requests to the socket `monitor`. `parent` is the
/// monitor's process, if that forked this one. Call it with a single thread.
///
/// # Errors
/// If the confinement or the listener fails.
pub fn serve(
    listener: UnixListener,
    monitor: &'static Path,
    parent: Option<Pid>,
    confinement: Confinement<
        impl FnOnce() -> io::Result<()>,
        impl FnOnce() -> io::Result<()>,
        impl FnOnce() -> io::Result<()>,
    >,
) -> io::Result<()> {
    sys::conceal()?;
    sys::raise_descriptor_limit()?;
    std::env::set_current_dir("/")?;
    (confinement.drop_privileges)()?;
    if let Some(parent) = parent {
        // After the change of user, which clears it.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != parent {
            return Err(io::Error::other("the monitor ended"));
        }
    }
    (confinement.restrict_files)()?;
    listener.set_nonblocking(true)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(16).build()?;
    (confinement.restrict_system_calls)()?;
    runtime.block_on(LocalSet::new().run_until(async {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let counts = Rc::new(RefCell::new(ClientCounts::default()));
        loop {
            let client = match listener.accept().await {
                Ok((client, _)) => client,
                Err(error) => {
                    tracing::warn!(%error, "a client could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                    continue;
                }
            };
            spawn_local(serve_client(client, monitor, counts.clone()));
        }
    }))
}

/// Clients by user.
#[derive(Default)]
struct ClientCounts {
    waiting: HashMap<u32, usize>,
    running: HashMap<u32, usize>,
}

/// A counted client; dropping it releases the slot.
struct ClientSlot {
    counts: Rc<RefCell<ClientCounts>>,
    uid: u32,
    is_running: bool,
}

impl ClientSlot {
    fn acquire(counts: &Rc<RefCell<ClientCounts>>, uid: u32, is_running: bool) -> Option<Self> {
        let mut all = counts.borrow_mut();
        let (by_user, limit) = if is_running {
            (&mut all.running, MAX_RUNNING_PER_USER)
        } else {
            (&mut all.waiting, MAX_WAITING_PER_USER)
        };
        let is_full = !is_running && by_user.values().sum::<usize>() >= MAX_WAITING;
        let count = by_user.entry(uid).or_default();
        if is_full || *count >= limit {
            return None;
        }
        *count += 1;
        Some(Self { counts: counts.clone(), uid, is_running })
    }
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        let mut all = self.counts.borrow_mut();
        let by_user = if self.is_running { &mut all.running } else { &mut all.waiting };
        if let Some(count) = by_user.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                by_user.remove(&self.uid);
            }
        }
    }
}

async fn serve_client(
    client: tokio::net::UnixStream,
    monitor: &'static Path,
    counts: Rc<RefCell<ClientCounts>>,
) {
    let Ok(credentials) = getsockopt(&client, sockopt::PeerCredentials) else { return };
    let uid = credentials.uid();
    let mut client = AsyncChannel::new(client, CLIENT_LIMITS);
    let Some(waiting) = ClientSlot::acquire(&counts, uid, false) else {
        return reject(client, "too many of your programs wait for the daemon");
    };
    // A client that sends nothing, or no request, gets no response.
    let Ok(Ok(Some(message))) = timeout(REQUEST_TIMEOUT, client.recv()).await else { return };
    let request = match ClientRequest::from_message(message) {
        Ok(request) => request,
        Err(error) => return reject(client, &format!("the daemon: {error}")),
    };
    drop(waiting);
    let Some(_running) = ClientSlot::acquire(&counts, uid, true) else {
        return reject(client, "too many of your commands are under way");
    };
    let Ok(client) = client.into_std() else { return };
    let forwarded = spawn_blocking(move || forward_to_monitor(client, monitor, &request)).await;
    if let Ok(Ok(worker)) = forwarded
        && let Ok(mut worker) = tokio::net::UnixStream::from_std(worker)
    {
        // The worker sends nothing: its end is awaited.
        let _ = worker.read(&mut [0]).await;
    }
}

/// Forwards a request, with the client's connection, to the monitor. The returned connection ends with the
/// command.
fn forward_to_monitor(client: UnixStream, monitor: &Path, request: &ClientRequest) -> io::Result<UnixStream> {
    let forwarded = UnixStream::connect(monitor).and_then(|worker| {
        let worker = Channel::new(worker, FORWARDED_LIMITS);
        worker.set_send_timeout(Some(REQUEST_TIMEOUT))?;
        let (body, mut descriptors) = request.to_message_parts()?;
        descriptors.insert(0, client.as_fd());
        worker.send(&body, &descriptors)?;
        worker.set_nonblocking(true)?;
        Ok(worker.into_socket())
    });
    if forwarded.is_err() {
        let error = Some("the daemon cannot start anything now".to_owned());
        let hint = Some("systemctl status agentsecrets".to_owned());
        Reply { exit: Exit::Unreachable as u8, error, hint }.send(&Channel::new(client, CLIENT_LIMITS));
    }
    forwarded
}

fn reject(client: AsyncChannel, reason: &str) {
    let Ok(client) = client.into_nonblocking_channel() else { return };
    let reply = Reply { exit: Exit::Failure as u8, error: Some(reason.to_owned()), hint: None };
    // Non-blocking: a client that does not read is not waited for.
    reply.send(&client);
}
