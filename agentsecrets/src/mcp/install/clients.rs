//! The MCP clients, with the documented paths of their configuration files.

use std::path::{Path, PathBuf};

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Client {
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

/// The configuration file of a client.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    pub(crate) client: Client,
    pub(crate) file: PathBuf,
    /// Whether the file belongs to a project and others may read it.
    pub(crate) is_shared: bool,
}

/// An operating system with its conventional folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    Linux,
    MacOs,
    Windows,
}

/// The folders of a user that hold the clients' files.
#[derive(Debug)]
pub(crate) struct Folders {
    pub(crate) home: PathBuf,
    /// The system's conventional folder for program data.
    pub(crate) data: PathBuf,
    /// Claude Code's folder, if a variable sets it.
    pub(crate) claude_code: Option<PathBuf>,
}

impl System {
    /// The system that this program was built for.
    pub(crate) fn current() -> Self {
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
    /// The folders in `home` on `system`; `variable` reads the environment.
    pub(crate) fn new(home: &Path, system: System, variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
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
    pub(crate) const ALL: [Client; 5] =
        [Client::ClaudeDesktop, Client::ClaudeCode, Client::Cursor, Client::VsCode, Client::Windsurf];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Client::ClaudeDesktop => "Claude Desktop",
            Client::ClaudeCode => "Claude Code",
            Client::Cursor => "Cursor",
            Client::VsCode => "VS Code",
            Client::Windsurf => "Windsurf",
        }
    }

    /// The key of the object with all servers.
    pub(super) fn key(self) -> &'static str {
        if self == Client::VsCode { "servers" } else { "mcpServers" }
    }

    /// Whether an entry needs the key `type`.
    pub(crate) fn has_type(self) -> bool {
        matches!(self, Client::VsCode | Client::ClaudeCode)
    }

    /// The configuration file of the user.
    pub(crate) fn user_config(self, folders: &Folders) -> ConfigFile {
        let Folders { home, data, claude_code } = folders;
        let file = match self {
            Client::ClaudeDesktop => data.join("Claude").join("claude_desktop_config.json"),
            Client::ClaudeCode => claude_code.as_ref().unwrap_or(home).join(".claude.json"),
            Client::Cursor => home.join(".cursor").join("mcp.json"),
            Client::VsCode => data.join("Code").join("User").join("mcp.json"),
            Client::Windsurf => home.join(".codeium").join("windsurf").join("mcp_config.json"),
        };
        ConfigFile { client: self, file, is_shared: false }
    }

    /// The configuration file of the project in `folder`, if the client has one.
    pub(crate) fn project_config(self, folder: &Path) -> Option<ConfigFile> {
        let file = match self {
            Client::ClaudeCode => folder.join(".mcp.json"),
            Client::Cursor => folder.join(".cursor").join("mcp.json"),
            Client::VsCode => folder.join(".vscode").join("mcp.json"),
            Client::ClaudeDesktop | Client::Windsurf => return None,
        };
        Some(ConfigFile { client: self, file, is_shared: true })
    }

    /// Whether its file or folder exists on this machine.
    pub(crate) fn is_present(self, folders: &Folders) -> bool {
        let file = self.user_config(folders).file;
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
    fn client_files_match_documentation() {
        let path = |client: Client, system| {
            let variable =
                |name: &str| (name == "APPDATA").then(|| PathBuf::from("/home/me/AppData/Roaming"));
            let folders = Folders::new(Path::new("/home/me"), system, variable);
            client.user_config(&folders).file.display().to_string()
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
        let folders = Folders::new(Path::new("/home/me"), System::Linux, elsewhere);
        assert_eq!(folders.data, Path::new("/config"));
        assert_eq!(folders.claude_code, None, "a relative path leads somewhere else from everywhere");
    }
}
