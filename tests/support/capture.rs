//! Packet capture, the oracle for "nothing reached the wire": a packet socket at the other end of a veth pair
//! sees every frame, whatever the sender's errno was.

use std::io::Read;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::netns::Netns;

const ETH_P_ALL: i32 = 3;

/// A frame that crossed the wire in either direction.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) received_at: Instant,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// The IP protocol: 6 for TCP, 17 for UDP.
    pub(crate) protocol: u8,
    /// Ports, for TCP and UDP; else 0.
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// TCP's sequence number; else 0.
    pub(crate) sequence: u32,
    pub(crate) payload: Vec<u8>,
}

/// A running capture; dropping it ends it.
pub(crate) struct Capture {
    packets: SharedPackets,
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    destination: IpAddr,
}

type SharedPackets = Arc<(Mutex<Vec<Packet>>, Condvar)>;

impl Capture {
    /// Captures at the other end of `netns`; it sees every frame from now on.
    pub(crate) fn start(netns: &Netns) -> Self {
        let packets = SharedPackets::default();
        let ended = Arc::new(AtomicBool::new(false));
        let (handle, buffer, over) = (netns.handle(), packets.clone(), ended.clone());
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            handle.enter();
            let protocol = i32::from(u16::try_from(ETH_P_ALL).unwrap().to_be());
            let mut socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(protocol))).unwrap();
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(64 << 20))
                .unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            sender.send(()).unwrap();
            let mut frame = vec![0; 256 * 1024];
            while !over.load(Ordering::Relaxed) {
                let Ok(length) = socket.read(&mut frame) else { continue };
                if let Some(packet) = frame.get(..length).and_then(parse) {
                    buffer.0.lock().unwrap().push(packet);
                    buffer.1.notify_all();
                }
            }
        });
        receiver.recv().expect("the capture could not start");
        Self { packets, ended, thread: Some(thread), destination: netns.peer4().into() }
    }

    /// Every packet so far. Sends a marker packet and waits until it is captured, so that all earlier packets
    /// are included.
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
            let (guard, wait) = more.wait_timeout_while(packets, again, unseen).unwrap();
            packets = guard;
            if !wait.timed_out() {
                return packets.iter().filter(|packet| !is_mark(packet)).cloned().collect();
            }
        }
        panic!("the capture does not see its own mark");
    }

    /// The packets whose payload contains `bytes`.
    pub(crate) fn containing(&self, bytes: &[u8]) -> Vec<Packet> {
        let holds = |packet: &Packet| packet.payload.windows(bytes.len()).any(|window| window == bytes);
        self.packets().into_iter().filter(holds).collect()
    }

    /// Bytes that TCP senders put on the wire toward `port`; retransmissions count once.
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

/// Whether a packet is a marker, or the ICMP error for one.
fn is_mark(packet: &Packet) -> bool {
    packet.payload.windows(13).any(|window| window == b"capture mark ")
}

/// Parses an Ethernet frame with IPv4 or IPv6. Other frames (ARP) and the neighbour discovery of an idle IPv6
/// link are ignored.
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
    // Segments before offload have length 0; short frames are padded beyond their length.
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
        received_at: Instant::now(),
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
    fn capture_sees_both_families() {
        let netns = Netns::new();
        let capture = Capture::start(&netns);
        for address in [IpAddr::from(netns.peer4()), netns.peer6().into()] {
            let upstream = Upstream::start(Options::plain().at((address, 0)).in_netns(&netns));
            let mut stream = std::net::TcpStream::connect(upstream.address()).unwrap();
            let request = b"GET /planted HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            stream.write_all(request).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.contains("/planted"), "{answer}");
            let found = capture.containing(b"GET /planted");
            assert!(found.iter().any(|packet| packet.destination == address), "{found:#?}");
            assert_eq!(capture.sent_to(upstream.port()), request.len() as u64);
            UdpSocket::bind("[::]:0").unwrap().send_to(b"a datagram", (address, 5353)).unwrap();
            assert!(capture.containing(b"a datagram").iter().any(|packet| packet.destination == address));
        }
        assert!(capture.containing(b"never sent").is_empty());
    }
}
