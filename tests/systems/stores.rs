//! Where secrets rest on Windows: its Credential Manager, the vault, and what another program prints.

use std::fs;
use std::path::Path;

use super::wine::{Windows, private};
use crate::spine::SECRET;
use crate::support::process::finish;

/// The files below `folder`, its folders first, each with its mode.
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
fn a_secret_is_set_listed_and_deleted_in_the_credential_manager_and_lies_nowhere_in_clear() {
    let windows = Windows::empty();
    windows.write("config.yaml", "stores: [keychain]\n");
    let mine = |words: &[&str]| windows.sees(&[&["--project", "manager"], words].concat());
    let set = |name: &str, value: &str| {
        let mut command = windows.types(&["--project", "manager", "secrets", "set", name]);
        crate::support::process::finish_with(&mut command, value.as_bytes())
    };
    let stored = set("API_KEY", SECRET);
    assert!(stored.code == Some(0) && stored.stderr.contains("(keychain)"), "{stored:#?}");
    let listed = mine(&["secrets", "list", "--json"]).json();
    assert_eq!((&listed[0]["name"], &listed[0]["store"]), (&"API_KEY".into(), &"keychain".into()));
    assert!(listed[0]["updated"].is_string() && listed.as_array().unwrap().len() == 1, "{listed}");
    assert_eq!(mine(&["--environment", "production", "secrets", "get", "API_KEY"]).code, Some(3));
    // The value comes back: whole to a program of the person's, by no other way.
    let spent = mine(&["env", "--only", "API_KEY", "--", "cmd", "/c", "echo %API_KEY%"]).ok();
    assert_eq!(spent.trim_end(), SECRET);

    // Windows itself has it, under the name that other programs know, and not in clear.
    let key = r"HKCU\Software\Wine\Credential Manager\Generic: manager:development:API_KEY.AgentSecrets";
    let kept = finish(windows.program("reg").args(["query", key, "/v", "Password"])).ok();
    let hex: String = SECRET.bytes().map(|byte| format!("{byte:02X}")).collect();
    let password = kept.split_whitespace().last().unwrap();
    assert!(password.len() == hex.len() && password != hex, "{kept}");
    let found = finish(crate::support::process::command("grep").args(["-rlF", SECRET]).arg(windows.path("")));
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
fn the_vault_keeps_a_secret_and_every_file_of_ours_is_its_users_alone() {
    let windows = Windows::empty();
    // A folder that lets in others, as one that a person made may: each file of ours is closed for itself.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(windows.home(), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(windows.secret("API_KEY", SECRET).stderr.contains("(vault)"));
    assert_eq!(windows.sees(&["secrets", "list", "--json"]).json()[0]["name"], "API_KEY");
    let open: Vec<_> = modes(&windows.home())
        .into_iter()
        .skip(1)
        .filter(|(path, mode)| mode & 0o007 != 0 && !path.ends_with("ca.pem"))
        .collect();
    assert!(open.is_empty(), "{open:#?}");
    let doctor = windows.sees(&["doctor"]);
    assert!(
        doctor.code == Some(1) && doctor.stdout.contains("can be read or written by others"),
        "{doctor:#?}"
    );
    private(&windows.home());
    assert!(windows.sees(&["doctor"]).ok().contains("the vault opens with its key file"));

    fs::set_permissions(windows.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let refused = windows.sees(&["secrets", "list"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("icacls"), "{refused:#?}");
    assert_eq!(
        finish(crate::support::process::command("grep").args(["-rlF", SECRET]).arg(windows.home())).code,
        Some(1)
    );
}

#[test]
#[ignore = "needs Wine, and what cargo xtask systems makes"]
fn what_another_program_prints_is_the_value_without_the_end_of_its_line() {
    let windows = Windows::empty();
    // A script, as many such programs are there, found as shells find it.
    fs::write(windows.path("vault-of-others.cmd"), "@echo off\r\necho value of %1 at %APPDATA%\r\n").unwrap();
    windows.write("config.yaml", "stores:\n  - command: { run: [vault-of-others, \"{name}\"] }\n");
    let mut command = windows.types(&["env", "--only", "TOKEN", "--", "node", "-e", ""]);
    command.env("WINEPATH", windows.named(""));
    // What the command gets is looked at by its own length, since `echo` would not show the end of a line.
    fs::write(windows.path("node.cmd"), "@echo off\r\necho [%TOKEN%]\r\n").unwrap();
    let printed = finish(&mut command).ok();
    assert!(printed.starts_with(r"[value of TOKEN at C:\users\"), "{printed}");
    assert!(printed.trim_end().ends_with(r"\AppData\Roaming]"), "{printed}");
}
