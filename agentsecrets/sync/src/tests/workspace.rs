//! Members, rights and daily work.

use super::*;

#[tokio::test]
async fn member_reads_what_admin_pushed_and_back() {
    let mut team = Team::new();
    let mut ann = team.founder().await;
    push(&mut ann, "development", "API_KEY", "first-value").await.unwrap();
    let mut bob = team.join(&mut ann, "bob@acme.test", Role::Member, &[("development", Access::Write)]).await;
    assert_eq!(value(&bob, "development", "API_KEY").unwrap(), "first-value");
    push(&mut bob, "development", "API_KEY", "second-value").await.unwrap();
    fetch(&mut ann).await.unwrap();
    assert_eq!(value(&ann, "development", "API_KEY").unwrap(), "second-value");
    assert_eq!((ann.state().name(), bob.state().name()), ("acme", "acme"));
    assert_eq!(ann.state().head_words(), bob.state().head_words());
}

#[tokio::test]
async fn agent_sees_only_its_environment() {
    let mut team = Team::new();
    let mut ann = team.founder().await;
    push(&mut ann, "production", "LIVE", "live-value").await.unwrap();
    push(&mut ann, "development", "TEST", "test-value").await.unwrap();
    let mut agent = team.join(&mut ann, "ci@agents.test", Role::Agent, &[("production", Access::Read)]).await;
    assert_eq!(value(&agent, "production", "LIVE").unwrap(), "live-value");
    assert!(value(&agent, "development", "TEST").is_none());
    let names: Vec<String> = agent.state().environments().keys().map(ToString::to_string).collect();
    assert_eq!(names, ["production"]);
    for (environment, expected) in
        [("production", "may read"), ("development", "may not create"), ("staging", "may not create")]
    {
        let error = push(&mut agent, environment, "X", "value").await.unwrap_err();
        assert!(matches!(&error, Error::Denied(what) if what.contains(expected)), "{error}");
    }
}

#[tokio::test]
async fn removed_member_reads_nothing_new() {
    let mut team = Team::new();
    let mut ann = team.founder().await;
    push(&mut ann, "development", "API_KEY", "first-value").await.unwrap();
    let mut bob = team.join(&mut ann, "bob@acme.test", Role::Member, &[("development", Access::Write)]).await;
    let id = bob.identity().member;
    assert_eq!(ann.state().known_to(id).len(), 1);
    let remove = || Draft { operations: vec![Operation::Remove { member: id }], ..Draft::default() };
    ann.submit(|_| Ok(Some(remove()))).await.unwrap();
    push(&mut ann, "development", "API_KEY", "after-removal").await.unwrap();
    assert!(matches!(fetch(&mut bob).await, Err(Error::NotMember(_))));
    // A later member reads old and new versions: each generation of a key seals the one before.
    let cid = team.join(&mut ann, "cid@acme.test", Role::Member, &[("development", Access::Read)]).await;
    assert_eq!(value(&cid, "development", "API_KEY").unwrap(), "after-removal");
    let environment = cid.state().environment(&"development".parse().unwrap()).unwrap();
    let address = Address { environment, project: "shop".parse().unwrap(), name: "API_KEY".parse().unwrap() };
    let history = cid.state().history(&address);
    assert_eq!(history.len(), 2);
    assert_eq!(cid.state().value(&address, &history[0]).unwrap().expose(), b"first-value");
}

#[tokio::test]
async fn access_granted_later_shows_earlier_secrets() {
    let mut team = Team::new();
    let mut ann = team.founder().await;
    push(&mut ann, "production", "LIVE", "live-value").await.unwrap();
    push(&mut ann, "development", "TEST", "test-value").await.unwrap();
    let mut bob = team.join(&mut ann, "bob@acme.test", Role::Member, &[("development", Access::Read)]).await;
    assert!(value(&bob, "production", "LIVE").is_none());
    let id = bob.identity().member;
    let promote =
        || Draft { operations: vec![Operation::Role { member: id, role: Role::Admin }], ..Draft::default() };
    ann.submit(|_| Ok(Some(promote()))).await.unwrap();
    fetch(&mut bob).await.unwrap();
    assert_eq!(value(&bob, "production", "LIVE").unwrap(), "live-value");
}

