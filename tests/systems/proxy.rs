//! The explicit proxy on Windows: its life, and a program that uses it.

use std::net::TcpListener;
use std::ops::Deref;
use std::process::Stdio;

use serde_json::json;

use super::wine::{Windows, node};
use crate::spine::SECRET;
use crate::support::process::{command, finish, free_address};

/// A request by a tunnel, as Node's libraries make one: the answer's body, after its status.
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

/// A proxy in the background; dropping it ends it.
pub(super) struct Background {
    windows: Windows,
    port: String,
}

impl Background {
    /// One of a person who has a secret.
    #[track_caller]
    pub(super) fn new() -> Self {
        Self::of(Windows::new())
    }

    #[track_caller]
    pub(super) fn of(windows: Windows) -> Self {
        let port = free_address().port().to_string();
        // Wine lets what is started in the background keep our end of a pipe: it is told to write to a file.
        let said = std::fs::File::create(windows.path("started.txt")).unwrap();
        let mut start = windows.types(&["proxy", "start", "--port", &port]);
        let started = start.stdout(Stdio::null()).stderr(said).status().unwrap();
        let said = std::fs::read_to_string(windows.path("started.txt")).unwrap();
        assert!(started.success() && said.contains("Invoke-Expression"), "{said}");
        Self { windows, port }
    }

    pub(super) fn port(&self) -> &str {
        &self.port
    }

    /// What a program of that system is answered.
    #[track_caller]
    pub(super) fn asked(&self) -> String {
        node(&self.windows, TUNNEL, &[&self.url("/echo-raw"), &self.port])
    }

    /// What a program of this system is answered by the endpoint.
    #[track_caller]
    pub(super) fn asked_from_elsewhere(&self, more: &[&str]) -> String {
        let target = format!("X-AS-Target-URL: {}", self.url("/echo-raw"));
        let endpoint = format!("http://127.0.0.1:{}/proxy", self.port);
        let mut curl = command("/usr/bin/curl");
        curl.args(["-sS", "-H", &target, "-H", "X-AS-Inject-Bearer: API_KEY", &endpoint]);
        finish(curl.args(more)).ok()
    }
}

impl Deref for Background {
    type Target = Windows;

    fn deref(&self) -> &Windows {
        &self.windows
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.windows.types(&["proxy", "stop"]).output();
    }
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn it_starts_in_the_background_once_and_ends_when_it_is_told() {
    let windows = Windows::new();
    assert_eq!(windows.sees(&["proxy", "status"]).code, Some(6));
    assert_eq!(windows.sees(&["proxy", "stop"]).code, Some(6));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused =
        windows.sees(&["proxy", "start", "--port", &taken.local_addr().unwrap().port().to_string()]);
    assert!(refused.code == Some(1) && refused.stderr.contains("another program listens"), "{refused:#?}");
    // One that was killed leaves its file behind, which is no proxy.
    windows.write("proxy.json", r#"{"pid":8,"port":8765}"#);
    assert_eq!(windows.sees(&["proxy", "status"]).code, Some(6));

    let proxy = Background::of(windows);
    let status = proxy.sees(&["proxy", "status", "--json"]).json();
    assert_eq!((&status["running"], status["port"].to_string()), (&json!(true), proxy.port().to_owned()));
    let second = proxy.sees(&["proxy", "start", "--port", "0"]);
    assert!(second.code == Some(1) && second.stderr.contains("runs already"), "{second:#?}");
    let health = format!("http://127.0.0.1:{}/health", proxy.port());
    assert_eq!(finish(command("/usr/bin/curl").args(["-sS", &health])).json()["status"], "ok");
    let variables = proxy.sees(&["proxy", "env"]).ok();
    assert!(
        variables.contains(&format!("$env:HTTPS_PROXY = 'http://127.0.0.1:{}'", proxy.port())),
        "{variables}"
    );
    let variables = proxy.sees(&["proxy", "env", "--shell", "cmd"]).ok();
    assert!(variables.contains(&format!("set \"SSL_CERT_FILE={}", proxy.named("home"))), "{variables}");
    assert_eq!(proxy.sees(&["proxy", "stop"]).code, Some(0));
    assert_eq!(proxy.sees(&["proxy", "status"]).code, Some(6));
    assert!(std::net::TcpStream::connect(("127.0.0.1", proxy.port().parse().unwrap())).is_err());
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn a_program_spends_a_secret_through_a_tunnel_and_never_sees_it() {
    let proxy = Background::new();
    assert_eq!(proxy.asked(), "200 Bearer [REDACTED_BY_AGENTSECRETS]");
    assert_eq!(proxy.api.only().header("authorization"), format!("Bearer {SECRET}"));
    let record = proxy.audit().pop().unwrap();
    assert_eq!((&record["status"], &record["redacted"]), (&json!("OK"), &json!(true)), "{record}");
    assert_eq!((&record["identity_level"], &record["agent_id"]), (&json!("kernel"), &json!("coder")));
    assert_eq!(record["secret_keys"], json!(["API_KEY"]));
    assert!(!record.to_string().contains(SECRET));
    let logs = proxy.sees(&["proxy", "logs", "--last", "1", "--secret", "API_KEY"]).json();
    assert_eq!(logs["id"], record["id"]);
    let log = std::fs::read_to_string(proxy.path("home/proxy.log")).unwrap();
    assert!(!log.contains(SECRET), "{log}");
}
