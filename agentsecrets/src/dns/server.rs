//! The name server of the agents. It asks upstream about allowed names and no others, so that a question
//! is no way out; every other name gets an address of ours, and the client that connects to it is told
//! why.

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

use super::resolver::{Addresses, Family, ResolveError, Resolver};
use crate::dns::sinkhole::Synthetic;
use crate::types::host::Host;

/// How long an agent may keep an answer about an allowed name, in seconds.
pub(super) const LONGEST_TTL: u64 = 60;
/// How long it may keep one of ours: the policy can change.
const SYNTHETIC_TTL: u32 = 2;
/// How many questions are worked on at once, for each kind of transport.
const AT_ONCE: usize = 256;
/// How many TCP connections are open at once.
const CONNECTIONS: usize = 64;
/// How long a TCP connection may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// What fits into a datagram without EDNS, and what we send at most with it.
const PLAIN: usize = 512;
const WITH_EDNS: u16 = 1232;

/// Answers on all of these sockets until the future is dropped. `allows` says of a name whether some
/// rule of the agent names it.
pub async fn serve(
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    allows: impl Fn(&Host) -> bool + Send + Sync + 'static,
    resolver: Arc<Resolver>,
) {
    let names = Arc::new(Names { allows, resolver, synthetic: Synthetic::default() });
    let mut sockets = JoinSet::new();
    for socket in udp {
        sockets.spawn(serve_udp(Arc::new(socket), names.clone()));
    }
    for listener in tcp {
        sockets.spawn(serve_tcp(listener, names.clone()));
    }
    // They end only by being dropped, or by a bug that must not take the others along.
    while sockets.join_next().await.is_some() {}
    std::future::pending().await
}

pub(super) struct Names<A> {
    pub(super) allows: A,
    pub(super) resolver: Arc<Resolver>,
    synthetic: Synthetic,
}

async fn serve_udp<A>(socket: Arc<UdpSocket>, names: Arc<Names<A>>)
where
    A: Fn(&Host) -> bool + Send + Sync + 'static,
{
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut work = JoinSet::new();
    let mut buffer = [0; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            // Nothing that a peer can cause; wait rather than spin.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        while work.try_join_next().is_some() {}
        // Without a slot the question is lost, as with any busy server; the client asks again.
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let Some(question) = buffer.get(..length).map(<[u8]>::to_vec) else { continue };
        let (socket, names) = (socket.clone(), names.clone());
        work.spawn(async move {
            if let Some(answer) = names.answer(&question, Transport::Udp).await {
                drop(socket.send_to(&answer, peer).await);
            }
            drop(slot);
        });
    }
}

async fn serve_tcp<A>(listener: TcpListener, names: Arc<Names<A>>)
where
    A: Fn(&Host) -> bool + Send + Sync + 'static,
{
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut work = JoinSet::new();
    loop {
        while work.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: wait rather than spin.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let names = names.clone();
        work.spawn(async move {
            drop(converse(stream, &names).await);
            drop(slot);
        });
    }
}

