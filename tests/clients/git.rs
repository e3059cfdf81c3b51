//! git over HTTPS; the server is `git http-backend`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use base64::Engine;
use hyper::{Response, StatusCode, header};

use super::*;
use crate::support::endpoints::{Body, ReceivedRequest, full_response};
use crate::support::process::command;

#[test]
fn git_clones_and_pushes_with_placeholder() {
    let (fixture, repository) = git_fixture();
    let plain = fixture.url("/project.git");
    let with_placeholder = plain.replace("https://", "https://agent:AS_SECRET_API_KEY@");
    let header = format!("http.extraHeader=Authorization: Basic {}", basic("agent:AS_SECRET_API_KEY"));
    run(&mut fixture.home.run_agent(["sh", "-c", SCRIPT, &with_placeholder, &plain, &header])).ok();
    assert_eq!(repository.log(), "second\nfirst\n");
}

/// Clones and pushes; arguments: the URL with a placeholder, without one, and a header with one.
pub(crate) const SCRIPT: &str = "set -e; cd; export GIT_TERMINAL_PROMPT=0 \
    GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@test GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@test; \
    /usr/bin/git clone -q \"$0\" one; cd one; head -c 300000 /dev/urandom > large; /usr/bin/git add .; \
    /usr/bin/git commit -qm first; /usr/bin/git push -q origin HEAD:main; cd; \
    /usr/bin/git -c \"$2\" clone -q \"$1\" two; cmp one/large two/large; cd two; echo more > small; \
    /usr/bin/git add .; /usr/bin/git commit -qm second; /usr/bin/git -c \"$2\" push -q origin HEAD:main";

/// A bare repository.
pub(crate) struct Repository(tempfile::TempDir);

impl Repository {
    /// The pushed commits, newest first.
    pub(crate) fn log(&self) -> String {
        let mut log = command("/usr/bin/git");
        log.arg("-C").arg(self.0.path().join("project.git")).args(["log", "--format=%s", "main"]);
        run(&mut log).ok()
    }
}

/// A fixture whose server is `git http-backend` with an empty repository.
pub(crate) fn git_fixture() -> (Fixture, Repository) {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("project.git");
    let mut init = command("/usr/bin/git");
    run(init.args(["init", "--quiet", "--bare", "--initial-branch=main"]).arg(&repository)).ok();
    run(command("/usr/bin/git").arg("-C").arg(&repository).args(["config", "http.receivepack", "true"])).ok();
    let projects = folder.path().to_path_buf();
    let fixture =
        fixture_with(move |options| options.with_handler(move |received| Some(serve(&projects, received))));
    (fixture, Repository(folder))
}

pub(crate) fn basic(pair: &str) -> String {
    base64::prelude::BASE64_STANDARD.encode(pair)
}

/// Runs `git http-backend` for requests that carry the secret.
fn serve(projects: &Path, received: &ReceivedRequest) -> Response<Body> {
    if received.header("authorization") != format!("Basic {}", basic(&format!("agent:{SECRET}"))) {
        let mut answer = full_response("text/plain", "who are you?");
        *answer.status_mut() = StatusCode::UNAUTHORIZED;
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, r#"Basic realm="git""#.parse().unwrap());
        return answer;
    }
    let (path, query) = received.path.split_once('?').unwrap_or((&received.path, ""));
    let mut backend = command("/usr/bin/git");
    backend
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", projects)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &received.method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", received.header("content-type"))
        .env("CONTENT_LENGTH", received.bytes.len().to_string())
        .env("HTTP_CONTENT_ENCODING", received.header("content-encoding"))
        .env("GIT_PROTOCOL", received.header("git-protocol"))
        .env("REMOTE_USER", "agent");
    let mut child = backend.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = received.bytes.clone();
    let writing = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().unwrap().stdout;
    let _ = writing.join().unwrap();
    cgi(&output)
}

/// Parses a CGI response.
fn cgi(output: &[u8]) -> Response<Body> {
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").expect("the program answered");
    let head = String::from_utf8_lossy(&output[..end]).to_lowercase();
    let headers: BTreeMap<&str, &str> = head.lines().filter_map(|line| line.split_once(": ")).collect();
    let mut answer = full_response("text/plain", output[end + 4..].to_vec());
    answer.headers_mut().insert(header::CONTENT_TYPE, headers["content-type"].parse().unwrap());
    if let Some(status) = headers.get("status") {
        *answer.status_mut() = status[..3].parse().unwrap();
    }
    answer
}
