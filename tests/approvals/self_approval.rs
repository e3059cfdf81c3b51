//! An agent tries to approve its own request with everything it can reach.

use super::*;
use crate::support::process::command;

/// A pending request, and a script of the same agent that tries to approve it. `$1` is the home and `$2` the
/// program; the script also gets `$id` and `$digest`.
struct Attempt {
    fixture: Fixture,
    sees: ApprovalWatcher,
    copy: crate::operator_commands::AgentExecutable,
}

const SCRIPT_START: &str = r#"home=$1; program=$2; url=$3; own=$(mktemp -d)
curl -sS -o $own/told -w '%{http_code}' -H 'Authorization: Bearer AS_SECRET_API_KEY' $url >$own/status 2>/dev/null &
echo ready
read -r id digest
"#;
const SCRIPT_END: &str = r#"
wait
cat $own/status; rm -rf $own"#;

/// Writes the approval file with correct contents.
const WRITE_APPROVAL: &str = r#"umask 077; mkdir -p "$home/approvals" 2>/dev/null
printf '{"digest":"%s","verdict":"once","by":{"uid":0,"pid":1}}' "$digest" > "$home/approvals/$id.answer" 2>/dev/null"#;

impl Attempt {
    /// The request stays pending for `wait`, even when it is refused.
    fn new(wait: &str) -> Self {
        let fixture = fixture_with_approval(wait, "");
        let sees = ApprovalWatcher::start(&fixture.home);
        Self { fixture, sees, copy: crate::operator_commands::AgentExecutable::new() }
    }

    /// Runs `attempt` in the agent and returns the status of its request. `outside` runs at the same time in
    /// no sandbox.
    fn run(mut self, attempt: &str, outside: Option<&str>) -> (String, String) {
        let script = format!("{SCRIPT_START}{attempt}{SCRIPT_END}");
        let policy = self.fixture.home.path().join("policy.yaml");
        let before = std::fs::read(&policy).unwrap();
        let home = self.fixture.home.path();
        let (home, url) = (home.to_str().unwrap(), self.fixture.url("/pay"));
        let words = ["sh", "-c", &script, "sh", home, self.copy.path(), &url];
        let mut agent = RequestingAgent::start_program(self.fixture.home.run_agent(words));
        let question = self.sees.next();
        let (id, digest) = (question["id"].as_str().unwrap(), question["digest"].as_str().unwrap());
        if let Some(outside) = outside {
            let script = format!("home=$1; id=$2; digest=$3\n{outside}");
            run(command("sh").args(["-c", &script, "sh", home, id, digest])).ok();
        }
        agent.send(&format!("{id} {digest}"));
        let mut output = String::new();
        std::io::Read::read_to_string(&mut agent.output, &mut output).unwrap();
        assert_eq!(self.fixture.api.received().is_empty(), !output.ends_with("200"));
        assert_eq!(std::fs::read(policy).unwrap(), before, "it changed the policy");
        let at = output.len() - 3;
        (output[..at].to_owned(), output[at..].to_owned())
    }
}

#[test]
fn agent_commands_cannot_approve() {
    let attempt = r#"for words in "approve $id" "approve --session $id" "approve --always $id" "deny $id" approvals; do
  AGENTSECRETS_HOME=$home $program $words >/dev/null 2>&1; printf '%s ' $?
  env -i AGENTSECRETS_HOME=$home $program $words >/dev/null 2>&1; printf '%s ' $?
done"#;
    let (output, status) = Attempt::new("20s").run(attempt, None);
    assert_eq!((output.trim(), &*status), ("4 4 4 4 4 4 4 4 4 4", "403"));
}

#[test]
fn agent_cannot_write_an_approval_file() {
    let (_, status) = Attempt::new("5s").run(WRITE_APPROVAL, None);
    assert_eq!(status, "403");
    // Control: outside the sandbox the same bytes in the same place are an approval.
    let (_, status) = Attempt::new("30s").run("", Some(WRITE_APPROVAL));
    assert_eq!(status, "200", "the attempt does not bite");
}

