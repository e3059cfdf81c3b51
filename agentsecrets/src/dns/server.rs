//! The agents' name server. It forwards queries for allowed names only, so that a query cannot carry data out;
//! every other name gets a sinkhole address, and the client that connects to it reads why.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::records;
use super::resolver::{Addresses, Family, ResolveError, Resolver};
use super::sinkhole::Sinkhole;
use super::ttl::{MAX_TTL, SINKHOLE_TTL};
use crate::types::host::Host;

/// The limit for queries over UDP.
const MAX_CONCURRENT_QUERIES: usize = 256;
const MAX_TCP_CONNECTIONS: usize = 64;
const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest datagram without EDNS, and the largest that we send with it.
const UDP_PAYLOAD: usize = 512;
const EDNS_UDP_PAYLOAD: u16 = 1232;

/// Serves all of these sockets until the future is dropped. `is_allowed` tells whether some rule of the agent
/// names a host.
pub async fn serve(
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    is_allowed: impl Fn(&Host) -> bool + Send + Sync + 'static,
    resolver: Arc<Resolver>,
) {
    let server = Arc::new(NameServer { is_allowed, resolver, sinkhole: Sinkhole::default() });
    let mut sockets = JoinSet::new();
    for socket in udp {
        sockets.spawn(serve_udp(Arc::new(socket), server.clone()));
    }
    for listener in tcp {
        sockets.spawn(serve_tcp(listener, server.clone()));
    }
    // They end only by being dropped, or by a bug that must not take the others along.
    while sockets.join_next().await.is_some() {}
    std::future::pending().await
}

struct NameServer<A> {
    is_allowed: A,
    resolver: Arc<Resolver>,
    sinkhole: Sinkhole,
}

async fn serve_udp<A>(socket: Arc<UdpSocket>, server: Arc<NameServer<A>>)
where
    A: Fn(&Host) -> bool + Send + Sync + 'static,
{
    let slots = Arc::new(Semaphore::new(MAX_CONCURRENT_QUERIES));
    let mut work = JoinSet::new();
    let mut buffer = [0; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            // No peer can cause this. Wait instead of spinning.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        while work.try_join_next().is_some() {}
        // Without a slot the query is dropped, as by any busy server; the client repeats it.
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let Some(request) = buffer.get(..length).map(<[u8]>::to_vec) else { continue };
        let (socket, server) = (socket.clone(), server.clone());
        work.spawn(async move {
            if let Some(answer) = server.answer(&request, Transport::Udp).await {
                drop(socket.send_to(&answer, peer).await);
            }
            drop(slot);
        });
    }
}

async fn serve_tcp<A>(listener: TcpListener, server: Arc<NameServer<A>>)
where
    A: Fn(&Host) -> bool + Send + Sync + 'static,
{
    let slots = Arc::new(Semaphore::new(MAX_TCP_CONNECTIONS));
    let mut work = JoinSet::new();
    loop {
        while work.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Most likely out of descriptors. Wait instead of spinning.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let server = server.clone();
        work.spawn(async move {
            drop(serve_connection(stream, &server).await);
            drop(slot);
        });
    }
}

/// Answers the queries of one TCP connection, one after the other.
async fn serve_connection<A>(mut stream: TcpStream, server: &NameServer<A>) -> std::io::Result<()>
where
    A: Fn(&Host) -> bool,
{
    stream.set_nodelay(true)?;
    loop {
        let request = tokio::time::timeout(TCP_IDLE_TIMEOUT, async {
            let mut request = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut request).await.map(|_| request)
        });
        let Ok(request) = request.await else { return Ok(()) };
        let Some(answer) = server.answer(&request?, Transport::Tcp).await else { return Ok(()) };
        let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
        let mut framed = Vec::with_capacity(answer.len() + 2);
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&answer);
        let Ok(written) = tokio::time::timeout(TCP_IDLE_TIMEOUT, stream.write_all(&framed)).await else {
            return Ok(());
        };
        written?;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

