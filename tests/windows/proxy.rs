//! The explicit proxy on Windows: its lifecycle, and a client.

use std::net::TcpListener;
use std::ops::Deref;
use std::process::Stdio;

use serde_json::json;

use super::wine::{Windows, node};
use crate::end_to_end::SECRET;
use crate::support::process::{command, free_address, run};

/// A request through a tunnel, as Node's libraries make one: prints status and body.
const TUNNEL: &str = "
    const [http, tls, fs] = [require('http'), require('tls'), require('fs')];
    const target = new URL(process.argv[2]);
    http.request({ host: '127.0.0.1', port: process.argv[3], method: 'CONNECT', path: target.host })
      .on('connect', (answer, socket) => {
        const secure = tls.connect({ socket, servername: target.hostname, ca: fs.readFileSync('home/proxy-ca.pem') });
        secure.write(`GET ${target.pathname} HTTP/1.1\\r\\nHost: ${target.host}\\r\\nConnection: close\\r\\n` +
          'Authorization: Bearer AS_SECRET_API_KEY\\r\\n\\r\\n');
        let all = '';
        secure.on('data', data => all += data);
        secure.on('end', () => say(all.split(' ')[1] + ' ' + all.split('\\r\\n\\r\\n')[1]));
      }).end();";

/// A background proxy; dropping it ends it.
pub(super) struct BackgroundProxy {
    windows: Windows,
    port: String,
}

impl BackgroundProxy {
    /// With a stored secret.
    #[track_caller]
    pub(super) fn new() -> Self {
        Self::start(Windows::new())
    }

    #[track_caller]
    pub(super) fn start(windows: Windows) -> Self {
        let port = free_address().port().to_string();
        // Under Wine a background process inherits our end of a pipe: write to a file instead.
        let output = std::fs::File::create(windows.path("started.txt")).unwrap();
        let mut start = windows.command(&["proxy", "start", "--port", &port]);
        let started = start.stdout(Stdio::null()).stderr(output).status().unwrap();
        let output = std::fs::read_to_string(windows.path("started.txt")).unwrap();
        assert!(started.success() && output.contains("Invoke-Expression"), "{output}");
        Self { windows, port }
    }

    pub(super) fn port(&self) -> &str {
        &self.port
    }

    /// The response to a Windows program.
    #[track_caller]
    pub(super) fn tunnel_response(&self) -> String {
        node(&self.windows, TUNNEL, &[&self.url("/echo-raw"), &self.port])
    }

    /// The endpoint's response to a Linux program.
    #[track_caller]
    pub(super) fn endpoint_response_from_linux(&self, more: &[&str]) -> String {
        let target = format!("X-AS-Target-URL: {}", self.url("/echo-raw"));
        let endpoint = format!("http://127.0.0.1:{}/proxy", self.port);
        let mut curl = command("/usr/bin/curl");
        curl.args(["-sS", "-H", &target, "-H", "X-AS-Inject-Bearer: API_KEY", &endpoint]);
        run(curl.args(more)).ok()
    }
}

impl Deref for BackgroundProxy {
    type Target = Windows;

    fn deref(&self) -> &Windows {
        &self.windows
    }
}

impl Drop for BackgroundProxy {
    fn drop(&mut self) {
        let _ = self.windows.command(&["proxy", "stop"]).output();
    }
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn background_proxy_starts_once_and_stops() {
    let windows = Windows::new();
    assert_eq!(windows.run(&["proxy", "status"]).code, Some(6));
    assert_eq!(windows.run(&["proxy", "stop"]).code, Some(6));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = windows.run(&["proxy", "start", "--port", &taken.local_addr().unwrap().port().to_string()]);
    assert!(refused.code == Some(1) && refused.stderr.contains("another program listens"), "{refused:#?}");
    // A killed proxy leaves its file behind, which is ignored.
    windows.write("proxy.json", r#"{"pid":8,"port":8765}"#);
    assert_eq!(windows.run(&["proxy", "status"]).code, Some(6));

    let proxy = BackgroundProxy::start(windows);
    let status = proxy.run(&["proxy", "status", "--json"]).json();
    assert_eq!((&status["running"], status["port"].to_string()), (&json!(true), proxy.port().to_owned()));
    let second = proxy.run(&["proxy", "start", "--port", "0"]);
    assert!(second.code == Some(1) && second.stderr.contains("runs already"), "{second:#?}");
    let health = format!("http://127.0.0.1:{}/health", proxy.port());
    assert_eq!(run(command("/usr/bin/curl").args(["-sS", &health])).json()["status"], "ok");
    let variables = proxy.run(&["proxy", "env"]).ok();
    assert!(
        variables.contains(&format!("$env:HTTPS_PROXY = 'http://127.0.0.1:{}'", proxy.port())),
        "{variables}"
    );
    let variables = proxy.run(&["proxy", "env", "--shell", "cmd"]).ok();
    assert!(
        variables.contains(&format!("set \"SSL_CERT_FILE={}", proxy.windows_path("home"))),
        "{variables}"
    );
    assert_eq!(proxy.run(&["proxy", "stop"]).code, Some(0));
    assert_eq!(proxy.run(&["proxy", "status"]).code, Some(6));
    assert!(std::net::TcpStream::connect(("127.0.0.1", proxy.port().parse().unwrap())).is_err());
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn tunnel_gets_credential_and_redacted_response() {
    let proxy = BackgroundProxy::new();
    assert_eq!(proxy.tunnel_response(), "200 Bearer [REDACTED_BY_AGENTSECRETS]");
    assert_eq!(proxy.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
    let record = proxy.audit().pop().unwrap();
    assert_eq!((&record["status"], &record["redacted"]), (&json!("OK"), &json!(true)), "{record}");
    assert_eq!((&record["identity_level"], &record["agent_id"]), (&json!("kernel"), &json!("coder")));
    assert_eq!(record["secret_keys"], json!(["API_KEY"]));
    assert!(!record.to_string().contains(SECRET));
    let logs = proxy.run(&["proxy", "logs", "--last", "1", "--secret", "API_KEY"]).json();
    assert_eq!(logs["id"], record["id"]);
    let log = std::fs::read_to_string(proxy.path("home/proxy.log")).unwrap();
    assert!(!log.contains(SECRET), "{log}");
}
