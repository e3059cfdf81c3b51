//! A server that misbehaves on purpose: it reads a request and then performs the scripted bytes on the
//! connection. It keeps every request line, so that a test can count duplicates.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::certificate::Authority;

/// A running server. Its threads end with their connections.
pub(crate) struct FaultyServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

/// The server's end of one connection.
pub(crate) struct Peer {
    wire: Wire,
    unread: Vec<u8>,
    requests: Arc<Mutex<Vec<String>>>,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

/// The server's behaviour on each connection.
type Behavior = Arc<dyn Fn(Peer) + Send + Sync>;

impl FaultyServer {
    /// HTTPS on loopback with a valid certificate for `name`; it accepts only `alpn`.
    pub(crate) fn https(
        authority: &Authority,
        name: &str,
        alpn: &str,
        act: impl Fn(Peer) + Send + Sync + 'static,
    ) -> Self {
        let leaf = authority.leaf(&[name.to_owned()], false);
        let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(leaf.chain, leaf.key)
            .unwrap();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        Self::start(Some(Arc::new(config)), Arc::new(act))
    }

    /// Plain HTTP on loopback.
    pub(crate) fn plain(act: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        Self::start(None, Arc::new(act))
    }

    fn start(tls: Option<Arc<ServerConfig>>, act: Behavior) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let log = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (tls, act, requests) = (tls.clone(), act.clone(), log.clone());
                std::thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    let wire = match tls {
                        None => Wire::Plain(stream),
                        Some(config) => {
                            let session = ServerConnection::new(config).unwrap();
                            Wire::Tls(Box::new(StreamOwned::new(session, stream)))
                        }
                    };
                    act(Peer { wire, unread: Vec::new(), requests });
                });
            }
        });
        Self { address, requests }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The method and path of every request so far, such as `GET /echo`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// How often a request came.
    pub(crate) fn count(&self, request: &str) -> usize {
        self.requests().iter().filter(|line| *line == request).count()
    }
}

impl Peer {
    /// The head of the next HTTP/1.1 request, after its body was read; none at the end of the connection.
    pub(crate) fn request(&mut self) -> Option<String> {
        let end = loop {
            match self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.read_more()?,
            }
        };
        let head = String::from_utf8_lossy(&self.unread[..end]).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let whole = end + length.unwrap_or(0);
        while self.unread.len() < whole {
            self.read_more()?;
        }
        self.unread.drain(..whole);
        let line = head.lines().next()?.rsplit_once(' ')?.0.to_owned();
        self.requests.lock().unwrap().push(line);
        Some(head)
    }

    /// Records a request that the test read itself.
    pub(crate) fn record(&self, request: &str) {
        self.requests.lock().unwrap().push(request.to_owned());
    }

    pub(crate) fn read(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.unread.len() < length {
            self.read_more()?;
        }
        Some(self.unread.drain(..length).collect())
    }

    /// Sends `bytes`; false once the client has closed.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = match &mut self.wire {
            Wire::Plain(stream) => stream.write_all(bytes.as_ref()),
            Wire::Tls(stream) => stream.write_all(bytes.as_ref()).and_then(|()| stream.flush()),
        };
        sent.is_ok()
    }

    /// Does nothing until the client closes.
    pub(crate) fn hang(mut self) {
        while self.read_more().is_some() {
            self.unread.clear();
        }
    }

    /// Closes properly: over TLS with close_notify.
    pub(crate) fn close(mut self) {
        if let Wire::Tls(stream) = &mut self.wire {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    }

    /// Closes TCP without TLS's close_notify.
    pub(crate) fn cut(self) {}

    /// Resets the connection once all sent data was acknowledged.
    pub(crate) fn reset(self) {
        let tcp = match &self.wire {
            Wire::Plain(stream) => stream,
            Wire::Tls(stream) => &stream.sock,
        };
        let _ = socket2::SockRef::from(tcp).set_linger(Some(std::time::Duration::ZERO));
    }

    fn read_more(&mut self) -> Option<()> {
        let mut block = [0; 16 * 1024];
        let read = match &mut self.wire {
            Wire::Plain(stream) => stream.read(&mut block),
            Wire::Tls(stream) => stream.read(&mut block),
        };
        match read {
            Ok(0) => None,
            Ok(read) => {
                self.unread.extend_from_slice(&block[..read]);
                Some(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Some(()),
            Err(_) => None,
        }
    }
}
