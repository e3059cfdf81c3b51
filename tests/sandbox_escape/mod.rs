//! Attacks on the agent's confinement, each run twice: with every measure in force, when nothing reaches the
//! wire, and without the measures that stop it, when it does. The verdict comes from a capture in another
//! network namespace, never from an errno. Where two measures stop the same attack, each is also tried alone.
//! `agentsecrets/docs/known_attacks.md` lists them all.

mod attack_range;
mod dns;
mod hook_bypass;
mod io_uring;
mod kernel_interfaces;
mod listeners;
mod loopback;
mod other_processes;
mod packets;
mod socket_options;
mod socket_types;
mod stored_secrets;
mod table_exhaustion;

/// The manual's table names exactly the tests of this module.
#[test]
fn known_attacks_table_is_complete() {
    let table = include_str!("../../agentsecrets/docs/known_attacks.md");
    let named: std::collections::BTreeSet<&str> =
        table.split('`').filter(|word| word.contains("::") && !word.contains(' ')).collect();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/sandbox_escape");
    let mut there = std::collections::BTreeSet::new();
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if module != "mod" && (line == "#[test]" || line == "#[tokio::test]") {
                let function = lines.find_map(|line| line.split_once("fn ")).unwrap().1;
                there.insert(format!("{module}::{}", function.split('(').next().unwrap()));
            }
        }
    }
    there.retain(|test| test != "hook_bypass::piped_stdin_still_works");
    let there: std::collections::BTreeSet<&str> = there.iter().map(String::as_str).collect();
    assert_eq!(named, there);
}
