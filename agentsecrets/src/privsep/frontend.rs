//! The porter reads what anybody sends: so it is the daemon's user, without a capability, reaches no file
//! and makes few system calls. It passes on what is well formed, with the client's own connection, so that
//! whoever acts asks the kernel, not the porter, who is there.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Pid, getppid};
use tokio::io::{AsyncReadExt, Interest};
use tokio::task::{LocalSet, spawn_blocking, spawn_local};
use tokio::time::timeout;

use super::STARTER;
use super::request::{Asked, Reply};
use crate::privsep::frame::{self, Incoming, PATIENCE};
use crate::privsep::system_config::System;
use crate::server::sandbox::landlock;
use crate::server::sandbox::privileges;
use crate::server::sandbox::seccomp;
use crate::sys;
use crate::types::failure::Exit;

/// The most clients of one user that have not yet said what they want.
const MOST_WAITING: usize = 32;
/// The most verbs of one user at a time.
const MOST_ACTING: usize = 32;
/// The most clients altogether that have not yet said what they want.
const MOST_ALTOGETHER: usize = 2048;
/// How long it waits where the system has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves clients for good; with the `starter`, where that is its parent. Call it with a single thread.
pub fn serve(listener: UnixListener, starter: Option<Pid>, system: &System) -> io::Result<()> {
    sys::conceal()?;
    sys::raise_descriptor_limit()?;
    std::env::set_current_dir("/")?;
    if nix::unistd::geteuid().is_root() {
        privileges::drop_privileges(system.uid.as_raw(), system.gid.as_raw())?;
    }
    if let Some(starter) = starter {
        // After the change of user, which undoes it.
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != starter {
            return Err(io::Error::other("the starter ended"));
        }
    }
    landlock::confine_to_nothing()?;
    listener.set_nonblocking(true)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(16).build()?;
    seccomp::allow_serving(false)?;
    runtime.block_on(LocalSet::new().run_until(async {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let crowd = Rc::new(RefCell::new(Crowd::default()));
        loop {
            let client = match listener.accept().await {
                Ok((client, _)) => client,
                Err(error) => {
                    tracing::warn!(%error, "a client could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            spawn_local(attend(client, crowd.clone()));
        }
    }))
}

/// Who is there, by user.
#[derive(Default)]
struct Crowd {
    waiting: HashMap<u32, usize>,
    acting: HashMap<u32, usize>,
}

/// A place in the crowd; dropping it gives it up.
struct Place {
    crowd: Rc<RefCell<Crowd>>,
    user: u32,
    acting: bool,
}

impl Place {
    fn take(crowd: &Rc<RefCell<Crowd>>, user: u32, acting: bool) -> Option<Self> {
        let mut all = crowd.borrow_mut();
        let (places, most) =
            if acting { (&mut all.acting, MOST_ACTING) } else { (&mut all.waiting, MOST_WAITING) };
        let full = !acting && places.values().sum::<usize>() >= MOST_ALTOGETHER;
        let taken = places.entry(user).or_default();
        if full || *taken >= most {
            return None;
        }
        *taken += 1;
        Some(Self { crowd: crowd.clone(), user, acting })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.crowd.borrow_mut();
        let places = if self.acting { &mut all.acting } else { &mut all.waiting };
        if let Some(taken) = places.get_mut(&self.user) {
            *taken -= 1;
            if *taken == 0 {
                places.remove(&self.user);
            }
        }
    }
}

async fn attend(client: tokio::net::UnixStream, crowd: Rc<RefCell<Crowd>>) {
    let Ok(credentials) = getsockopt(&client, sockopt::PeerCredentials) else { return };
    let user = credentials.uid();
    let Some(waiting) = Place::take(&crowd, user, false) else {
        return refuse(client, "too many of your programs wait at the door").await;
    };
    // Who sends nothing, or nonsense, is owed no answer.
    let Ok(Ok(incoming)) = timeout(PATIENCE, receive(&client)).await else { return };
    let asked = match Asked::read(incoming.into_parcel()) {
        Ok(asked) => asked,
        Err(error) => return refuse(client, &format!("the door: {error}")).await,
    };
    drop(waiting);
    let Some(_acting) = Place::take(&crowd, user, true) else {
        return refuse(client, "too many of your commands are under way").await;
    };
    let Ok(client) = client.into_std() else { return };
    let handed = spawn_blocking(move || hand_over(client, &asked)).await;
    if let Ok(Ok(usher)) = handed
        && let Ok(mut usher) = tokio::net::UnixStream::from_std(usher)
    {
        // It says nothing: its end is what we wait for.
        let _ = usher.read(&mut [0]).await;
    }
}

async fn receive(client: &tokio::net::UnixStream) -> io::Result<Incoming> {
    let mut incoming = Incoming::default();
    loop {
        client.readable().await?;
        match client.try_io(Interest::READABLE, || incoming.take(client)) {
            Ok(true) => return Ok(incoming),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}

/// Gives a request, and the client with it, to the starter. What is left is the connection that ends when the
/// verb has.
fn hand_over(client: UnixStream, asked: &Asked) -> io::Result<UnixStream> {
    client.set_nonblocking(false)?;
    let given = UnixStream::connect(STARTER).and_then(|usher| {
        usher.set_write_timeout(Some(PATIENCE))?;
        let (body, mut descriptors) = asked.parts()?;
        descriptors.insert(0, client.as_fd());
        frame::send(&usher, &body, &descriptors)?;
        usher.set_nonblocking(true)?;
        Ok(usher)
    });
    if given.is_err() {
        let error = Some("the daemon cannot start anything now".to_owned());
        let hint = Some("systemctl status agentsecrets".to_owned());
        Reply { exit: Exit::Unreachable as u8, error, hint }.tell(&client);
    }
    given
}

async fn refuse(client: tokio::net::UnixStream, why: &str) {
    let Ok(client) = client.into_std() else { return };
    let reply = Reply { exit: Exit::Failure as u8, error: Some(why.to_owned()), hint: None };
    // Nonblocking: one who does not listen is not waited for.
    reply.tell(&client);
}
