//! A vault whose writer is killed in the middle is one whole version, with every value that was reported as
//! stored.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::tests::{TestVault, key, secret, shown};
use super::*;

/// Not a test: what the others start as processes of their own, and kill.
#[test]
fn endless_writer() {
    let (Some(path), Ok(writer)) = (std::env::var_os("VAULT_TEST_PATH"), std::env::var("VAULT_TEST_WRITER"))
    else {
        return;
    };
    let path = PathBuf::from(path);
    let vault = Vault::open_or_create(&path, &Unlock::KeyFile(path.with_file_name("key"))).unwrap();
    let start: u64 = std::env::var("VAULT_TEST_START").unwrap().parse().unwrap();
    for n in start.. {
        // Two names take turns, so that the vault stays small and every value is told apart.
        vault.set(&key(&format!("K{writer}_{}", n % 2)), secret(format!("value {n}")), None).unwrap();
        println!("\nstored {n}");
    }
}

/// A writer, as a process.
struct Writer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Writer {
    fn start(test_vault: &TestVault, name: &str, from: u64) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "vault::kill_tests::endless_writer", "--nocapture"]);
        command.env("VAULT_TEST_PATH", test_vault.path()).env("VAULT_TEST_WRITER", name);
        command.env("VAULT_TEST_START", from.to_string());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The number of the next value that it says is stored.
    fn stored(&mut self) -> Option<u64> {
        self.lines.by_ref().map_while(Result::ok).find_map(|line| line.strip_prefix("stored ")?.parse().ok())
    }

    /// Kills it, and says what was the last that it had stored.
    fn kill(mut self) -> Option<u64> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::iter::from_fn(|| self.stored()).last()
    }
}

/// Kills a writer `times` times while another writes and this process reads.
fn kill(times: u64) {
    let test_vault = TestVault::new();
    let reader = test_vault.make();
    let mut survivor = Writer::start(&test_vault, "S", 0);
    survivor.stored().unwrap();
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    let (mut next, mut generation) = (0, 0);
    for round in 0..times {
        let mut victim = Writer::start(&test_vault, "V", next);
        for _ in 0..=round % 3 {
            let n = victim.stored().expect("the writer writes");
            last.insert(n % 2, n);
        }
        // Somewhere in what comes next.
        for _ in 0..(round * 7919) % 5000 {
            std::hint::black_box(round);
        }
        if let Some(n) = victim.kill() {
            last.insert(n % 2, n);
        }
        let vault = test_vault.open().expect("one whole version");
        for (turn, stored) in &last {
            let value = String::from_utf8(shown(&vault, &format!("KV_{turn}")).unwrap()).unwrap();
            let there: u64 = value.strip_prefix("value ").unwrap().parse().unwrap();
            // What it had no time to speak of may be there as well; what it spoke of is.
            assert!(there >= *stored && (there - stored).is_multiple_of(2), "{there} instead of {stored}");
            next = next.max(there + 1);
        }
        // Who had it open all the time sees the same.
        let now = reader.version().unwrap();
        assert!(now > generation, "the other writer goes on");
        generation = now;
        shown(&reader, "KS_0").unwrap();
    }
    let n = survivor.kill().unwrap();
    let vault = test_vault.open().unwrap();
    let value = String::from_utf8(shown(&vault, &format!("KS_{}", n % 2)).unwrap()).unwrap();
    assert!(value.strip_prefix("value ").unwrap().parse::<u64>().unwrap() >= n);
    // The lock of a killed writer holds nobody up, and what it left behind is no vault.
    vault.set(&key("NEXT"), secret("n"), None).unwrap();
}

#[test]
fn killed_writer_leaves_vault_intact() {
    kill(20);
}

#[test]
#[ignore = "long: 200 kills in mid-write, about half a minute"]
fn two_hundred_killed_writers_leave_vault_intact() {
    kill(200);
}
