//! The oracle for "nothing reached the wire": a packet socket at the other end of a veth pair, which
//! sees every frame whatever the sender's errno said.

use std::io::Read;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::netns::Netns;

/// `ETH_P_ALL`: every frame, whatever it carries.
const EVERY_FRAME: i32 = 3;

/// A frame that crossed the wire, toward the other end or back.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) at: Instant,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// The IP protocol: 6 for TCP, 17 for UDP.
    pub(crate) protocol: u8,
    /// Ports, for TCP and UDP; else 0.
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// TCP's sequence number; else 0.
    pub(crate) sequence: u32,
    /// What the transport carries.
    pub(crate) payload: Vec<u8>,
}

/// A running capture; dropping it ends it.
pub(crate) struct Capture {
    packets: Kept,
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    destination: IpAddr,
}

/// The packets so far, and who waits for more.
type Kept = Arc<(Mutex<Vec<Packet>>, Condvar)>;

impl Capture {
    /// Captures at the other end of `netns`; it sees every frame from now on.
    pub(crate) fn start(netns: &Netns) -> Self {
        let packets = Kept::default();
        let ended = Arc::new(AtomicBool::new(false));
        let (handle, kept, over) = (netns.handle(), packets.clone(), ended.clone());
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            handle.enter();
            let protocol = i32::from(u16::try_from(EVERY_FRAME).unwrap().to_be());
            let mut socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(protocol))).unwrap();
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(64 << 20))
                .unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            tell.send(()).unwrap();
            let mut frame = vec![0; 256 * 1024];
            while !over.load(Ordering::Relaxed) {
                let Ok(length) = socket.read(&mut frame) else { continue };
                if let Some(packet) = frame.get(..length).and_then(parse) {
                    kept.0.lock().unwrap().push(packet);
                    kept.1.notify_all();
                }
            }
        });
        told.recv().expect("the capture could not start");
        Self { packets, ended, thread: Some(thread), destination: netns.there4().into() }
    }

    /// Every packet so far. Waits until all that was sent before this call has been taken in, by
    /// sending one of its own and waiting for that.
    pub(crate) fn packets(&self) -> Vec<Packet> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mark = format!("capture mark {} {}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        let (packets, more) = &*self.packets;
        let mut packets = packets.lock().unwrap();
        while Instant::now() < end {
            let _ = socket.send_to(mark.as_bytes(), (self.destination, 9));
            let seen = |packet: &Packet| packet.payload == mark.as_bytes();
            let again = Duration::from_millis(500);
            let unseen = |packets: &mut Vec<Packet>| !packets.iter().any(seen);
            let (held, wait) = more.wait_timeout_while(packets, again, unseen).unwrap();
            packets = held;
            if !wait.timed_out() {
                return packets.iter().filter(|packet| !is_mark(packet)).cloned().collect();
            }
        }
        panic!("the capture does not see its own mark");
    }

    /// The packets whose payload holds `bytes`.
    pub(crate) fn holding(&self, bytes: &[u8]) -> Vec<Packet> {
        let holds = |packet: &Packet| packet.payload.windows(bytes.len()).any(|window| window == bytes);
        self.packets().into_iter().filter(holds).collect()
    }

    /// How many bytes TCP senders have put on the wire toward `port`, resent ones counted once.
    pub(crate) fn sent_to(&self, port: u16) -> u64 {
        let mut flows = std::collections::BTreeMap::<(IpAddr, u16), (u32, u32)>::new();
        for packet in self.packets() {
            if packet.protocol != 6 || packet.destination_port != port || packet.payload.is_empty() {
                continue;
            }
            let (first, seen) =
                flows.entry((packet.source, packet.source_port)).or_insert((packet.sequence, 0));
            let length = u32::try_from(packet.payload.len()).unwrap();
            *seen = (*seen).max(packet.sequence.wrapping_sub(*first).wrapping_add(length));
        }
        flows.values().map(|(_, seen)| u64::from(*seen)).sum()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether a packet is a mark of ours, or the answer that nobody listens for it.
fn is_mark(packet: &Packet) -> bool {
    packet.payload.windows(13).any(|window| window == b"capture mark ")
}

/// Reads an Ethernet frame with IPv4 or IPv6 in it; what is neither (ARP) is left out, and so is the
/// neighbour discovery that an idle IPv6 link does.
fn parse(frame: &[u8]) -> Option<Packet> {
    let packet = frame.get(14..)?;
    let (source, destination, protocol, header, length) =
        match u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?) {
            0x0800 => {
                let address =
                    |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
                let header = usize::from(packet.first()? & 0x0f) * 4;
                let total = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
                (address(12)?, address(16)?, *packet.get(9)?, header, total)
            }
            0x86dd => {
                let address =
                    |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
                let total = 40 + usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
                (address(8)?.into(), address(24)?.into(), *packet.get(6)?, 40, total)
            }
            _ => return None,
        };
    // Large segments that the kernel has not cut yet say 0; short frames are padded beyond their length.
    let end = if length > header { length.min(packet.len()) } else { packet.len() };
    let transport = packet.get(header..end)?;
    let number = |at: usize| Some(u16::from_be_bytes(transport.get(at..at + 2)?.try_into().ok()?));
    let (ports, sequence, data) = match protocol {
        6 => {
            let sequence = u32::from_be_bytes(transport.get(4..8)?.try_into().ok()?);
            ((number(0)?, number(2)?), sequence, usize::from(transport.get(12)? >> 4) * 4)
        }
        17 => ((number(0)?, number(2)?), 0, 8),
        // Neighbour discovery (133 to 137) and, behind a hop-by-hop header, multicast reports.
        58 if (133..=137).contains(transport.first()?) => return None,
        0 if transport.first() == Some(&58) => return None,
        _ => ((0, 0), 0, 0),
    };
    let payload = transport.get(data..)?.to_vec();
    let (source_port, destination_port) = ports;
    Some(Packet {
        at: Instant::now(),
        source,
        destination,
        protocol,
        source_port,
        destination_port,
        sequence,
        payload,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::support::upstream::{Options, Upstream};

    #[test]
    fn the_capture_sees_what_crosses_the_wire_over_both_families() {
        let netns = Netns::new();
        let capture = Capture::start(&netns);
        for address in [IpAddr::from(netns.there4()), netns.there6().into()] {
            let upstream = Upstream::start(Options::plain().at((address, 0)).inside(&netns));
            let mut stream = std::net::TcpStream::connect(upstream.address()).unwrap();
            let request = b"GET /planted HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            stream.write_all(request).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.contains("/planted"), "{answer}");
            let found = capture.holding(b"GET /planted");
            assert!(found.iter().any(|packet| packet.destination == address), "{found:#?}");
            assert_eq!(capture.sent_to(upstream.port()), request.len() as u64);
            UdpSocket::bind("[::]:0").unwrap().send_to(b"a datagram", (address, 5353)).unwrap();
            assert!(capture.holding(b"a datagram").iter().any(|packet| packet.destination == address));
        }
        assert!(capture.holding(b"never sent").is_empty());
    }
}
