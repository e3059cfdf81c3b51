//! A store that swaps, drops, replays, rolls back, forks and forges: each is named, and nothing is accepted.

use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use super::*;
use crate::commit::{Grant, KeyLine};
use crate::crypto::{DataKey, seal_to};
use crate::state::grant_context;

async fn read(team: &Team, client: &Client, seq: u64) -> Vec<u8> {
    let path = path(client, seq);
    team.store.get(&path).await.unwrap().bytes().await.unwrap().to_vec()
}

async fn write(team: &Team, client: &Client, seq: u64, bytes: Vec<u8>) {
    team.store.put(&path(client, seq), PutPayload::from(bytes)).await.unwrap();
}

async fn delete(team: &Team, client: &Client, seq: u64) {
    team.store.delete(&path(client, seq)).await.unwrap();
}

fn path(client: &Client, seq: u64) -> Path {
    Path::from(format!("{}/log/{seq:010}", client.state().workspace()))
}

/// Ann pushed three more commits than Bob has seen: 5, 6 and 7.
async fn behind() -> (Team, Client, Client) {
    let mut team = Team::new();
    let mut ann = team.founder().await;
    push(&mut ann, "development", "FIRST", "first-value").await.unwrap();
    push(&mut ann, "development", "SECOND", "second-value").await.unwrap();
    let bob = team.join(&mut ann, "bob@acme.test", Role::Member, &[("development", Access::Write)]).await;
    for name in ["FIRST", "SECOND", "THIRD"] {
        push(&mut ann, "development", name, "later-value").await.unwrap();
    }
    assert_eq!(bob.state().next(), 5);
    (team, ann, bob)
}

/// Bob's fetch fails with `expected`, and a client that is opened again has nothing new.
async fn refused(team: &Team, mut bob: Client, expected: &str) {
    let error = fetch(&mut bob).await.unwrap_err().to_string();
    assert!(error.contains(expected) && error.contains("nothing was accepted"), "{error}");
    let identity = Identity::from_secret(&bob.identity().to_secret().unwrap()).unwrap();
    let again = Client::open(team.remote(), Cache::at(team.machines[1].path()), identity).unwrap();
    assert_eq!(again.state().next(), 5);
}

#[tokio::test]
async fn swapped_values_are_detected() {
    let (team, _, bob) = behind().await;
    let text = String::from_utf8(read(&team, &bob, 5).await).unwrap();
    let other = String::from_utf8(read(&team, &bob, 6).await).unwrap();
    let value = |text: &str| text.rsplit_once("\"value\":\"").unwrap().1.to_owned();
    write(&team, &bob, 5, text.replace(&value(&text), &value(&other)).into_bytes()).await;
    refused(&team, bob, "alteration detected: commit 5").await;
}

#[tokio::test]
async fn replayed_commit_is_detected() {
    let (team, _, bob) = behind().await;
    write(&team, &bob, 5, read(&team, &bob, 2).await).await;
    refused(&team, bob, "replay or fork detected: commit 5").await;
}

#[tokio::test]
async fn dropped_commit_is_detected() {
    for seq in [5, 6] {
        let (team, _, bob) = behind().await;
        delete(&team, &bob, seq).await;
        refused(&team, bob, &format!("dropped commit detected: the store lacks commit {seq}")).await;
    }
}

#[tokio::test]
async fn rollback_and_truncation_are_detected() {
    let (team, ann, bob) = behind().await;
    for seq in 4..8 {
        delete(&team, &ann, seq).await;
    }
    refused(&team, bob, "rollback detected: the store no longer has commit 4").await;
}

#[tokio::test]
async fn truncated_object_is_detected() {
    let (team, _, bob) = behind().await;
    let mut bytes = read(&team, &bob, 5).await;
    bytes.truncate(bytes.len() / 2);
    write(&team, &bob, 5, bytes).await;
    refused(&team, bob, "alteration detected: commit 5").await;
}

#[tokio::test]
async fn commit_of_a_stranger_is_detected() {
    let (team, ann, bob) = behind().await;
    let stranger = Identity::generate(ann.state().workspace(), Id::random().unwrap()).unwrap();
    let state_of_bob = bob.state();
    let forged = Commit::sign(&stranger, 5, state_of_bob.head(), &KeyLine::default(), &[]).unwrap();
    write(&team, &bob, 5, forged.bytes().to_vec()).await;
    refused(&team, bob, "is not by a member").await;
    // In the name of a member, the signature does not match.
    let (team, ann, bob) = behind().await;
    let impostor = Identity::generate(ann.state().workspace(), ann.identity().member).unwrap();
    let forged = Commit::sign(&impostor, 5, bob.state().head(), &KeyLine::default(), &[]).unwrap();
    write(&team, &bob, 5, forged.bytes().to_vec()).await;
    refused(&team, bob, "its signature").await;
}

