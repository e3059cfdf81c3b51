//! `agentsecrets mcp install` and `uninstall` on real client configuration files.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{api_call_arguments, fixture, run_session_with};
use crate::end_to_end::Fixture;
use crate::operator_commands::AgentExecutable;
use crate::support::process::{Outcome, run};

/// A user's home with client configuration files.
struct UserHome {
    fixture: Fixture,
    home: tempfile::TempDir,
}

const CLIENTS: [(&str, &str, &str); 5] = [
    ("claude-desktop", ".config/Claude/claude_desktop_config.json", "mcpServers"),
    ("claude-code", ".claude.json", "mcpServers"),
    ("cursor", ".cursor/mcp.json", "mcpServers"),
    ("vscode", ".config/Code/User/mcp.json", "servers"),
    ("windsurf", ".codeium/windsurf/mcp_config.json", "mcpServers"),
];

impl UserHome {
    fn new() -> Self {
        Self { fixture: fixture(), home: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn mcp(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.fixture.home.agentsecrets(["mcp"].iter().chain(arguments));
        run(command.env("HOME", self.home.path()))
    }
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn install_and_uninstall_preserve_client_files() {
    let person = UserHome::new();
    let mut former = Vec::new();
    for (_, file, key) in CLIENTS {
        let text =
            format!("{{\"numbers\": [1.0, 1e3],\n\t\"{key}\": {{ \"other\": {{ \"command\": \"x\" }} }}\n}}");
        former.push((person.write(file, &text), text));
    }
    let report = person.mcp(&["install", "--agent", "coder", "--json"]).json();
    assert_eq!(
        report.as_array().unwrap().iter().filter(|change| change["done"] == "added").count(),
        5,
        "{report}"
    );
    for ((path, _), (_, _, key)) in former.iter().zip(CLIENTS) {
        let now = json_of(path);
        assert_eq!((&now["numbers"], &now[key]["other"]["command"]), (&json!([1.0, 1e3]), &json!("x")));
        let entry = &now[key]["agentsecrets"];
        assert!(Path::new(entry["command"].as_str().unwrap()).is_absolute(), "{entry}");
        assert_eq!(entry["args"], json!(["mcp", "serve", "--agent", "coder"]));
        assert_eq!(entry["env"]["AGENTSECRETS_HOME"], json!(person.fixture.home.path()));
        let is_typed = path.ends_with("User/mcp.json") || path.ends_with(".claude.json");
        assert_eq!(entry["type"], if is_typed { json!("stdio") } else { Value::Null }, "{}", path.display());
    }
    let before: Vec<_> = former.iter().map(|(path, _)| fs::metadata(path).unwrap().ino()).collect();
    let again = person.mcp(&["install", "--agent", "coder", "--json"]).json();
    assert!(again.as_array().unwrap().iter().all(|change| change["done"] == "unchanged"), "{again}");
    let after: Vec<_> = former.iter().map(|(path, _)| fs::metadata(path).unwrap().ino()).collect();
    assert_eq!(before, after, "they were not written again");
    person.mcp(&["install"]).ok();
    assert_eq!(json_of(&former[2].0)["mcpServers"]["agentsecrets"]["args"], json!(["mcp", "serve"]));
    person.mcp(&["uninstall"]).ok();
    for (path, text) in &former {
        assert_eq!(fs::read_to_string(path).unwrap(), *text);
    }
    assert!(person.mcp(&["uninstall"]).stderr.contains("nothing to remove"));
    assert_eq!(
        fs::read_dir(person.fixture.home.path().join("mcp")).unwrap().count(),
        0,
        "nothing is left of it"
    );
}

#[test]
fn installed_server_works() {
    let person = UserHome::new();
    person.mcp(&["install", "cursor"]).ok();
    let entry = json_of(&person.file(".cursor/mcp.json"))["mcpServers"]["agentsecrets"].clone();
    let args: Vec<&str> = entry["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    let calls = json!([api_call_arguments(&person.fixture, "/echo")]);
    let report = run_session_with(&person.fixture, entry["command"].as_str().unwrap(), &args, "auto", calls);
    assert_eq!(report["results"][0]["is_error"], false, "{report}");
}

#[test]
fn install_creates_private_file_and_uninstall_removes_it() {
    let person = UserHome::new();
    let none = person.mcp(&["install"]);
    assert_eq!(none.code, Some(3), "{none:#?}");
    assert!(none.stderr.contains("none of Claude Desktop"), "{none:#?}");
    person.mcp(&["install", "windsurf"]).ok();
    let path = person.file(".codeium/windsurf/mcp_config.json");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    person.mcp(&["uninstall", "windsurf"]).ok();
    assert!(!path.exists());
}

#[test]
fn install_keeps_mode_links_comments_and_line_ends() {
    let person = UserHome::new();
    let text = "// my servers\r\n{\r\n\t\"servers\": {\r\n\t\t// the first\r\n\t\t\"one\": {\"url\": \"https://one.test\"}, /* end */\r\n\t},\r\n}\r\n";
    let real = person.write("dotfiles/mcp.json", text);
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&real, Some(65534), Some(65534)).unwrap();
    let link = person.file(".config/Code/User/mcp.json");
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(&real, &link).unwrap();
    person.mcp(&["install", "vscode"]).ok();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let now = fs::metadata(&real).unwrap();
    assert_eq!((now.permissions().mode() & 0o777, now.uid(), now.gid()), (0o640, 65534, 65534));
    let edited = fs::read_to_string(&real).unwrap();
    for part in ["// my servers\r\n", "// the first\r\n", "/* end */", "\"agentsecrets\": {\r\n"] {
        assert!(edited.contains(part), "{part:?} in {edited}");
    }
    person.mcp(&["uninstall", "vscode"]).ok();
    assert_eq!(fs::read_to_string(&real).unwrap(), text);
}

#[test]
fn uninstall_keeps_later_additions() {
    let person = UserHome::new();
    let path = person.write(".claude.json", "{\"numStartups\": 1}");
    person.mcp(&["install", "claude-code"]).ok();
    let text = fs::read_to_string(&path).unwrap().replace("\"numStartups\": 1", "\"numStartups\": 2");
    fs::write(&path, &text).unwrap();
    person.mcp(&["install", "claude-code", "--agent", "coder"]).ok();
    let report = person.mcp(&["uninstall", "claude-code", "--json"]).json();
    assert_eq!(report[0]["done"], "removed");
    assert_eq!(json_of(&path), json!({"numStartups": 2}));
}

#[test]
fn install_skips_malformed_file() {
    let person = UserHome::new();
    let broken =
        person.write(".cursor/mcp.json", "{\n  \"mcpServers\": {\n    \"a\": {} \"b\": {}\n  }\n}\n");
    let taken = "{\"mcpServers\": {\"agentsecrets\": {\"command\": \"npx\", \"args\": [\"someone-elses\"]}}}";
    let taken_file = person.write(".codeium/windsurf/mcp_config.json", taken);
    let good = person.write(".claude.json", "{}");
    let (before, dangling) =
        (fs::read_to_string(&broken).unwrap(), person.file(".config/Claude/claude_desktop_config.json"));
    fs::create_dir_all(dangling.parent().unwrap()).unwrap();
    symlink("/nowhere/at/all", &dangling).unwrap();
    let outcome = person.mcp(&["install"]);
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    assert!(outcome.stderr.contains(&format!("{}:3: ", broken.display())), "{outcome:#?}");
    assert!(outcome.stderr.contains("another server is called 'agentsecrets'"), "{outcome:#?}");
    assert!(outcome.stderr.contains("a link without a target"), "{outcome:#?}");
    assert_eq!(fs::read_to_string(&broken).unwrap(), before);
    assert_eq!(fs::read_to_string(&taken_file).unwrap(), taken);
    assert!(json_of(&good)["mcpServers"]["agentsecrets"].is_object());
    assert_eq!(person.mcp(&["uninstall", "windsurf"]).code, Some(1));
    assert_eq!(fs::read_to_string(&taken_file).unwrap(), taken);
}

#[test]
fn install_project_file_is_shared() {
    let person = UserHome::new();
    let project = person.file("project");
    fs::create_dir(&project).unwrap();
    let folder = project.to_str().unwrap();
    let report = person.mcp(&["install", "--project-dir", folder, "--dry-run", "--json"]).json();
    assert_eq!(report.as_array().unwrap().len(), 3, "Claude Code, Cursor and VS Code: {report}");
    assert_eq!(fs::read_dir(&project).unwrap().count(), 0, "a dry run writes nothing");
    person.mcp(&["install", "--project-dir", folder]).ok();
    for (file, key) in
        [(".mcp.json", "mcpServers"), (".cursor/mcp.json", "mcpServers"), (".vscode/mcp.json", "servers")]
    {
        let entry = json_of(&project.join(file))[key]["agentsecrets"].clone();
        assert_eq!(
            (&entry["command"], &entry["env"]),
            (&json!("agentsecrets"), &Value::Null),
            "nobody's own paths"
        );
        assert_eq!(fs::metadata(project.join(file)).unwrap().permissions().mode() & 0o444, 0o444);
    }
    assert_eq!(person.mcp(&["install", "windsurf", "--project-dir", folder]).code, Some(2));
    person.mcp(&["uninstall", "--project-dir", folder]).ok();
    assert_eq!(fs::read_dir(&project).unwrap().count(), 0, "what was made for them is gone");
}

#[test]
fn install_refuses_agent() {
    let fixture = fixture();
    let copy = AgentExecutable::new();
    for verb in ["install", "uninstall"] {
        assert_eq!(run(&mut fixture.home.run_agent([&*copy.0, "mcp", verb])).code, Some(4));
    }
}
