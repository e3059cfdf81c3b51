//! TLS termination with real clients of the same library, and with bytes that are not TLS.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;
use crate::tls::authority::CertificateAuthority;
use crate::tls::provider;

/// Time limit for one client.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The agent's TLS client and our server, on loopback.
struct TestPeers {
    leaf_certs: LeafCertCache,
    client: ClientConfig,
}

/// Parameters that both peers negotiated.
struct Negotiated {
    host: String,
    http2: bool,
    version: rustls::ProtocolVersion,
    group: Option<NamedGroup>,
    kind: HandshakeKind,
    certificates: usize,
}

impl TestPeers {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut rustls::crypto::CryptoProvider)) -> Self {
        let leaf_certs = LeafCertCache::new(CertificateAuthority::generate().unwrap(), provider()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(leaf_certs.authority().pem().as_bytes()).unwrap()).unwrap();
        let mut crypto = rustls::crypto::CryptoProvider::clone(&provider());
        change(&mut crypto);
        let client = ClientConfig::builder_with_provider(crypto.into())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { leaf_certs, client }
    }

    fn offer(mut self, alpn: &[&str]) -> Self {
        self.client.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// Connects to `server`; the client writes in pieces of `size` bytes.
    async fn connect(&self, server: &str, size: usize) -> Result<Negotiated, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let name = ServerName::try_from(server.to_owned()).unwrap();
        let config = Arc::new(self.client.clone());
        let client = tokio::task::spawn_blocking(move || drive(address, config, name, size));
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let hello = PendingHello::read(stream, address.ip().into(), TIMEOUT)
            .await
            .map_err(|error| error.to_string())?;
        let mut ended = match hello.terminate(&self.leaf_certs).await {
            Ok(ended) => ended,
            Err(error) => {
                let client_result = client.await.unwrap();
                return Err(format!("{error}; {:?}", client_result.err()));
            }
        };
        let mut byte = [0; 5];
        ended.stream.read_exact(&mut byte).await.unwrap();
        ended.stream.write_all(&byte).await.unwrap();
        ended.stream.shutdown().await.unwrap();
        let tls = client.await.unwrap().map_err(|error| error.to_string())?;
        Ok(Negotiated {
            host: ended.host.to_string(),
            http2: ended.is_http2,
            version: tls.protocol_version().unwrap(),
            group: tls.negotiated_key_exchange_group().map(|group| group.name()),
            kind: tls.handshake_kind().unwrap(),
            certificates: tls.peer_certificates().unwrap().len(),
        })
    }
}

fn drive(
    address: std::net::SocketAddr,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    size: usize,
) -> std::io::Result<ClientConnection> {
    struct Pieces(std::net::TcpStream, usize);
    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.write(&bytes[..bytes.len().min(self.1)])
        }
        fn flush(&mut self) -> std::io::Result<()> {
            self.0.flush()
        }
    }
    impl Read for Pieces {
        fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(bytes)
        }
    }
    let socket = std::net::TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let mut socket = Pieces(socket, size);
    let mut tls = ClientConnection::new(config, name).map_err(std::io::Error::other)?;
    let mut stream = rustls::Stream::new(&mut tls, &mut socket);
    stream.write_all(b"hello")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    assert_eq!(answer, b"hello");
    Ok(tls)
}

/// Sends `bytes` and nothing more; returns the error and the response.
async fn send_raw(bytes: &[u8]) -> (String, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let bytes = bytes.to_vec();
    let client = tokio::spawn(async move {
        // The other end may close before all of it is written.
        let _ = client.write_all(&bytes).await;
        let _ = client.shutdown().await;
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        answer
    });
    let error = PendingHello::read(stream, peer.ip().into(), TIMEOUT)
        .await
        .err()
        .map_or(String::new(), |error| error.to_string());
    (error, client.await.unwrap())
}

#[tokio::test]
async fn hello_is_read_byte_by_byte() {
    let negotiated = TestPeers::new().connect("api.test", 1).await.unwrap();
    assert_eq!(negotiated.host, "api.test");
    assert_eq!(negotiated.version, rustls::ProtocolVersion::TLSv1_3);
    assert_eq!(negotiated.certificates, 1, "the leaf alone: the root is what the agent trusts already");
}

