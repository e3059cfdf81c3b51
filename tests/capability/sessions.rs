//! Sessions: what they include, and how they end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::*;
use crate::spine::Agent;
use crate::support::process::command;

/// curl through the proxy, in the middle of an answer that does not end.
#[track_caller]
pub(super) fn held(world: &World, proxy: &Proxy, more: &[&str]) -> Child {
    let mut curl = proxy.client("/usr/bin/curl");
    curl.args(["-sS", "-N", "-H", "Authorization: Bearer AS_SECRET_API_KEY"]).args(more);
    begun(curl.arg(world.url("/held")).stderr(Stdio::null()))
}

/// A program that has begun to print.
#[track_caller]
fn begun(program: &mut std::process::Command) -> Child {
    let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("one") || line.contains("ready"), "{line}");
    child
}

#[track_caller]
pub(super) fn ends_soon(child: &mut Child) -> Duration {
    let asked = Instant::now();
    assert_ne!(child.wait().unwrap().code(), Some(0), "it was broken off");
    assert!(asked.elapsed() < SOON, "after {:?}", asked.elapsed());
    asked.elapsed()
}

/// It takes a moment, and longer where other tests run beside.
const SOON: Duration = Duration::from_secs(5);

/// A program that is killed when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Becomes curl once its parent is gone, and with it all that was above.
const ORPHAN: &str = "
import os, sys
above = os.getpid()
if os.fork(): os._exit(0)
while os.getppid() == above: pass
os.execv('/usr/bin/curl', ['curl', *sys.argv[1:]])
";

#[test]
fn a_session_includes_what_it_names_and_nothing_else() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    assert_eq!(spend(&world, &proxy, &[]).0, "200");
    for (bounds, says) in [
        (&["--secrets", "OTHER_KEY"][..], "the secret 'API_KEY'"),
        (&["--hosts", "*.example.com,other.test"], "the host 'api.test'"),
        (&["--methods", "post,put"], "the method GET"),
    ] {
        let id = own_session(&world, bounds);
        until("it holds", || spend(&world, &proxy, &[]).0 == "403");
        let (slug, message) = refusal(spend(&world, &proxy, &[]));
        assert!(slug == "capability_denied" && message.contains(&id) && message.contains(says), "{message}");
        let record = world.home.audit().pop().unwrap();
        assert_eq!(record["session_id"], id, "{record}");
        let file = world.home.path().join("capabilities/sessions.json");
        fs::write(file, r#"{"version":1,"sessions":[]}"#).unwrap();
        until("it is forgotten", || spend(&world, &proxy, &[]).0 == "200");
    }
    let id = own_session(
        &world,
        &["--secrets", "API_KEY", "--hosts", "api.test", "--methods", "GET", "--agent", "coder"],
    );
    until("it holds", || {
        world.home.audit().pop().unwrap()["session_id"] == id.as_str() || {
            assert_eq!(spend(&world, &proxy, &[]).0, "200");
            false
        }
    });
}

#[test]
fn whom_a_session_is_not_for_it_does_not_bind_nor_open_anything() {
    let world = World::new();
    policy(&world, &[("coder", "    match: { session: true }\n")]);
    let proxy = Proxy::of(&world);
    let other = Killed(command("sleep").arg("1000").spawn().unwrap());
    session(&world, &["--pid", &other.0.id().to_string()]);
    // It is in force once the one is that was started after it.
    let token = session(&world, &["--token", "--agent", "coder", "--ttl", "1h"]);
    let shown = format!("X-AS-Session-Token: {token}");
    until("they are in force", || spend(&world, &proxy, &[&shown]).0 == "200");
    let (_, message) = refusal(spend(&world, &proxy, &[]));
    assert!(message.contains("no agent entry"), "{message}");
    own_session(&world, &[]);
    until("it opens", || spend(&world, &proxy, &[]).0 == "200");
    // A child that outlives its parent is not in the tree any longer.
    let target = format!("X-AS-Target-URL: {}", world.url("/echo-raw"));
    let at = format!("http://localhost:{}/proxy", proxy.port);
    let mut orphan = command("/usr/bin/python3");
    orphan.args(["-c", ORPHAN, "-sS", "-H", &target, "-H", "X-AS-Inject-Bearer: API_KEY", &at]);
    let (_, message) = refusal((String::new(), finish(&mut orphan).ok()));
    assert!(message.contains("no agent entry"), "{message}");
}

