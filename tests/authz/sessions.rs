//! Sessions: their scope, and how they end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::*;
use crate::end_to_end::WaitingAgent;
use crate::support::process::command;

/// curl through the proxy, in the middle of an endless response.
#[track_caller]
pub(super) fn start_streaming_curl(fixture: &Fixture, proxy: &Proxy, more: &[&str]) -> Child {
    let mut curl = proxy.client("/usr/bin/curl");
    curl.args(["-sS", "-N", "-H", "Authorization: Bearer AS_SECRET_API_KEY"]).args(more);
    start_and_wait_for_output(curl.arg(fixture.url("/held")).stderr(Stdio::null()))
}

/// Starts a program and waits until it prints.
#[track_caller]
fn start_and_wait_for_output(program: &mut std::process::Command) -> Child {
    let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("one") || line.contains("ready"), "{line}");
    child
}

#[track_caller]
pub(super) fn wait_for_end(child: &mut Child) -> Duration {
    let started_at = Instant::now();
    assert_ne!(child.wait().unwrap().code(), Some(0), "it was broken off");
    assert!(started_at.elapsed() < END_TIMEOUT, "after {:?}", started_at.elapsed());
    started_at.elapsed()
}

/// Usually a moment; longer where other tests run at the same time.
const END_TIMEOUT: Duration = Duration::from_secs(5);

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Becomes curl once its parent, and with it the session's process, is gone.
const ORPHAN: &str = "
import os, sys
above = os.getpid()
if os.fork(): os._exit(0)
while os.getppid() == above: pass
os.execv('/usr/bin/curl', ['curl', *sys.argv[1:]])
";

#[test]
fn session_limits_secrets_to_named_ones() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    assert_eq!(request_with_secret(&fixture, &proxy, &[]).0, "200");
    for (bounds, expected) in [
        (&["--secrets", "OTHER_KEY"][..], "the secret 'API_KEY'"),
        (&["--hosts", "*.example.com,other.test"], "the host 'api.test'"),
        (&["--methods", "post,put"], "the method GET"),
    ] {
        let id = start_own_session(&fixture, bounds);
        wait_until("it holds", || request_with_secret(&fixture, &proxy, &[]).0 == "403");
        let (code, message) = rejection(request_with_secret(&fixture, &proxy, &[]));
        assert!(
            code == "capability_denied" && message.contains(&id) && message.contains(expected),
            "{message}"
        );
        let record = fixture.home.audit().pop().unwrap();
        assert_eq!(record["session_id"], id, "{record}");
        let file = fixture.home.path().join("capabilities/sessions.json");
        fs::write(file, r#"{"version":1,"sessions":[]}"#).unwrap();
        wait_until("it is forgotten", || request_with_secret(&fixture, &proxy, &[]).0 == "200");
    }
    let id = start_own_session(
        &fixture,
        &["--secrets", "API_KEY", "--hosts", "api.test", "--methods", "GET", "--agent", "coder"],
    );
    wait_until("it holds", || {
        fixture.home.audit().pop().unwrap()["session_id"] == id.as_str() || {
            assert_eq!(request_with_secret(&fixture, &proxy, &[]).0, "200");
            false
        }
    });
}

#[test]
fn session_does_not_affect_unrelated_processes() {
    let fixture = Fixture::new();
    policy(&fixture, &[("coder", "    match: { session: true }\n")]);
    let proxy = Proxy::start(&fixture);
    let other = KillOnDrop(command("sleep").arg("1000").spawn().unwrap());
    start_session(&fixture, &["--pid", &other.0.id().to_string()]);
    // A session is in force once the one started after it is.
    let token = start_session(&fixture, &["--token", "--agent", "coder", "--ttl", "1h"]);
    let shown = format!("X-AS-Session-Token: {token}");
    wait_until("they are in force", || request_with_secret(&fixture, &proxy, &[&shown]).0 == "200");
    let (_, message) = rejection(request_with_secret(&fixture, &proxy, &[]));
    assert!(message.contains("no agent entry"), "{message}");
    start_own_session(&fixture, &[]);
    wait_until("it opens", || request_with_secret(&fixture, &proxy, &[]).0 == "200");
    // A child that outlives its parent is no longer in the process tree.
    let target = format!("X-AS-Target-URL: {}", fixture.url("/echo-raw"));
    let at = format!("http://localhost:{}/proxy", proxy.port);
    let mut orphan = command("/usr/bin/python3");
    orphan.args(["-c", ORPHAN, "-sS", "-H", &target, "-H", "X-AS-Inject-Bearer: API_KEY", &at]);
    let (_, message) = rejection((String::new(), run(&mut orphan).ok()));
    assert!(message.contains("no agent entry"), "{message}");
}

