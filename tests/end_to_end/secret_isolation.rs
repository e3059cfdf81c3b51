//! The agent never holds the secret: its memory, environment, arguments and files are searched.

use super::*;
use crate::support::value_search;

#[test]
fn agent_holds_no_secret() {
    let fixture = Fixture::new();
    let needles = value_search::encodings(SECRET);
    let program = format!(
        "import os, requests\n\
         s = requests.Session()\n\
         r = s.get('{}', headers={{'Authorization': 'Bearer ' + os.environ['API_KEY']}})\n\
         open(os.path.expanduser('~/answer'), 'w').write(r.text)\n\
         print('ready', flush=True)\n\
         input()",
        fixture.url("/echo")
    );
    let agent = WaitingAgent::start_command(fixture.home.run_agent(["/usr/bin/python3", "-c", &program]));
    assert_eq!(fixture.api.only_request().header("authorization"), format!("Bearer {SECRET}"));

    let tree = value_search::process_tree(agent.child.id());
    let interceptor = agent.interceptor();
    let agents: Vec<u32> = tree.iter().copied().filter(|pid| exe(*pid).contains("python")).collect();
    assert!(!agents.is_empty());
    // Control: the search finds it in the interceptor.
    assert!(
        !value_search::in_processes(&[interceptor], &needles).is_empty(),
        "the search finds nothing anywhere"
    );
    let others: Vec<u32> = tree.into_iter().filter(|pid| *pid != interceptor).collect();
    assert_eq!(value_search::in_processes(&others, &needles), Vec::<String>::new());
    let environment = std::fs::read(format!("/proc/{}/environ", agents[0])).unwrap();
    let home = environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"HOME="));
    let home = format!("/proc/{}/root{}", agents[0], String::from_utf8_lossy(home.unwrap()));
    let files = value_search::in_files(home.as_ref(), &[b"REDACTED_BY_AGENTSECRETS".to_vec()]);
    assert_eq!(files.len(), 1, "the answer was written: {files:?}");
    assert_eq!(value_search::in_files(home.as_ref(), &needles), Vec::<std::path::PathBuf>::new());
}

#[test]
fn agent_cannot_read_home() {
    let fixture = Fixture::new();
    let home = fixture.home.path();
    let script = format!(
        "for f in {0} {0}/policy.yaml {0}/vault {1} /sys/fs/bpf /sys/fs/bpf/agentsecrets /sys/fs/cgroup/*; do \
         cat $f/* $f 2>/dev/null; ls -A $f 2>/dev/null; done; ls /run/agentsecrets; env | grep -i AGENTSECRETS_ | grep -v AGENTSECRETS_AGENT; true",
        home.display(),
        fixture.home.key().display()
    );
    let seen = run(&mut fixture.home.run_agent(["sh", "-c", &script])).ok();
    assert!(
        !seen.contains("version:") && !seen.contains("key file") && !seen.contains("policy.yaml"),
        "{seen}"
    );
    assert!(!seen.contains("PRIVATE KEY") && !seen.contains("AGENTSECRETS_"), "{seen}");
}

#[test]
fn admin_commands_are_denied_inside_run() {
    let fixture = Fixture::new();
    let program = crate::support::home::AGENTSECRETS;
    // The build folder may be unreadable for the agent: use a copy.
    let folder = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let copy = folder.path().join("agentsecrets");
    std::fs::copy(program, &copy).unwrap();
    let copy = copy.to_str().unwrap();
    for verb in [
        &["secrets", "list"][..],
        &["secrets", "get", "API_KEY"],
        &["secrets", "delete", "API_KEY"],
        &["policy", "check"],
        &["audit", "list"],
        &["audit", "verify"],
        &["run", "--", "true"],
    ] {
        let mut agent = fixture.home.run_agent([copy]);
        assert_eq!(run(agent.args(verb)).code, Some(4), "{verb:?}");
    }
}

fn exe(pid: u32) -> String {
    std::fs::read_link(format!("/proc/{pid}/exe")).map(|path| path.display().to_string()).unwrap_or_default()
}
