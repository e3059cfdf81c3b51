//! A name server on port 53 (UDP and TCP) of another network namespace: the system's server for programs
//! whose `/etc/resolv.conf` names it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Edns, Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, MX, NS, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;

use super::netns::Netns;

/// Name, TTL, data.
pub(crate) type Entry = (&'static str, u32, Data);

#[derive(Clone)]
pub(crate) enum Data {
    Ip(IpAddr),
    /// The first address for the first query, the second for later ones.
    Rebinding(IpAddr, IpAddr),
    Alias(&'static str),
    Mail(&'static str),
    Server(&'static str),
    Service(&'static str),
    Text(String),
    /// Queries for the name get no answer.
    Silence,
}

/// A running server; dropping it ends it.
pub(crate) struct Nameserver {
    asked: QueryLog,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// The queries so far, as `name. TYPE`.
type QueryLog = Arc<Mutex<Vec<String>>>;

struct Zone {
    entries: HashMap<Name, Vec<(u32, Data)>>,
    asked: QueryLog,
}

impl Nameserver {
    /// Starts a server at the IPv4 address of the namespace's end; it listens when this returns.
    pub(crate) fn start(netns: &Netns, entries: &[Entry]) -> Self {
        let asked = QueryLog::default();
        let mut zone = Zone { entries: HashMap::new(), asked: asked.clone() };
        for (name, ttl, data) in entries {
            zone.entries.entry(absolute(name)).or_default().push((*ttl, data.clone()));
        }
        let (handle, address) = (netns.handle(), netns.peer4());
        let (stop, stopped) = oneshot::channel();
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            handle.enter();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let udp = UdpSocket::bind((address, 53)).await.unwrap();
                let tcp = TcpListener::bind((address, 53)).await.unwrap();
                sender.send(()).unwrap();
                let zone = Arc::new(zone);
                tokio::select! {
                    () = datagrams(udp, &zone) => {}
                    () = connections(tcp, zone.clone()) => {}
                    _ = stopped => {}
                }
            });
        });
        receiver.recv().expect("the test name server could not listen");
        Self { asked, stop: Some(stop), thread: Some(thread) }
    }

    /// Every query so far, such as `api.up.test. A`.
    pub(crate) fn queries(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// How often this query came.
    pub(crate) fn count(&self, question: &str) -> usize {
        self.queries().iter().filter(|asked| *asked == question).count()
    }
}

impl Drop for Nameserver {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn datagrams(socket: UdpSocket, zone: &Zone) {
    let mut buffer = [0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        let room = question.edns.as_ref().map_or(512, |edns| usize::from(edns.max_payload()));
        let Some(answer) = zone.answer(&question) else { continue };
        let bytes = answer.to_vec().unwrap();
        let bytes = if bytes.len() > room { answer.truncate().to_vec().unwrap() } else { bytes };
        let _ = socket.send_to(&bytes, peer).await;
    }
}

async fn connections(listener: TcpListener, zone: Arc<Zone>) {
    while let Ok((stream, _)) = listener.accept().await {
        let zone = zone.clone();
        tokio::spawn(async move { drop(serve_connection(stream, &zone).await) });
    }
}

async fn serve_connection(mut stream: TcpStream, zone: &Zone) -> std::io::Result<()> {
    loop {
        let mut question = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut question).await?;
        let Some(answer) = Message::from_vec(&question).ok().and_then(|question| zone.answer(&question))
        else {
            return Ok(());
        };
        let answer = answer.to_vec().unwrap();
        stream.write_u16(answer.len().try_into().unwrap()).await?;
        stream.write_all(&answer).await?;
    }
}

impl Zone {
    fn answer(&self, question: &Message) -> Option<Message> {
        let query = question.queries.first()?.clone();
        let (mut name, kind) = (query.name().to_lowercase(), query.query_type());
        let asked = format!("{name} {kind}");
        let again = self.asked.lock().unwrap().contains(&asked);
        self.asked.lock().unwrap().push(asked);
        let mut answer = Message::response(question.metadata.id, OpCode::Query);
        answer.add_query(query);
        answer.metadata.recursion_available = true;
        if question.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(1232);
            answer.set_edns(edns);
        }
        while let Some(entries) = self.entries.get(&name) {
            if entries.iter().any(|(_, data)| matches!(data, Data::Silence)) {
                return None;
            }
            let records =
                entries.iter().map(|(ttl, data)| Record::from_rdata(name.clone(), *ttl, data.rdata(again)));
            let records: Vec<Record> = records.collect();
            let alias = records.iter().find_map(|record| match &record.data {
                RData::CNAME(alias) => Some(alias.0.clone()),
                _ => None,
            });
            let fitting =
                |record: &Record| record.record_type() == kind || record.record_type() == RecordType::CNAME;
            answer.add_answers(records.into_iter().filter(fitting));
            match alias.filter(|_| kind != RecordType::CNAME) {
                Some(alias) => name = alias,
                None => return Some(answer),
            }
        }
        answer.metadata.response_code = ResponseCode::NXDomain;
        Some(answer)
    }
}

impl Data {
    fn rdata(&self, again: bool) -> RData {
        match self {
            Data::Ip(ip) => RData::from(*ip),
            Data::Rebinding(first, later) => RData::from(if again { *later } else { *first }),
            Data::Alias(name) => RData::CNAME(CNAME(absolute(name))),
            Data::Mail(name) => RData::MX(MX::new(10, absolute(name))),
            Data::Server(name) => RData::NS(NS(absolute(name))),
            Data::Service(name) => RData::SRV(SRV::new(1, 2, 443, absolute(name))),
            Data::Text(text) => {
                let parts =
                    text.as_bytes().chunks(255).map(|part| String::from_utf8_lossy(part).into_owned());
                RData::TXT(TXT::new(parts.collect()))
            }
            Data::Silence => unreachable!("it is never answered"),
        }
    }
}

fn absolute(name: &str) -> Name {
    let mut name = Name::from_ascii(name).unwrap().to_lowercase();
    name.set_fqdn(true);
    name
}
