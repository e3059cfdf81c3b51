//! A program of the person's that prints one value, such as `op read …` or `gh auth token`. It is started
//! by its words, never by a shell, with an environment of few variables and no input, for so long and no
//! longer. What it prints is the value; what went wrong is told by its name and exit code alone, since its
//! words and its output may hold the secret.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_yaml::Spanned;
use zeroize::Zeroizing;

use super::cached::CachedStore;
use super::kinds::{Kind, StoreCheck};
use super::read_only::read_only;
use super::settings::{ReportProblem, SpannedText, duration_or_default, required_value};
use crate::sys;
use crate::sys::home::Home;
use crate::types::name::{Environment, Project, SecretName};
use crate::types::secret::Secret;
use crate::types::store::{Entry, Key, MAX_VALUE_SIZE, Store, StoreError};

/// Variables that programs need to find their files and other programs.
const PASSED_VARIABLES: &[&str] = if cfg!(windows) {
    &[
        "APPDATA",
        "COMSPEC",
        "HOMEDRIVE",
        "HOMEPATH",
        "LOCALAPPDATA",
        "PATH",
        "PATHEXT",
        "PROGRAMDATA",
        "PROGRAMFILES",
        "SYSTEMDRIVE",
        "SYSTEMROOT",
        "TEMP",
        "TMP",
        "USERDOMAIN",
        "USERNAME",
        "USERPROFILE",
    ]
} else {
    &["HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "TZ", "USER", "XDG_RUNTIME_DIR"]
};
/// The end of a line in program output.
const NEWLINE: &[u8] = if cfg!(windows) { b"\r\n" } else { b"\n" };
/// Interval at which a program that has closed its output is polled until it ends.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A program that prints one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandConfig {
    /// The program and its arguments for any name; `{name}`, `{project}` and `{environment}` are filled in.
    run: Vec<String>,
    /// Another program for some names.
    names: BTreeMap<SecretName, Vec<String>>,
    /// Time limit of the program.
    timeout: Duration,
    /// Output is cached for this time.
    cache: Duration,
    /// Exit codes that say that there is no such secret.
    missing: Vec<i32>,
    /// Variables that it gets besides the few that every program needs.
    env: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandSettings {
    #[serde(default)]
    run: Vec<String>,
    #[serde(default)]
    names: BTreeMap<String, Spanned<Vec<String>>>,
    #[serde(default, deserialize_with = "required_value")]
    timeout: Option<SpannedText>,
    #[serde(default, deserialize_with = "required_value")]
    cache: Option<SpannedText>,
    #[serde(default)]
    missing: Vec<Spanned<i32>>,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    optional: bool,
}

impl CommandConfig {
    /// The program for `key` with its arguments, if there is one.
    fn words(&self, key: &Key) -> Option<Vec<String>> {
        let words = self.names.get(&key.name).unwrap_or(&self.run);
        let filled = words.iter().map(|word| {
            word.replace("{name}", key.name.as_str())
                .replace("{project}", key.project.as_str())
                .replace("{environment}", key.environment.as_str())
        });
        (!words.is_empty()).then(|| filled.collect())
    }
}

impl Kind for CommandConfig {
    type Settings = CommandSettings;

    fn without_settings() -> Result<Self, String> {
        Err("'command' needs a program: { command: { run: [op, read, \"op://dev/{name}\"] } }".into())
    }

    fn parse(settings: CommandSettings, report: ReportProblem<'_>) -> Result<(Self, bool), String> {
        let mut names = BTreeMap::new();
        for (name, arguments) in settings.names {
            let line = arguments.referenced.line();
            match name.parse() {
                Err(error) => report(line, format!("{error}")),
                Ok(_) if arguments.value.first().is_none_or(String::is_empty) => {
                    report(line, format!("{name} has no program"));
                }
                Ok(name) => drop(names.insert(name, arguments.value)),
            }
        }
        if settings.run.first().map_or(names.is_empty(), String::is_empty) {
            return Err("'command' needs `run` or `names`: lists of a program and its arguments".into());
        }
        for code in &settings.missing {
            if !(1..=255).contains(&code.value) {
                report(code.referenced.line(), "an exit code that means 'missing' is from 1 to 255".into());
            }
        }
        if let Some(ours) = settings.env.iter().find(|name| name.starts_with("AGENTSECRETS_")) {
            return Err(format!("{ours} leads to our own stores, and is passed to no program"));
        }
        let config = Self {
            run: settings.run,
            names,
            timeout: duration_or_default(settings.timeout, Duration::from_secs(10), report),
            cache: duration_or_default(settings.cache, Duration::from_secs(300), report),
            missing: settings.missing.into_iter().map(|code| code.value).collect(),
            env: settings.env,
        };
        Ok((config, settings.optional))
    }

    fn may_repeat(&self) -> bool {
        true
    }

    fn open(&self, _: &Home) -> Arc<dyn Store> {
        Arc::new(CachedStore::new(CommandStore::new(self.clone()), self.cache))
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn state(&self, _: &Home) -> String {
        let programs = self.run.first().into_iter();
        let programs = programs.chain(self.names.values().filter_map(|words| words.first()));
        let mut programs: Vec<&str> = programs.map(String::as_str).collect();
        programs.dedup();
        format!("the output of {}", programs.join(", "))
    }

    fn check(&self, home: &Home, (project, environment): (&Project, &Environment)) -> StoreCheck {
        let listed = self.open(home).list(project, environment);
        StoreCheck::from_result(listed.map(drop), "a command provides the secrets when they are needed")
    }
}

/// The programs of one entry of the configuration.
struct CommandStore {
    settings: CommandConfig,
}

impl CommandStore {
    /// Asks as `settings` say.
    fn new(settings: CommandConfig) -> Self {
        Self { settings }
    }
}

impl Store for CommandStore {
    fn name(&self) -> &'static str {
        "command"
    }

    fn get(&self, key: &Key) -> Result<Option<Secret>, StoreError> {
        let Some(words) = self.settings.words(key) else { return Ok(None) };
        let Some((program, arguments)) = words.split_first() else { return Ok(None) };
        let end = Instant::now() + self.settings.timeout;
        let mut child = self.start(program, arguments)?;
        let answer = self.finish(&mut child, program, end);
        if answer.is_err() {
            kill(&mut child);
        }
        let (status, value) = answer?;
        let failed = |what: &str| {
            Err(StoreError::Io(format!(
                "the program {program:?} of the command store {what} for {}: run it by hand to see why",
                key.name
            )))
        };
        match status.code() {
            Some(0) if value.is_empty() => failed("printed nothing"),
            Some(0) if value.len() > MAX_VALUE_SIZE => failed("printed more than 1 MiB"),
            Some(0) => Ok(Some(value)),
            Some(code) if self.settings.missing.contains(&code) => Ok(None),
            Some(code) => failed(&format!("exited with {code}")),
            None => failed("was killed"),
        }
    }

    fn list(&self, _: &Project, environment: &Environment) -> Result<Vec<Entry>, StoreError> {
        // Of others nobody knows but the program.
        let entry = |name: &SecretName| Entry {
            name: name.clone(),
            environment: environment.clone(),
            updated: None,
            placeholder: None,
            store: self.name(),
        };
        Ok(self.settings.names.keys().map(entry).collect())
    }

    fn set(&self, _: &Key, _: Secret, _: Option<&str>) -> Result<(), StoreError> {
        read_only(self.name())
    }

    fn version(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn delete(&self, _: &Key) -> Result<bool, StoreError> {
        read_only(self.name())
    }

    fn is_writable(&self) -> bool {
        false
    }
}

impl CommandStore {
    fn start(&self, program: &str, arguments: &[String]) -> Result<Child, StoreError> {
        let mut command = std::process::Command::new(sys::runnable(program.as_ref()));
        let passed = PASSED_VARIABLES.iter().copied().chain(self.settings.env.iter().map(String::as_str));
        command
            .args(arguments)
            .env_clear()
            .envs(passed.filter_map(|name| Some((name, std::env::var_os(name)?))))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // It may print what it should not.
            .stderr(Stdio::null());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        #[cfg(target_os = "linux")]
        {
            if let Ok(Some(user)) = nix::unistd::User::from_uid(nix::unistd::geteuid()) {
                // Of who we are, not of who called sudo.
                command.env("HOME", user.dir).env("USER", &user.name).env("LOGNAME", &user.name);
            }
            crate::sys::process::prepare_child(&mut command, nix::sys::signal::SigSet::empty(), None, None);
        }
        command.spawn().map_err(|error| {
            StoreError::Io(format!(
                "the program {program:?} of the command store cannot be started ({error}): install it, or \
                 correct config.yaml's `stores`"
            ))
        })
    }

    /// The program's output, less one final newline, and its exit status.
    fn finish(
        &self,
        child: &mut Child,
        program: &str,
        end: Instant,
    ) -> Result<(ExitStatus, Secret), StoreError> {
        let io = |error: std::io::Error| {
            StoreError::Io(format!("the output of {program:?} cannot be read: {error}"))
        };
        let late = || {
            StoreError::Locked(format!(
                "the program {program:?} of the command store did not end within {} s: run it by hand; it may \
                 be asking for something",
                self.settings.timeout.as_secs_f32()
            ))
        };
        let (sender, receiver) = channel();
        let output = child.stdout.take();
        // On a thread, so that a program that prints nothing can be given up.
        std::thread::Builder::new()
            .name("command".to_owned())
            .spawn(move || {
                // Reserved in full, so that growing leaves no copies behind.
                let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_VALUE_SIZE + 3));
                let output = output.map(|output| output.take(MAX_VALUE_SIZE as u64 + 2));
                let read = output.map_or(Ok(0), |mut output| output.read_to_end(&mut bytes));
                let _ = sender.send(read.map(|_| bytes));
            })
            .map_err(io)?;
        let bytes = match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(bytes) => bytes.map_err(io)?,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Err(late()),
        };
        let line = bytes.strip_suffix(NEWLINE).or_else(|| bytes.strip_suffix(b"\n"));
        let value = Secret::new(line.unwrap_or(&bytes).to_vec());
        if bytes.len() > MAX_VALUE_SIZE + 1 {
            // It would wait for a reader for ever.
            kill(child);
        }
        loop {
            if let Some(status) = child.try_wait().map_err(io)? {
                // What printed too much was killed for it.
                let status = if value.len() > MAX_VALUE_SIZE { ExitStatus::default() } else { status };
                return Ok((status, value));
            }
            if Instant::now() >= end {
                return Err(late());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Ends a program and what it started.
fn kill(child: &mut Child) {
    #[cfg(unix)]
    if let Ok(pid) = i32::try_from(child.id()) {
        // It leads a group of its own, and has not been waited for.
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn commands(words: &[&str]) -> CommandStore {
        CommandStore::new(CommandConfig {
            run: words.iter().map(|word| (*word).to_owned()).collect(),
            names: BTreeMap::new(),
            timeout: Duration::from_secs(20),
            cache: Duration::from_secs(60),
            missing: vec![44],
            env: Vec::new(),
        })
    }

    fn key(name: &str) -> Key {
        Key {
            project: "shop".parse().unwrap(),
            environment: "production".parse().unwrap(),
            name: name.parse().unwrap(),
        }
    }

    fn value(words: &[&str]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(commands(words).get(&key("API_KEY"))?.map(|value| value.expose().to_vec()))
    }

    #[test]
    fn output_less_one_final_newline_is_the_value() {
        assert_eq!(
            value(&["printf", "%s", "op://{project}/{environment}/{name}"]).unwrap().unwrap(),
            b"op://shop/production/API_KEY"
        );
        assert_eq!(value(&["printf", "a\\0\\377\\n\\n"]).unwrap().unwrap(), b"a\0\xff\n");
        let most = value(&["head", "-c", "1048576", "/dev/zero"]).unwrap().unwrap();
        assert_eq!(most.len(), MAX_VALUE_SIZE);
    }

    #[test]
    fn no_shell_is_used_and_few_variables_are_passed() {
        assert_eq!(value(&["echo", "$(id); `id` $HOME"]).unwrap().unwrap(), b"$(id); `id` $HOME");
        let printed = value(&["env"]).unwrap().unwrap();
        let printed = String::from_utf8(printed).unwrap();
        for line in printed.lines() {
            let name = line.split('=').next().unwrap();
            assert!(PASSED_VARIABLES.contains(&name), "{line}");
        }
        assert!(printed.contains("PATH="));
    }

    #[test]
    fn failure_names_program_and_exit_code_only() {
        let script = "echo s3cret; echo s3cret >&2; exit 3";
        let error = value(&["sh", "-c", script]).unwrap_err().to_string();
        assert!(
            error.contains("\"sh\"") && error.contains("exited with 3") && !error.contains("s3cret"),
            "{error}"
        );
        let error = value(&["true"]).unwrap_err().to_string();
        assert!(error.contains("printed nothing"), "{error}");
        let error = value(&["/no/such/program"]).unwrap_err().to_string();
        assert!(error.contains("install it"), "{error}");
        let error = value(&["head", "-c", "2097152", "/dev/zero"]).unwrap_err().to_string();
        assert!(error.contains("more than 1 MiB"), "{error}");
        assert_eq!(value(&["sh", "-c", "exit 44"]).unwrap(), None);
    }

    #[test]
    fn hanging_program_is_killed_with_its_children() {
        let mut hanging = commands(&["sh", "-c", "sleep 1000 & echo $! >&2; wait"]);
        hanging.settings.timeout = Duration::from_millis(200);
        let error = hanging.get(&key("A")).err().unwrap();
        assert!(matches!(&error, StoreError::Locked(reason) if reason.contains("run it by hand")), "{error}");
        // A grandchild that keeps the output open does not keep us.
        let mut left = commands(&["sh", "-c", "setsid sleep 2 & echo value"]);
        left.settings.timeout = Duration::from_millis(200);
        assert!(left.get(&key("A")).is_err());
    }

    #[test]
    fn names_with_own_program_are_listed() {
        let mut commands = commands(&[]);
        let words = ["echo", "of its own"].map(str::to_owned).to_vec();
        commands.settings.names.insert("TOKEN".parse().unwrap(), words);
        assert_eq!(commands.get(&key("TOKEN")).unwrap().unwrap().expose(), b"of its own");
        assert!(commands.get(&key("OTHER")).unwrap().is_none());
        let listed = commands.list(&Project::default(), &Environment::default()).unwrap();
        assert_eq!(listed.len(), 1);
    }
}
