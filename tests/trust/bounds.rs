//! What no hash can tell: code that is loaded into a trusted program, that changes it as it runs, or that it was
//! given to interpret. It spends what the program may spend, and is kept from it by where it runs.

use super::{Arena, expected};
use crate::proxy::Proxy;
use crate::support::process::{command, finish};

#[test]
fn who_may_start_a_trusted_program_may_have_it_do_its_own_will_within_the_same_run() {
    let arena = Arena::new();
    let attacks = arena.build("attacks", include_str!("attacks.c"), &[]);
    let preload = arena.build("preload.so", include_str!("preload.c"), &["-shared", "-fPIC"]);
    arena.trust(&["add", &arena.at("tool"), "--secrets", "API_KEY"]).ok();
    let seen = arena.statuses(&format!(
        "ask good $tool
        ask good env LD_PRELOAD={preload} $tool
        ask good {attacks} trace $tool"
    ));
    assert_eq!(seen, expected(&[("good", "200"), ("good", "200"), ("good", "200")]));
    assert_eq!(arena.spent(), ["/good", "/evil", "/evil"], "the program was the trusted one each time");
}

#[test]
fn what_is_loaded_into_a_trusted_program_is_kept_from_its_secrets_by_the_run_it_is_in() {
    let arena = Arena::new();
    let attacks = arena.build("attacks", include_str!("attacks.c"), &[]);
    let preload = arena.build("preload.so", include_str!("preload.c"), &["-shared", "-fPIC"]);
    let port = arena.world.api.port();
    let allow = format!("host: api.test, ports: [{port}], private: true");
    arena.world.home.policy(&format!(
        "version: 1
agents:
  - name: deployer
    match: {{ trusted: true, session: true }}
    allow: [ {{ {allow}, secrets: [API_KEY] }} ]
  - name: coder
    allow: [ {{ {allow} }} ]
"
    ));
    arena.trust(&["add", &arena.at("tool"), "--secrets", "API_KEY", "--session"]).ok();
    let run = |agent: &str, script: &str| {
        let script = arena.script(script);
        let words = ["run", "--agent", agent, "--", "sh", "-c", &script];
        finish(&mut arena.world.home.agentsecrets(words)).ok()
    };
    assert_eq!(run("deployer", "ask good $tool"), "good 200\n");
    assert_eq!(run("deployer", "ask curl curl"), "curl 403\n");
    let attacks = format!(
        "ask good env LD_PRELOAD={preload} $tool && cat answer; ask good {attacks} trace $tool && cat answer"
    );
    let told = run("coder", &attacks);
    // Where nothing may be spent, the placeholder goes nowhere either.
    assert_eq!(told.matches("good 403").count(), 2, "{told}");
    // And outside of any run the pin does not hold.
    let proxy = Proxy::of(&arena.world);
    let target = format!("X-AS-Target-URL: {}", arena.world.url("/good"));
    let endpoint = format!("http://localhost:{}/proxy", proxy.port);
    let mut tool = command(&arena.at("tool"));
    tool.env("LD_PRELOAD", &preload).args(["-sS", "-H", &target, "-H", "X-AS-Inject-Bearer: API_KEY"]);
    let told = finish(tool.arg(endpoint)).ok();
    assert!(told.contains("capability_denied") || told.contains("policy_denied"), "{told}");
    assert_eq!(arena.spent(), ["/good"]);
}

/// A script that asks for the path that its name says.
const SCRIPT: &str = "
import os, sys, urllib.request, urllib.error
name = os.path.basename(__file__)
request = urllib.request.Request(sys.argv[1] + '/' + name, headers={'Authorization': 'Bearer AS_SECRET_API_KEY'})
try: print(name, urllib.request.urlopen(request).status)
except urllib.error.HTTPError as error: print(name, error.code, error.read().decode())
";

#[test]
fn an_interpreter_spends_only_within_bounds_and_a_script_is_its_own_say() {
    let arena = Arena::new();
    let python = std::fs::canonicalize("/usr/bin/python3").unwrap();
    let python = python.to_str().unwrap();
    for script in ["one.py", "two.py"] {
        std::fs::write(arena.at(script), SCRIPT).unwrap();
    }
    let (one, two) = (arena.at("one.py"), arena.at("two.py"));
    let said = |words: &[&str]| arena.trust(words).stderr;
    let run = |words: &str| {
        let seen = finish(&mut arena.world.home.run_agent(["sh", "-c", &arena.script(words)])).ok();
        seen.lines().map(|line| line.chars().take(10).collect::<String>()).collect::<Vec<_>>()
    };
    let warned = said(&["add", python, "--secrets", "API_KEY"]);
    assert!(warned.contains("is an interpreter (python)") && warned.contains("--session"), "{warned}");
    let ask = format!("{python} {one} $url");
    assert_eq!(run(&ask), ["one.py 403"]);
    let warned = said(&["add", python, "--script", &one, "--secrets", "API_KEY"]);
    assert!(warned.contains("is its own say"), "{warned}");
    let forged = "bash -c 'exec -a python3 \"$0\" \"$@\"'";
    let asks = format!(
        "{python} {one} $url; {python} {two} $url; cd $folder; {python} one.py $url; {forged} {python} {one} $url
        {python} -c 'exec(open(\"{two}\").read().replace(\"__file__\", \"\\\"two.py\\\"\"))' $url
        {python} -c 'import os; os.execv(\"{python}\", [\"x\", \"{one}\", \"'$url'\"])'"
    );
    let wanted = ["one.py 200", "two.py 403", "one.py 200", "one.py 200", "two.py 403", "one.py 200"];
    assert_eq!(run(&asks), wanted);
    std::fs::write(arena.at("one.py"), format!("{SCRIPT}\n")).unwrap();
    assert_eq!(run(&ask), ["one.py 403"]);
    arena.trust(&["update", python]).ok();
    assert_eq!(run(&ask), ["one.py 200"]);
    arena.trust(&["remove", python]).ok();
    let warned = said(&["add", python, "--session", "--secrets", "API_KEY"]);
    assert!(!warned.contains("warning"), "{warned}");
    assert_eq!(run(&format!("{python} {two} $url")), ["two.py 200"]);
}
