//! The committed test vectors still open. `vectors/check.py` opens them with other implementations.

use std::path::PathBuf;

use agentsecrets_vault::Base64;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Serialize, Deserialize)]
struct Vectors {
    identity: serde_json::Value,
    fingerprint: String,
    commits: Vec<Base64>,
    expected: Vec<Expected>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Expected {
    environment: String,
    project: String,
    name: String,
    version: u64,
    deleted: bool,
    value: String,
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/workspace.json")
}

fn expected(state: &State) -> Vec<Expected> {
    let mut all = Vec::new();
    for (name, environment) in state.environments() {
        for (address, _) in state.secrets(environment) {
            all.extend(state.history(address).iter().map(|version| Expected {
                environment: name.to_string(),
                project: address.project.to_string(),
                name: address.name.to_string(),
                version: version.version,
                deleted: version.deleted,
                value: String::from_utf8(state.value(address, version).unwrap().expose().to_vec()).unwrap(),
            }));
        }
    }
    all
}

#[test]
fn committed_vectors_open() {
    let vectors: Vectors = serde_json::from_slice(&std::fs::read(path()).unwrap()).unwrap();
    let identity =
        Identity::from_secret(&Secret::new(serde_json::to_vec(&vectors.identity).unwrap())).unwrap();
    assert_eq!(identity.public().fingerprint(), vectors.fingerprint);
    let commits: Vec<Commit> =
        (0..).zip(vectors.commits).map(|(seq, bytes)| Commit::parse(seq, bytes.0).unwrap()).collect();
    let state = State::new(identity.workspace).extend(&identity, &commits).unwrap();
    assert_eq!(expected(&state), vectors.expected);
}

/// Bob's view of a workspace with a rotation, a deletion and two versions.
#[tokio::test]
#[ignore = "writes new vectors"]
async fn write_vectors() {
    let mut team = Team::new();
    let mut ann = team.founder().await;
    push(&mut ann, "development", "API_KEY", "first-value").await.unwrap();
    push(&mut ann, "production", "LIVE", "not for Bob").await.unwrap();
    let mut bob = team.join(&mut ann, "bob@acme.test", Role::Member, &[("development", Access::Write)]).await;
    let cid = team.join(&mut ann, "cid@acme.test", Role::Member, &[("development", Access::Read)]).await;
    let id = cid.identity().member;
    let remove = || Draft { operations: vec![Operation::Remove { member: id }], ..Draft::default() };
    ann.submit(|_| Ok(Some(remove()))).await.unwrap();
    push(&mut bob, "development", "API_KEY", &"long ".repeat(100)).await.unwrap();
    push(&mut bob, "development", "GONE", "gone-value").await.unwrap();
    let delete = || Draft { secrets: vec![change("development", "GONE", None)], ..Draft::default() };
    bob.submit(|_| Ok(Some(delete()))).await.unwrap();
    let commits = Cache::at(team.machines[1].path()).commits(0);
    let vectors = Vectors {
        identity: serde_json::from_slice(bob.identity().to_secret().unwrap().expose()).unwrap(),
        fingerprint: bob.identity().public().fingerprint(),
        commits: commits.iter().map(|commit| Base64(commit.bytes().to_vec())).collect(),
        expected: expected(bob.state()),
    };
    std::fs::create_dir_all(path().parent().unwrap()).unwrap();
    std::fs::write(path(), serde_json::to_string_pretty(&vectors).unwrap() + "\n").unwrap();
}
