//! An agent that tries to get out all the while that something is done to its service.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use super::site::{Container, Site};

/// Tries without end, and says so once it has.
const TRIES: &str = r"
import socket, sys, time
said = False
while True:
    time.sleep(0.01)
    for call in (
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'leak-by-udp', (sys.argv[1], 4433)),
        lambda: socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).sendall(b'leak-by-tcp'),
    ):
        try: call()
        except OSError: pass
    if not said: print('trying', flush=True)
    said = True
";

/// The attempts under way.
pub(crate) struct Trying(Child);

impl Trying {
    /// From within `agent`, toward the site's server.
    pub(crate) fn start(site: &Site, agent: &Container<'_>) -> Self {
        let (address, port) = (site.netns.here4().to_string(), site.api.port().to_string());
        let mut tries = agent.beside(&["/usr/bin/python3", "-c", TRIES, &address, &port]);
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
