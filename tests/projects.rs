//! Projects and environments: selection, precedence, and project files.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::end_to_end::{Fixture, SECRET};
use crate::support::home::{AGENTSECRETS, Home};
use crate::support::process::{Outcome, command, run, run_with_input};

/// An operator in a working folder.
struct Operator {
    home: Home,
    working: tempfile::TempDir,
}

impl Operator {
    fn new() -> Self {
        Self { home: Home::new(), working: tempfile::tempdir().unwrap() }
    }

    fn command(&self, line: &str) -> std::process::Command {
        let mut typed = command(AGENTSECRETS);
        typed.args(line.split_whitespace()).current_dir(self.working.path());
        typed.env("AGENTSECRETS_HOME", self.home.path()).env("AGENTSECRETS_VAULT_KEY_FILE", self.home.key());
        typed
    }

    #[track_caller]
    fn run(&self, line: &str) -> Outcome {
        run(&mut self.command(line))
    }

    #[track_caller]
    fn set_token(&self, line: &str, value: &str) {
        run_with_input(&mut self.command(&format!("{line} secrets set TOKEN")), value.as_bytes()).ok();
    }

    fn write_project_file(&self, text: &str) {
        let folder = self.working.path().join(".agentsecrets");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("project.json"), text).unwrap();
    }

    /// Project and environment, each with its origin.
    #[track_caller]
    fn project_and_origins(&self, typed: &mut std::process::Command) -> [String; 4] {
        let status = run(typed.args(["status", "--json"])).json();
        ["project", "project_origin", "environment", "environment_origin"]
            .map(|name| status[name].as_str().unwrap().to_owned())
    }
}

