//! Names to addresses, for us and for the agents' questions: the hosts file first, then the system's
//! name servers. Both files are read anew when they change. Search domains are never applied: what
//! policy judged is what is asked for.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::{self, Either};
use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, Record, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use moka::sync::Cache;

use crate::sys;
use crate::types::host::Host;

/// How long a name may take, all servers and attempts together.
/// Less than the five seconds after which most clients ask again.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long the second family may take once the first has answered: some servers never answer AAAA.
const SECOND_FAMILY: Duration = Duration::from_millis(250);
/// How many addresses are remembered as some name's, and for how long: what clients and proxies keep.
const MOST_GIVEN: u64 = 16 * 1024;
const GIVEN: Duration = Duration::from_secs(600);
/// How long an answer is used at most, whatever its server says.
const LONGEST: Duration = Duration::from_secs(300);
/// How long a machine's name servers are taken for the same, where no file says when they change.
const WITHOUT_FILE: Duration = Duration::from_secs(30);
/// How long it is remembered at most that a name does not exist.
const LONGEST_NEGATIVE: Duration = Duration::from_secs(10);

/// Resolves names; cheap to share.
pub struct Resolver {
    hosts: Watched<Hosts>,
    servers: Watched<Servers>,
    given: Cache<(Host, IpAddr), ()>,
}

/// The system's name servers, as their file says.
struct Servers {
    client: TokioResolver,
    /// In lower case, without final dots.
    search: Vec<String>,
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

/// The addresses of one family, possibly none, and how long they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// In the order in which the server gave them.
    pub ips: Vec<IpAddr>,
    /// How long they may be kept.
    pub ttl: Duration,
}

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name does not exist, or has no address.
    #[error("the name does not exist")]
    NotFound,
    /// No name server answered in time.
    #[error("no name server answered within {} s", PATIENCE.as_secs())]
    TimedOut,
    /// The system names no server to ask.
    #[error("the system has no name servers: {0}")]
    NoServers(String),
    /// The servers could not be asked, or could not answer.
    #[error("the name servers failed: {0}")]
    Failed(String),
}

impl Resolver {
    /// With the system's files. Nothing is read before the first name is asked for.
    pub fn system() -> Self {
        Self::with_files(sys::hosts_file(), "/etc/resolv.conf".into())
    }

    fn with_files(hosts: PathBuf, servers: PathBuf) -> Self {
        let given = Cache::builder().max_capacity(MOST_GIVEN).time_to_live(GIVEN).build();
        Self { hosts: Watched::new(hosts), servers: Watched::new(servers), given }
    }

    /// Whether `ip` is an address of `host`, or lately was: names of content networks change theirs faster
    /// than clients forget them.
    pub async fn has_address(&self, host: &Host, ip: IpAddr) -> Result<bool, ResolveError> {
        if self.given.contains_key(&(host.clone(), ip)) {
            return Ok(true);
        }
        Ok(self.lookup(host).await?.contains(&ip))
    }

