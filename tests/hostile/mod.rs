//! Attacks on the agent's confinement, each run twice: with every measure in force, when nothing reaches
//! the wire, and with the measures that stop it left out, when it does, so that the test is seen to bite.
//! The judge is a capture in another network namespace, never an errno. Where two walls stand in the way
//! of the same attack, each is also tried alone. `agentsecrets/docs/known_attacks.md` is the table of all this.

mod channels;
mod doors;
mod endurance;
mod loopback;
mod names;
mod options;
mod others;
mod ours;
mod outside;
mod range;
mod sockets;
mod uring;
mod wire;

/// The manual's table names every test here, and no other.
#[test]
fn the_table_of_attacks_is_complete() {
    let table = include_str!("../../agentsecrets/docs/known_attacks.md");
    let named: std::collections::BTreeSet<&str> =
        table.split('`').filter(|word| word.contains("::") && !word.contains(' ')).collect();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/hostile");
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
    there.retain(|test| test != "outside::what_stays_allowed_still_works");
    let there: std::collections::BTreeSet<&str> = there.iter().map(String::as_str).collect();
    assert_eq!(named, there);
}
