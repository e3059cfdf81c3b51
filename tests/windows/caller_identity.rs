//! Callers of the proxy on Windows are identified by the system's TCP table, never by their own claims.

use super::proxy::BackgroundProxy;
use super::wine::Windows;
use crate::support::process::{command, run, wait_until};

/// A policy's facts for an agent entry.
fn facts(text: &str) -> String {
    format!("    match: {{ {text} }}\n")
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn caller_is_matched_by_path_hash_and_user() {
    let proxy = BackgroundProxy::new();
    proxy.tunnel_response();
    let process = &proxy.audit().pop().unwrap()["process"];
    let exe = proxy.windows_path("node.exe");
    assert_eq!(process["exe"], exe, "{process}");
    let sum = run(command("sha256sum").arg(proxy.path("node.exe"))).ok();
    assert_eq!(process["sha256"], sum.split(' ').next().unwrap());
    assert!(process["pid"].as_u64().unwrap() > 0 && process["start_time"].as_u64().unwrap() > 0, "{process}");

    let good = format!("uid: {}, exe: '{}'", process["uid"], exe.to_lowercase());
    let hash = process["sha256"].as_str().unwrap();
    for (holds, text) in [
        (false, r"exe: 'C:\nowhere\**'".to_owned()),
        (true, good),
        (false, format!("sha256: {}", "ab".repeat(32))),
        (true, format!(r"sha256: {hash}, exe: 'C:\**\node.exe'")),
        (false, "uid: 4711".to_owned()),
    ] {
        proxy.write_policy(&facts(&text), "secrets: [API_KEY]\nroots: ca.pem");
        // The policy is reloaded in a moment.
        let output = if holds { "200 Bearer [REDACTED" } else { "403 {\"error\":\"capability_denied\"" };
        wait_until(&text, || proxy.tunnel_response().starts_with(output));
    }
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn unknown_caller_needs_token() {
    let proxy = BackgroundProxy::new();
    let refused = proxy.endpoint_response_from_linux(&["-H", "X-AS-Agent-ID: coder"]);
    assert!(refused.contains("capability_denied") && refused.contains("cannot be proven"), "{refused}");
    assert!(proxy.api.received().is_empty());
    proxy.run(&["agent", "register", "coder"]).ok();
    let token = proxy.run(&["agent", "token", "issue", "--agent", "coder"]).ok();
    let header = format!("X-AS-Agent-Token: {}", token.trim_end());
    // Like a policy, it applies in a moment.
    wait_until("the token is known", || {
        proxy.endpoint_response_from_linux(&["-H", &header]) == "Bearer [REDACTED_BY_AGENTSECRETS]"
    });
    assert_eq!(proxy.audit().pop().unwrap()["identity_level"], "issued");
    let forged = proxy.endpoint_response_from_linux(&["-H", &format!("{header}0")]);
    assert!(forged.contains("capability_denied") || forged.contains("token_revoked"), "{forged}");
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn unix_exe_path_is_refused() {
    let windows = Windows::new();
    for bad in [r"C:tool.exe", "tool.exe", r"C:\a\..\b.exe"] {
        windows.write_policy(&facts(&format!("exe: '{bad}'")), "secrets: [API_KEY]");
        let refused = windows.run(&["policy", "check"]);
        assert!(refused.code == Some(1) && refused.stderr.contains("not a usable pattern"), "{refused:#?}");
    }
}