    /// Every address of `host`, IPv6 and IPv4 alternating, as they are to be tried.
    pub async fn lookup(&self, host: &Host) -> Result<Vec<IpAddr>, ResolveError> {
        if let Host::Ip(ip) = host {
            return Ok(vec![*ip]);
        }
        let six = Box::pin(self.lookup_family(host, Family::V6));
        let four = Box::pin(self.lookup_family(host, Family::V4));
        let (six, four) = match future::select(six, four).await {
            Either::Left((six, rest)) => {
                let four = second(&six, rest).await;
                (six, four)
            }
            Either::Right((four, rest)) => (second(&four, rest).await, four),
        };
        let ips = match (six, four) {
            (Ok(six), Ok(four)) => alternate(six.ips, four.ips),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) if !one.ips.is_empty() => one.ips,
            // That it does not exist says less than that nobody could be asked.
            (Err(ResolveError::NotFound), Err(error)) | (Err(error), _) | (_, Err(error)) => {
                return Err(error);
            }
        };
        if ips.is_empty() { Err(ResolveError::NotFound) } else { Ok(ips) }
    }

    /// The addresses of one family. A name that exists without one has none, which is no error.
    pub async fn lookup_family(&self, host: &Host, family: Family) -> Result<Addresses, ResolveError> {
        let found = self.find(host, family).await?;
        for ip in &found.ips {
            self.given.insert((host.clone(), *ip), ());
        }
        Ok(found)
    }

    async fn find(&self, host: &Host, family: Family) -> Result<Addresses, ResolveError> {
        let name = match host {
            Host::Ip(ip) => return Ok(Addresses::ours([*ip], family)),
            Host::Name(name) if is_localhost(name) => {
                let loopback = [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
                return Ok(Addresses::ours(loopback, family));
            }
            Host::Name(name) => absolute(name)?,
        };
        if let Some(ips) = self.in_hosts(&name) {
            return Ok(Addresses::ours(ips, family));
        }
        let record = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        let found = self.ask(name, record).await?;
        Ok(found.map_or(Addresses::ours([], family), |found| Addresses::found(&found, family)))
    }

    /// The records of this kind, aliases that lead to them included, and how long they hold. A name that
    /// exists without one has none; so has one that only the hosts file knows.
    pub(super) async fn lookup_records(
        &self,
        host: &Host,
        kind: RecordType,
    ) -> Result<(Vec<Record>, Duration), ResolveError> {
        let name = match host {
            Host::Ip(_) => return Err(ResolveError::NotFound),
            Host::Name(name) if is_localhost(name) => return Ok((Vec::new(), Duration::ZERO)),
            Host::Name(name) => absolute(name)?,
        };
        let is_listed = self.in_hosts(&name).is_some();
        match self.ask(name, kind).await {
            Ok(Some(found)) => Ok((found.answers().to_vec(), remaining(&found))),
            Ok(None) => Ok((Vec::new(), Duration::ZERO)),
            Err(_) if is_listed => Ok((Vec::new(), Duration::ZERO)),
            Err(error) => Err(error),
        }
    }

    /// The domains that the system's clients try behind a name.
    pub(super) fn search_domains(&self) -> Vec<String> {
        self.servers.get(ask_system).map(|servers| servers.search.clone()).unwrap_or_default()
    }

    /// What the name servers say, or nothing if the name exists without such a record.
    async fn ask(&self, name: Name, kind: RecordType) -> Result<Option<Lookup>, ResolveError> {
        let servers = self.servers.get(ask_system)?;
        match tokio::time::timeout(PATIENCE, servers.client.lookup(name, kind)).await {
            Err(_) => Err(ResolveError::TimedOut),
            Ok(Ok(found)) => Ok(Some(found)),
            Ok(Err(error)) => failed(&error).map(|()| None),
        }
    }

    /// What the hosts file says of `name`, where it says anything; a file that cannot be read says
    /// nothing, as for other programs.
    fn in_hosts(&self, name: &Name) -> Option<Vec<IpAddr>> {
        let read = |path: &Path| {
            let mut hosts = Hosts::default();
            let file = File::open(path).map_err(|error| ResolveError::Failed(error.to_string()))?;
            match hosts.read_hosts_conf(file) {
                Ok(()) => Ok(hosts),
                Err(error) => Err(ResolveError::Failed(error.to_string())),
            }
        };
        let hosts = self.hosts.get(read).ok()?;
        let listed = |record| hosts.lookup_static_host(&Query::query(name.clone(), record));
        let found = [listed(RecordType::AAAA), listed(RecordType::A)];
        let ips: Vec<_> = found.iter().flatten().flat_map(addresses).collect();
        (!ips.is_empty()).then_some(ips)
    }
}

impl Addresses {
    fn ours(ips: impl IntoIterator<Item = IpAddr>, family: Family) -> Self {
        let ips = ips.into_iter().filter(|ip| family.has(*ip)).collect();
        Self { ips, ttl: Duration::from_secs(5) }
    }

    fn found(lookup: &Lookup, family: Family) -> Self {
        let ips = addresses(lookup).filter(|ip| family.has(*ip)).collect();
        Self { ips, ttl: remaining(lookup) }
    }
}

impl Family {
    fn has(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == (self == Family::V4)
    }
}

fn remaining(lookup: &Lookup) -> Duration {
    lookup.valid_until().saturating_duration_since(Instant::now())
}

fn addresses(lookup: &Lookup) -> impl Iterator<Item = IpAddr> {
    lookup.answers().iter().filter_map(|record| record.data.ip_addr())
}

fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

fn absolute(name: &str) -> Result<Name, ResolveError> {
    let mut name = Name::from_ascii(name).map_err(|_| ResolveError::NotFound)?;
    name.set_fqdn(true);
    Ok(name)
}

/// The answer that came second, or the next best thing if there are addresses already.
async fn second<F>(first: &Result<Addresses, ResolveError>, rest: F) -> Result<Addresses, ResolveError>
where
    F: Future<Output = Result<Addresses, ResolveError>>,
{
    if first.as_ref().is_ok_and(|first| !first.ips.is_empty()) {
        let late = tokio::time::timeout(SECOND_FAMILY, rest).await;
        return late.unwrap_or(Err(ResolveError::TimedOut));
    }
    rest.await
}

fn alternate(first: Vec<IpAddr>, second: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut all = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let before = all.len();
        all.extend(first.next());
        all.extend(second.next());
        if all.len() == before {
            return all;
        }
    }
}

/// What a failure means: that the name has no record of this kind is none.
fn failed(error: &NetError) -> Result<(), ResolveError> {
    match error {
        error if error.is_nx_domain() => Err(ResolveError::NotFound),
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NoError => {
            Ok(())
        }
        NetError::Timeout => Err(ResolveError::TimedOut),
        error => Err(ResolveError::Failed(error.as_metrics_label().to_owned())),
    }
}