#[tokio::test]
async fn member_cannot_change_members_and_last_admin_stays() {
    let mut team = Team::new();
    let mut ann = team.founder().await;
    let mut bob = team.join(&mut ann, "bob@acme.test", Role::Member, &[]).await;
    let (ann_id, bob_id) = (ann.identity().member, bob.identity().member);
    let promote = |member| Draft {
        operations: vec![Operation::Role { member, role: Role::Admin }],
        ..Draft::default()
    };
    assert!(matches!(bob.submit(|_| Ok(Some(promote(bob_id)))).await, Err(Error::Denied(_))));
    let demote = |member| Draft {
        operations: vec![Operation::Role { member, role: Role::Member }],
        ..Draft::default()
    };
    assert!(matches!(ann.submit(|_| Ok(Some(demote(ann_id)))).await, Err(Error::Refused(_))));
}

#[tokio::test]
async fn recovery_code_restores_identity() {
    let mut team = Team::new();
    let mut ann = team.founder().await;
    push(&mut ann, "development", "API_KEY", "first-value").await.unwrap();
    let code = Recovery::generate().unwrap();
    code.save(&team.remote(), ann.identity(), ann.pin().unwrap()).await.unwrap();
    let words = code.words().unwrap();
    let (identity, pin) = Recovery::from_words(&words).unwrap().restore(&team.remote()).await.unwrap();
    let cache = team.machine();
    cache.set_pin(pin).unwrap();
    let mut restored = Client::open(team.remote(), cache, identity).unwrap();
    fetch(&mut restored).await.unwrap();
    assert_eq!(value(&restored, "development", "API_KEY").unwrap(), "first-value");
    let other = Recovery::generate().unwrap();
    assert!(matches!(other.restore(&team.remote()).await, Err(Error::NotFound(_))));
    let mut wrong: Vec<&str> = words.split(' ').collect();
    wrong[11] = if wrong[11] == "zoo" { "abandon" } else { "zoo" };
    assert!(Recovery::from_words(&wrong.join(" ")).is_err() || wrong[11] == "zoo");
}

#[tokio::test]
async fn long_log_is_fetched_by_packs_and_offline_state_is_kept() {
    let mut team = Team::new();
    let mut ann = team.founder().await;
    for number in 0..140 {
        push(&mut ann, "development", &format!("KEY_{number}"), "some-value").await.unwrap();
    }
    let bob = team.join(&mut ann, "bob@acme.test", Role::Member, &[("development", Access::Read)]).await;
    let environment = bob.state().environment(&"development".parse().unwrap()).unwrap();
    assert_eq!(bob.state().secrets(environment).count(), 140);
    let offline = Client::open(
        Remote::over(Arc::new(InMemory::new())),
        Cache::at(team.machines[0].path()),
        Identity::from_secret(&ann.identity().to_secret().unwrap()).unwrap(),
    );
    assert_eq!(offline.unwrap().state().head(), ann.state().head());
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_pushes_are_all_kept() {
    let mut team = Team::new();
    let mut ann = team.founder().await;
    push(&mut ann, "development", "FIRST", "first-value").await.unwrap();
    let mut clients = Vec::new();
    for number in 0..8 {
        let email = format!("member{number}@acme.test");
        clients.push(team.join(&mut ann, &email, Role::Member, &[("development", Access::Write)]).await);
    }
    let pushing = clients.into_iter().enumerate().map(|(number, mut client)| {
        tokio::spawn(async move {
            for change in 0..5 {
                push(&mut client, "development", &format!("KEY_{number}_{change}"), "some-value")
                    .await
                    .unwrap();
                push(&mut client, "development", "SHARED", &format!("{number}-{change}")).await.unwrap();
            }
            client
        })
    });
    let mut heads = Vec::new();
    let mut finished = Vec::new();
    for task in pushing.collect::<Vec<_>>() {
        finished.push(task.await.unwrap());
    }
    for client in &mut finished {
        fetch(client).await.unwrap();
        let environment = client.state().environment(&"development".parse().unwrap()).unwrap();
        assert_eq!(client.state().secrets(environment).count(), 1 + 8 * 5 + 1);
        let shared =
            Address { environment, project: "shop".parse().unwrap(), name: "SHARED".parse().unwrap() };
        assert_eq!(client.state().history(&shared).len(), 40);
        heads.push(client.state().head());
    }
    assert!(heads.iter().all(|head| *head == heads[0]));
}