/// Questions and answers on one connection, one after the other.
async fn converse<A>(mut stream: TcpStream, names: &Names<A>) -> std::io::Result<()>
where
    A: Fn(&Host) -> bool,
{
    stream.set_nodelay(true)?;
    loop {
        let question = tokio::time::timeout(IDLE, async {
            let mut question = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut question).await.map(|_| question)
        });
        let Ok(question) = question.await else { return Ok(()) };
        let Some(answer) = names.answer(&question?, Transport::Tcp).await else { return Ok(()) };
        let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
        let mut framed = Vec::with_capacity(answer.len() + 2);
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(&answer);
        let Ok(written) = tokio::time::timeout(IDLE, stream.write_all(&framed)).await else {
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

impl<A: Fn(&Host) -> bool> Names<A> {
    /// The answer to the bytes of a question, or nothing if they are none.
    async fn answer(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let question = match Message::from_vec(bytes) {
            Ok(question) => question,
            Err(_) => {
                let header = Header::read(&mut BinDecoder::new(bytes)).ok()?;
                let is_query = header.metadata.message_type == MessageType::Query;
                let (id, code) = (header.metadata.id, header.metadata.op_code);
                let error = || Message::error_msg(id, code, ResponseCode::FormErr);
                return is_query.then(error)?.to_vec().ok();
            }
        };
        if question.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        let mut room = PLAIN;
        if let Some(edns) = &question.edns {
            let mut ours = Edns::new();
            ours.set_max_payload(WITH_EDNS).set_version(0);
            answer.set_edns(ours);
            room = usize::from(edns.max_payload().clamp(512, WITH_EDNS));
        }
        answer.metadata.response_code = match self.records(&question).await {
            Ok(records) => {
                answer.add_answers(records);
                ResponseCode::NoError
            }
            Err(code) => code,
        };
        // One question is repeated, as clients expect; more are no question, and might not fit.
        if question.queries.len() == 1 {
            answer.add_queries(question.queries);
        }
        let encoded = answer.to_vec().ok()?;
        if transport == Transport::Udp && encoded.len() > room {
            return answer.truncate().to_vec().ok();
        }
        Some(encoded)
    }

    async fn records(&self, question: &Message) -> Result<Vec<Record>, ResponseCode> {
        if question.metadata.op_code != OpCode::Query {
            return Err(ResponseCode::NotImp);
        }
        if question.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
            return Err(ResponseCode::BADVERS);
        }
        let [query] = question.queries.as_slice() else { return Err(ResponseCode::FormErr) };
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
        if is_reverse || (!(self.allows)(&host) && self.is_searched(lower)) {
            return Err(ResponseCode::NXDomain);
        }
        let family = match query.query_type() {
            RecordType::A => Family::V4,
            RecordType::AAAA => Family::V6,
            kind => return self.others(&host, query.name(), kind).await,
        };
        let (ips, ttl) = self.addresses(&host, family).await?;
        let record = |ip| Record::from_rdata(query.name().clone(), ttl, RData::from(ip));
        Ok(ips.into_iter().map(record).collect())
    }

    async fn addresses(&self, host: &Host, family: Family) -> Result<(Vec<IpAddr>, u32), ResponseCode> {
        let Host::Name(name) = host else { return Err(ResponseCode::NXDomain) };
        // The agent's own machine, whatever policy says; no question leaves for it.
        let is_local = &**name == "localhost" || name.ends_with(".localhost");
        if !is_local && !(self.allows)(host) {
            let ip = self.synthetic.address(name, family).ok_or(ResponseCode::ServFail)?;
            return Ok((vec![ip], SYNTHETIC_TTL));
        }
        match self.resolver.lookup_family(host, family).await {
            Ok(Addresses { ips, ttl }) => {
                let seconds = ttl.as_secs().min(LONGEST_TTL);
                Ok((ips, u32::try_from(seconds).unwrap_or(0)))
            }
            Err(ResolveError::NotFound) => Err(ResponseCode::NXDomain),
            Err(_) => Err(ResponseCode::ServFail),
        }
    }
}

/// The answer to a datagram of an agent to whom the policy allows no name, so that nobody is asked: what
/// the fuzzer calls.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) async fn answer_to_nobody(bytes: &[u8]) -> Option<Vec<u8>> {
    let resolver = Arc::new(Resolver::system());
    let names = Names { allows: |_: &Host| false, resolver, synthetic: Synthetic::default() };
    names.answer(bytes, Transport::Udp).await
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

    /// A name server upstream that knows `*.up.test`, and remembers what it was asked.
    async fn upstream() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            loop {
                let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let query = question.queries[0].clone();
                let (name, kind) = (query.name().clone(), query.query_type());
                log.lock().unwrap().push(format!("{name} {kind}"));
                let mut answer = Message::response(question.metadata.id, OpCode::Query);
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
        (address, asked)
    }

    struct Asker {
        udp: SocketAddr,
        tcp: SocketAddr,
        asked: Arc<Mutex<Vec<String>>>,
    }

    /// Our server, which allows `*.up.test`.
    async fn start() -> Asker {
        let (server, asked) = upstream().await;
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at_udp, at_tcp) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        let resolver = Arc::new(Resolver::for_test("/nonexistent/hosts".into(), Some(server)));
        let allows = |host: &Host| host.to_string().ends_with(".up.test");
        tokio::spawn(serve(vec![udp], vec![tcp], allows, resolver));
        Asker { udp: at_udp, tcp: at_tcp, asked }
    }

    fn question(name: &str, kind: RecordType) -> Message {
        let mut question = Message::query();
        question.metadata.id = 4711;
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        question
    }

    impl Asker {
        async fn udp_bytes(&self, bytes: &[u8]) -> Vec<u8> {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.send_to(bytes, self.udp).await.unwrap();
            let mut buffer = vec![0; 4096];
            let length = socket.recv(&mut buffer).await.unwrap();
            buffer.truncate(length);
            buffer
        }

        async fn udp(&self, question: &Message) -> Message {
            Message::from_vec(&self.udp_bytes(&question.to_vec().unwrap()).await).unwrap()
        }

        async fn ask(&self, name: &str, kind: RecordType) -> Message {
            self.udp(&question(name, kind)).await
        }

        async fn tcp(&self, stream: &mut TcpStream, question: &Message) -> Message {
            let bytes = question.to_vec().unwrap();
            stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut answer).await.unwrap();
            Message::from_vec(&answer).unwrap()
        }

        fn asked(&self) -> Vec<String> {
            self.asked.lock().unwrap().clone()
        }
    }

    fn ips(answer: &Message) -> Vec<IpAddr> {
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        answer.answers.iter().map(|record| record.data.ip_addr().unwrap()).collect()
    }

    #[tokio::test]
    async fn allowed_names_have_their_addresses_for_a_minute_at_most() {
        let asker = start().await;
        let answer = asker.ask("A.up.Test.", RecordType::A).await;
        assert_eq!(ips(&answer), [IpAddr::from([192, 0, 2, 1])]);
        assert_eq!(answer.answers[0].ttl, 60);
        assert_eq!(answer.metadata.id, 4711);
        assert_eq!(answer.queries[0].name().to_ascii(), "A.up.Test.");
        assert_eq!(ips(&asker.ask("a.up.test.", RecordType::AAAA).await), [] as [IpAddr; 0]);
    }

    #[tokio::test]
    async fn no_question_leaves_for_a_name_that_no_rule_allows() {
        let asker = start().await;
        let secret = "c2VjcmV0.evil.test.";
        let four = ips(&asker.ask(secret, RecordType::A).await);
        let six = ips(&asker.ask(secret, RecordType::AAAA).await);
        assert_eq!(four, [IpAddr::from([198, 18, 0, 1])]);
        assert_eq!(six, ["fd61:6765:6e74::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(ips(&asker.ask("C2VJCMV0.evil.test.", RecordType::A).await), four);
        assert_ne!(ips(&asker.ask("other.evil.test.", RecordType::A).await), four);
        for kind in [RecordType::TXT, RecordType::HTTPS, RecordType::SVCB, RecordType::ANY] {
            assert_eq!(ips(&asker.ask(secret, kind).await), [] as [IpAddr; 0]);
        }
        assert_eq!(asker.asked(), [] as [&str; 0]);
    }

    #[tokio::test]
    async fn what_would_lead_around_us_does_not_exist_and_the_rest_is_asked_for_allowed_names() {
        let asker = start().await;
        for kind in [RecordType::HTTPS, RecordType::SVCB, RecordType::ANY] {
            assert_eq!(ips(&asker.ask("a.up.test.", kind).await), [] as [IpAddr; 0]);
        }
        assert_eq!(asker.asked(), [] as [&str; 0]);
        for kind in [RecordType::TXT, RecordType::MX, RecordType::SRV, RecordType::PTR, RecordType::NS] {
            assert_eq!(ips(&asker.ask("a.up.test.", kind).await), [] as [IpAddr; 0]);
        }
        assert_eq!(asker.asked().len(), 5);
    }

    #[tokio::test]
    async fn failures_are_what_upstream_said() {
        let asker = start().await;
        let code = async |name, kind| asker.ask(name, kind).await.metadata.response_code;
        assert_eq!(code("gone.up.test.", RecordType::A).await, ResponseCode::NXDomain);
        assert_eq!(code("broken.up.test.", RecordType::A).await, ResponseCode::ServFail);
    }

    #[tokio::test]
    async fn what_is_no_host_or_no_internet_question_is_turned_away() {
        let asker = start().await;
        let code = |answer: Message| answer.metadata.response_code;
        for name in ["1.2.0.192.in-addr.arpa.", "ip6.arpa.", "192.0.2.1.", ".", "a-.up.test."] {
            let answer = asker.ask(name, RecordType::A).await;
            assert_eq!(code(answer), ResponseCode::NXDomain, "{name}");
        }
        let transfer = asker.ask("a.up.test.", RecordType::AXFR).await;
        assert_eq!(code(transfer), ResponseCode::Refused);
        let mut chaos = question("a.up.test.", RecordType::A);
        chaos.queries[0].set_query_class(DNSClass::CH);
        assert_eq!(code(asker.udp(&chaos).await), ResponseCode::Refused);
        let mut two = question("a.up.test.", RecordType::A);
        two.add_query(two.queries[0].clone());
        let answer = asker.udp(&two).await;
        assert!(answer.queries.is_empty() && code(answer) == ResponseCode::FormErr);
        let mut notify = question("a.up.test.", RecordType::SOA);
        notify.metadata.op_code = OpCode::Notify;
        assert_eq!(code(asker.udp(&notify).await), ResponseCode::NotImp);
        let broken = asker.udp_bytes(b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0\xff\xff").await;
        assert_eq!(code(Message::from_vec(&broken).unwrap()), ResponseCode::FormErr);
        assert_eq!(asker.asked(), [] as [&str; 0]);
    }

    #[tokio::test]
    async fn localhost_is_the_agents_own_machine() {
        let asker = start().await;
        assert_eq!(ips(&asker.ask("localhost.", RecordType::A).await), [IpAddr::from([127, 0, 0, 1])]);
    }

    #[tokio::test]
    async fn what_a_datagram_cannot_hold_comes_over_tcp() {
        let asker = start().await;
        let asked = question("many.up.test.", RecordType::A);
        let short = asker.udp(&asked).await;
        assert!(short.metadata.truncation && short.answers.is_empty());
        let mut stream = TcpStream::connect(asker.tcp).await.unwrap();
        for _ in 0..2 {
            assert_eq!(ips(&asker.tcp(&mut stream, &asked).await).len(), 40);
        }
    }

    #[tokio::test]
    async fn edns_is_spoken_in_its_first_version() {
        let asker = start().await;
        let mut asked = question("a.up.test.", RecordType::A);
        asked.set_edns(Edns::new());
        let answer = asker.udp(&asked).await;
        assert_eq!(ips(&answer).len(), 1);
        assert_eq!(answer.max_payload(), WITH_EDNS);
        let mut edns = Edns::new();
        edns.set_version(1);
        asked.set_edns(edns);
        let code = u16::from(asker.udp(&asked).await.metadata.response_code);
        assert_eq!(code, u16::from(ResponseCode::BADVERS));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_answered_in_form_or_not_at_all(
            bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let resolver = Arc::new(Resolver::for_test("/nonexistent/hosts".into(), None));
            let names =
                Names { allows: |_: &Host| false, resolver, synthetic: Synthetic::default() };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            if let Some(answer) = runtime.block_on(names.answer(&bytes, Transport::Udp)) {
                let answer = Message::from_vec(&answer).unwrap();
                prop_assert_eq!(answer.metadata.message_type, MessageType::Response);
                prop_assert!(answer.answers.len() <= 1);
            }
        }
    }

    #[tokio::test]
    async fn an_answer_that_comes_as_a_question_is_ignored() {
        let resolver = Arc::new(Resolver::for_test("/nonexistent/hosts".into(), None));
        let names = Names { allows: |_: &Host| true, resolver, synthetic: Synthetic::default() };
        let mut answer = question("a.up.test.", RecordType::TXT);
        answer.metadata.message_type = MessageType::Response;
        let text = RData::TXT(TXT::new(vec!["x".into()]));
        answer.add_answer(Record::from_rdata(answer.queries[0].name().clone(), 1, text));
        assert_eq!(names.answer(&answer.to_vec().unwrap(), Transport::Tcp).await, None);
    }
}