/// A client for the name servers in the file at `path`, or of the system where it has no such file.
fn ask_system(path: &Path) -> Result<Servers, ResolveError> {
    let none = |error: &dyn std::fmt::Display| ResolveError::NoServers(error.to_string());
    #[cfg(all(unix, not(target_vendor = "apple")))]
    let (config, options) = {
        let text = std::fs::read(path).map_err(|error| none(&error))?;
        hickory_resolver::system_conf::parse_resolv_conf(text).map_err(|error| none(&error))?
    };
    #[cfg(not(all(unix, not(target_vendor = "apple"))))]
    let (config, options) = {
        let _ = path;
        hickory_resolver::system_conf::read_system_conf().map_err(|error| none(&error))?
    };
    build(config, options)
}

fn build(config: ResolverConfig, system: ResolverOpts) -> Result<Servers, ResolveError> {
    let domains = config.search().iter().map(|domain| domain.to_ascii().to_ascii_lowercase());
    let search = domains.map(|domain| domain.trim_end_matches('.').to_owned()).collect();
    let mut options = system;
    options.timeout = options.timeout.clamp(Duration::from_secs(1), Duration::from_secs(2));
    options.attempts = options.attempts.clamp(1, 2);
    options.try_tcp_on_error = true;
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = 1024;
    options.positive_max_ttl = Some(LONGEST);
    options.negative_max_ttl = Some(LONGEST_NEGATIVE);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()
        .map(|client| Servers { client, search })
        .map_err(|error| ResolveError::NoServers(error.to_string()))
}

/// What was read from a file, kept until the file changes; what the system says without a file, for a while.
struct Watched<T> {
    path: PathBuf,
    read: Mutex<Option<(Version, Instant, Arc<T>)>>,
}

/// Tells one state of a file from another; its length too, as clocks are coarse.
type Version = Option<(SystemTime, u64)>;

impl<T> Watched<T> {
    fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::new(None) }
    }

    fn get<E>(&self, load: impl FnOnce(&Path) -> Result<T, E>) -> Result<Arc<T>, E> {
        let now: Version =
            std::fs::metadata(&self.path).and_then(|meta| Ok((meta.modified()?, meta.len()))).ok();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((version, since, value)) = &*read
            && *version == now
            && (now.is_some() || since.elapsed() < WITHOUT_FILE)
        {
            return Ok(value.clone());
        }
        // What cannot be read is tried again next time.
        let value = Arc::new(load(&self.path)?);
        *read = Some((now, Instant::now(), value.clone()));
        Ok(value)
    }
}

#[cfg(test)]
impl Resolver {
    /// For tests: these hosts, and no name server but the one at `server`.
    pub(crate) fn for_test(hosts: PathBuf, server: Option<std::net::SocketAddr>) -> Self {
        use hickory_resolver::config::NameServerConfig;
        let resolver = Self::with_files(hosts, "/nonexistent/resolv.conf".into());
        if let Some(server) = server {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            for connection in &mut config.connections {
                connection.port = server.port();
            }
            let config = ResolverConfig::from_name_servers(vec![config]);
            let built = build(config, ResolverOpts::default()).ok().map(Arc::new);
            *resolver.servers.read.lock().unwrap_or_else(PoisonError::into_inner) =
                built.map(|built| (None, Instant::now(), built));
        }
        resolver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        text.parse().unwrap()
    }

    fn ips(text: &[&str]) -> Vec<IpAddr> {
        text.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn addresses_and_localhost_need_nobody() {
        let resolver = Resolver::for_test("/nonexistent/hosts".into(), None);
        assert_eq!(resolver.lookup(&host("192.0.2.7")).await.unwrap(), ips(&["192.0.2.7"]));
        assert_eq!(resolver.lookup(&host("localhost")).await.unwrap(), ips(&["::1", "127.0.0.1"]));
        assert_eq!(resolver.lookup(&host("a.LOCALHOST.")).await.unwrap(), ips(&["::1", "127.0.0.1"]));
    }

    #[tokio::test]
    async fn the_hosts_file_comes_first_and_is_read_anew_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        std::fs::write(&path, "192.0.2.1 api.test\n2001:db8::1 API.test # both\n192.0.2.2 x.test\n").unwrap();
        let resolver = Resolver::for_test(path.clone(), None);
        let name = host("api.test");
        assert_eq!(resolver.lookup(&name).await.unwrap(), ips(&["2001:db8::1", "192.0.2.1"]));
        let six = resolver.lookup_family(&host("x.test"), Family::V6).await.unwrap();
        assert_eq!(six.ips, ips(&[]));
        std::fs::write(&path, "192.0.2.3 api.test\n").unwrap();
        assert_eq!(resolver.lookup(&name).await.unwrap(), ips(&["192.0.2.3"]));
        let error = resolver.lookup(&host("other.test")).await.unwrap_err();
        assert!(matches!(error, ResolveError::NoServers(_)), "{error}");
    }

    #[test]
    fn families_alternate() {
        let mixed = alternate(ips(&["::1", "::2", "::3"]), ips(&["1.1.1.1"]));
        assert_eq!(mixed, ips(&["::1", "1.1.1.1", "::2", "::3"]));
    }
}