#[test]
fn expired_session_denies_its_processes() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let mut curl = {
        start_own_session(&fixture, &["--ttl", "8s"]);
        wait_until("it holds", || {
            request_with_secret(&fixture, &proxy, &[]);
            fixture.home.audit().pop().unwrap()["session_id"] != ""
        });
        start_streaming_curl(&fixture, &proxy, &[])
    };
    assert_ne!(curl.wait().unwrap().code(), Some(0));
    let (error, message) = rejection(request_with_secret(&fixture, &proxy, &[]));
    assert!(error == "capability_denied" && message.contains("its time is over"), "{message}");
    // Another process starts a session, which is in force.
    start_own_session(&fixture, &[]);
    wait_until("it holds", || request_with_secret(&fixture, &proxy, &[]).0 == "200");
}

#[test]
fn overlapping_sessions_all_apply() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let one = start_own_session(&fixture, &["--secrets", "API_KEY"]);
    let other = start_own_session(&fixture, &["--methods", "POST"]);
    wait_until("both hold", || request_with_secret(&fixture, &proxy, &[]).0 == "403");
    operator(&fixture, &["session", "end", &other]).ok();
    wait_until("one is left", || request_with_secret(&fixture, &proxy, &[]).0 == "200");
    operator(&fixture, &["session", "end", &one]).ok();
    wait_until("none is left", || request_with_secret(&fixture, &proxy, &[]).0 == "403");
    assert!(rejection(request_with_secret(&fixture, &proxy, &[])).1.contains("somebody ended it"));
}

#[test]
fn session_uses_run_out_across_restarts() {
    let fixture = Fixture::new();
    start_own_session(&fixture, &["--uses", "3"]);
    let proxy = Proxy::start(&fixture);
    // A request without a secret does not count as a use.
    assert!(proxy.curl(&[&fixture.url("/echo")]).ok().contains("/echo"));
    assert_eq!([0, 1].map(|_| request_with_secret(&fixture, &proxy, &[]).0), ["200", "200"]);
    drop(proxy);
    let proxy = Proxy::start(&fixture);
    assert_eq!(request_with_secret(&fixture, &proxy, &[]).0, "200");
    let list = operator(&fixture, &["session", "list", "--json"]).json();
    assert_eq!((&list[0]["used"], &list[0]["state"]), (&json!(3), &json!("used up")));
    let (code, message) = rejection(request_with_secret(&fixture, &proxy, &[]));
    assert!(code == "capability_denied" && message.contains("as often as it may be"), "{message}");
    assert_eq!(fixture.api.received().len(), 4);
}

#[test]
fn ended_session_closes_download_and_is_recorded() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let mut took = Vec::new();
    for version in ["--http1.1", "--http2", "--http1.1", "--http2"] {
        let id = start_own_session(&fixture, &[]);
        wait_until("it holds", || {
            request_with_secret(&fixture, &proxy, &[]);
            fixture.home.audit().pop().unwrap()["session_id"] == id.as_str()
        });
        let mut curl = start_streaming_curl(&fixture, &proxy, &[version]);
        operator(&fixture, &["session", "end", &id]).ok();
        took.push(wait_for_end(&mut curl));
        let record = fixture.home.audit().pop().unwrap();
        assert_eq!((&record["status"], &record["session_id"]), (&json!("ERROR"), &json!(id)), "{record}");
        assert!(record["reason"].as_str().unwrap().starts_with("session_ended"), "{record}");
    }
    // A machine that is busy with other tests is slow at times, not every time.
    assert!(took.iter().min() < Some(&Duration::from_secs(1)), "{took:?}");
}