#[test]
fn it_ends_by_time_and_what_it_bounded_is_not_free_of_it_then() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    let mut curl = {
        own_session(&world, &["--ttl", "8s"]);
        until("it holds", || {
            spend(&world, &proxy, &[]);
            world.home.audit().pop().unwrap()["session_id"] != ""
        });
        held(&world, &proxy, &[])
    };
    assert_ne!(curl.wait().unwrap().code(), Some(0));
    let (slug, message) = refusal(spend(&world, &proxy, &[]));
    assert!(slug == "capability_denied" && message.contains("its time is over"), "{message}");
    // Somebody starts another: it holds.
    own_session(&world, &[]);
    until("it holds", || spend(&world, &proxy, &[]).0 == "200");
}

#[test]
fn overlapping_sessions_bind_together_and_one_that_is_left_alone() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    let one = own_session(&world, &["--secrets", "API_KEY"]);
    let other = own_session(&world, &["--methods", "POST"]);
    until("both hold", || spend(&world, &proxy, &[]).0 == "403");
    person(&world, &["session", "end", &other]).ok();
    until("one is left", || spend(&world, &proxy, &[]).0 == "200");
    person(&world, &["session", "end", &one]).ok();
    until("none is left", || spend(&world, &proxy, &[]).0 == "403");
    assert!(refusal(spend(&world, &proxy, &[])).1.contains("somebody ended it"));
}

#[test]
fn uses_run_out_and_a_restart_gives_no_new_ones() {
    let world = World::new();
    own_session(&world, &["--uses", "3"]);
    let proxy = Proxy::of(&world);
    // What spends nothing is no use.
    assert!(proxy.curl(&[&world.url("/echo")]).ok().contains("/echo"));
    assert_eq!([0, 1].map(|_| spend(&world, &proxy, &[]).0), ["200", "200"]);
    drop(proxy);
    let proxy = Proxy::of(&world);
    assert_eq!(spend(&world, &proxy, &[]).0, "200");
    let list = person(&world, &["session", "list", "--json"]).json();
    assert_eq!((&list[0]["used"], &list[0]["state"]), (&json!(3), &json!("used up")));
    let (slug, message) = refusal(spend(&world, &proxy, &[]));
    assert!(slug == "capability_denied" && message.contains("as often as it may be"), "{message}");
    assert_eq!(world.api.received().len(), 4);
}

#[test]
fn ending_it_in_mid_download_closes_the_connection_within_a_second_and_the_record_says_why() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    let mut took = Vec::new();
    for version in ["--http1.1", "--http2", "--http1.1", "--http2"] {
        let id = own_session(&world, &[]);
        until("it holds", || {
            spend(&world, &proxy, &[]);
            world.home.audit().pop().unwrap()["session_id"] == id.as_str()
        });
        let mut curl = held(&world, &proxy, &[version]);
        person(&world, &["session", "end", &id]).ok();
        took.push(ends_soon(&mut curl));
        let record = world.home.audit().pop().unwrap();
        assert_eq!((&record["status"], &record["session_id"]), (&json!("ERROR"), &json!(id)), "{record}");
        assert!(record["reason"].as_str().unwrap().starts_with("session_ended"), "{record}");
    }
    // A machine that is busy with other tests is slow at times, not at every time.
    assert!(took.iter().min() < Some(&Duration::from_secs(1)), "{took:?}");
}

