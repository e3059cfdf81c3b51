//! Commands on Windows: the guarantees there, and the reported limits.

use std::fs;

use serde_json::json;

use super::wine::{Windows, node};
use crate::end_to_end::SECRET;
use crate::support::process::run;

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn unenforced_features_are_reported() {
    let windows = Windows::new();
    assert!(windows.run(&["--version"]).ok().starts_with("agentsecrets "));
    let help = windows.run(&["--help"]).ok();
    assert!(help.contains("  proxy ") && !help.contains("  run ") && !help.contains("  sidecar "), "{help}");
    let run = windows.run(&["run", "--", "cmd", "/c", "echo never"]);
    assert!(run.code == Some(125) && run.stderr.contains("proxy start") && run.stdout.is_empty(), "{run:#?}");
    let doctor = windows.run(&["doctor"]).ok();
    for output in ["`run` needs Linux", "unguarded", "our memory is not guarded", "may be swapped"] {
        assert!(doctor.contains(output), "{output}: {doctor}");
    }
    let status = windows.run(&["status", "--json"]).json();
    assert!(status["agents_door"].as_str().unwrap().starts_with("none"), "{status}");
    assert!(status["person_door"].as_str().unwrap().starts_with("unguarded"), "{status}");
    assert!(windows.run(&["policy", "check"]).ok().contains("1 rule"));
    let denied = windows.run(&["policy", "explain", "GET", "https://elsewhere.test/"]);
    assert_eq!(denied.code, Some(4), "{denied:#?}");
    // Features that need the daemon are refused.
    windows.write("config.yaml", "strict: true\n");
    for words in [&["secrets", "list"][..], &["call", "--url", "https://api.test/"], &["session", "list"]] {
        let refused = windows.run(words);
        assert!(refused.code == Some(4) && refused.stderr.contains("only Linux"), "{refused:#?}");
    }
    assert!(windows.run(&["doctor"]).stdout.contains("strict"));
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn call_gets_credential_and_hides_it() {
    let windows = Windows::new();
    let answer = windows.run(&["call", "--url", &windows.url("/echo-raw"), "--bearer", "API_KEY"]);
    assert_eq!(answer.ok(), "HTTP 200\n\nBearer [REDACTED_BY_AGENTSECRETS]");
    assert_eq!(windows.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
    let refused = windows.run(&["call", "--url", "https://elsewhere.test/", "--bearer", "API_KEY"]);
    assert_eq!(refused.code, Some(4), "{refused:#?}");
    let records = windows.audit();
    assert_eq!((&records[0]["status"], &records[1]["status"]), (&json!("OK"), &json!("BLOCKED")));
    assert!(windows.run(&["audit", "verify"]).code == Some(0));
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn untrusted_server_gets_nothing() {
    let windows = Windows::new();
    windows.write_policy("", "secrets: [API_KEY]");
    let refused = windows.run(&["call", "--url", &windows.url("/echo-raw"), "--bearer", "API_KEY"]);
    assert!(refused.code != Some(0) && windows.api.received().is_empty(), "{refused:#?}");
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn env_finds_program_and_forwards_exit_code() {
    let windows = Windows::new();
    fs::write(windows.path("tool.cmd"), "@echo off\r\necho %1 %API_KEY%\r\nexit 7\r\n").unwrap();
    let mut script = windows.command(&["env", "--", "tool", "a & b"]);
    let script = run(script.env("WINEPATH", windows.windows_path("")));
    assert_eq!(
        (script.code, script.stdout.trim_end()),
        (Some(7), &*format!("\"a & b\" {SECRET}")),
        "{script:#?}"
    );
    let code = |words: &[&str]| windows.run(&[&["env", "--"], words].concat()).code;
    assert_eq!(code(&["cmd", "/c", "exit 3"]), Some(3));
    assert_eq!(code(&["cmd", "/c", "exit 300"]), Some(125));
    assert_eq!(code(&["nowhere-to-be-found"]), Some(127));
    assert_eq!(code(&[&windows.windows_path("ca.pem")]), Some(126));
    // The system reports our parent as the caller.
    let exe = windows.command(&[]).get_args().next().unwrap().to_str().unwrap().replace('/', r"\");
    let command_line = format!(r"Z:{exe} env -- cmd /c exit 0");
    run(windows.program("cmd").args(["/c", &command_line])).ok();
    let record = windows.audit().pop().unwrap();
    assert_eq!(record["process"]["exe"].as_str().unwrap().to_lowercase(), r"c:\windows\system32\cmd.exe");
    assert_eq!(record["secret_keys"], json!(["API_KEY"]));
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn mcp_server_acts_as_parent_program() {
    let windows = Windows::new();
    let exe = windows.command(&[]).get_args().next().unwrap().to_str().unwrap().to_owned();
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
    let output = node(&windows, script, &[&format!("Z:{exe}"), &windows.url("/echo-raw")]);
    assert!(output.contains("HTTP 200") && output.contains("[REDACTED_BY_AGENTSECRETS]"), "{output}");
    assert!(!output.contains(SECRET));
    let record = windows.audit().pop().unwrap();
    assert_eq!(record["process"]["exe"], windows.windows_path("node.exe"), "{record}");
}
