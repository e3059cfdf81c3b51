//! A process that may open no more descriptors. The limit concerns the whole process: this file has one test.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use agentsecrets_privsep::helper::{self, RequestChannel};
use agentsecrets_privsep::{Channel, Limits};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[test]
fn lost_descriptor_fails_one_request_and_not_the_next() {
    let limits = Limits { length: 1024, descriptors: 1 };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut files: Vec<OwnedFd> = (0..3).map(|_| File::open("/dev/null").unwrap().into()).collect();
    let lowest = files[0].as_raw_fd() as u64;
    std::thread::spawn(move || {
        helper::serve(&Channel::new(theirs, limits), |request| (request.to_vec(), files.pop()))
    });
    let mut channel = RequestChannel::new(Channel::new(ours, limits), Duration::from_secs(5)).unwrap();
    assert_eq!(channel.request(b"before").unwrap().descriptors.len(), 1);

    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, lowest, hard).unwrap();
    let error = channel.request(b"during").unwrap_err().to_string();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();

    assert!(error.contains("may open no more"), "{error}");
    let message = channel.request(b"after").unwrap();
    assert_eq!((&message.body[..], message.descriptors.len()), (&b"after"[..], 1));
}
