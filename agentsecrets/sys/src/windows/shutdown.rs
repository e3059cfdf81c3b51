//! ShutdownListener and leaving: an event with the process's id in its name asks it to end, since Windows has no
//! signals; a process without a console has left the terminal.

use std::fs::File;
use std::io::{self, Write};
use std::os::windows::io::{AsRawHandle, FromRawHandle, IntoRawHandle, OwnedHandle};
use std::os::windows::process::CommandExt;
use std::process::Command;
use std::ptr::null;

use tokio::signal::windows::{CtrlBreak, CtrlC, CtrlClose, CtrlShutdown};
use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};
use tokio::sync::oneshot;
use windows_sys::Win32::Foundation::{CloseHandle, HANDLE_FLAG_INHERIT, SetHandleInformation};
use windows_sys::Win32::System::Console::{
    GetStdHandle, STD_ERROR_HANDLE, STD_HANDLE, STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, SetStdHandle,
};
use windows_sys::Win32::System::Threading::{
    CREATE_NEW_PROCESS_GROUP, CreateEventW, DETACHED_PROCESS, EVENT_MODIFY_STATE, INFINITE, OpenEventW,
    SetEvent, WaitForSingleObject,
};

use super::call::{done, wide};

/// Being asked to end, by the console or by the event.
pub struct ShutdownListener {
    console: (CtrlC, CtrlBreak, CtrlClose, CtrlShutdown),
    event: oneshot::Receiver<()>,
}

impl ShutdownListener {
    /// Listens from here on, in the runtime that runs.
    pub fn listen() -> io::Result<Self> {
        let console = (ctrl_c()?, ctrl_break()?, ctrl_close()?, ctrl_shutdown()?);
        // SAFETY: the name ends in a zero; what it gives is ours alone. Only the user and administrators may
        // open it, which is what the system decides where nothing is said.
        let event = unsafe { CreateEventW(null(), 1, 0, wide(name(std::process::id())).as_ptr()) };
        let event = owned(event)?;
        let (sender, receiver) = oneshot::channel();
        std::thread::Builder::new().name("ending".into()).spawn(move || {
            // SAFETY: the handle is open until the thread ends.
            unsafe { WaitForSingleObject(event.as_raw_handle(), INFINITE) };
            let _ = sender.send(());
        })?;
        Ok(Self { console, event: receiver })
    }

    /// Returns when it was asked for.
    pub async fn asked(&mut self) {
        let (interrupted, broken, closed, shut_down) = &mut self.console;
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = broken.recv() => {}
            _ = closed.recv() => {}
            _ = shut_down.recv() => {}
            _ = &mut self.event => {}
        }
    }
}

/// Asks a process that listens by `ShutdownListener` to end.
pub fn request_shutdown(pid: u32) -> io::Result<()> {
    // SAFETY: the name ends in a zero; what it gives is ours alone.
    let event = owned(unsafe { OpenEventW(EVENT_MODIFY_STATE, 0, wide(name(pid)).as_ptr()) })?;
    // SAFETY: the handle is open.
    done(unsafe { SetEvent(event.as_raw_handle()) })
}

fn name(pid: u32) -> String {
    format!("Local\\agentsecrets-end-{pid}")
}

fn owned(handle: *mut core::ffi::c_void) -> io::Result<OwnedHandle> {
    if handle.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the callers have just been given it by the system.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// Prepares the start of a process that will leave our terminal: it gets no console, and of our own handles
/// those alone that `command` passes on. Whoever waits for the end of our output does not wait for its.
pub fn prepare_to_leave(command: &mut Command) -> io::Result<()> {
    command.creation_flags(DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP);
    for which in [STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE] {
        // SAFETY: takes no pointer; a handle that is not there or cannot be inherited stays as it is.
        unsafe { SetHandleInformation(GetStdHandle(which), HANDLE_FLAG_INHERIT, 0) };
    }
    Ok(())
}

/// Leaves the terminal: what is said from here on goes to `log`.
pub fn leave_terminal(log: &File) -> io::Result<()> {
    // The folder that a process is in cannot be removed.
    std::env::set_current_dir(std::env::var_os("SystemRoot").unwrap_or_else(|| "\\".into()))?;
    io::stdout().flush()?;
    for which in [STD_OUTPUT_HANDLE, STD_ERROR_HANDLE] {
        replace(which, log)?;
    }
    Ok(())
}

fn replace(which: STD_HANDLE, log: &File) -> io::Result<()> {
    let new = log.try_clone()?.into_raw_handle();
    // SAFETY: the new handle is open, and nobody closes it from here on. The old one is closed after it was
    // replaced: the standard library asks for the handle each time it writes.
    unsafe {
        let old = GetStdHandle(which);
        done(SetStdHandle(which, new))?;
        if !old.is_null() && old as isize != -1 {
            CloseHandle(old);
        }
    }
    Ok(())
}
