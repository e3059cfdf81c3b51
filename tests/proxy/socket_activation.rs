//! Socket activation by a service manager, and its notifications.

use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::end_to_end::Fixture;
use crate::support::home::AGENTSECRETS;
use crate::support::process::{command, free_address, run};

/// A proxy whose sockets `systemd-socket-activate` opens at `addresses`.
fn activated_proxy(fixture: &Fixture, addresses: &[&str], notify: &str) -> Command {
    let mut words = vec!["/usr/bin/systemd-socket-activate"];
    let mut settings = Vec::new();
    for (name, value) in fixture.home.agentsecrets(["status"]).get_envs() {
        settings.extend(value.map(|value| format!("{}={}", name.display(), value.display())));
    }
    settings.push(format!("NOTIFY_SOCKET={notify}"));
    words.extend(addresses.iter().flat_map(|address| ["-l", *address]));
    words.extend(settings.iter().flat_map(|setting| ["-E", &**setting]));
    words.extend([AGENTSECRETS, "proxy", "start", "--foreground"]);
    fixture.home.command_outside(words)
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Retries until `address` has a listener; the connection starts the proxy, which responds.
fn wait_for_health(address: &str) -> String {
    let mut curl = command("/usr/bin/curl");
    curl.args(["-sS", "--retry", "50", "--retry-connrefused", "--retry-delay", "0", "--max-time", "20"]);
    run(curl.arg(format!("http://{address}/health"))).ok()
}

#[test]
fn socket_activation_starts_proxy_and_notifies() {
    let fixture = Fixture::new();
    let notify = fixture.home.path().join("notify");
    let notifications = UnixDatagram::bind(&notify).unwrap();
    let address = free_address().to_string();
    let started = activated_proxy(&fixture, &[&address], notify.to_str().unwrap()).spawn().unwrap();
    let started = KillOnDrop(started);
    assert_eq!(wait_for_health(&address), r#"{"project":"default","status":"ok"}"#);
    notifications.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut buffer = [0; 64];
    let length = notifications.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"READY=1\n");
    let status = run(&mut fixture.home.agentsecrets(["proxy", "status", "--json"])).json();
    assert_eq!(status["pid"], started.0.id());
    assert_eq!(status["port"].to_string(), address.rsplit(':').next().unwrap());
    let target = format!("X-AS-Target-URL: {}", fixture.url("/echo-raw"));
    let mut curl = command("/usr/bin/curl");
    curl.args(["-sS", "-H", &target, "-H", "X-AS-Inject-Bearer: API_KEY"]);
    let answer = run(curl.arg(format!("http://{address}/proxy"))).ok();
    assert_eq!(answer, "Bearer [REDACTED_BY_AGENTSECRETS]");
}

#[test]
fn non_loopback_or_multiple_sockets_are_refused() {
    let fixture = Fixture::new();
    let open = free_address().to_string().replace("127.0.0.1", "0.0.0.0");
    let [one, other] = [0; 2].map(|_| free_address().to_string());
    for (addresses, message) in
        [(vec![&*open], "can be reached from elsewhere"), (vec![&*one, &*other], "there are several")]
    {
        let mut started = activated_proxy(&fixture, &addresses, "");
        let mut started = KillOnDrop(started.stderr(Stdio::piped()).spawn().unwrap());
        let local = addresses[0].replace("0.0.0.0", "127.0.0.1");
        // The connection starts it, and ends with it.
        let connected = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            std::net::TcpStream::connect(&local).is_ok()
        });
        assert!(connected);
        let mut text = String::new();
        started.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(text.contains(message), "{text}");
        assert_eq!(started.0.wait().unwrap().code(), Some(1));
    }
}

#[test]
fn listen_fds_of_another_pid_are_ignored() {
    let fixture = Fixture::new();
    let mut started = fixture.home.agentsecrets(["proxy", "start", "--port", "0"]);
    run(started.env("LISTEN_FDS", "1").env("LISTEN_PID", "1")).ok();
    let status = run(&mut fixture.home.agentsecrets(["proxy", "status", "--json"])).json();
    assert_eq!(status["running"], true);
    run(&mut fixture.home.agentsecrets(["proxy", "stop"])).ok();
}