impl<A: Fn(&Host) -> bool> NameServer<A> {
    /// Answers an encoded query. `None` means that the bytes are not a query.
    async fn answer(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let request = match Message::from_vec(bytes) {
            Ok(request) => request,
            Err(_) => {
                let header = Header::read(&mut BinDecoder::new(bytes)).ok()?;
                let is_query = header.metadata.message_type == MessageType::Query;
                let (id, code) = (header.metadata.id, header.metadata.op_code);
                let error = || Message::error_msg(id, code, ResponseCode::FormErr);
                return is_query.then(error)?.to_vec().ok();
            }
        };
        if request.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
        answer.metadata.recursion_desired = request.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        let mut max_len = UDP_PAYLOAD;
        if let Some(edns) = &request.edns {
            let mut own = Edns::new();
            own.set_max_payload(EDNS_UDP_PAYLOAD).set_version(0);
            answer.set_edns(own);
            max_len = usize::from(edns.max_payload().clamp(512, EDNS_UDP_PAYLOAD));
        }
        answer.metadata.response_code = match self.records(&request).await {
            Ok(records) => {
                answer.add_answers(records);
                ResponseCode::NoError
            }
            Err(code) => code,
        };
        // A single question is repeated, as clients expect. Several are an error, and might not fit.
        if request.queries.len() == 1 {
            answer.add_queries(request.queries);
        }
        let encoded = answer.to_vec().ok()?;
        if transport == Transport::Udp && encoded.len() > max_len {
            return answer.truncate().to_vec().ok();
        }
        Some(encoded)
    }

    async fn records(&self, request: &Message) -> Result<Vec<Record>, ResponseCode> {
        if request.metadata.op_code != OpCode::Query {
            return Err(ResponseCode::NotImp);
        }
        if request.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
            return Err(ResponseCode::BADVERS);
        }
        let [query] = request.queries.as_slice() else { return Err(ResponseCode::FormErr) };
        if query.query_class() != DNSClass::IN {
            return Err(ResponseCode::Refused);
        }
        let name = query.name().to_ascii();
        let Ok(host @ Host::Name(_)) = name.parse::<Host>() else {
            return Err(ResponseCode::NXDomain);
        };
        let lower = name.to_ascii_lowercase();
        let lower = lower.trim_end_matches('.');
        let is_reverse = ["in-addr.arpa", "ip6.arpa"].iter().any(|zone| lower.ends_with(zone));
        if is_reverse || (!(self.is_allowed)(&host) && self.has_search_domain(lower)) {
            return Err(ResponseCode::NXDomain);
        }
        let family = match query.query_type() {
            RecordType::A => Family::V4,
            RecordType::AAAA => Family::V6,
            kind => {
                let is_allowed = (self.is_allowed)(&host);
                return records::lookup(&self.resolver, &host, query.name(), kind, is_allowed).await;
            }
        };
        let (ips, ttl) = self.addresses(&host, family).await?;
        let record = |ip| Record::from_rdata(query.name().clone(), ttl, RData::from(ip));
        Ok(ips.into_iter().map(record).collect())
    }

    async fn addresses(&self, host: &Host, family: Family) -> Result<(Vec<IpAddr>, u32), ResponseCode> {
        let Host::Name(name) = host else { return Err(ResponseCode::NXDomain) };
        // The agent's own machine, whatever the policy says; no query leaves for it.
        let is_local = &**name == "localhost" || name.ends_with(".localhost");
        if !is_local && !(self.is_allowed)(host) {
            let ip = self.sinkhole.address(name, family).ok_or(ResponseCode::ServFail)?;
            return Ok((vec![ip], SINKHOLE_TTL));
        }
        match self.resolver.lookup_family(host, family).await {
            Ok(Addresses { ips, ttl }) => {
                let seconds = ttl.as_secs().min(MAX_TTL);
                Ok((ips, u32::try_from(seconds).unwrap_or(0)))
            }
            Err(ResolveError::NotFound) => Err(ResponseCode::NXDomain),
            Err(_) => Err(ResponseCode::ServFail),
        }
    }

    /// Whether `name` is an allowed name followed by one of the system's search domains. Such a name does not
    /// exist, so that the client goes on to the one without the domain.
    fn has_search_domain(&self, name: &str) -> bool {
        self.resolver.search_domains().iter().any(|domain| {
            let stem = name.strip_suffix(domain.as_str()).and_then(|name| name.strip_suffix('.'));
            let stem = stem.and_then(|stem| stem.parse::<Host>().ok());
            stem.is_some_and(|stem| (self.is_allowed)(&stem))
        })
    }
}

