//! Whose secrets are meant: projects and environments, who chooses them, and what a project file may say.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::spine::{SECRET, World};
use crate::support::home::{AGENTSECRETS, Home};
use crate::support::process::{Outcome, command, finish, finish_with};

/// A person in a working folder of their own.
struct Person {
    home: Home,
    working: tempfile::TempDir,
}

impl Person {
    fn new() -> Self {
        Self { home: Home::new(), working: tempfile::tempdir().unwrap() }
    }

    fn types(&self, line: &str) -> std::process::Command {
        let mut typed = command(AGENTSECRETS);
        typed.args(line.split_whitespace()).current_dir(self.working.path());
        typed.env("AGENTSECRETS_HOME", self.home.path()).env("AGENTSECRETS_VAULT_KEY_FILE", self.home.key());
        typed
    }

    #[track_caller]
    fn sees(&self, line: &str) -> Outcome {
        finish(&mut self.types(line))
    }

    #[track_caller]
    fn stores(&self, line: &str, value: &str) {
        finish_with(&mut self.types(&format!("{line} secrets set TOKEN")), value.as_bytes()).ok();
    }

    fn project_file(&self, text: &str) {
        let folder = self.working.path().join(".agentsecrets");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("project.json"), text).unwrap();
    }

    /// Project, environment, and who chose them.
    #[track_caller]
    fn applies(&self, typed: &mut std::process::Command) -> [String; 4] {
        let status = finish(typed.args(["status", "--json"])).json();
        ["project", "project_origin", "environment", "environment_origin"]
            .map(|name| status[name].as_str().unwrap().to_owned())
    }
}

