//! Resolves names for us and for the agents: the hosts file first, then the system's name servers. Both files
//! are reloaded when they change. It never applies search domains, because the policy judged the exact name.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
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
use crate::types::sync::MutexExt;

/// The limit for one lookup, all servers and attempts together. Most clients repeat a query after five seconds.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(4);
/// The limit for the second family once the first has answered: some servers never answer AAAA.
const SECOND_FAMILY_TIMEOUT: Duration = Duration::from_millis(250);
/// Addresses remembered as a host's. Clients and proxies keep them about as long.
const MAX_RECENT_ANSWERS: u64 = 16 * 1024;
const RECENT_ANSWER_TTL: Duration = Duration::from_secs(600);
const CACHE_TTL: Duration = Duration::from_secs(300);
/// The system's name servers are read again after this time, where no file shows that they changed.
const SYSTEM_CONF_TTL: Duration = Duration::from_secs(30);
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(10);

/// The resolver of one process; all agents share it.
pub struct Resolver {
    hosts: CachedFile<Hosts>,
    servers: CachedFile<NameServers>,
    recent_answers: Cache<(Host, IpAddr), ()>,
}

struct NameServers {
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

/// The addresses of one family, possibly none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// In the order in which the server gave them.
    pub ips: Vec<IpAddr>,
    /// The remaining time of the record in the cache.
    pub ttl: Duration,
}

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name does not exist, or has no address.
    #[error("the name does not exist")]
    NotFound,
    /// No name server answered in time.
    #[error("no name server answered within {} s", LOOKUP_TIMEOUT.as_secs())]
    TimedOut,
    /// The system configures no name server.
    #[error("the system has no name servers: {0}")]
    NoServers(String),
    /// The servers could not be reached, or returned an error.
    #[error("the name servers failed: {0}")]
    Failed(String),
}

impl Resolver {
    /// Uses the system's files. Nothing is read before the first lookup.
    pub fn system() -> Self {
        Self::with_files(sys::hosts_file(), "/etc/resolv.conf".into())
    }

    fn with_files(hosts: PathBuf, servers: PathBuf) -> Self {
        let recent_answers =
            Cache::builder().max_capacity(MAX_RECENT_ANSWERS).time_to_live(RECENT_ANSWER_TTL).build();
        Self { hosts: CachedFile::new(hosts), servers: CachedFile::new(servers), recent_answers }
    }

