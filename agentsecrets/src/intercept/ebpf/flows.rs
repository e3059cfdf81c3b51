//! The record of a connection: what the agent asked for, and who it was when it asked. It is taken, not
//! read, so that it can be used once.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Mutex;

use crate::types::sync::MutexExt;
use agentsecrets_ebpf::{Flow, Origin};
use aya::maps::{HashMap, Map, MapData, MapError};
use nix::sys::socket::{SockaddrStorage, getpeername};

use super::error::{EbpfError, failed};
use crate::sys;

/// The records of one attachment. May be opened by a process that could not have attached.
pub struct FlowMap {
    map: Mutex<HashMap<MapData, Key, Value>>,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Key(Flow);

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Value(Origin);

// SAFETY: integers without hidden bytes, as a test in their crate shows; every bit pattern is one.
unsafe impl aya::Pod for Key {}
// SAFETY: as above.
unsafe impl aya::Pod for Value {}

impl FlowMap {
    /// Opens the records that `attach` pinned.
    ///
    /// # Errors
    /// When the pin is absent or may not be opened, or is no such map.
    pub fn open(pins: &Path) -> Result<Self, EbpfError> {
        let path = pins.join(super::load::FLOWS);
        let failed = |error| failed(format!("opening {}", path.display()), error);
        let data = MapData::from_pin(&path).map_err(failed)?;
        let map = HashMap::try_from(Map::HashMap(data)).map_err(failed)?;
        Ok(Self { map: Mutex::new(map) })
    }

    /// Takes the record of the connection from `peer` to `local`, both as the listener sees them, in the
    /// network namespace of that cookie. Without a record the connection must be refused.
    ///
    /// Of two that take the same record at once, one gets it.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn take(
        &self,
        netns_cookie: u64,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Result<Option<Origin>, EbpfError> {
        let key = Key(Flow {
            netns: netns_cookie,
            source: bytes(peer.ip()),
            destination: bytes(local.ip()),
            source_port: peer.port(),
            destination_port: local.port(),
            padding: [0; 4],
        });
        let mut map = self.map.lock_ignoring_poison();
        let found = match map.get(&key, 0) {
            Ok(found) => found,
            Err(MapError::KeyNotFound) => return Ok(None),
            Err(error) => return Err(failed("reading a connection's record", error)),
        };
        match map.remove(&key) {
            Ok(()) => Ok(Some(found.0)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(failed("taking a connection's record", error)),
        }
    }

    /// Forgets what was never taken in the network namespace of that cookie, which is gone.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn forget(&self, netns_cookie: u64) -> Result<(), EbpfError> {
        let mut map = self.map.lock_ignoring_poison();
        let stale: Vec<Key> = map.keys().flatten().filter(|key: &Key| key.0.netns == netns_cookie).collect();
        for key in stale {
            match map.remove(&key) {
                Err(error) if !is_absent(&error) => {
                    return Err(failed("forgetting a connection's record", error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes the record of an accepted connection, and makes sure that it is of this connection: one that
    /// was reset in the meantime may have left its addresses to another.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn take_of(
        &self,
        stream: impl AsFd,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Result<Option<Origin>, EbpfError> {
        let cookie = sys::netns_cookie(stream.as_fd())
            .map_err(|error| EbpfError::call("reading a connection's network namespace", error))?;
        let taken = self.take(cookie, peer, local)?;
        let alive = getpeername::<SockaddrStorage>(std::os::fd::AsRawFd::as_raw_fd(&stream.as_fd())).is_ok();
        Ok(taken.filter(|_| alive))
    }
}

/// The address and port that the agent asked for.
pub fn original(origin: &Origin) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(origin.address).to_canonical(), origin.port)
}

fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn is_absent(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(call) => call.io_error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}