#[test]
fn ended_session_closes_stalled_reader() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let id = start_own_session(&fixture, &[]);
    wait_until("it holds", || {
        request_with_secret(&fixture, &proxy, &[]);
        fixture.home.audit().pop().unwrap()["session_id"] == id.as_str()
    });
    let url = fixture.url("/stream?n=200000000");
    let mut curl = proxy.client("/usr/bin/curl");
    // It reads a little, then waits for the reader of its output.
    let mut curl =
        curl.args(["-sS", "-N", &url]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    fixture.api.wait_for(|received| received.path.starts_with("/stream"));
    let before = fixture.home.audit().len();
    operator(&fixture, &["session", "end", &id]).ok();
    wait_until("it is recorded", || fixture.home.audit().len() > before);
    let record = fixture.home.audit().pop().unwrap();
    assert!(record["reason"].as_str().unwrap().starts_with("session_ended"), "{record}");
    let _ = curl.kill();
    let _ = curl.wait();
}

#[test]
fn session_token_works_until_session_ends() {
    let fixture = Fixture::new();
    policy(&fixture, &[("coder", "    match: { session: true }\n")]);
    let token = start_session(&fixture, &["--token", "--agent", "coder", "--ttl", "1h"]);
    assert!(token.starts_with("as_sess_"), "{token}");
    let proxy = Proxy::start(&fixture);
    assert_eq!(request_with_secret(&fixture, &proxy, &[]).0, "403");
    let header = format!("X-AS-Session-Token: {token}");
    assert_eq!(request_with_secret(&fixture, &proxy, &[&header]).0, "200");
    let way = format!("http://session:{token}@127.0.0.1:{}", proxy.port);
    let mut curl = start_streaming_curl(&fixture, &proxy, &["-x", &way]);
    operator(&fixture, &["session", "end", token_id(&token)]).ok();
    wait_for_end(&mut curl);
    assert!(rejection(request_with_secret(&fixture, &proxy, &[&header])).1.contains("somebody ended it"));
    let forged = format!("X-AS-Session-Token: {token}x");
    assert!(rejection(request_with_secret(&fixture, &proxy, &[&forged])).1.contains("no session token"));
}

#[test]
fn run_is_listed_and_ended_as_session() {
    let fixture = Fixture::new();
    let mut run = WaitingAgent::start_command(fixture.home.agentsecrets([
        "run",
        "--agent",
        "coder",
        "--ttl",
        "1h",
        "--",
        "sh",
        "-c",
        "trap '' TERM; echo ready; sleep 1000 & wait; wait",
    ]));
    let list = operator(&fixture, &["session", "list", "--json"]).json();
    let entry = &list[0];
    assert_eq!(
        (&entry["for"], &entry["agent"], &entry["state"]),
        (&json!("run"), &json!("coder"), &json!("live"))
    );
    assert!(entry["expires"].is_string(), "{entry}");
    assert_eq!(operator(&fixture, &["status", "--json"]).json()["sessions"], 1);
    let started = Instant::now();
    operator(&fixture, &["session", "end", entry["id"].as_str().unwrap()]).ok();
    // The children get SIGTERM at once; the shell ignores it and is killed.
    assert_eq!(run.child.wait().unwrap().code(), Some(128 + 9));
    let took = started.elapsed();
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(15), "{took:?}");
    assert_eq!(operator(&fixture, &["session", "list", "--json"]).json(), json!([]));
}

#[test]
fn ended_run_closes_connections() {
    let fixture = Fixture::new();
    fixture.rules(&[("api.test", fixture.api.port(), "secrets: [API_KEY]")]);
    let script = format!(
        "trap '' TERM; curl -sS -N -H 'Authorization: Bearer AS_SECRET_API_KEY' {}; echo over; \
         curl -sS {}; echo; sleep 1000",
        fixture.url("/held"),
        fixture.url("/echo")
    );
    let mut run = fixture.home.run_agent(["sh", "-c", &script]);
    let mut child = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "data: one");
    operator(&fixture, &["session", "end", "--all"]).ok();
    let started_at = Instant::now();
    lines.find(|line| line == "over").unwrap();
    assert!(started_at.elapsed() < END_TIMEOUT, "{:?}", started_at.elapsed());
    let refused = lines.next().unwrap();
    assert!(refused.contains("capability_denied") && refused.contains("somebody ended it"), "{refused}");
    child.wait().unwrap();
    let records = fixture.home.audit();
    assert!(records[0]["reason"].as_str().unwrap().starts_with("session_ended"), "{}", records[0]);
}

