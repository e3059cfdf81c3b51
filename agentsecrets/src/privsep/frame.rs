//! What goes over the door's sockets: four bytes of length, that many bytes, and the descriptors that came
//! with them. Bounded before anything is kept.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::sys::fd_passing;

/// The longest body, in bytes: arguments and an environment.
pub const LONGEST: usize = 4 << 20;
/// The most descriptors of one parcel.
pub const MOST_DESCRIPTORS: usize = 24;
/// How long a whole parcel may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A body and its descriptors.
#[derive(Default)]
pub struct Parcel {
    /// The body.
    pub body: Vec<u8>,
    /// The descriptors.
    pub descriptors: Vec<OwnedFd>,
}

/// A parcel of which a part has come.
#[derive(Default)]
pub struct Incoming {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Incoming {
    /// Takes what there is. `true`: the parcel is whole.
    pub fn take(&mut self, socket: impl AsFd) -> io::Result<bool> {
        let mut room = [0; 16 << 10];
        // Not a byte more than belongs to it: what follows is another reader's.
        let wanted = self.length()?.map_or(4, |length| length + 4) - self.bytes.len();
        let room = room.get_mut(..wanted.min(16 << 10)).unwrap_or_default();
        let piece = fd_passing::receive(socket, room)?;
        self.descriptors.extend(piece.descriptors);
        if self.descriptors.len() > MOST_DESCRIPTORS {
            return Err(malformed("too many descriptors"));
        }
        if piece.length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.bytes.extend_from_slice(room.get(..piece.length).unwrap_or_default());
        Ok(self.length()?.is_some_and(|length| self.bytes.len() == length + 4))
    }

    /// The whole parcel.
    pub fn into_parcel(mut self) -> Parcel {
        self.bytes.drain(..4.min(self.bytes.len()));
        Parcel { body: self.bytes, descriptors: self.descriptors }
    }

    fn length(&self) -> io::Result<Option<usize>> {
        let Some(length) = self.bytes.first_chunk() else { return Ok(None) };
        match u32::from_be_bytes(*length) as usize {
            0 => Err(malformed("an empty parcel")),
            length if length > LONGEST => Err(malformed("too long a parcel")),
            length => Ok(Some(length)),
        }
    }
}

/// Sends a parcel.
pub fn send(socket: &UnixStream, body: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if body.is_empty() || body.len() > LONGEST {
        return Err(io::Error::other("the arguments and the environment are too long"));
    }
    let bytes = [&(body.len() as u32).to_be_bytes()[..], body].concat();
    let mut sent = fd_passing::send(socket, &bytes, descriptors)?;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        sent += fd_passing::send(socket, rest, &[])?;
    }
    Ok(())
}

/// Receives a parcel.
pub fn receive(socket: &UnixStream) -> io::Result<Parcel> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut incoming = Incoming::default();
    while !incoming.take(socket)? {}
    socket.set_read_timeout(None)?;
    Ok(incoming.into_parcel())
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_sent_arrives_with_its_descriptors() {
        let (one, other) = UnixStream::pair().unwrap();
        let body = vec![7; 300_000];
        let sender = std::thread::spawn(move || {
            let (stdin, file) = (io::stdin(), tempfile::tempfile().unwrap());
            send(&one, &body, &[stdin.as_fd(), file.as_fd()]).unwrap();
        });
        let parcel = receive(&other).unwrap();
        assert_eq!((parcel.body.len(), parcel.descriptors.len()), (300_000, 2));
        sender.join().unwrap();
    }

    #[test]
    fn too_many_descriptors_are_refused_and_none_stays_open() {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let (one, other) = UnixStream::pair().unwrap();
        let stdin = io::stdin();
        let before = open();
        for _ in 0..20 {
            fd_passing::send(&one, b"\0\0", &vec![stdin.as_fd(); 253]).unwrap();
            assert!(Incoming::default().take(&other).is_err());
        }
        // Other tests of this process open and close some meanwhile.
        assert!(open() < before + 253, "{} were open, {} are", before, open());
    }

    #[test]
    fn a_length_beyond_all_reason_is_refused_before_anything_is_kept() {
        for length in [0, LONGEST as u32 + 1, u32::MAX] {
            let (mut one, other) = UnixStream::pair().unwrap();
            one.write_all(&length.to_be_bytes()).unwrap();
            assert_eq!(receive(&other).err().unwrap().kind(), io::ErrorKind::InvalidData, "{length}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_parcel_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (mut one, other) = UnixStream::pair().unwrap();
            one.write_all(&bytes).unwrap();
            drop(one);
            let length = bytes.first_chunk().map(|length| u32::from_be_bytes(*length) as usize);
            let whole = length.filter(|length| *length > 0 && bytes.len() >= length + 4);
            prop_assert_eq!(receive(&other).ok().map(|parcel| parcel.body.len()), whole);
        }
    }
}
