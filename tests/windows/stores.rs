//! Stores on Windows: the Credential Manager, the vault, and command stores.

use std::fs;
use std::path::Path;

use super::wine::{Windows, make_private};
use crate::end_to_end::SECRET;
use crate::support::process::run;

/// The files and folders below `folder` with their modes.
fn modes(folder: &Path) -> Vec<(std::path::PathBuf, u32)> {
    use std::os::unix::fs::PermissionsExt;
    let mut found = vec![(folder.to_owned(), fs::metadata(folder).unwrap().permissions().mode())];
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => found.extend(modes(&entry)),
            false => found.push((entry.clone(), fs::metadata(&entry).unwrap().permissions().mode())),
        }
    }
    found
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn credential_manager_stores_encrypted() {
    let windows = Windows::empty();
    windows.write("config.yaml", "stores: [keychain]\n");
    let mine = |words: &[&str]| windows.run(&[&["--project", "manager"], words].concat());
    let set = |name: &str, value: &str| {
        let mut command = windows.command(&["--project", "manager", "secrets", "set", name]);
        crate::support::process::run_with_input(&mut command, value.as_bytes())
    };
    let stored = set("API_KEY", SECRET);
    assert!(stored.code == Some(0) && stored.stderr.contains("(keychain)"), "{stored:#?}");
    let listed = mine(&["secrets", "list", "--json"]).json();
    assert_eq!((&listed[0]["name"], &listed[0]["store"]), (&"API_KEY".into(), &"keychain".into()));
    assert!(listed[0]["updated"].is_string() && listed.as_array().unwrap().len() == 1, "{listed}");
    assert_eq!(mine(&["--environment", "production", "secrets", "get", "API_KEY"]).code, Some(3));
    // Only a program of the operator gets the whole value back.
    let spent = mine(&["env", "--only", "API_KEY", "--", "cmd", "/c", "echo %API_KEY%"]).ok();
    assert_eq!(spent.trim_end(), SECRET);

    // Windows stores it encrypted, under the name that other programs use.
    let key = r"HKCU\Software\Wine\Credential Manager\Generic: manager:development:API_KEY.AgentSecrets";
    let registry_value = run(windows.program("reg").args(["query", key, "/v", "Password"])).ok();
    let hex: String = SECRET.bytes().map(|byte| format!("{byte:02X}")).collect();
    let password = registry_value.split_whitespace().last().unwrap();
    assert!(password.len() == hex.len() && password != hex, "{registry_value}");
    let found = run(crate::support::process::command("grep").args(["-rlF", SECRET]).arg(windows.path("")));
    assert_eq!(found.code, Some(1), "{found:#?}");

    let longest = "v".repeat(2560);
    assert_eq!(set("LONGEST", &longest).code, Some(0));
    let longer = set("LONGEST", &(longest + "v"));
    assert!(longer.code == Some(2) && longer.stderr.contains("2560 bytes"), "{longer:#?}");
    for name in ["API_KEY", "LONGEST"] {
        assert_eq!(mine(&["secrets", "delete", name]).code, Some(0));
        assert_eq!(mine(&["secrets", "delete", name]).code, Some(3));
    }
    assert_eq!(mine(&["secrets", "list", "--json"]).json(), serde_json::json!([]));
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn vault_files_are_private_to_user() {
    let windows = Windows::empty();
    // A folder that others may read: each of our files is protected by itself.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(windows.home(), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(windows.secret("API_KEY", SECRET).stderr.contains("(vault)"));
    assert_eq!(windows.run(&["secrets", "list", "--json"]).json()[0]["name"], "API_KEY");
    let open: Vec<_> = modes(&windows.home())
        .into_iter()
        .skip(1)
        .filter(|(path, mode)| mode & 0o007 != 0 && !path.ends_with("ca.pem"))
        .collect();
    assert!(open.is_empty(), "{open:#?}");
    let doctor = windows.run(&["doctor"]);
    assert!(
        doctor.code == Some(1) && doctor.stdout.contains("can be read or written by others"),
        "{doctor:#?}"
    );
    make_private(&windows.home());
    assert!(windows.run(&["doctor"]).ok().contains("the vault opens with its key file"));

    fs::set_permissions(windows.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let refused = windows.run(&["secrets", "list"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("icacls"), "{refused:#?}");
    assert_eq!(
        run(crate::support::process::command("grep").args(["-rlF", SECRET]).arg(windows.home())).code,
        Some(1)
    );
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn command_store_strips_line_end() {
    let windows = Windows::empty();
    // A script, found as shells find it.
    fs::write(windows.path("vault-of-others.cmd"), "@echo off\r\necho value of %1 at %APPDATA%\r\n").unwrap();
    windows.write("config.yaml", "stores:\n  - command: { run: [vault-of-others, \"{name}\"] }\n");
    let mut command = windows.command(&["env", "--only", "TOKEN", "--", "node", "-e", ""]);
    command.env("WINEPATH", windows.windows_path(""));
    // The length is checked, since `echo` would not show a line end.
    fs::write(windows.path("node.cmd"), "@echo off\r\necho [%TOKEN%]\r\n").unwrap();
    let printed = run(&mut command).ok();
    assert!(printed.starts_with(r"[value of TOKEN at C:\users\"), "{printed}");
    assert!(printed.trim_end().ends_with(r"\AppData\Roaming]"), "{printed}");
}
