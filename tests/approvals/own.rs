//! An agent tries to approve its own request, with everything in its reach.

use super::*;
use crate::support::process::command;

/// A held request, and an attempt of the same agent to have it pass. `$1` is the home, `$2` the program; the
/// attempt may use `$id` and `$digest`, which it is even told.
struct Attempt {
    world: World,
    sees: Watching,
    copy: crate::person::AgentsCopy,
}

const BEFORE: &str = r#"home=$1; program=$2; url=$3; own=$(mktemp -d)
curl -sS -o $own/told -w '%{http_code}' -H 'Authorization: Bearer AS_SECRET_API_KEY' $url >$own/status 2>/dev/null &
echo ready
read -r id digest
"#;
const AFTER: &str = r#"
wait
cat $own/status; rm -rf $own"#;

/// Writing the answer file oneself, knowing all that is in it.
const WRITE: &str = r#"umask 077; mkdir -p "$home/approvals" 2>/dev/null
printf '{"digest":"%s","verdict":"once","by":{"uid":0,"pid":1}}' "$digest" > "$home/approvals/$id.answer" 2>/dev/null"#;

impl Attempt {
    /// The request waits so long, and no less if it is refused.
    fn new(wait: &str) -> Self {
        let world = holding(wait, "");
        let sees = Watching::at(&world.home);
        Self { world, sees, copy: crate::person::AgentsCopy::new() }
    }

    /// The status with which the request of an agent ends that runs `attempt` meanwhile. `outside` is run at the
    /// same time by a program that is in no sandbox.
    fn by(mut self, attempt: &str, outside: Option<&str>) -> (String, String) {
        let script = format!("{BEFORE}{attempt}{AFTER}");
        let policy = self.world.home.path().join("policy.yaml");
        let before = std::fs::read(&policy).unwrap();
        let home = self.world.home.path();
        let (home, url) = (home.to_str().unwrap(), self.world.url("/pay"));
        let words = ["sh", "-c", &script, "sh", home, self.copy.path(), &url];
        let mut agent = Asking::as_program(self.world.home.run_agent(words));
        let question = self.sees.next();
        let (id, digest) = (question["id"].as_str().unwrap(), question["digest"].as_str().unwrap());
        if let Some(outside) = outside {
            let script = format!("home=$1; id=$2; digest=$3\n{outside}");
            finish(command("sh").args(["-c", &script, "sh", home, id, digest])).ok();
        }
        agent.ask(&format!("{id} {digest}"));
        let mut said = String::new();
        std::io::Read::read_to_string(&mut agent.says, &mut said).unwrap();
        assert_eq!(self.world.api.received().is_empty(), !said.ends_with("200"));
        assert_eq!(std::fs::read(policy).unwrap(), before, "it changed the policy");
        let at = said.len() - 3;
        (said[..at].to_owned(), said[at..].to_owned())
    }
}

#[test]
fn by_our_own_commands() {
    let attempt = r#"for words in "approve $id" "approve --session $id" "approve --always $id" "deny $id" approvals; do
  AGENTSECRETS_HOME=$home $program $words >/dev/null 2>&1; printf '%s ' $?
  env -i AGENTSECRETS_HOME=$home $program $words >/dev/null 2>&1; printf '%s ' $?
done"#;
    let (said, status) = Attempt::new("20s").by(attempt, None);
    assert_eq!((said.trim(), &*status), ("4 4 4 4 4 4 4 4 4 4", "403"));
}

#[test]
fn by_writing_the_answer_as_the_person_would() {
    let (_, status) = Attempt::new("5s").by(WRITE, None);
    assert_eq!(status, "403");
    // The measure off: outside the sandbox the same bytes at the same place are an approval.
    let (_, status) = Attempt::new("30s").by("", Some(WRITE));
    assert_eq!(status, "200", "the attempt does not bite");
}

#[test]
fn by_guessing_files() {
    let attempt = r#"for at in "$home" "$home/approvals" "$home/approvals/$id.json" "/proc/1/root$home/approvals"; do
  ls "$at" >/dev/null 2>&1 && cat "$at"/* "$at" 2>/dev/null
done
ln -s "$home/approvals" $own/link; ls $own/link/ 2>/dev/null
for digit in 1 2 3 4 5 6 7 8 9; do for pid in /proc/$digit*; do ls "$pid/root$home/approvals" 2>/dev/null; done; done"#;
    let held = Attempt::new("10s");
    let home = held.world.home.path();
    let script = format!(
        "home=$1; id=none; own=$(mktemp -d); install -d -m 700 $home/approvals; touch $home/approvals/none.json; {attempt}; rm -rf $own"
    );
    let outside = finish(command("sh").args(["-c", &script, "sh"]).arg(&home)).stdout;
    assert!(outside.contains("none.json"), "the attempt does not bite: {outside}");
    std::fs::remove_file(home.join("approvals/none.json")).unwrap();
    let (said, status) = held.by(attempt, None);
    assert_eq!((said.trim(), &*status), ("", "403"));
}

#[test]
fn by_policy_and_by_another_home() {
    let attempt = r#"printf 'version: 1\nagents: []\n' > "$home/policy.yaml" 2>/dev/null
AGENTSECRETS_HOME=$own/home $program approve $id >/dev/null 2>&1; printf '%s' $?"#;
    let (said, status) = Attempt::new("10s").by(attempt, None);
    assert_eq!((said.trim(), &*status), ("4", "403"));
}

#[test]
fn by_speaking_to_every_socket_in_reach_and_by_asking_us() {
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
    let held = Attempt::new("15s");
    // One at least that it finds, whatever else this machine has.
    let _socket = std::os::unix::net::UnixListener::bind(held.world.home.path().join("socket")).unwrap();
    let (said, status) = held.by(attempt, None);
    let tried: Vec<u32> = said.split_whitespace().map(|count| count.parse().unwrap()).collect();
    assert!(tried.len() == 2 && tried[0] >= 3 && tried[1] >= 1, "it did not try: {said}");
    assert_eq!(status, "403");
}

#[test]
fn an_answer_that_is_not_a_persons_own_file_is_not_believed() {
    for (what, outside) in [
        ("others could have written it", format!("{WRITE}\nchmod 666 \"$home/approvals/$id.answer\"")),
        ("it is another user's", format!("{WRITE}\nchown 65534 \"$home/approvals/$id.answer\"")),
        (
            "it is a link",
            format!(
                "{WRITE}\nmv \"$home/approvals/$id.answer\" \"$home/x\"; ln -s \"$home/x\" \"$home/approvals/$id.answer\""
            ),
        ),
        ("it is about another request", WRITE.replace("$digest\" >", "0$digest\" >")),
    ] {
        let (_, status) = Attempt::new("3s").by("", Some(&outside));
        assert_eq!(status, "403", "{what}");
    }
}
