//! Who calls the proxy on Windows: the table of connections tells, and nobody's own word.

use super::proxy::Background;
use super::wine::Windows;
use crate::support::process::{command, finish, until};

/// An agent entry's facts.
fn facts(text: &str) -> String {
    format!("    match: {{ {text} }}\n")
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn a_program_is_known_by_its_path_its_hash_and_its_user() {
    let proxy = Background::new();
    proxy.asked();
    let process = &proxy.audit().pop().unwrap()["process"];
    let exe = proxy.named("node.exe");
    assert_eq!(process["exe"], exe, "{process}");
    let sum = finish(command("sha256sum").arg(proxy.path("node.exe"))).ok();
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
        proxy.agent(&facts(&text), "secrets: [API_KEY]\nroots: ca.pem");
        // The policy is reloaded in a moment.
        let said = if holds { "200 Bearer [REDACTED" } else { "403 {\"error\":\"capability_denied\"" };
        until(&text, || proxy.asked().starts_with(said));
    }
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn who_is_no_program_of_that_system_is_refused_without_a_token() {
    let proxy = Background::new();
    let refused = proxy.asked_from_elsewhere(&["-H", "X-AS-Agent-ID: coder"]);
    assert!(refused.contains("capability_denied") && refused.contains("cannot be proven"), "{refused}");
    assert!(proxy.api.received().is_empty());
    proxy.sees(&["agent", "register", "coder"]).ok();
    let token = proxy.sees(&["agent", "token", "issue", "--agent", "coder"]).ok();
    let header = format!("X-AS-Agent-Token: {}", token.trim_end());
    // It is known in a moment, as a policy is.
    until("the token is known", || {
        proxy.asked_from_elsewhere(&["-H", &header]) == "Bearer [REDACTED_BY_AGENTSECRETS]"
    });
    assert_eq!(proxy.audit().pop().unwrap()["identity_level"], "issued");
    let forged = proxy.asked_from_elsewhere(&["-H", &format!("{header}0")]);
    assert!(forged.contains("capability_denied") || forged.contains("token_revoked"), "{forged}");
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn a_policy_that_names_a_program_as_no_system_does_is_refused() {
    let windows = Windows::new();
    for bad in [r"C:tool.exe", "tool.exe", r"C:\a\..\b.exe"] {
        windows.agent(&facts(&format!("exe: '{bad}'")), "secrets: [API_KEY]");
        let refused = windows.sees(&["policy", "check"]);
        assert!(refused.code == Some(1) && refused.stderr.contains("not a usable pattern"), "{refused:#?}");
    }
}
