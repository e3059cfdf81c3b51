//! The environment of the agent's command: the caller's, without variables that lead to a secret store, to
//! another program's authority or past the interceptor, and with variables that make common clients trust
//! this run's authority.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

use super::user::AgentUser;
use super::view::{AUTHORITY, BUNDLE};
use crate::tls::bundle::{CA_BUNDLE_VARIABLES, EXTRA_CA_VARIABLES};

/// Variables that an agent does not inherit, because they lead to something that acts for the person: key
/// agents, session buses, container daemons, terminals, displays and editors.
const WITHHELD_VARIABLES: &[&str] = &[
    "AS_AGENT_TOKEN",
    "CONTAINER_HOST",
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "DISPLAY",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
    "GNOME_KEYRING_CONTROL",
    "GPG_AGENT_INFO",
    "SESSION_MANAGER",
    "SSH_AGENT_PID",
    "SSH_AUTH_SOCK",
    "STY",
    "TMUX",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
];

/// Proxy settings, in either case: interception needs none, and a proxy would be one more unlisted host.
const PROXY_VARIABLES: &[&str] =
    &["all_proxy", "ftp_proxy", "http_proxy", "https_proxy", "no_proxy", "ws_proxy", "wss_proxy"];

/// The environment of an agent that runs as `user`. Placeholders replace the caller's variables of the same
/// names, so that no real value is passed on.
pub(crate) fn agent_environment(
    callers: impl Iterator<Item = (OsString, OsString)>,
    user: &AgentUser,
    agent: Option<&str>,
    placeholders: &BTreeMap<String, String>,
) -> BTreeMap<OsString, OsString> {
    let mut variables: BTreeMap<OsString, OsString> =
        callers.filter(|(name, _)| is_inherited(name)).collect();
    let mut set = |name: &str, value: &OsStr| {
        variables.insert(name.into(), value.into());
    };
    for name in CA_BUNDLE_VARIABLES {
        set(name, OsStr::new(BUNDLE));
    }
    for name in EXTRA_CA_VARIABLES {
        set(name, OsStr::new(AUTHORITY));
    }
    set("HOME", user.home.as_os_str());
    set("USER", OsStr::new(&user.name));
    set("LOGNAME", OsStr::new(&user.name));
    set("XDG_RUNTIME_DIR", format!("/run/user/{}", user.uid).as_ref());
    if let Some(agent) = agent {
        set("AGENTSECRETS_AGENT", OsStr::new(agent));
    }
    for (name, placeholder) in placeholders {
        set(name, OsStr::new(placeholder));
    }
    if user.private_home {
        // They name folders of the caller that this user cannot enter.
        variables.retain(|name, _| !is_caller_folder(name));
    }
    variables
}

/// Formats `NAME=value` strings for `execve`; a variable with a zero byte is left out.
pub(crate) fn to_exec_strings(variables: BTreeMap<OsString, OsString>) -> Vec<CString> {
    variables
        .into_iter()
        .filter_map(|(name, value)| {
            let mut line = name.into_vec();
            line.push(b'=');
            line.extend(value.into_vec());
            CString::new(line).ok()
        })
        .collect()
}

fn is_inherited(name: &OsStr) -> bool {
    let Some(text) = name.to_str() else { return true };
    let is_own = text.starts_with("AGENTSECRETS_") || text == "AS_ENV";
    let replaced = matches!(text, "SSL_CERT_DIR" | "MAIL" | "OLDPWD" | "PWD");
    !(is_own
        || replaced
        || text.starts_with("SUDO_")
        || text.starts_with("VSCODE_")
        || WITHHELD_VARIABLES.contains(&text)
        || PROXY_VARIABLES.contains(&text.to_ascii_lowercase().as_str()))
}

fn is_caller_folder(name: &OsStr) -> bool {
    ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"]
        .iter()
        .any(|folder| name == OsStr::new(folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{Gid, Uid};

    fn of(callers: &[(&str, &str)], placeholders: &[(&str, &str)]) -> BTreeMap<String, String> {
        let user = AgentUser {
            uid: Uid::from_raw(65534),
            gid: Gid::from_raw(65534),
            name: "nobody".into(),
            home: "/tmp/home".into(),
            private_home: true,
            appears_as_root: false,
        };
        let callers = callers.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let placeholders =
            placeholders.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        agent_environment(callers, &user, Some("coder"), &placeholders)
            .into_iter()
            .map(|(name, value)| (name.into_string().unwrap(), value.into_string().unwrap()))
            .collect()
    }

    #[test]
    fn store_and_proxy_variables_are_withheld() {
        let withheld = [
            "AGENTSECRETS_VAULT_KEY_FILE",
            "AGENTSECRETS_HOME",
            "AGENTSECRETS_ANYTHING",
            "SSH_AUTH_SOCK",
            "DBUS_SESSION_BUS_ADDRESS",
            "DOCKER_HOST",
            "SUDO_UID",
            "https_proxy",
            "HTTPS_PROXY",
            "All_Proxy",
            "TMUX",
        ];
        for name in withheld {
            assert!(!of(&[(name, "x")], &[]).contains_key(name), "{name}");
        }
    }

    #[test]
    fn other_variables_are_inherited() {
        let variables = of(&[("LANG", "C.UTF-8"), ("PATH", "/bin"), ("EDITOR", "vi")], &[]);
        assert_eq!(variables["LANG"], "C.UTF-8");
        assert_eq!(variables["PATH"], "/bin");
        assert_eq!(variables["HOME"], "/tmp/home");
        assert_eq!(variables["AGENTSECRETS_AGENT"], "coder");
    }

    #[test]
    fn placeholder_replaces_value() {
        let variables = of(&[("STRIPE_KEY", "sk_live_real")], &[("STRIPE_KEY", "AS_SECRET_STRIPE_KEY")]);
        assert_eq!(variables["STRIPE_KEY"], "AS_SECRET_STRIPE_KEY");
        assert!(!variables.values().any(|value| value.contains("sk_live_real")));
    }

    #[test]
    fn ca_variables_name_the_bundle() {
        let variables = of(&[("SSL_CERT_FILE", "/etc/mine.pem")], &[]);
        assert_eq!(variables["SSL_CERT_FILE"], BUNDLE);
        assert_eq!(variables["REQUESTS_CA_BUNDLE"], BUNDLE);
        assert_eq!(variables["NODE_EXTRA_CA_CERTS"], AUTHORITY);
    }
}