/// Answers a datagram of an agent that no rule allows any name, so that no query leaves. For the fuzzer.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) async fn answer_without_rules(bytes: &[u8]) -> Option<Vec<u8>> {
    let resolver = Arc::new(Resolver::system());
    let server = NameServer { is_allowed: |_: &Host| false, resolver, sinkhole: Sinkhole::default() };
    server.answer(bytes, Transport::Udp).await
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Mutex;

    use hickory_proto::op::Query;
    use hickory_proto::rr::Name;
    use hickory_proto::rr::rdata::TXT;
    use proptest::prelude::*;

    use super::*;

    /// An upstream name server for `*.up.test` that records its queries.
    async fn upstream() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let queries = Arc::new(Mutex::new(Vec::new()));
        let seen = queries.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            loop {
                let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
                let request = Message::from_vec(&buffer[..length]).unwrap();
                let query = request.queries[0].clone();
                let (name, kind) = (query.name().clone(), query.query_type());
                seen.lock().unwrap().push(format!("{name} {kind}"));
                let mut answer = Message::response(request.metadata.id, OpCode::Query);
                match (name.to_ascii().as_str(), kind) {
                    ("a.up.test.", RecordType::A) => {
                        let ip = RData::from(IpAddr::from([192, 0, 2, 1]));
                        answer.add_answer(Record::from_rdata(name, 3600, ip));
                    }
                    ("many.up.test.", RecordType::A) => {
                        for n in 0..40 {
                            let ip = RData::from(IpAddr::from([192, 0, 2, n]));
                            answer.add_answer(Record::from_rdata(name.clone(), 5, ip));
                        }
                    }
                    ("broken.up.test.", _) => answer.metadata.response_code = ResponseCode::ServFail,
                    ("gone.up.test.", _) => answer.metadata.response_code = ResponseCode::NXDomain,
                    _ => {}
                }
                answer.add_query(query);
                let mut edns = Edns::new();
                edns.set_max_payload(4096);
                answer.set_edns(edns);
                socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
            }
        });
        (address, queries)
    }

    struct Client {
        udp: SocketAddr,
        tcp: SocketAddr,
        queries: Arc<Mutex<Vec<String>>>,
    }

    /// Starts our server, which allows `*.up.test`.
    async fn start() -> Client {
        let (upstream, queries) = upstream().await;
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at_udp, at_tcp) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        let resolver = Arc::new(Resolver::for_test("/nonexistent/hosts".into(), Some(upstream)));
        let is_allowed = |host: &Host| host.to_string().ends_with(".up.test");
        tokio::spawn(serve(vec![udp], vec![tcp], is_allowed, resolver));
        Client { udp: at_udp, tcp: at_tcp, queries }
    }

    fn request(name: &str, kind: RecordType) -> Message {
        let mut request = Message::query();
        request.metadata.id = 4711;
        request.metadata.recursion_desired = true;
        request.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        request
    }

    impl Client {
        async fn udp_bytes(&self, bytes: &[u8]) -> Vec<u8> {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.send_to(bytes, self.udp).await.unwrap();
            let mut buffer = vec![0; 4096];
            let length = socket.recv(&mut buffer).await.unwrap();
            buffer.truncate(length);
            buffer
        }

        async fn udp(&self, request: &Message) -> Message {
            Message::from_vec(&self.udp_bytes(&request.to_vec().unwrap()).await).unwrap()
        }

        async fn ask(&self, name: &str, kind: RecordType) -> Message {
            self.udp(&request(name, kind)).await
        }

        async fn tcp(&self, stream: &mut TcpStream, request: &Message) -> Message {
            let bytes = request.to_vec().unwrap();
            stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut answer).await.unwrap();
            Message::from_vec(&answer).unwrap()
        }

        fn queries(&self) -> Vec<String> {
            self.queries.lock().unwrap().clone()
        }
    }

    fn ips(answer: &Message) -> Vec<IpAddr> {
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        answer.answers.iter().map(|record| record.data.ip_addr().unwrap()).collect()
    }

    #[tokio::test]
    async fn allowed_name_resolves_with_ttl_of_a_minute_at_most() {
        let client = start().await;
        let answer = client.ask("A.up.Test.", RecordType::A).await;
        assert_eq!(ips(&answer), [IpAddr::from([192, 0, 2, 1])]);
        assert_eq!(answer.answers[0].ttl, 60);
        assert_eq!(answer.metadata.id, 4711);
        assert_eq!(answer.queries[0].name().to_ascii(), "A.up.Test.");
        assert_eq!(ips(&client.ask("a.up.test.", RecordType::AAAA).await), [] as [IpAddr; 0]);
    }

    #[tokio::test]
    async fn unlisted_name_gets_sinkhole_address_without_query() {
        let client = start().await;
        let secret = "c2VjcmV0.evil.test.";
        let four = ips(&client.ask(secret, RecordType::A).await);
        let six = ips(&client.ask(secret, RecordType::AAAA).await);
        assert_eq!(four, [IpAddr::from([198, 18, 0, 1])]);
        assert_eq!(six, ["fd61:6765:6e74::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(ips(&client.ask("C2VJCMV0.evil.test.", RecordType::A).await), four);
        assert_ne!(ips(&client.ask("other.evil.test.", RecordType::A).await), four);
        for kind in [RecordType::TXT, RecordType::HTTPS, RecordType::SVCB, RecordType::ANY] {
            assert_eq!(ips(&client.ask(secret, kind).await), [] as [IpAddr; 0]);
        }
        assert_eq!(client.queries(), [] as [&str; 0]);
    }

    #[tokio::test]
    async fn https_and_svcb_records_are_empty_and_others_are_forwarded() {
        let client = start().await;
        for kind in [RecordType::HTTPS, RecordType::SVCB, RecordType::ANY] {
            assert_eq!(ips(&client.ask("a.up.test.", kind).await), [] as [IpAddr; 0]);
        }
        assert_eq!(client.queries(), [] as [&str; 0]);
        for kind in [RecordType::TXT, RecordType::MX, RecordType::SRV, RecordType::PTR, RecordType::NS] {
            assert_eq!(ips(&client.ask("a.up.test.", kind).await), [] as [IpAddr; 0]);
        }
        assert_eq!(client.queries().len(), 5);
    }

    #[tokio::test]
    async fn upstream_response_code_is_forwarded() {
        let client = start().await;
        let code = async |name, kind| client.ask(name, kind).await.metadata.response_code;
        assert_eq!(code("gone.up.test.", RecordType::A).await, ResponseCode::NXDomain);
        assert_eq!(code("broken.up.test.", RecordType::A).await, ResponseCode::ServFail);
    }

    #[tokio::test]
    async fn invalid_query_is_refused() {
        let client = start().await;
        let code = |answer: Message| answer.metadata.response_code;
        for name in ["1.2.0.192.in-addr.arpa.", "ip6.arpa.", "192.0.2.1.", ".", "a-.up.test."] {
            let answer = client.ask(name, RecordType::A).await;
            assert_eq!(code(answer), ResponseCode::NXDomain, "{name}");
        }
        let transfer = client.ask("a.up.test.", RecordType::AXFR).await;
        assert_eq!(code(transfer), ResponseCode::Refused);
        let mut chaos = request("a.up.test.", RecordType::A);
        chaos.queries[0].set_query_class(DNSClass::CH);
        assert_eq!(code(client.udp(&chaos).await), ResponseCode::Refused);
        let mut two = request("a.up.test.", RecordType::A);
        two.add_query(two.queries[0].clone());
        let answer = client.udp(&two).await;
        assert!(answer.queries.is_empty() && code(answer) == ResponseCode::FormErr);
        let mut notify = request("a.up.test.", RecordType::SOA);
        notify.metadata.op_code = OpCode::Notify;
        assert_eq!(code(client.udp(&notify).await), ResponseCode::NotImp);
        let broken = client.udp_bytes(b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0\xff\xff").await;
        assert_eq!(code(Message::from_vec(&broken).unwrap()), ResponseCode::FormErr);
        assert_eq!(client.queries(), [] as [&str; 0]);
    }

    #[tokio::test]
    async fn localhost_resolves_to_loopback() {
        let client = start().await;
        assert_eq!(ips(&client.ask("localhost.", RecordType::A).await), [IpAddr::from([127, 0, 0, 1])]);
    }

    #[tokio::test]
    async fn large_answer_is_truncated_and_complete_over_tcp() {
        let client = start().await;
        let request = request("many.up.test.", RecordType::A);
        let short = client.udp(&request).await;
        assert!(short.metadata.truncation && short.answers.is_empty());
        let mut stream = TcpStream::connect(client.tcp).await.unwrap();
        for _ in 0..2 {
            assert_eq!(ips(&client.tcp(&mut stream, &request).await).len(), 40);
        }
    }

    #[tokio::test]
    async fn edns_version_other_than_zero_is_refused() {
        let client = start().await;
        let mut request = request("a.up.test.", RecordType::A);
        request.set_edns(Edns::new());
        let answer = client.udp(&request).await;
        assert_eq!(ips(&answer).len(), 1);
        assert_eq!(answer.max_payload(), EDNS_UDP_PAYLOAD);
        let mut edns = Edns::new();
        edns.set_version(1);
        request.set_edns(edns);
        let code = u16::from(client.udp(&request).await.metadata.response_code);
        assert_eq!(code, u16::from(ResponseCode::BADVERS));
    }

    proptest! {
        #[test]
        fn any_bytes_get_a_valid_response_or_none(
            bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let resolver = Arc::new(Resolver::for_test("/nonexistent/hosts".into(), None));
            let server =
                NameServer { is_allowed: |_: &Host| false, resolver, sinkhole: Sinkhole::default() };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            if let Some(answer) = runtime.block_on(server.answer(&bytes, Transport::Udp)) {
                let answer = Message::from_vec(&answer).unwrap();
                prop_assert_eq!(answer.metadata.message_type, MessageType::Response);
                prop_assert!(answer.answers.len() <= 1);
            }
        }
    }

    #[tokio::test]
    async fn response_sent_as_query_is_ignored() {
        let resolver = Arc::new(Resolver::for_test("/nonexistent/hosts".into(), None));
        let server = NameServer { is_allowed: |_: &Host| true, resolver, sinkhole: Sinkhole::default() };
        let mut answer = request("a.up.test.", RecordType::TXT);
        answer.metadata.message_type = MessageType::Response;
        let text = RData::TXT(TXT::new(vec!["x".into()]));
        answer.add_answer(Record::from_rdata(answer.queries[0].name().clone(), 1, text));
        assert_eq!(server.answer(&answer.to_vec().unwrap(), Transport::Tcp).await, None);
    }
}