#[test]
fn ended_session_closes_idle_tunnel() {
    let fixture = Fixture::new();
    fixture.rule("tls: passthrough");
    let roots = fixture.home.roots();
    let mut run = fixture.home.run_agent(["curl", "-sS", "-N", "--cacert"]);
    let mut curl = start_and_wait_for_output(run.arg(roots).arg(fixture.url("/held")).stderr(Stdio::null()));
    operator(&fixture, &["session", "end", "--all"]).ok();
    wait_for_end(&mut curl);
    let record = fixture.home.audit().pop().unwrap();
    assert_eq!(record["method"], "CONNECT");
    assert!(record["reason"].as_str().unwrap().starts_with("session_ended"), "{record}");
}

#[test]
fn ended_session_closes_websocket() {
    use crate::support::python::{PYTHON, Server};
    let fixture = Fixture::new();
    let server = Server::start("http/programs/websocket_server.py", &fixture.authority, "api.test");
    fixture.rules(&[("api.test", server.port(), "secrets: [API_KEY]")]);
    let program = "import asyncio, signal, sys, websockets\n\
        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
        async def main():\n    async with websockets.connect(sys.argv[1]) as socket:\n        \
        print('ready', flush=True)\n        try: await socket.recv()\n        \
        except websockets.ConnectionClosed as closed: print(closed.rcvd and closed.rcvd.code, flush=True)\n\
        asyncio.run(main())\n";
    let url = format!("wss://api.test:{}/ws", server.port());
    let mut run = fixture.home.run_agent([PYTHON, "-c", program, &url]);
    run.env("API_KEY", "none");
    let mut child = start_and_wait_for_output(&mut run);
    operator(&fixture, &["session", "end", "--all"]).ok();
    let started_at = Instant::now();
    let mut output = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut output).unwrap();
    assert!(started_at.elapsed() < END_TIMEOUT, "{:?}", started_at.elapsed());
    assert_eq!(output, "1008\n");
    child.wait().unwrap();
    let record = fixture.home.audit().pop().unwrap();
    assert!(record["reason"].as_str().unwrap().starts_with("session_ended"), "{record}");
}

#[test]
fn unreadable_sessions_file_denies_all() {
    let fixture = Fixture::new();
    start_own_session(&fixture, &["--secrets", "OTHER"]);
    let proxy = Proxy::start(&fixture);
    let file = fixture.home.path().join("capabilities/sessions.json");
    let sound = fs::read_to_string(&file).unwrap();
    fs::write(&file, "{}").unwrap();
    wait_until("it is noticed", || {
        rejection(request_with_secret(&fixture, &proxy, &[])).1.contains("sessions.json:")
    });
    fs::remove_file(&file).unwrap();
    wait_until("it is missed", || {
        rejection(request_with_secret(&fixture, &proxy, &[])).1.contains("it was removed")
    });
    fs::write(&file, sound).unwrap();
    wait_until("it is sound again", || {
        rejection(request_with_secret(&fixture, &proxy, &[])).1.contains("the secret 'API_KEY'")
    });
}

#[test]
fn session_ends_with_its_process() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    policy(&fixture, &[("coder", "    match: { session: true }\n")]);
    // The shell starts a session for itself; its child belongs to the session until the shell ends.
    let script = "\"$0\" session start >/dev/null || exit 9
        until curl -sSf -o /dev/null \"$2\"; do :; done
        curl -sS -N \"$1\" & wait";
    // Each server process watches the file, so the change applies a moment later.
    let (held, echo) = (fixture.url("/held"), fixture.url("/echo"));
    let mut shell =
        fixture.home.command_outside(["sh", "-c", script, crate::support::home::AGENTSECRETS, &held, &echo]);
    shell.envs(proxy.variables.iter().map(|(name, value)| (name, value.as_str().unwrap())));
    shell.env("AGENTSECRETS_HOME", fixture.home.path()).current_dir("/tmp");
    let mut child = start_and_wait_for_output(shell.stderr(Stdio::null()));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
    let started_at = Instant::now();
    child.wait().unwrap();
    wait_until("its record is there", || {
        fixture.home.audit().last().is_some_and(|record| record["status"] == "ERROR")
    });
    assert!(started_at.elapsed() < END_TIMEOUT, "{:?}", started_at.elapsed());
    let record = fixture.home.audit().pop().unwrap();
    assert!(record["reason"].as_str().unwrap().contains("the process that it was for has ended"), "{record}");
}
