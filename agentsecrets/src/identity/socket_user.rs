//! Finds the user of a socket in this network namespace, if nothing more can be known. The kernel is asked
//! for the one connection, so that an agent with many connections delays nobody.

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, TCP_ESTABLISHED};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};

use super::IdentityError;
use super::peer::SocketAddrs;

/// No cookie is known: the ends alone say which socket is meant.
const ANY: [u8; 8] = [0xff; 8];
/// Room for one answer, in bytes.
const ANSWER: usize = 8192;

/// The user who made the caller's end. Blocks for as long as the kernel takes to look.
pub(super) fn user_of(ends: SocketAddrs) -> Result<u32, IdentityError> {
    let found = query(ends)?.ok_or(IdentityError::Nobody)?.header;
    // One that is over has nobody any more, and one that only listens is another.
    if found.state != TCP_ESTABLISHED || found.inode == 0 {
        return Err(IdentityError::Nobody);
    }
    Ok(found.uid)
}

fn query(ends: SocketAddrs) -> io::Result<Option<InetResponse>> {
    let (theirs, ours) = (ends.theirs.ip().to_canonical(), ends.ours.ip().to_canonical());
    let (family, blank) =
        if theirs.is_ipv4() { (AF_INET, SocketId::new_v4()) } else { (AF_INET6, SocketId::new_v6()) };
    let socket_id = SocketId {
        source_address: theirs,
        source_port: ends.theirs.port(),
        destination_address: ours,
        destination_port: ends.ours.port(),
        cookie: ANY,
        ..blank
    };
    let question = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(question).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let kernel = Socket::new(NETLINK_SOCK_DIAG)?;
    kernel.connect(&SocketAddr::new(0, 0))?;
    kernel.send(&bytes, 0)?;
    let mut answer = Vec::with_capacity(ANSWER);
    kernel.recv(&mut answer, 0)?;
    let answer = NetlinkMessage::<SockDiagMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => Ok(Some(*found)),
        NetlinkPayload::Error(error) if error.to_io().kind() == io::ErrorKind::NotFound => Ok(None),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn user_of_connection_is_found_over_both_families() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let ends =
                SocketAddrs { theirs: client.local_addr().unwrap(), ours: client.peer_addr().unwrap() };
            assert_eq!(user_of(ends).unwrap(), nix::unistd::geteuid().as_raw());
            // The listener's own end, and what was never opened.
            let reversed =
                SocketAddrs { theirs: listener.local_addr().unwrap(), ours: "192.0.2.7:1".parse().unwrap() };
            for nobody in [reversed, SocketAddrs { ours: "192.0.2.7:1".parse().unwrap(), ..ends }] {
                assert!(matches!(user_of(nobody), Err(IdentityError::Nobody)));
            }
            drop(client);
            assert!(matches!(user_of(ends), Err(IdentityError::Nobody)));
        }
    }
}