#[test]
fn a_reader_that_takes_nothing_is_cut_off_too_and_its_record_says_why() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    let id = own_session(&world, &[]);
    until("it holds", || {
        spend(&world, &proxy, &[]);
        world.home.audit().pop().unwrap()["session_id"] == id.as_str()
    });
    let url = world.url("/stream?n=200000000");
    let mut curl = proxy.client("/usr/bin/curl");
    // It reads a little, and waits for whoever reads from it.
    let mut curl =
        curl.args(["-sS", "-N", &url]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    world.api.wait_for(|received| received.path.starts_with("/stream"));
    let before = world.home.audit().len();
    person(&world, &["session", "end", &id]).ok();
    until("it is recorded", || world.home.audit().len() > before);
    let record = world.home.audit().pop().unwrap();
    assert!(record["reason"].as_str().unwrap().starts_with("session_ended"), "{record}");
    let _ = curl.kill();
    let _ = curl.wait();
}

#[test]
fn a_session_token_opens_what_asks_for_a_session_until_it_is_ended() {
    let world = World::new();
    policy(&world, &[("coder", "    match: { session: true }\n")]);
    let token = session(&world, &["--token", "--agent", "coder", "--ttl", "1h"]);
    assert!(token.starts_with("as_sess_"), "{token}");
    let proxy = Proxy::of(&world);
    assert_eq!(spend(&world, &proxy, &[]).0, "403");
    let header = format!("X-AS-Session-Token: {token}");
    assert_eq!(spend(&world, &proxy, &[&header]).0, "200");
    let way = format!("http://session:{token}@127.0.0.1:{}", proxy.port);
    let mut curl = held(&world, &proxy, &["-x", &way]);
    person(&world, &["session", "end", id(&token)]).ok();
    ends_soon(&mut curl);
    assert!(refusal(spend(&world, &proxy, &[&header])).1.contains("somebody ended it"));
    let forged = format!("X-AS-Session-Token: {token}x");
    assert!(refusal(spend(&world, &proxy, &[&forged])).1.contains("no session token"));
}