#[test]
fn agent_cannot_reach_approval_files() {
    let attempt = r#"for at in "$home" "$home/approvals" "$home/approvals/$id.json" "/proc/1/root$home/approvals"; do
  ls "$at" >/dev/null 2>&1 && cat "$at"/* "$at" 2>/dev/null
done
ln -s "$home/approvals" $own/link; ls $own/link/ 2>/dev/null
for digit in 1 2 3 4 5 6 7 8 9; do for pid in /proc/$digit*; do ls "$pid/root$home/approvals" 2>/dev/null; done; done"#;
    let pending = Attempt::new("10s");
    let home = pending.fixture.home.path();
    let script = format!(
        "home=$1; id=none; own=$(mktemp -d); install -d -m 700 $home/approvals; touch $home/approvals/none.json; {attempt}; rm -rf $own"
    );
    let outside = run(command("sh").args(["-c", &script, "sh"]).arg(&home)).stdout;
    assert!(outside.contains("none.json"), "the attempt does not bite: {outside}");
    std::fs::remove_file(home.join("approvals/none.json")).unwrap();
    let (output, status) = pending.run(attempt, None);
    assert_eq!((output.trim(), &*status), ("", "403"));
}

#[test]
fn agent_policy_and_home_do_not_approve() {
    let attempt = r#"printf 'version: 1\nagents: []\n' > "$home/policy.yaml" 2>/dev/null
AGENTSECRETS_HOME=$own/home $program approve $id >/dev/null 2>&1; printf '%s' $?"#;
    let (output, status) = Attempt::new("10s").run(attempt, None);
    assert_eq!((output.trim(), &*status), ("4", "403"));
}

#[test]
fn agent_cannot_approve_over_any_socket() {
    let attempt = r#"/usr/bin/python3 - "$home" "$id" "$digest" "$3" <<'END'
import os, socket, sys
home, id, digest, url = sys.argv[1:]
answer = ('{"digest":"%s","verdict":"once","by":{"uid":0,"pid":1}}\n' % digest).encode()
tried = {'unix': 0, 'tcp': 0}
for line in open('/proc/net/unix').read().splitlines()[1:]:
    path = line.split()[-1]
    if not path.startswith(('/', '@')): continue
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        tried['unix'] += 1
        try:
            with socket.socket(socket.AF_UNIX, kind) as s:
                s.settimeout(0.05)
                s.connect(path.replace('@', '\0', 1)); s.send(b'approve ' + id.encode() + b'\n' + answer)
        except OSError: pass
for line in open('/proc/net/tcp').read().splitlines()[1:]:
    fields = line.split()
    if fields[3] == '0A':
        tried['tcp'] += 1
        s = socket.socket(); s.settimeout(0.05)
        try:
            s.connect(('127.0.0.1', int(fields[1].split(':')[1], 16)))
            s.send(b'POST /approve/' + id.encode() + b' HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n')
        except OSError: pass
        s.close()
print(tried['unix'], tried['tcp'], flush=True)
END
curl -sS -m 2 -o /dev/null -H "X-AS-Approval: $id" -H "X-AS-Approve: $digest" -X OPTIONS "$3" 2>/dev/null"#;
    let pending = Attempt::new("15s");
    // The script finds at least one, whatever else this machine has.
    let _socket = std::os::unix::net::UnixListener::bind(pending.fixture.home.path().join("socket")).unwrap();
    let (output, status) = pending.run(attempt, None);
    let tried: Vec<u32> = output.split_whitespace().map(|count| count.parse().unwrap()).collect();
    assert!(tried.len() == 2 && tried[0] >= 3 && tried[1] >= 1, "it did not try: {output}");
    assert_eq!(status, "403");
}

#[test]
fn approval_file_of_another_owner_is_ignored() {
    for (what, outside) in [
        (
            "others could have written it",
            format!("{WRITE_APPROVAL}\nchmod 666 \"$home/approvals/$id.answer\""),
        ),
        ("it is another user's", format!("{WRITE_APPROVAL}\nchown 65534 \"$home/approvals/$id.answer\"")),
        (
            "it is a link",
            format!(
                "{WRITE_APPROVAL}\nmv \"$home/approvals/$id.answer\" \"$home/x\"; ln -s \"$home/x\" \"$home/approvals/$id.answer\""
            ),
        ),
        ("it is about another request", WRITE_APPROVAL.replace("$digest\" >", "0$digest\" >")),
    ] {
        let (_, status) = Attempt::new("3s").run("", Some(&outside));
        assert_eq!(status, "403", "{what}");
    }
}
