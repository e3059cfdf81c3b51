//! Keychain-Auth: a secret is used by the program that is trusted for it, and by no program that resembles it
//! or borrows its name, its bytes or its process. `agentsecrets/docs/trust.md` lists the attacks.

mod commands;
mod explicit_proxy;
mod impersonation;
mod loaded_code;
mod whoami;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use crate::end_to_end::{Fixture, SECRET};
use crate::support::process::{Outcome, command, run};

/// A fixture with a program that the agent can start but not change, and a folder that the agent can write.
struct TrustFixture {
    base: Fixture,
    folder: tempfile::TempDir,
}

impl TrustFixture {
    fn new() -> Self {
        let open = fs::Permissions::from_mode(0o755);
        let folder = tempfile::Builder::new().permissions(open).tempdir_in("/tmp").unwrap();
        let fixture = Self { base: Fixture::new(), folder };
        fs::create_dir(fixture.path_text("own")).unwrap();
        chown(fixture.path_text("own"), Some(65534), Some(65534)).unwrap();
        fs::copy("/usr/bin/curl", fixture.path_text("tool")).unwrap();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    fn path_text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Builds one of our C programs.
    fn build(&self, name: &str, source: &str, more: &[&str]) -> String {
        let (from, to) = (self.path_text(&format!("{name}.c")), self.path_text(name));
        fs::write(&from, source).unwrap();
        run(command("gcc").args(["-O1", "-o", &to, &from]).args(more)).ok();
        to
    }

    /// `agentsecrets trust` as the operator.
    #[track_caller]
    fn trust(&self, words: &[&str]) -> Outcome {
        run(self.base.home.agentsecrets(["trust"]).args(words))
    }

    /// The statuses that an agent's script prints, by name. In it `ask NAME PROGRAM` makes a program like
    /// curl request `/NAME` with the secret.
    #[track_caller]
    fn statuses(&self, script: &str) -> Vec<(String, String)> {
        let printed = run(&mut self.base.home.run_agent(["sh", "-c", &self.script(script)])).ok();
        let pair = |line: &str| line.split_once(' ').map(|(name, code)| (name.to_owned(), code.to_owned()));
        printed.lines().filter_map(pair).collect()
    }

    fn script(&self, script: &str) -> String {
        let (own, folder, tool) = (self.path_text("own"), self.path_text(""), self.path_text("tool"));
        let url = self.base.url("");
        format!(
            "cd {own}; folder={folder}; tool={tool}; url={url}
            ask() {{ name=$1; shift; printf '%s ' $name; \"$@\" -sS -o answer -w '%{{http_code}}\\n' \
                -H 'Authorization: Bearer AS_SECRET_API_KEY' $url/$name; }}
            {script}"
        )
    }

    /// The paths requested with the secret; fails if there was another request.
    #[track_caller]
    fn spent_paths(&self) -> Vec<String> {
        let received = self.base.api.received();
        for request in &received {
            assert_eq!(request.header("authorization"), format!("Bearer {SECRET}"), "{}", request.path);
        }
        received.into_iter().map(|request| request.path).collect()
    }
}

/// Expected statuses in the form of a script's output.
fn expected_statuses(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, code)| ((*name).to_owned(), (*code).to_owned())).collect()
}

/// The manual's table names existing tests.
#[test]
fn trust_table_names_existing_tests() {
    let table = include_str!("../../agentsecrets/docs/trust.md");
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/trust");
    let named: Vec<(&str, &str)> = table.split('`').filter_map(|word| word.split_once("::")).collect();
    assert!(named.len() >= 8, "{named:?}");
    for (module, test) in named {
        let text = fs::read_to_string(folder.join(format!("{module}.rs"))).unwrap();
        assert!(text.contains(&format!("fn {test}()")), "{module}::{test}");
    }
}