#[tokio::test]
async fn post_quantum_key_exchange_is_preferred() {
    let only = TestPeers::with(|crypto| crypto.kx_groups.retain(|group| group.name() == HYBRID));
    for (peers, size) in [(&only, usize::MAX), (&only, 100), (&TestPeers::new(), usize::MAX)] {
        assert_eq!(peers.connect("api.test", size).await.unwrap().group, Some(HYBRID));
    }
    let without = TestPeers::with(|crypto| crypto.kx_groups.retain(|group| group.name() != HYBRID));
    assert_eq!(without.connect("api.test", 1000).await.unwrap().group, Some(NamedGroup::X25519));
}

const HYBRID: NamedGroup = NamedGroup::X25519MLKEM768;

#[tokio::test]
async fn unknown_alpn_is_rejected() {
    for (offered, http2) in [
        (&["h2", "http/1.1"][..], true),
        (&["grpc-exp", "h2"], true),
        (&["http/1.1"], false),
        (&["http/1.0"], false),
        (&[], false),
    ] {
        assert_eq!(TestPeers::new().offer(offered).connect("api.test", 1000).await.unwrap().http2, http2);
    }
    let refused = TestPeers::new().offer(&["imap"]).connect("api.test", 1000).await.err().unwrap();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
}

#[tokio::test]
async fn tls12_is_supported() {
    let mut peers = TestPeers::new();
    let crypto = peers.client.crypto_provider().clone();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(peers.leaf_certs.authority().pem().as_bytes()).unwrap())
        .unwrap();
    peers.client = ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let negotiated = peers.connect("api.test", 7).await.unwrap();
        assert_eq!((negotiated.version, negotiated.kind), (rustls::ProtocolVersion::TLSv1_2, kind));
    }
}

#[tokio::test]
async fn session_resumes_for_its_own_name_and_run() {
    let peers = TestPeers::new();
    assert_eq!(peers.connect("a.test", 1000).await.unwrap().kind, HandshakeKind::Full);
    assert_eq!(peers.connect("a.test", 1000).await.unwrap().kind, HandshakeKind::Resumed);
    assert_eq!(peers.connect("b.test", 1000).await.unwrap().kind, HandshakeKind::Full);
    // Another run has other keys: a ticket of this one is invalid there.
    let (one, two) =
        (peers.leaf_certs.config(&host("a.test")), TestPeers::new().leaf_certs.config(&host("a.test")));
    let (one, two, other) = (one.unwrap(), two.unwrap(), peers.leaf_certs.config(&host("b.test")).unwrap());
    let ticket = one.ticketer.encrypt(b"state").unwrap();
    assert!(one.ticketer.decrypt(&ticket).is_some());
    assert!(two.ticketer.decrypt(&ticket).is_none() && other.ticketer.decrypt(&ticket).is_none());
    assert_eq!(one.max_early_data_size, 0);
}

fn host(name: &str) -> Host {
    name.parse().unwrap()
}

#[tokio::test]
async fn client_without_sni_gets_a_certificate_for_the_address() {
    let negotiated = TestPeers::new().connect("127.0.0.1", 1000).await.unwrap();
    assert_eq!(negotiated.host, "127.0.0.1");
    let refused = TestPeers::new().connect("127.0.0.2", 1000).await.err().unwrap();
    assert!(refused.contains("NotValidForName"), "{refused}");
}

#[tokio::test]
async fn invalid_hello_gets_an_alert() {
    for bytes in [&b"\x16garbage that goes on"[..], &[22, 3, 1, 0, 4, 2, 0, 0, 0]] {
        let (error, answer) = send_raw(bytes).await;
        assert!(error.contains("handshake"), "{error}");
        assert_eq!(answer.first(), Some(&21), "an alert: {answer:?} after {error}");
    }
    let mut huge = vec![22, 3, 1, 64, 0, 1, 0, 255, 0];
    huge.resize(5 + 16384, 0);
    let endless: Vec<u8> = std::iter::repeat_n(huge.clone(), 64).flatten().collect();
    let empty: Vec<u8> = std::iter::repeat_n([22, 3, 1, 0, 0], 400_000).flatten().collect();
    let claims = [22, 3, 1, 0, 4, 1, 255, 255, 255];
    // Truncated, larger than accepted, or endless.
    for bytes in [&[22, 3, 1][..], &huge, &claims, &endless, &empty] {
        let (error, _) = send_raw(bytes).await;
        assert!(error.contains("handshake"), "{error}");
    }
}

#[tokio::test]
async fn silent_client_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.write_all(&[22, 3, 1]).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let read = PendingHello::read(stream, peer.ip().into(), Duration::from_millis(20)).await;
    assert!(matches!(read, Err(TerminateError::Timeout)));
}