#[test]
fn a_flag_comes_before_a_variable_a_project_file_the_persons_choice_and_the_default() {
    let person = Person::new();
    assert_eq!(person.applies(&mut person.types("")), ["default", "default", "development", "default"]);
    person.sees("project create mine").ok();
    person.sees("environment switch staging").ok();
    let scope = person.home.path().join("scope.json").display().to_string();
    assert_eq!(person.applies(&mut person.types("")), ["mine", &scope, "staging", &scope]);
    person.project_file(r#"{"project": "theirs", "environment": "qa"}"#);
    let file = person.working.path().join(".agentsecrets/project.json").display().to_string();
    assert_eq!(person.applies(&mut person.types("")), ["theirs", &file, "qa", &file]);
    let mut typed = person.types("");
    typed.env("AGENTSECRETS_PROJECT", "named").env("AS_ENV", "production");
    assert_eq!(person.applies(&mut typed), ["named", "AGENTSECRETS_PROJECT", "production", "AS_ENV"]);
    let mut typed = person.types("");
    typed.env("AGENTSECRETS_ENV", "development").env("AS_ENV", "production");
    assert_eq!(person.applies(&mut typed)[2..], ["development", "AGENTSECRETS_ENV"]);
    let mut typed = person.types("--project flagged --environment e2e");
    typed.env("AGENTSECRETS_PROJECT", "named").env("AGENTSECRETS_ENV", "production");
    assert_eq!(person.applies(&mut typed), ["flagged", "--project", "e2e", "--environment"]);
    let text = person.sees("status").ok();
    assert!(text.contains(&format!("theirs ({file})")) && text.contains(&format!("qa ({file})")), "{text}");
}

#[test]
fn switching_changes_the_project_file_where_there_is_one() {
    let person = Person::new();
    person.project_file(r#"{"project_name": "shop", "workspace_id": "w", "secrets": ["A"]}"#);
    person.sees("environment switch production").ok();
    let written = fs::read_to_string(person.working.path().join(".agentsecrets/project.json")).unwrap();
    let written: serde_json::Value = serde_json::from_str(&written).unwrap();
    let expected = serde_json::json!({
        "project_name": "shop", "workspace_id": "w", "secrets": ["A"], "environment": "production",
    });
    assert_eq!(written, expected);
    let applies = person.applies(&mut person.types(""));
    assert_eq!((&*applies[0], &*applies[2]), ("shop", "production"));
}

#[test]
fn secrets_are_copied_and_merged_between_environments() {
    let person = Person::new();
    person.stores("", "value-of-development");
    finish_with(&mut person.types("secrets set SHAPED --placeholder sk-proj-0000"), b"a-shaped-value").ok();
    let dry = person.sees("environment copy development staging --dry-run").ok();
    assert_eq!(dry, "SHAPED\nTOKEN\n");
    assert_eq!(person.sees("--environment staging secrets get TOKEN").code, Some(3));
    person.sees("environment copy development staging").ok();
    assert!(person.sees("--environment staging secrets get SHAPED").ok().contains("sk-proj-0000"));
    // What is there is not replaced unasked.
    let again = person.sees("environment copy development staging --only TOKEN");
    assert!(again.code == Some(1) && again.stderr.contains("--overwrite"), "{again:?}");
    person.stores("--environment production", "value-of-production");
    let merged = person.sees("environment merge development production");
    assert!(merged.code == Some(0) && merged.stderr.contains("stored 1 secrets"), "{merged:?}");
    let missing = person.sees("environment copy development staging --only NOT_THERE");
    assert_eq!(missing.code, Some(3), "{missing:?}");
    let own = person.sees("environment copy development mine");
    assert!(own.code == Some(0) && own.stderr.contains("mine is a new environment"), "{own:?}");
    assert!(person.sees("environment list").ok().contains("│ mine "));
}

#[test]
fn projects_are_made_listed_renamed_and_deleted() {
    let person = Person::new();
    person.sees("project create shop").ok();
    assert_eq!(person.sees("project create shop").code, Some(1));
    assert_eq!(person.sees("project use nowhere").code, Some(3));
    person.stores("", "value-of-the-shop");
    person.sees("project update shop --name store --description Goods").ok();
    person.sees("secrets get TOKEN").ok();
    assert_eq!(person.sees("--project shop secrets get TOKEN").code, Some(3));
    let listed = person.sees("project list --json").json();
    let store = listed.as_array().unwrap().iter().find(|project| project["name"] == "store").unwrap();
    assert_eq!((&store["description"], &store["active"]), (&"Goods".into(), &true.into()));
    let refused = person.sees("project delete store");
    assert!(refused.code == Some(1) && refused.stderr.contains("--force"), "{refused:?}");
    person.sees("project delete store --force").ok();
    assert_eq!(person.sees("--project store secrets get TOKEN").code, Some(3));
    assert_eq!(person.applies(&mut person.types(""))[0], "default");
    person.sees("project create bound --here").ok();
    assert!(person.working.path().join(".agentsecrets/project.json").exists());
}

/// The published package's own parsers, as its users call them.
#[test]
fn the_published_package_reads_projects_and_secrets() {
    let person = Person::new();
    person.sees("project create shop --description Goods").ok();
    person.sees("project create other").ok();
    person.stores("", "a-value-to-list");
    let bin = person.working.path().join("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(AGENTSECRETS, bin.join("agentsecrets")).unwrap();
    let program = "from agentsecrets.management.projects import ProjectsClient\n\
        from agentsecrets.management.secrets import SecretsClient\n\
        print([(p.name, p.description) for p in ProjectsClient().list()])\n\
        ProjectsClient().use('shop'); SecretsClient().set('FROM_SDK', 'a-value-of-the-sdk'); ProjectsClient().use('other')\n\
        print([s.key for s in SecretsClient().list()]); SecretsClient().delete('TOKEN')\n\
        print([s.key for s in SecretsClient().list()])\n";
    let mut python = command(crate::support::python::PYTHON);
    for (name, value) in person.types("").get_envs().filter_map(|(name, value)| Some((name, value?))) {
        python.env(name, value);
    }
    python.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    python.env("PYTHONPATH", crate::clients::packages().join("python")).current_dir(person.working.path());
    let printed = finish(python.args(["-c", program])).ok();
    let expected = "[('default', ''), ('shop', 'Goods'), ('other', '')]\n['TOKEN']\n[]\n";
    assert_eq!(printed, expected);
}

#[test]
fn a_project_file_that_would_widen_or_that_somebody_else_wrote_is_refused_and_nothing_starts() {
    let person = Person::new();
    for (text, told) in [
        (r#"{"allow": [{"host": "evil.net"}]}"#, "unknown field `allow`"),
        (r#"{"stores": ["vault"]}"#, "policy.yaml alone"),
        (r#"{"environment": "a b"}"#, "is not a valid environment"),
        ("nonsense", "project.json:1"),
    ] {
        person.project_file(text);
        for line in ["secrets list", "run -- echo started", "status"] {
            let outcome = person.sees(line);
            assert!(outcome.code != Some(0) && outcome.stderr.contains(told), "{text} {line}: {outcome:?}");
            assert!(!outcome.stdout.contains("started"), "{outcome:?}");
        }
    }
    person.project_file(r#"{"environment": "production"}"#);
    let file = person.working.path().join(".agentsecrets/project.json");
    std::os::unix::fs::chown(&file, Some(65534), None).unwrap();
    let outcome = person.sees("secrets list");
    assert!(outcome.stderr.contains("belongs to another user"), "{outcome:?}");
    std::os::unix::fs::chown(&file, Some(0), None).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o646)).unwrap();
    assert!(person.sees("secrets list").stderr.contains("chmod o-w"));
}

#[test]
fn a_project_file_narrows_what_an_agent_may_spend_and_where() {
    let world = World::new();
    let open = fs::Permissions::from_mode(0o755);
    let working = tempfile::Builder::new().permissions(open).tempdir().unwrap();
    fs::create_dir(working.path().join(".agentsecrets")).unwrap();
    let file = working.path().join(".agentsecrets/project.json");
    let curl = |text: &str| {
        fs::write(&file, text).unwrap();
        let mut curl = world.home.run_agent([
            "curl",
            "-sS",
            "-w",
            "\n%{http_code}",
            "-H",
            "Authorization: Bearer AS_SECRET_API_KEY",
        ]);
        finish(curl.arg(world.url("/echo")).current_dir(working.path()))
    };
    let whole = curl(r#"{"hosts": ["api.test"], "secrets": ["API_KEY"], "agents": ["coder"]}"#);
    assert!(whole.stdout.ends_with("\n200"), "{whole:?}");
    assert!(whole.stderr.contains("project default, environment development, as "), "{whole:?}");
    assert_eq!(world.api.only().header("authorization"), format!("Bearer {SECRET}"));
    let host = curl(r#"{"hosts": ["api.stripe.com"]}"#);
    assert!(
        host.stdout.contains("domain_not_in_allowlist") && host.stdout.contains("project.json"),
        "{host:?}"
    );
    let secret = curl(r#"{"secrets": ["OTHER_KEY"]}"#);
    assert!(!secret.stdout.ends_with("\n200"), "{secret:?}");
    let agent = curl(r#"{"agents": ["other"]}"#);
    assert!(!agent.stdout.ends_with("\n200"), "{agent:?}");
    let environment = curl(r#"{"environment": "production"}"#);
    assert!(environment.stdout.contains("not found in keychain"), "{environment:?}");
    assert_eq!(world.api.received().len(), 1, "nothing else got through");
}

#[test]
fn a_project_file_narrows_what_a_person_hands_to_a_command() {
    let person = Person::new();
    person.stores("", "a-value-of-the-token");
    finish_with(&mut person.types("secrets set OTHER"), b"a-value-of-another").ok();
    let printed = person.sees("env -- printenv TOKEN").ok();
    assert_eq!(printed, "a-value-of-the-token\n");
    person.project_file(r#"{"secrets": ["OTHER"]}"#);
    assert_eq!(person.sees("env -- printenv TOKEN").code, Some(1), "it is not set");
    assert_eq!(person.sees("env -- printenv OTHER").ok(), "a-value-of-another\n");
    let named = person.sees("env --only TOKEN -- printenv TOKEN");
    assert!(named.code != Some(0) && named.stderr.contains("leaves TOKEN out"), "{named:?}");
}

#[test]
fn an_agent_cannot_change_the_project_file_nor_put_one_there_unseen() {
    let world = World::new();
    let open = fs::Permissions::from_mode(0o777);
    let working = tempfile::tempdir().unwrap();
    fs::set_permissions(working.path(), open.clone()).unwrap();
    let mut agent = world.home.run_agent([
        "sh",
        "-c",
        "mkdir .agentsecrets && echo '{}' > .agentsecrets/project.json && echo made",
    ]);
    let outcome = finish(agent.current_dir(working.path()));
    assert!(
        outcome.stdout.contains("made") && outcome.stderr.contains(".agentsecrets is new"),
        "{outcome:?}"
    );
    fs::set_permissions(working.path().join(".agentsecrets"), open).unwrap();
    fs::remove_file(working.path().join(".agentsecrets/project.json")).unwrap();
    let file = working.path().join(".agentsecrets/project.json");
    fs::write(&file, "{}").unwrap();
    let script = "echo '{\"environment\": \"production\"}' > .agentsecrets/project.json; rm -f .agentsecrets/project.json; mv \
                  .agentsecrets moved; echo tried";
    let outcome = finish(world.home.run_agent(["sh", "-c", script]).current_dir(working.path()));
    assert!(outcome.stdout.contains("tried"), "{outcome:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "{}");
}