#[tokio::test]
async fn forked_histories_are_detected_when_they_meet() {
    let (team, ann, mut bob) = behind().await;
    let others: Vec<Vec<u8>> = futures_util::future::join_all((5..8).map(|seq| read(&team, &ann, seq))).await;
    for seq in 5..8 {
        delete(&team, &ann, seq).await;
    }
    // Bob is shown a history of his own, in which he commits.
    push(&mut bob, "development", "MINE", "bobs-value").await.unwrap();
    assert_ne!(bob.state().head_words(), ann.state().head_words());
    for (seq, bytes) in (5..8).zip(others) {
        write(&team, &ann, seq, bytes).await;
    }
    let error = fetch(&mut bob).await.unwrap_err().to_string();
    assert!(error.contains("fork detected: commit 5"), "{error}");
}

/// A member whose own copy of the rights is wrong, so that the commit is built and signed.
#[tokio::test]
async fn change_without_right_is_detected() {
    let mut team = Team::new();
    let mut ann = team.founder().await;
    push(&mut ann, "production", "LIVE", "live-value").await.unwrap();
    let bob = team.join(&mut ann, "bob@acme.test", Role::Member, &[("production", Access::Read)]).await;
    let (id, production) =
        (bob.identity().member, bob.state().environment(&"production".parse().unwrap()).unwrap());
    let identity = |client: &Client| Identity::from_secret(&client.identity().to_secret().unwrap()).unwrap();
    let commits = Cache::at(team.machines[1].path()).commits(0);
    let fresh = || State::new(bob.state().workspace()).extend(&identity(&bob), &commits).unwrap();

    let mut wrong = fresh();
    wrong.roster_mut().access.entry(production).or_default().insert(id, Access::Write);
    let draft = Draft { secrets: vec![change("production", "LIVE", Some("evil"))], ..Draft::default() };
    let commit = wrong.build(bob.identity(), &draft).unwrap();
    let error = fresh().extend(&identity(&bob), &[commit]).err().unwrap().to_string();
    assert!(error.contains("bob@acme.test writes an environment and may not"), "{error}");

    let mut wrong = fresh();
    wrong.roster_mut().members.get_mut(&id).unwrap().role = Role::Admin;
    let operations = vec![Operation::Role { member: id, role: Role::Admin }];
    let commit = wrong.build(bob.identity(), &Draft { operations, ..Draft::default() }).unwrap();
    let error = fresh().extend(&identity(&bob), &[commit]).err().unwrap().to_string();
    assert!(error.contains("is not by an admin"), "{error}");

    // A grant of a key that he holds, to keys of his own choice.
    let key = DataKey::random().unwrap();
    let info = grant_context(bob.state().workspace(), production, 1, id);
    let (encapsulated, sealed) = seal_to(&bob.identity().public().encryption.0, &info, key.expose()).unwrap();
    let grant = Grant {
        key: production,
        generation: 1,
        member: id,
        encapsulated: agentsecrets_vault::Base64(encapsulated),
        sealed: agentsecrets_vault::Base64(sealed),
    };
    let line = KeyLine { grants: vec![grant], ..KeyLine::default() };
    let state = fresh();
    let commit = Commit::sign(bob.identity(), state.next(), state.head(), &line, &[]).unwrap();
    let error = state.extend(&identity(&bob), &[commit]).err().unwrap().to_string();
    assert!(error.contains("grants a key and may not"), "{error}");
}

/// A member repeats an older version of a secret.
#[tokio::test]
async fn replayed_version_is_detected() {
    let (team, ann, bob) = behind().await;
    let commits = Cache::at(team.machines[0].path()).commits(0);
    let entries: Vec<_> = commits[1].entries().map(Result::unwrap).collect();
    let state = ann.state();
    let commit =
        Commit::sign(ann.identity(), state.next(), state.head(), &KeyLine::default(), &entries).unwrap();
    write(&team, &bob, state.next(), commit.bytes().to_vec()).await;
    refused(&team, bob, "replays an older version").await;
}

#[tokio::test]
async fn nothing_readable_is_stored() {
    use futures_util::TryStreamExt;
    use object_store::ObjectStore;
    let (team, _, bob) = behind().await;
    let all: Vec<_> = team.store.list(None).try_collect().await.unwrap();
    assert!(all.len() >= 8);
    for object in all {
        let mut bytes = object.location.to_string().into_bytes();
        bytes.extend(team.store.get(&object.location).await.unwrap().bytes().await.unwrap());
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        for word in ["first", "second", "later", "value\":\"l", "development", "shop", "acme", "bob@", "ann@"]
        {
            assert!(!text.contains(word), "{word} in {}", object.location);
        }
    }
    drop(bob);
}

/// Every single changed byte of a commit is noticed.
#[tokio::test]
async fn any_altered_byte_is_detected() {
    let (team, _, bob) = behind().await;
    let bytes = read(&team, &bob, 5).await;
    let identity = Identity::from_secret(&bob.identity().to_secret().unwrap()).unwrap();
    let before = Cache::at(team.machines[1].path()).commits(0);
    for at in (0..bytes.len()).step_by(7) {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        let Ok(commit) = Commit::parse(5, altered) else { continue };
        let state = State::new(identity.workspace).extend(&identity, &before).unwrap();
        assert!(state.extend(&identity, &[commit]).is_err(), "byte {at}");
    }
}