#[test]
fn a_run_is_a_session_that_is_listed_and_ended_like_any_other() {
    let world = World::new();
    let mut run = Agent::started(world.home.agentsecrets([
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
    let list = person(&world, &["session", "list", "--json"]).json();
    let entry = &list[0];
    assert_eq!(
        (&entry["for"], &entry["agent"], &entry["state"]),
        (&json!("run"), &json!("coder"), &json!("live"))
    );
    assert!(entry["expires"].is_string(), "{entry}");
    assert_eq!(person(&world, &["status", "--json"]).json()["sessions"], 1);
    let started = Instant::now();
    person(&world, &["session", "end", entry["id"].as_str().unwrap()]).ok();
    // Its children hear SIGTERM at once; the shell does not, and is killed.
    assert_eq!(run.child.wait().unwrap().code(), Some(128 + 9));
    let took = started.elapsed();
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(15), "{took:?}");
    assert_eq!(person(&world, &["session", "list", "--json"]).json(), json!([]));
}

#[test]
fn when_a_run_is_ended_its_connections_are_closed_soon() {
    let world = World::new();
    world.rules(&[("api.test", world.api.port(), "secrets: [API_KEY]")]);
    let script = format!(
        "trap '' TERM; curl -sS -N -H 'Authorization: Bearer AS_SECRET_API_KEY' {}; echo over; \
         curl -sS {}; echo; sleep 1000",
        world.url("/held"),
        world.url("/echo")
    );
    let mut run = world.home.run_agent(["sh", "-c", &script]);
    let mut child = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "data: one");
    person(&world, &["session", "end", "--all"]).ok();
    let asked = Instant::now();
    lines.find(|line| line == "over").unwrap();
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    let refused = lines.next().unwrap();
    assert!(refused.contains("capability_denied") && refused.contains("somebody ended it"), "{refused}");
    child.wait().unwrap();
    let records = world.home.audit();
    assert!(records[0]["reason"].as_str().unwrap().starts_with("session_ended"), "{}", records[0]);
}

#[test]
fn a_tunnel_that_nobody_opens_ends_with_its_session() {
    let world = World::new();
    world.rule("tls: passthrough");
    let roots = world.home.roots();
    let mut run = world.home.run_agent(["curl", "-sS", "-N", "--cacert"]);
    let mut curl = begun(run.arg(roots).arg(world.url("/held")).stderr(Stdio::null()));
    person(&world, &["session", "end", "--all"]).ok();
    ends_soon(&mut curl);
    let record = world.home.audit().pop().unwrap();
    assert_eq!(record["method"], "CONNECT");
    assert!(record["reason"].as_str().unwrap().starts_with("session_ended"), "{record}");
}

#[test]
fn a_websocket_ends_with_its_session() {
    use crate::support::python::{PYTHON, Server};
    let world = World::new();
    let server = Server::start("http/programs/websocket_server.py", &world.authority, "api.test");
    world.rules(&[("api.test", server.port(), "secrets: [API_KEY]")]);
    let program = "import asyncio, signal, sys, websockets\n\
        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
        async def main():\n    async with websockets.connect(sys.argv[1]) as socket:\n        \
        print('ready', flush=True)\n        try: await socket.recv()\n        \
        except websockets.ConnectionClosed as closed: print(closed.rcvd and closed.rcvd.code, flush=True)\n\
        asyncio.run(main())\n";
    let url = format!("wss://api.test:{}/ws", server.port());
    let mut run = world.home.run_agent([PYTHON, "-c", program, &url]);
    run.env("API_KEY", "none");
    let mut child = begun(&mut run);
    person(&world, &["session", "end", "--all"]).ok();
    let asked = Instant::now();
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    assert_eq!(said, "1008\n");
    child.wait().unwrap();
    let record = world.home.audit().pop().unwrap();
    assert!(record["reason"].as_str().unwrap().starts_with("session_ended"), "{record}");
}

#[test]
fn while_the_sessions_cannot_be_understood_nobody_is_served() {
    let world = World::new();
    own_session(&world, &["--secrets", "OTHER"]);
    let proxy = Proxy::of(&world);
    let file = world.home.path().join("capabilities/sessions.json");
    let sound = fs::read_to_string(&file).unwrap();
    fs::write(&file, "{}").unwrap();
    until("it is noticed", || refusal(spend(&world, &proxy, &[])).1.contains("sessions.json:"));
    fs::remove_file(&file).unwrap();
    until("it is missed", || refusal(spend(&world, &proxy, &[])).1.contains("it was removed"));
    fs::write(&file, sound).unwrap();
    until("it is sound again", || refusal(spend(&world, &proxy, &[])).1.contains("the secret 'API_KEY'"));
}

#[test]
fn a_session_ends_with_the_process_that_it_is_for() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    policy(&world, &[("coder", "    match: { session: true }\n")]);
    // The shell starts a session for itself, and its child is in it, until the shell is gone.
    let script = "\"$0\" session start >/dev/null || exit 9
        until curl -sSf -o /dev/null \"$2\"; do :; done
        curl -sS -N \"$1\" & wait";
    // Every server of ours follows the file by itself, and a moment later.
    let (held, echo) = (world.url("/held"), world.url("/echo"));
    let mut shell = world.home.beside(["sh", "-c", script, crate::support::home::AGENTSECRETS, &held, &echo]);
    shell.envs(proxy.variables.iter().map(|(name, value)| (name, value.as_str().unwrap())));
    shell.env("AGENTSECRETS_HOME", world.home.path()).current_dir("/tmp");
    let mut child = begun(shell.stderr(Stdio::null()));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
    let asked = Instant::now();
    child.wait().unwrap();
    until("its record is there", || {
        world.home.audit().last().is_some_and(|record| record["status"] == "ERROR")
    });
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    let record = world.home.audit().pop().unwrap();
    assert!(record["reason"].as_str().unwrap().contains("the process that it was for has ended"), "{record}");
}
