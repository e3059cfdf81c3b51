//! The clients, and where each of them says that it looks for servers.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Target;

/// A client of MCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Client {
    /// Claude Desktop.
    ClaudeDesktop,
    /// Claude Code.
    ClaudeCode,
    /// Cursor.
    Cursor,
    /// Visual Studio Code.
    #[value(name = "vscode")]
    #[serde(rename = "vscode")]
    VsCode,
    /// Windsurf.
    Windsurf,
}

/// An operating system, whose folders clients keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// Linux, and what is like it.
    Linux,
    /// macOS.
    MacOs,
    /// Windows.
    Windows,
}

/// The folders of a person that clients keep their files in.
#[derive(Debug)]
pub struct Folders {
    /// Home.
    pub home: PathBuf,
    /// Where programs keep their data, by the system's own custom.
    pub data: PathBuf,
    /// Claude Code's own folder, where it was given another.
    pub claude_code: Option<PathBuf>,
}

impl System {
    /// The one that we were made for.
    pub fn here() -> Self {
        if cfg!(windows) {
            System::Windows
        } else if cfg!(target_os = "macos") {
            System::MacOs
        } else {
            System::Linux
        }
    }
}

impl Folders {
    /// Those of the person whose `home` it is, on `system`, by the environment's `variable`.
    pub fn of(home: &Path, system: System, variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let named = |name: &str| variable(name).filter(|path| path.is_absolute());
        let data = match system {
            System::Linux => named("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")),
            System::MacOs => home.join("Library").join("Application Support"),
            System::Windows => named("APPDATA").unwrap_or_else(|| home.join("AppData").join("Roaming")),
        };
        Self { home: home.to_path_buf(), data, claude_code: named("CLAUDE_CONFIG_DIR") }
    }
}

impl Client {
    /// All of them.
    pub const ALL: [Client; 5] =
        [Client::ClaudeDesktop, Client::ClaudeCode, Client::Cursor, Client::VsCode, Client::Windsurf];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Client::ClaudeDesktop => "Claude Desktop",
            Client::ClaudeCode => "Claude Code",
            Client::Cursor => "Cursor",
            Client::VsCode => "VS Code",
            Client::Windsurf => "Windsurf",
        }
    }

    /// The key under which it keeps servers.
    pub(super) fn key(self) -> &'static str {
        if self == Client::VsCode { "servers" } else { "mcpServers" }
    }

    /// Whether an entry says how the server is spoken to.
    pub fn has_type(self) -> bool {
        matches!(self, Client::VsCode | Client::ClaudeCode)
    }

    /// Its file for the person.
    pub fn of_the_person(self, folders: &Folders) -> Target {
        let Folders { home, data, claude_code } = folders;
        let file = match self {
            Client::ClaudeDesktop => data.join("Claude").join("claude_desktop_config.json"),
            Client::ClaudeCode => claude_code.as_ref().unwrap_or(home).join(".claude.json"),
            Client::Cursor => home.join(".cursor").join("mcp.json"),
            Client::VsCode => data.join("Code").join("User").join("mcp.json"),
            Client::Windsurf => home.join(".codeium").join("windsurf").join("mcp_config.json"),
        };
        Target { client: self, file, is_shared: false }
    }

    /// Its file for the project in `folder`, if it has one.
    pub fn of_a_project(self, folder: &Path) -> Option<Target> {
        let file = match self {
            Client::ClaudeCode => folder.join(".mcp.json"),
            Client::Cursor => folder.join(".cursor").join("mcp.json"),
            Client::VsCode => folder.join(".vscode").join("mcp.json"),
            Client::ClaudeDesktop | Client::Windsurf => return None,
        };
        Some(Target { client: self, file, is_shared: true })
    }

    /// Whether it is, or was, on this machine: its file or its folder is there.
    pub fn is_here(self, folders: &Folders) -> bool {
        let file = self.of_the_person(folders).file;
        let folder = match self {
            Client::ClaudeCode => Some(folders.home.join(".claude")),
            _ => file.parent().map(Path::to_path_buf),
        };
        file.exists() || folder.is_some_and(|folder| folder.is_dir())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_has_its_documented_file_on_every_system() {
        let path = |client: Client, system| {
            let variable =
                |name: &str| (name == "APPDATA").then(|| PathBuf::from("/home/me/AppData/Roaming"));
            let folders = Folders::of(Path::new("/home/me"), system, variable);
            client.of_the_person(&folders).file.display().to_string()
        };
        use Client::{ClaudeCode, ClaudeDesktop, Cursor, VsCode, Windsurf};
        for (client, system, expected) in [
            (ClaudeDesktop, System::Linux, ".config/Claude/claude_desktop_config.json"),
            (ClaudeDesktop, System::MacOs, "Library/Application Support/Claude/claude_desktop_config.json"),
            (ClaudeDesktop, System::Windows, "AppData/Roaming/Claude/claude_desktop_config.json"),
            (VsCode, System::Linux, ".config/Code/User/mcp.json"),
            (VsCode, System::MacOs, "Library/Application Support/Code/User/mcp.json"),
            (VsCode, System::Windows, "AppData/Roaming/Code/User/mcp.json"),
            (ClaudeCode, System::MacOs, ".claude.json"),
            (Cursor, System::Windows, ".cursor/mcp.json"),
            (Windsurf, System::Linux, ".codeium/windsurf/mcp_config.json"),
        ] {
            assert_eq!(path(client, system), format!("/home/me/{expected}"));
        }
        let elsewhere = |name: &str| match name {
            "XDG_CONFIG_HOME" => Some(PathBuf::from("/config")),
            "CLAUDE_CONFIG_DIR" => Some(PathBuf::from("relative")),
            _ => None,
        };
        let folders = Folders::of(Path::new("/home/me"), System::Linux, elsewhere);
        assert_eq!(folders.data, Path::new("/config"));
        assert_eq!(folders.claude_code, None, "a relative path leads somewhere else from everywhere");
    }
}
