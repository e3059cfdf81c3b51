//! A service manager that opens the socket, and wants to hear when the proxy serves.

use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::spine::World;
use crate::support::home::AGENTSECRETS;
use crate::support::process::{command, finish, free_address};

/// A proxy whose socket `systemd-socket-activate` opens at `address`, or several there and at `more`.
fn activated(world: &World, addresses: &[&str], notify: &str) -> Command {
    let mut words = vec!["/usr/bin/systemd-socket-activate"];
    let mut settings = Vec::new();
    for (name, value) in world.home.agentsecrets(["status"]).get_envs() {
        settings.extend(value.map(|value| format!("{}={}", name.display(), value.display())));
    }
    settings.push(format!("NOTIFY_SOCKET={notify}"));
    words.extend(addresses.iter().flat_map(|address| ["-l", *address]));
    words.extend(settings.iter().flat_map(|setting| ["-E", &**setting]));
    words.extend([AGENTSECRETS, "proxy", "start", "--foreground"]);
    world.home.beside(words)
}

/// A program that a test ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Asks until somebody listens at `address`; the connection starts the proxy, and is answered by it.
fn health(address: &str) -> String {
    let mut curl = command("/usr/bin/curl");
    curl.args(["-sS", "--retry", "50", "--retry-connrefused", "--retry-delay", "0", "--max-time", "20"]);
    finish(curl.arg(format!("http://{address}/health"))).ok()
}

#[test]
fn the_first_client_starts_it_by_the_socket_that_systemd_holds_and_systemd_is_told() {
    let world = World::new();
    let notify = world.home.path().join("notify");
    let told = UnixDatagram::bind(&notify).unwrap();
    let address = free_address().to_string();
    let started = activated(&world, &[&address], notify.to_str().unwrap()).spawn().unwrap();
    let started = Ended(started);
    assert_eq!(health(&address), r#"{"project":"default","status":"ok"}"#);
    told.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut buffer = [0; 64];
    let length = told.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"READY=1\n");
    let status = finish(&mut world.home.agentsecrets(["proxy", "status", "--json"])).json();
    assert_eq!(status["pid"], started.0.id());
    assert_eq!(status["port"].to_string(), address.rsplit(':').next().unwrap());
    let target = format!("X-AS-Target-URL: {}", world.url("/echo-raw"));
    let mut curl = command("/usr/bin/curl");
    curl.args(["-sS", "-H", &target, "-H", "X-AS-Inject-Bearer: API_KEY"]);
    let answer = finish(curl.arg(format!("http://{address}/proxy"))).ok();
    assert_eq!(answer, "Bearer [REDACTED_BY_AGENTSECRETS]");
}

#[test]
fn a_socket_that_others_reach_or_one_of_several_is_refused() {
    let world = World::new();
    let open = free_address().to_string().replace("127.0.0.1", "0.0.0.0");
    let [one, other] = [0; 2].map(|_| free_address().to_string());
    for (addresses, says) in
        [(vec![&*open], "can be reached from elsewhere"), (vec![&*one, &*other], "there are several")]
    {
        let mut started = activated(&world, &addresses, "");
        let mut started = Ended(started.stderr(Stdio::piped()).spawn().unwrap());
        let local = addresses[0].replace("0.0.0.0", "127.0.0.1");
        // The connection starts it, and ends with it.
        let connected = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            std::net::TcpStream::connect(&local).is_ok()
        });
        assert!(connected);
        let mut text = String::new();
        started.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(text.contains(says), "{text}");
        assert_eq!(started.0.wait().unwrap().code(), Some(1));
    }
}

#[test]
fn sockets_that_were_passed_to_another_process_are_not_ours() {
    let world = World::new();
    let mut started = world.home.agentsecrets(["proxy", "start", "--port", "0"]);
    finish(started.env("LISTEN_FDS", "1").env("LISTEN_PID", "1")).ok();
    let status = finish(&mut world.home.agentsecrets(["proxy", "status", "--json"])).json();
    assert_eq!(status["running"], true);
    finish(&mut world.home.agentsecrets(["proxy", "stop"])).ok();
}
