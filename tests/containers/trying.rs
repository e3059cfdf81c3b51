//! An agent that tries to get out all the while that something is done to its service.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use super::site::{Container, Site};

/// Tries without end, after a pause of so many seconds each time, and says so once.
const TRIES: &str = r"
import socket, sys, time
print('trying', flush=True)
while True:
    time.sleep(float(sys.argv[3]))
    for call in (
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'leak-by-udp', (sys.argv[1], 4433)),
        lambda: socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).sendall(b'leak-by-tcp'),
    ):
        try: call()
        except OSError: pass
";

/// The attempts under way.
pub(crate) struct Trying(Child);

impl Trying {
    /// From within `agent`, toward the site's server.
    pub(crate) fn start(site: &Site, agent: &Container<'_>, pause: &str) -> Self {
        let (address, port) = (site.netns.here4().to_string(), site.api.port().to_string());
        let mut tries = agent.beside(&["/usr/bin/python3", "-c", TRIES, &address, &port, pause]);
        let mut trying = Self(tries.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
        let mut said = String::new();
        BufReader::new(trying.0.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "trying\n");
        trying
    }

    /// It has tried until now, and nothing came of it.
    #[track_caller]
    pub(crate) fn got_nothing_out(mut self, site: &Site) {
        assert!(self.0.try_wait().unwrap().is_none(), "it does not try any longer");
        drop(self);
        assert_eq!(site.left("leak-").len(), 0);
    }
}

impl Drop for Trying {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
