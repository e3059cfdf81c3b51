//! Limits of hashes: code that is loaded into a trusted program, that changes it while it runs, or that it
//! interprets. Such code can use the program's secrets; the run it is in limits it.

use super::{TrustFixture, expected_statuses};
use crate::proxy::Proxy;
use crate::support::process::{command, run};

#[test]
fn starter_controls_trusted_program_within_run() {
    let fixture = TrustFixture::new();
    let attacks = fixture.build("attacks", include_str!("attacks.c"), &[]);
    let preload = fixture.build("preload.so", include_str!("preload.c"), &["-shared", "-fPIC"]);
    fixture.trust(&["add", &fixture.path_text("tool"), "--secrets", "API_KEY"]).ok();
    let seen = fixture.statuses(&format!(
        "ask good $tool
        ask good env LD_PRELOAD={preload} $tool
        ask good {attacks} trace $tool"
    ));
    assert_eq!(seen, expected_statuses(&[("good", "200"), ("good", "200"), ("good", "200")]));
    assert_eq!(
        fixture.spent_paths(),
        ["/good", "/evil", "/evil"],
        "the program was the trusted one each time"
    );
}

#[test]
fn code_loaded_into_trusted_program_is_bound_to_run() {
    let fixture = TrustFixture::new();
    let attacks = fixture.build("attacks", include_str!("attacks.c"), &[]);
    let preload = fixture.build("preload.so", include_str!("preload.c"), &["-shared", "-fPIC"]);
    let port = fixture.base.api.port();
    let allow = format!("host: api.test, ports: [{port}], private: true");
    fixture.base.home.write_policy(&format!(
        "version: 1
agents:
  - name: deployer
    match: {{ trusted: true, session: true }}
    allow: [ {{ {allow}, secrets: [API_KEY] }} ]
  - name: coder
    allow: [ {{ {allow} }} ]
"
    ));
    fixture.trust(&["add", &fixture.path_text("tool"), "--secrets", "API_KEY", "--session"]).ok();
    let run_as = |agent: &str, script: &str| {
        let script = fixture.script(script);
        let words = ["run", "--agent", agent, "--", "sh", "-c", &script];
        run(&mut fixture.base.home.agentsecrets(words)).ok()
    };
    assert_eq!(run_as("deployer", "ask good $tool"), "good 200\n");
    assert_eq!(run_as("deployer", "ask curl curl"), "curl 403\n");
    let attacks = format!(
        "ask good env LD_PRELOAD={preload} $tool && cat answer; ask good {attacks} trace $tool && cat answer"
    );
    let output = run_as("coder", &attacks);
    // Where the secret may not be used, the placeholder is not sent either.
    assert_eq!(output.matches("good 403").count(), 2, "{output}");
    // Outside of any run the pin does not match.
    let proxy = Proxy::start(&fixture.base);
    let target = format!("X-AS-Target-URL: {}", fixture.base.url("/good"));
    let endpoint = format!("http://localhost:{}/proxy", proxy.port);
    let mut tool = command(&fixture.path_text("tool"));
    tool.env("LD_PRELOAD", &preload).args(["-sS", "-H", &target, "-H", "X-AS-Inject-Bearer: API_KEY"]);
    let output = run(tool.arg(endpoint)).ok();
    assert!(output.contains("capability_denied") || output.contains("policy_denied"), "{output}");
    assert_eq!(fixture.spent_paths(), ["/good"]);
}

/// A script that requests the path in its own name.
const SCRIPT: &str = "
import os, sys, urllib.request, urllib.error
name = os.path.basename(__file__)
request = urllib.request.Request(sys.argv[1] + '/' + name, headers={'Authorization': 'Bearer AS_SECRET_API_KEY'})
try: print(name, urllib.request.urlopen(request).status)
except urllib.error.HTTPError as error: print(name, error.code, error.read().decode())
";

#[test]
fn trusted_interpreter_is_bounded_by_session() {
    let fixture = TrustFixture::new();
    let python = std::fs::canonicalize("/usr/bin/python3").unwrap();
    let python = python.to_str().unwrap();
    for script in ["one.py", "two.py"] {
        std::fs::write(fixture.path_text(script), SCRIPT).unwrap();
    }
    let (one, two) = (fixture.path_text("one.py"), fixture.path_text("two.py"));
    let output = |words: &[&str]| fixture.trust(words).stderr;
    let run = |words: &str| {
        let seen = run(&mut fixture.base.home.run_agent(["sh", "-c", &fixture.script(words)])).ok();
        seen.lines().map(|line| line.chars().take(10).collect::<String>()).collect::<Vec<_>>()
    };
    let warned = output(&["add", python, "--secrets", "API_KEY"]);
    assert!(warned.contains("is an interpreter (python)") && warned.contains("--session"), "{warned}");
    let ask = format!("{python} {one} $url");
    assert_eq!(run(&ask), ["one.py 403"]);
    let warned = output(&["add", python, "--script", &one, "--secrets", "API_KEY"]);
    assert!(warned.contains("itself reports which script"), "{warned}");
    let forged = "bash -c 'exec -a python3 \"$0\" \"$@\"'";
    let asks = format!(
        "{python} {one} $url; {python} {two} $url; cd $folder; {python} one.py $url; {forged} {python} {one} $url
        {python} -c 'exec(open(\"{two}\").read().replace(\"__file__\", \"\\\"two.py\\\"\"))' $url
        {python} -c 'import os; os.execv(\"{python}\", [\"x\", \"{one}\", \"'$url'\"])'"
    );
    let expected = ["one.py 200", "two.py 403", "one.py 200", "one.py 200", "two.py 403", "one.py 200"];
    assert_eq!(run(&asks), expected);
    std::fs::write(fixture.path_text("one.py"), format!("{SCRIPT}\n")).unwrap();
    assert_eq!(run(&ask), ["one.py 403"]);
    fixture.trust(&["update", python]).ok();
    assert_eq!(run(&ask), ["one.py 200"]);
    fixture.trust(&["remove", python]).ok();
    let warned = output(&["add", python, "--session", "--secrets", "API_KEY"]);
    assert!(!warned.contains("warning"), "{warned}");
    assert_eq!(run(&format!("{python} {two} $url")), ["two.py 200"]);
}
