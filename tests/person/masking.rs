//! `agentsecrets env --mask`: what the command prints is shown without the values, at once.

use std::io::{Read, Write};
use std::process::Stdio;

use super::env::home;
use crate::spine::SECRET;
use crate::support::process::finish;

const MARKER: &str = "[REDACTED_BY_AGENTSECRETS]";

#[test]
fn values_are_taken_out_of_both_streams_in_every_encoding() {
    let home = home();
    let script = "echo \"key $API_KEY.\"; printf %s \"$API_KEY\" | base64; echo \"$DB_PASSWORD\" >&2; \
                  printf 'no line break'; exit 5";
    let outcome = finish(&mut home.agentsecrets(["env", "--mask", "--", "sh", "-c", script]));
    assert_eq!(outcome.code, Some(5));
    assert_eq!(outcome.stdout, format!("key {MARKER}.\n{MARKER}=\nno line break"));
    assert_eq!(outcome.stderr, format!("{MARKER}\n"));
}

#[test]
fn a_value_that_is_written_letter_by_letter_is_masked_too() {
    let home = home();
    let script =
        "printf %s \"$API_KEY\" | while IFS= read -r -n1 c; do printf %s \"$c\"; sleep 0.1; done; echo .";
    let outcome =
        finish(&mut home.agentsecrets(["env", "--mask", "--only", "API_KEY", "--", "bash", "-c", script]));
    assert_eq!(outcome.ok(), format!("{MARKER}.\n"));
}

#[test]
fn a_prompt_without_a_line_break_is_shown_while_the_command_waits() {
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
fn a_large_output_is_passed_on_whole_and_a_reader_who_leaves_ends_it() {
    let home = home();
    let copy = ["env", "--mask", "--", "head", "-c", "20000000", "/dev/zero"];
    assert_eq!(finish(&mut home.agentsecrets(copy)).ok().len(), 20_000_000);
    let mut command = home.agentsecrets(["env", "--mask", "--", "yes", SECRET]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut some = vec![0; 1000];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    assert!(!String::from_utf8_lossy(&some).contains(SECRET));
    // As for any command whose reader is gone.
    assert_eq!(child.wait().unwrap().code(), Some(128 + 13));
}
