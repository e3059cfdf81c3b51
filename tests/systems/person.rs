//! What a person types on Windows: what is promised there, and what is said not to be.

use std::fs;

use serde_json::json;

use super::wine::{Windows, node};
use crate::spine::SECRET;
use crate::support::process::finish;

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn what_windows_does_not_enforce_is_said() {
    let windows = Windows::new();
    assert!(windows.sees(&["--version"]).ok().starts_with("agentsecrets "));
    let help = windows.sees(&["--help"]).ok();
    assert!(help.contains("  proxy ") && !help.contains("  run ") && !help.contains("  sidecar "), "{help}");
    let run = windows.sees(&["run", "--", "cmd", "/c", "echo never"]);
    assert!(run.code == Some(125) && run.stderr.contains("proxy start") && run.stdout.is_empty(), "{run:#?}");
    let doctor = windows.sees(&["doctor"]).ok();
    for said in ["`run` needs Linux", "unguarded", "our memory is not guarded", "may be swapped"] {
        assert!(doctor.contains(said), "{said}: {doctor}");
    }
    let status = windows.sees(&["status", "--json"]).json();
    assert!(status["agents_door"].as_str().unwrap().starts_with("none"), "{status}");
    assert!(status["person_door"].as_str().unwrap().starts_with("unguarded"), "{status}");
    assert!(windows.sees(&["policy", "check"]).ok().contains("1 rule"));
    let denied = windows.sees(&["policy", "explain", "GET", "https://elsewhere.test/"]);
    assert_eq!(denied.code, Some(4), "{denied:#?}");
    // What only a daemon can keep is not pretended.
    windows.write("config.yaml", "strict: true\n");
    for words in [&["secrets", "list"][..], &["call", "--url", "https://api.test/"], &["session", "list"]] {
        let refused = windows.sees(words);
        assert!(refused.code == Some(4) && refused.stderr.contains("only Linux"), "{refused:#?}");
    }
    assert!(windows.sees(&["doctor"]).stdout.contains("strict"));
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn a_call_spends_the_secret_and_shows_it_to_nobody() {
    let windows = Windows::new();
    let answer = windows.sees(&["call", "--url", &windows.url("/echo-raw"), "--bearer", "API_KEY"]);
    assert_eq!(answer.ok(), "HTTP 200\n\nBearer [REDACTED_BY_AGENTSECRETS]");
    assert_eq!(windows.api.only().header("authorization"), format!("Bearer {SECRET}"));
    let refused = windows.sees(&["call", "--url", "https://elsewhere.test/", "--bearer", "API_KEY"]);
    assert_eq!(refused.code, Some(4), "{refused:#?}");
    let records = windows.audit();
    assert_eq!((&records[0]["status"], &records[1]["status"]), (&json!("OK"), &json!("BLOCKED")));
    assert!(windows.sees(&["audit", "verify"]).code == Some(0));
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn a_server_that_the_system_does_not_trust_gets_no_byte_of_a_request() {
    let windows = Windows::new();
    windows.agent("", "secrets: [API_KEY]");
    let refused = windows.sees(&["call", "--url", &windows.url("/echo-raw"), "--bearer", "API_KEY"]);
    assert!(refused.code != Some(0) && windows.api.received().is_empty(), "{refused:#?}");
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn env_starts_what_a_shell_would_find_and_ends_as_it_ended() {
    let windows = Windows::new();
    fs::write(windows.path("tool.cmd"), "@echo off\r\necho %1 %API_KEY%\r\nexit 7\r\n").unwrap();
    let mut script = windows.types(&["env", "--", "tool", "a & b"]);
    let script = finish(script.env("WINEPATH", windows.named("")));
    assert_eq!(
        (script.code, script.stdout.trim_end()),
        (Some(7), &*format!("\"a & b\" {SECRET}")),
        "{script:#?}"
    );
    let code = |words: &[&str]| windows.sees(&[&["env", "--"], words].concat()).code;
    assert_eq!(code(&["cmd", "/c", "exit 3"]), Some(3));
    assert_eq!(code(&["cmd", "/c", "exit 300"]), Some(125));
    assert_eq!(code(&["nowhere-to-be-found"]), Some(127));
    assert_eq!(code(&[&windows.named("ca.pem")]), Some(126));
    // Who asked is who started us, as the system says.
    let exe = windows.types(&[]).get_args().next().unwrap().to_str().unwrap().replace('/', r"\");
    let asked = format!(r"Z:{exe} env -- cmd /c exit 0");
    finish(windows.program("cmd").args(["/c", &asked])).ok();
    let record = windows.audit().pop().unwrap();
    assert_eq!(record["process"]["exe"].as_str().unwrap().to_lowercase(), r"c:\windows\system32\cmd.exe");
    assert_eq!(record["secret_keys"], json!(["API_KEY"]));
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn a_model_calls_through_mcp_as_the_program_that_started_it() {
    let windows = Windows::new();
    let exe = windows.types(&[]).get_args().next().unwrap().to_str().unwrap().to_owned();
    let script = "
        const server = require('child_process').spawn(process.argv[2], ['mcp', 'serve']);
        const ask = (id, method, params) =>
            server.stdin.write(JSON.stringify({ jsonrpc: '2.0', id, method, params }) + '\\n');
        server.on('exit', () => process.exit(0));
        require('readline').createInterface({ input: server.stdout }).on('line', line => {
            say(line + '\\n');
            const { id } = JSON.parse(line);
            if (id === 1) {
                ask(undefined, 'notifications/initialized');
                ask(2, 'tools/call', { name: 'api_call', arguments: {
                    url: process.argv[3], method: 'GET', injections: { bearer: 'API_KEY' } } });
            } else server.stdin.end();
        });
        const clientInfo = { name: 'test', version: '1' };
        ask(1, 'initialize', { protocolVersion: '2025-06-18', capabilities: {}, clientInfo });";
    let said = node(&windows, script, &[&format!("Z:{exe}"), &windows.url("/echo-raw")]);
    assert!(said.contains("HTTP 200") && said.contains("[REDACTED_BY_AGENTSECRETS]"), "{said}");
    assert!(!said.contains(SECRET));
    let record = windows.audit().pop().unwrap();
    assert_eq!(record["process"]["exe"], windows.named("node.exe"), "{record}");
}
