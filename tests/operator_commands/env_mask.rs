//! `agentsecrets env --mask`: the command's output is shown immediately without the values.

use std::io::{Read, Write};
use std::process::Stdio;

use super::env::home;
use crate::end_to_end::SECRET;
use crate::support::process::run;

const MARKER: &str = "[REDACTED_BY_AGENTSECRETS]";

#[test]
fn mask_covers_both_streams_and_encodings() {
    let home = home();
    let script = "echo \"key $API_KEY.\"; printf %s \"$API_KEY\" | base64; echo \"$DB_PASSWORD\" >&2; \
                  printf 'no line break'; exit 5";
    let outcome = run(&mut home.agentsecrets(["env", "--mask", "--", "sh", "-c", script]));
    assert_eq!(outcome.code, Some(5));
    assert_eq!(outcome.stdout, format!("key {MARKER}.\n{MARKER}=\nno line break"));
    assert_eq!(outcome.stderr, format!("{MARKER}\n"));
}

#[test]
fn mask_covers_single_byte_writes() {
    let home = home();
    let script =
        "printf %s \"$API_KEY\" | while IFS= read -r -n1 c; do printf %s \"$c\"; sleep 0.1; done; echo .";
    let outcome =
        run(&mut home.agentsecrets(["env", "--mask", "--only", "API_KEY", "--", "bash", "-c", script]));
    assert_eq!(outcome.ok(), format!("{MARKER}.\n"));
}

#[test]
fn mask_shows_prompt_without_newline() {
    let home = home();
    let script = "printf 'Continue? '; read answer; echo \"$answer $API_KEY\"";
    let mut command = home.agentsecrets(["env", "--mask", "--", "sh", "-c", script]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut prompt = [0; 10];
    output.read_exact(&mut prompt).unwrap();
    assert_eq!(&prompt, b"Continue? ");
    input.write_all(b"yes\n").unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!((child.wait().unwrap().code(), rest), (Some(0), format!("yes {MARKER}\n")));
}

#[test]
fn mask_forwards_large_output_and_closed_pipe_ends_it() {
    let home = home();
    let copy = ["env", "--mask", "--", "head", "-c", "20000000", "/dev/zero"];
    assert_eq!(run(&mut home.agentsecrets(copy)).ok().len(), 20_000_000);
    let mut command = home.agentsecrets(["env", "--mask", "--", "yes", SECRET]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut some = vec![0; 1000];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    assert!(!String::from_utf8_lossy(&some).contains(SECRET));
    // As for any command whose reader is gone.
    assert_eq!(child.wait().unwrap().code(), Some(128 + 13));
}