    /// Whether `ip` is an address of `host`, or lately was: content networks change addresses faster than
    /// clients forget them.
    pub async fn has_address(&self, host: &Host, ip: IpAddr) -> Result<bool, ResolveError> {
        if self.recent_answers.contains_key(&(host.clone(), ip)) {
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
                let four = second_family(&six, rest).await;
                (six, four)
            }
            Either::Right((four, rest)) => (second_family(&four, rest).await, four),
        };
        let ips = match (six, four) {
            (Ok(six), Ok(four)) => interleave(six.ips, four.ips),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) if !one.ips.is_empty() => one.ips,
            // A server failure tells more than the absence of the name.
            (Err(ResolveError::NotFound), Err(error)) | (Err(error), _) | (_, Err(error)) => {
                return Err(error);
            }
        };
        if ips.is_empty() { Err(ResolveError::NotFound) } else { Ok(ips) }
    }

    /// The addresses of one family. A name that exists without one has none, which is no error.
    pub async fn lookup_family(&self, host: &Host, family: Family) -> Result<Addresses, ResolveError> {
        let found = self.resolve_family(host, family).await?;
        for ip in &found.ips {
            self.recent_answers.insert((host.clone(), *ip), ());
        }
        Ok(found)
    }

    async fn resolve_family(&self, host: &Host, family: Family) -> Result<Addresses, ResolveError> {
        let name = match host {
            Host::Ip(ip) => return Ok(Addresses::local([*ip], family)),
            Host::Name(name) if is_localhost(name) => {
                let loopback = [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
                return Ok(Addresses::local(loopback, family));
            }
            Host::Name(name) => absolute(name)?,
        };
        if let Some(ips) = self.hosts_file_entry(&name) {
            return Ok(Addresses::local(ips, family));
        }
        let record = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        let found = self.query(name, record).await?;
        Ok(found.map_or(Addresses::local([], family), |found| Addresses::from_lookup(&found, family)))
    }

    /// The records of type `kind`, with the aliases that lead to them, and their TTL. A name that exists without
    /// one has none; so has a name that only the hosts file lists.
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
        let is_listed = self.hosts_file_entry(&name).is_some();
        match self.query(name, kind).await {
            Ok(Some(found)) => Ok((found.answers().to_vec(), remaining(&found))),
            Ok(None) => Ok((Vec::new(), Duration::ZERO)),
            Err(_) if is_listed => Ok((Vec::new(), Duration::ZERO)),
            Err(error) => Err(error),
        }
    }

    /// The domains that the system's clients try behind a name.
    pub(super) fn search_domains(&self) -> Vec<String> {
        self.servers.get(system_name_servers).map(|servers| servers.search.clone()).unwrap_or_default()
    }

    /// Queries the name servers. `None` means that the name exists without such a record.
    async fn query(&self, name: Name, kind: RecordType) -> Result<Option<Lookup>, ResolveError> {
        let servers = self.servers.get(system_name_servers)?;
        match tokio::time::timeout(LOOKUP_TIMEOUT, servers.client.lookup(name, kind)).await {
            Err(_) => Err(ResolveError::TimedOut),
            Ok(Ok(found)) => Ok(Some(found)),
            Ok(Err(error)) => classify(&error).map(|()| None),
        }
    }

    /// The addresses of `name` in the hosts file. An unreadable file counts as empty, as for other programs.
    fn hosts_file_entry(&self, name: &Name) -> Option<Vec<IpAddr>> {
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
    fn local(ips: impl IntoIterator<Item = IpAddr>, family: Family) -> Self {
        let ips = ips.into_iter().filter(|ip| family.has(*ip)).collect();
        Self { ips, ttl: Duration::from_secs(5) }
    }

    fn from_lookup(lookup: &Lookup, family: Family) -> Self {
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

/// Waits for the second family, but only shortly if the first one has addresses.
async fn second_family<F>(first: &Result<Addresses, ResolveError>, rest: F) -> Result<Addresses, ResolveError>
where
    F: Future<Output = Result<Addresses, ResolveError>>,
{
    if first.as_ref().is_ok_and(|first| !first.ips.is_empty()) {
        let late = tokio::time::timeout(SECOND_FAMILY_TIMEOUT, rest).await;
        return late.unwrap_or(Err(ResolveError::TimedOut));
    }
    rest.await
}

fn interleave(first: Vec<IpAddr>, second: Vec<IpAddr>) -> Vec<IpAddr> {
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

/// Translates a lookup error. A name without a record of this type is not an error.
fn classify(error: &NetError) -> Result<(), ResolveError> {
    match error {
        error if error.is_nx_domain() => Err(ResolveError::NotFound),
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NoError => {
            Ok(())
        }
        NetError::Timeout => Err(ResolveError::TimedOut),
        error => Err(ResolveError::Failed(error.as_metrics_label().to_owned())),
    }
}

/// A client for the name servers in the file at `path`, or for the system's where it has no such file.
fn system_name_servers(path: &Path) -> Result<NameServers, ResolveError> {
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

fn build(config: ResolverConfig, system: ResolverOpts) -> Result<NameServers, ResolveError> {
    let domains = config.search().iter().map(|domain| domain.to_ascii().to_ascii_lowercase());
    let search = domains.map(|domain| domain.trim_end_matches('.').to_owned()).collect();
    let mut options = system;
    options.timeout = options.timeout.clamp(Duration::from_secs(1), Duration::from_secs(2));
    options.attempts = options.attempts.clamp(1, 2);
    options.try_tcp_on_error = true;
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = 1024;
    options.positive_max_ttl = Some(CACHE_TTL);
    options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .build()
        .map(|client| NameServers { client, search })
        .map_err(|error| ResolveError::NoServers(error.to_string()))
}

/// The parsed content of a file, kept until the file changes, or for a short time where there is no file.
struct CachedFile<T> {
    path: PathBuf,
    read: Mutex<Option<(FileVersion, Instant, Arc<T>)>>,
}

/// Modification time and length; the length too, because clocks are coarse.
type FileVersion = Option<(SystemTime, u64)>;

impl<T> CachedFile<T> {
    fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::new(None) }
    }

    fn get<E>(&self, load: impl FnOnce(&Path) -> Result<T, E>) -> Result<Arc<T>, E> {
        let now: FileVersion =
            std::fs::metadata(&self.path).and_then(|meta| Ok((meta.modified()?, meta.len()))).ok();
        let mut read = self.read.lock_ignoring_poison();
        if let Some((version, since, value)) = &*read
            && *version == now
            && (now.is_some() || since.elapsed() < SYSTEM_CONF_TTL)
        {
            return Ok(value.clone());
        }
        // A failed load is repeated at the next call.
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
            *resolver.servers.read.lock_ignoring_poison() = built.map(|built| (None, Instant::now(), built));
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
    async fn ip_and_localhost_need_no_server() {
        let resolver = Resolver::for_test("/nonexistent/hosts".into(), None);
        assert_eq!(resolver.lookup(&host("192.0.2.7")).await.unwrap(), ips(&["192.0.2.7"]));
        assert_eq!(resolver.lookup(&host("localhost")).await.unwrap(), ips(&["::1", "127.0.0.1"]));
        assert_eq!(resolver.lookup(&host("a.LOCALHOST.")).await.unwrap(), ips(&["::1", "127.0.0.1"]));
    }

    #[tokio::test]
    async fn hosts_file_comes_first_and_is_reloaded() {
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
        let mixed = interleave(ips(&["::1", "::2", "::3"]), ips(&["1.1.1.1"]));
        assert_eq!(mixed, ips(&["::1", "1.1.1.1", "::2", "::3"]));
    }
}
