//! Keychain-Auth: a secret is spent by the program that was trusted for it, and by nothing that resembles it or
//! borrows its name, its bytes or its process. `agentsecrets/docs/trust.md` is the table of all this.

mod attacks;
mod bounds;
mod commands;
mod outside;
mod whoami;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use crate::spine::{SECRET, World};
use crate::support::process::{Outcome, command, finish};

/// A world with a program that the agent can start and not change, and a folder where the agent can do what it
/// likes.
struct Arena {
    world: World,
    folder: tempfile::TempDir,
}

impl Arena {
    fn new() -> Self {
        let open = fs::Permissions::from_mode(0o755);
        let folder = tempfile::Builder::new().permissions(open).tempdir_in("/tmp").unwrap();
        let arena = Self { world: World::new(), folder };
        fs::create_dir(arena.at("own")).unwrap();
        chown(arena.at("own"), Some(65534), Some(65534)).unwrap();
        fs::copy("/usr/bin/curl", arena.at("tool")).unwrap();
        arena
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Builds one of our programs in C.
    fn build(&self, name: &str, source: &str, more: &[&str]) -> String {
        let (from, to) = (self.at(&format!("{name}.c")), self.at(name));
        fs::write(&from, source).unwrap();
        finish(command("gcc").args(["-O1", "-o", &to, &from]).args(more)).ok();
        to
    }

    /// `agentsecrets trust` as a person says it.
    #[track_caller]
    fn trust(&self, words: &[&str]) -> Outcome {
        finish(self.world.home.agentsecrets(["trust"]).args(words))
    }

    /// The statuses that an agent's script prints, by their names. In it `ask NAME PROGRAM` has a program like
    /// curl ask the server for `/NAME` with the secret.
    #[track_caller]
    fn statuses(&self, script: &str) -> Vec<(String, String)> {
        let printed = finish(&mut self.world.home.run_agent(["sh", "-c", &self.script(script)])).ok();
        let pair = |line: &str| line.split_once(' ').map(|(name, code)| (name.to_owned(), code.to_owned()));
        printed.lines().filter_map(pair).collect()
    }

    fn script(&self, script: &str) -> String {
        let (own, folder, tool) = (self.at("own"), self.at(""), self.at("tool"));
        let url = self.world.url("");
        format!(
            "cd {own}; folder={folder}; tool={tool}; url={url}
            ask() {{ name=$1; shift; printf '%s ' $name; \"$@\" -sS -o answer -w '%{{http_code}}\\n' \
                -H 'Authorization: Bearer AS_SECRET_API_KEY' $url/$name; }}
            {script}"
        )
    }

    /// The paths that the server was asked for with the secret, and nothing else that it was asked for.
    #[track_caller]
    fn spent(&self) -> Vec<String> {
        let received = self.world.api.received();
        for request in &received {
            assert_eq!(request.header("authorization"), format!("Bearer {SECRET}"), "{}", request.path);
        }
        received.into_iter().map(|request| request.path).collect()
    }
}

/// What was expected of a script, in the form of what it printed.
fn expected(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, code)| ((*name).to_owned(), (*code).to_owned())).collect()
}

/// The manual's table names tests that exist.
#[test]
fn the_table_of_attacks_names_tests_that_are_here() {
    let table = include_str!("../../agentsecrets/docs/trust.md");
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/trust");
    let named: Vec<(&str, &str)> = table.split('`').filter_map(|word| word.split_once("::")).collect();
    assert!(named.len() >= 8, "{named:?}");
    for (module, test) in named {
        let text = fs::read_to_string(folder.join(format!("{module}.rs"))).unwrap();
        assert!(text.contains(&format!("fn {test}()")), "{module}::{test}");
    }
}