#[test]
fn project_precedence_is_flag_variable_file_choice_default() {
    let person = Operator::new();
    assert_eq!(
        person.project_and_origins(&mut person.command("")),
        ["default", "default", "development", "default"]
    );
    person.run("project create mine").ok();
    person.run("environment switch staging").ok();
    let scope = person.home.path().join("scope.json").display().to_string();
    assert_eq!(person.project_and_origins(&mut person.command("")), ["mine", &scope, "staging", &scope]);
    person.write_project_file(r#"{"project": "theirs", "environment": "qa"}"#);
    let file = person.working.path().join(".agentsecrets/project.json").display().to_string();
    assert_eq!(person.project_and_origins(&mut person.command("")), ["theirs", &file, "qa", &file]);
    let mut typed = person.command("");
    typed.env("AGENTSECRETS_PROJECT", "named").env("AS_ENV", "production");
    assert_eq!(
        person.project_and_origins(&mut typed),
        ["named", "AGENTSECRETS_PROJECT", "production", "AS_ENV"]
    );
    let mut typed = person.command("");
    typed.env("AGENTSECRETS_ENV", "development").env("AS_ENV", "production");
    assert_eq!(person.project_and_origins(&mut typed)[2..], ["development", "AGENTSECRETS_ENV"]);
    let mut typed = person.command("--project flagged --environment e2e");
    typed.env("AGENTSECRETS_PROJECT", "named").env("AGENTSECRETS_ENV", "production");
    assert_eq!(person.project_and_origins(&mut typed), ["flagged", "--project", "e2e", "--environment"]);
    let text = person.run("status").ok();
    assert!(text.contains(&format!("theirs ({file})")) && text.contains(&format!("qa ({file})")), "{text}");
}

#[test]
fn environment_switch_updates_project_file() {
    let person = Operator::new();
    person.write_project_file(r#"{"project_name": "shop", "workspace_id": "w", "secrets": ["A"]}"#);
    person.run("environment switch production").ok();
    let written = fs::read_to_string(person.working.path().join(".agentsecrets/project.json")).unwrap();
    let written: serde_json::Value = serde_json::from_str(&written).unwrap();
    let expected = serde_json::json!({
        "project_name": "shop", "workspace_id": "w", "secrets": ["A"], "environment": "production",
    });
    assert_eq!(written, expected);
    let applies = person.project_and_origins(&mut person.command(""));
    assert_eq!((&*applies[0], &*applies[2]), ("shop", "production"));
}

#[test]
fn environment_copy_and_merge_work() {
    let person = Operator::new();
    person.set_token("", "value-of-development");
    run_with_input(&mut person.command("secrets set SHAPED --placeholder sk-proj-0000"), b"a-shaped-value")
        .ok();
    let dry = person.run("environment copy development staging --dry-run").ok();
    assert_eq!(dry, "SHAPED\nTOKEN\n");
    assert_eq!(person.run("--environment staging secrets get TOKEN").code, Some(3));
    person.run("environment copy development staging").ok();
    assert!(person.run("--environment staging secrets get SHAPED").ok().contains("sk-proj-0000"));
    // Existing secrets are not replaced by default.
    let again = person.run("environment copy development staging --only TOKEN");
    assert!(again.code == Some(1) && again.stderr.contains("--overwrite"), "{again:?}");
    person.set_token("--environment production", "value-of-production");
    let merged = person.run("environment merge development production");
    assert!(merged.code == Some(0) && merged.stderr.contains("stored 1 secrets"), "{merged:?}");
    let missing = person.run("environment copy development staging --only NOT_THERE");
    assert_eq!(missing.code, Some(3), "{missing:?}");
    let own = person.run("environment copy development mine");
    assert!(own.code == Some(0) && own.stderr.contains("mine is a new environment"), "{own:?}");
    assert!(person.run("environment list").ok().contains("│ mine "));
}

#[test]
fn project_commands_work() {
    let person = Operator::new();
    person.run("project create shop").ok();
    assert_eq!(person.run("project create shop").code, Some(1));
    assert_eq!(person.run("project use nowhere").code, Some(3));
    person.set_token("", "value-of-the-shop");
    person.run("project update shop --name store --description Goods").ok();
    person.run("secrets get TOKEN").ok();
    assert_eq!(person.run("--project shop secrets get TOKEN").code, Some(3));
    let listed = person.run("project list --json").json();
    let store = listed.as_array().unwrap().iter().find(|project| project["name"] == "store").unwrap();
    assert_eq!((&store["description"], &store["active"]), (&"Goods".into(), &true.into()));
    let refused = person.run("project delete store");
    assert!(refused.code == Some(1) && refused.stderr.contains("--force"), "{refused:?}");
    person.run("project delete store --force").ok();
    assert_eq!(person.run("--project store secrets get TOKEN").code, Some(3));
    assert_eq!(person.project_and_origins(&mut person.command(""))[0], "default");
    person.run("project create bound --here").ok();
    assert!(person.working.path().join(".agentsecrets/project.json").exists());
}

/// The published package's own parsers.
#[test]
fn published_package_reads_projects_and_secrets() {
    let person = Operator::new();
    person.run("project create shop --description Goods").ok();
    person.run("project create other").ok();
    person.set_token("", "a-value-to-list");
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
    for (name, value) in person.command("").get_envs().filter_map(|(name, value)| Some((name, value?))) {
        python.env(name, value);
    }
    python.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    python.env("PYTHONPATH", crate::clients::packages().join("python")).current_dir(person.working.path());
    let printed = run(python.args(["-c", program])).ok();
    let expected = "[('default', ''), ('shop', 'Goods'), ('other', '')]\n['TOKEN']\n[]\n";
    assert_eq!(printed, expected);
}

#[test]
fn widening_or_foreign_project_file_is_refused() {
    let person = Operator::new();
    for (text, message) in [
        (r#"{"allow": [{"host": "evil.net"}]}"#, "unknown field `allow`"),
        (r#"{"stores": ["vault"]}"#, "policy.yaml alone"),
        (r#"{"environment": "a b"}"#, "is not a valid environment"),
        ("nonsense", "project.json:1"),
    ] {
        person.write_project_file(text);
        for line in ["secrets list", "run -- echo started", "status"] {
            let outcome = person.run(line);
            assert!(
                outcome.code != Some(0) && outcome.stderr.contains(message),
                "{text} {line}: {outcome:?}"
            );
            assert!(!outcome.stdout.contains("started"), "{outcome:?}");
        }
    }
    person.write_project_file(r#"{"environment": "production"}"#);
    let file = person.working.path().join(".agentsecrets/project.json");
    std::os::unix::fs::chown(&file, Some(65534), None).unwrap();
    let outcome = person.run("secrets list");
    assert!(outcome.stderr.contains("belongs to another user"), "{outcome:?}");
    std::os::unix::fs::chown(&file, Some(0), None).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o646)).unwrap();
    assert!(person.run("secrets list").stderr.contains("chmod o-w"));
}

#[test]
fn project_file_narrows_agent() {
    let fixture = Fixture::new();
    let open = fs::Permissions::from_mode(0o755);
    let working = tempfile::Builder::new().permissions(open).tempdir().unwrap();
    fs::create_dir(working.path().join(".agentsecrets")).unwrap();
    let file = working.path().join(".agentsecrets/project.json");
    let curl = |text: &str| {
        fs::write(&file, text).unwrap();
        let mut curl = fixture.home.run_agent([
            "curl",
            "-sS",
            "-w",
            "\n%{http_code}",
            "-H",
            "Authorization: Bearer AS_SECRET_API_KEY",
        ]);
        run(curl.arg(fixture.url("/echo")).current_dir(working.path()))
    };
    let whole = curl(r#"{"hosts": ["api.test"], "secrets": ["API_KEY"], "agents": ["coder"]}"#);
    assert!(whole.stdout.ends_with("\n200"), "{whole:?}");
    assert!(whole.stderr.contains("project default, environment development, as "), "{whole:?}");
    assert_eq!(fixture.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
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
    assert_eq!(fixture.api.received().len(), 1, "nothing else got through");
}

#[test]
fn project_file_narrows_env() {
    let person = Operator::new();
    person.set_token("", "a-value-of-the-token");
    run_with_input(&mut person.command("secrets set OTHER"), b"a-value-of-another").ok();
    let printed = person.run("env -- printenv TOKEN").ok();
    assert_eq!(printed, "a-value-of-the-token\n");
    person.write_project_file(r#"{"secrets": ["OTHER"]}"#);
    assert_eq!(person.run("env -- printenv TOKEN").code, Some(1), "it is not set");
    assert_eq!(person.run("env -- printenv OTHER").ok(), "a-value-of-another\n");
    let named = person.run("env --only TOKEN -- printenv TOKEN");
    assert!(named.code != Some(0) && named.stderr.contains("leaves TOKEN out"), "{named:?}");
}

#[test]
fn agent_cannot_change_project_file() {
    let fixture = Fixture::new();
    let open = fs::Permissions::from_mode(0o777);
    let working = tempfile::tempdir().unwrap();
    fs::set_permissions(working.path(), open.clone()).unwrap();
    let mut agent = fixture.home.run_agent([
        "sh",
        "-c",
        "mkdir .agentsecrets && echo '{}' > .agentsecrets/project.json && echo made",
    ]);
    let outcome = run(agent.current_dir(working.path()));
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
    let outcome = run(fixture.home.run_agent(["sh", "-c", script]).current_dir(working.path()));
    assert!(outcome.stdout.contains("tried"), "{outcome:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "{}");
}
