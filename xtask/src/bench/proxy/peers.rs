//! The server behind every proxy, and the proxies of the comparison: nginx and haproxy, one worker each.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::certificates::{ServerCertificate, TestAuthority};

/// The core of the client and the server.
pub(super) const CLIENTS_CORE: &str = "1";
/// The core of the proxy.
pub(super) const PROXYS_CORE: &str = "0";
/// The name of the server.
pub(super) const NAME: &str = "api.demo";
/// The address of the server, a loopback address; it listens on port 443.
pub(super) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 65, 84, 1));
/// The same as text.
pub(super) const UPSTREAM: &str = "127.65.84.1";
/// The size of the large file, in MiB.
const LARGE: usize = 10;

/// A proxy of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// haproxy in TCP mode.
    Relay,
    /// haproxy with TLS on both legs.
    Haproxy,
    /// nginx with TLS on both legs.
    Nginx,
}

/// The server, and the files for proxies in front of it.
pub(super) struct Upstream {
    folder: tempfile::TempDir,
    authority: String,
    _server: Running,
}

/// A server process; it ends when this is dropped.
pub(super) struct Running(Child);

impl Peer {
    pub(super) const ALL: [Self; 3] = [Self::Relay, Self::Haproxy, Self::Nginx];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Relay => "haproxy, TCP mode",
            Self::Haproxy => "haproxy, TLS on both legs",
            Self::Nginx => "nginx, TLS on both legs",
        }
    }

    /// Its address.
    pub(super) fn host(self) -> &'static str {
        match self {
            Self::Relay => "127.65.84.2",
            Self::Haproxy => "127.65.84.3",
            Self::Nginx => "127.65.84.4",
        }
    }
}

impl Upstream {
    /// Starts it.
    pub(super) fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("agentsecrets-bench-").tempdir()?;
        let authority = TestAuthority::new("AgentSecrets bench authority")?;
        let ServerCertificate { certificate, key } = authority.issue(&[NAME])?;
        let write = |name: &str, text: String| {
            fs::write(folder.path().join(name), text).with_context(|| format!("cannot write {name}"))
        };
        write("ca.pem", authority.pem())?;
        write("server.pem", certificate.pem() + &key.serialize_pem())?;
        fs::create_dir(folder.path().join("www"))?;
        write("www/1k", "x".repeat(1023) + "\n")?;
        write("www/large", format!("{}\n", "0123456789abcde".repeat(4)).repeat((LARGE << 20) / 61))?;
        // The workers run as another user.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let server = nginx(
            folder.path(),
            "server",
            CLIENTS_CORE,
            &format!(
                "types {{ }} default_type application/json; root {}/www;
             server {{ listen {UPSTREAM}:443 ssl backlog=4096; }}",
                folder.path().display()
            ),
        )?;
        let upstream = Self { folder, authority: authority.pem(), _server: server };
        upstream.wait(UPSTREAM)?;
        Ok(upstream)
    }

    /// The certificate of its authority, in PEM.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// Starts a proxy in front of it.
    pub(super) fn start_peer(&self, peer: Peer) -> Result<Running> {
        let (host, folder) = (peer.host(), self.folder.path());
        let running = match peer {
            Peer::Relay => haproxy(
                folder,
                "relay",
                &format!("listen relay\n mode tcp\n bind {host}:443\n server up {UPSTREAM}:443\n"),
            ),
            Peer::Haproxy => haproxy(
                folder,
                "tls",
                &format!(
                    "listen tls\n mode http\n http-reuse always\n bind {host}:443 ssl crt {0}/server.pem alpn http/1.1\n \
                 server up {UPSTREAM}:443 ssl verify required ca-file {0}/ca.pem verifyhost api.demo sni str(api.demo)\n",
                    folder.display()
                ),
            ),
            Peer::Nginx => nginx(
                folder,
                "nginx",
                PROXYS_CORE,
                &format!(
                    "upstream up {{ server {UPSTREAM}:443; keepalive 64; keepalive_requests 100000000; }}
                 server {{ listen {host}:443 ssl backlog=4096; location / {{
                   proxy_pass https://up; proxy_http_version 1.1; proxy_set_header Connection \"\";
                   proxy_set_header Host api.demo; proxy_ssl_name api.demo; proxy_ssl_server_name on;
                   proxy_ssl_verify on; proxy_ssl_trusted_certificate {}/ca.pem; }} }}",
                    folder.display()
                ),
            ),
        }?;
        self.wait(host)?;
        Ok(running)
    }

    fn wait(&self, host: &str) -> Result<()> {
        let started = Instant::now();
        while TcpStream::connect((host, 443)).is_err() {
            if started.elapsed() > Duration::from_secs(10) {
                bail!("nothing listens on {host}:443; see {}", self.folder.path().display());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Running {
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

fn nginx(folder: &Path, name: &str, core: &str, http: &str) -> Result<Running> {
    let file = configuration(folder, name, &format!(
        "worker_processes 1; daemon off; pid {0}/{name}.pid; error_log {0}/{name}.log; worker_rlimit_nofile 16384;
         events {{ worker_connections 8192; }}
         http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600s; tcp_nodelay on; sendfile on;
           proxy_temp_path {0}/proxy; client_body_temp_path {0}/body; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;
           ssl_certificate {0}/server.pem; ssl_certificate_key {0}/server.pem; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:{name}:10m;
           {http} }}\n",
        folder.display()
    ))?;
    start(core, &["/usr/sbin/nginx", "-c"], &file)
}

fn haproxy(folder: &Path, name: &str, listen: &str) -> Result<Running> {
    let file = configuration(
        folder,
        name,
        &format!(
            "global\n nbthread 1\n maxconn 8192\ndefaults\n timeout connect 5s\n timeout client 600s\n timeout server 600s\n{listen}"
        ),
    )?;
    start(PROXYS_CORE, &["/usr/sbin/haproxy", "-db", "-f"], &file)
}

fn configuration(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let file = folder.join(format!("{name}.conf"));
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

fn start(core: &str, words: &[&str], file: &Path) -> Result<Running> {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", core]).args(words).arg(file).stdin(Stdio::null());
    let child = command.spawn().with_context(|| format!("cannot start {words:?}"))?;
    Ok(Running(child))
}
