//! `agentsecrets proxy`: the explicit proxy, for clients that are told of it. One runs for each home.

use std::io::{self, BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anstream::{eprintln, println};

use super::{Context, Exit, Failure, audit};
use crate::server::explicit_proxy::{Instance, Running, Wanted, serve};
use crate::server::socket_activation;
use crate::sys;
use crate::sys::files;
use crate::tls::bundle::{ADDED_ROOTS, ROOTS, bundle};
use crate::types::name::{Environment, SecretName};

/// How long a proxy may take to end.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(20);
/// What a proxy in the background says once it serves.
const READY: &str = "ready";
/// The largest log that is kept when a proxy starts, in bytes.
const LARGEST_LOG: u64 = 4 << 20;

/// Serve clients that know us for a proxy.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets proxy start
  eval \"$(agentsecrets proxy env)\"
  curl https://api.stripe.com/v1/balance -H 'Authorization: Bearer AS_SECRET_STRIPE_KEY'
  agentsecrets proxy logs --last 20")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Start the proxy in the background; in the foreground it takes over the socket that systemd passes
    #[command(after_help = "Example: agentsecrets proxy start --port 8765")]
    Start {
        /// The port on 127.0.0.1
        #[arg(long, value_name = "PORT", default_value_t = 8765)]
        port: u16,
        /// Stay in the foreground, and say there what there is to say
        #[arg(long)]
        foreground: bool,
        /// Say on standard output that it serves, then leave the terminal
        #[arg(long, hide = true)]
        background: bool,
    },
    /// End the proxy
    #[command(after_help = "Example: agentsecrets proxy stop")]
    Stop,
    /// Say whether the proxy runs, and where; exit code 6 if it does not
    #[command(after_help = "Example: agentsecrets proxy status --json")]
    Status,
    /// List requests, oldest first; one JSON object a line where a program reads
    #[command(after_help = "Example: agentsecrets proxy logs --last 20 --secret STRIPE_KEY")]
    Logs {
        /// Only the newest N
        #[arg(long, value_name = "N")]
        last: Option<usize>,
        /// Only those that were about this secret
        #[arg(long, value_name = "K")]
        secret: Option<SecretName>,
        /// Only those that meant this environment
        #[arg(long, value_name = "E")]
        env: Option<Environment>,
    },
    /// Print the variables by which a shell's programs use the proxy and trust it
    #[command(after_help = "Examples:
  eval \"$(agentsecrets proxy env)\"
  agentsecrets proxy env --shell powershell | Out-String | Invoke-Expression")]
    Env {
        /// The shell that is to read them
        #[arg(long, value_enum, default_value = if cfg!(windows) { "powershell" } else { "sh" })]
        shell: Shell,
    },
}

/// Whose words for a variable are printed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Sh,
    Powershell,
    Cmd,
}

impl Shell {
    fn sets(self, name: &str, value: &str) -> String {
        match self {
            Self::Sh => format!("export {name}='{}'", value.replace('\'', r"'\''")),
            Self::Powershell => {
                // It takes typographic quotes for quotes.
                let quoted = value.chars().fold(String::new(), |mut quoted, letter| {
                    let times = if ['\'', '‘', '’', '‚', '‛'].contains(&letter) { 2 } else { 1 };
                    quoted.extend(std::iter::repeat_n(letter, times));
                    quoted
                });
                format!("$env:{name} = '{quoted}'")
            }
            Self::Cmd => format!("set \"{name}={value}\""),
        }
    }
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    match args.verb {
        Verb::Start { port, background: true, .. } => in_background(port, context),
        Verb::Start { port, foreground: true, .. } => in_foreground(port, context),
        Verb::Start { port, .. } => start(port, context),
        Verb::Stop => stop(context),
        Verb::Status => status(context),
        Verb::Logs { last, secret, env } => audit::requests(last, secret, env, context),
        Verb::Env { shell } => variables(shell, context),
    }
}

fn start(port: u16, context: &Context) -> Result<ExitCode, Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Failure, format!("cannot start the proxy: {error}"));
    let mut command = Command::new(sys::own_program().map_err(failed)?);
    command.args(["--project", context.project.as_str(), "--environment", context.environment.as_str()]);
    command.args(["proxy", "start", "--background", "--port", &port.to_string()]);
    sys::prepare_to_leave(&mut command).map_err(failed)?;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut said = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut said).map_err(failed)?;
    }
    if let Some(where_) = said.trim_end().strip_prefix(READY) {
        eprintln!("the proxy listens on{where_}; for a shell's programs, run: {}", sys::USE_PROXY);
        return Ok(ExitCode::SUCCESS);
    }
    // It has said why.
    let ended = child.wait().map_err(failed)?;
    Ok(ExitCode::from(ended.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn in_foreground(port: u16, context: &Context) -> Result<ExitCode, Failure> {
    crate::server::logging::to_stderr();
    let prepare = |authority: &str| write_roots(context, authority);
    serve(&wanted(port, context), prepare, |running, ()| {
        eprintln!("the proxy listens on 127.0.0.1:{}, process {}", running.port, running.pid);
        socket_activation::ready()
    })?;
    Ok(ExitCode::SUCCESS)
}

fn in_background(port: u16, context: &Context) -> Result<ExitCode, Failure> {
    crate::server::logging::to_stderr();
    let path = context.home.proxy_log();
    let prepare = |authority: &str| {
        write_roots(context, authority)?;
        if path.metadata().is_ok_and(|log| log.len() > LARGEST_LOG) {
            std::fs::rename(&path, path.with_extension("log.1"))?;
        }
        files::append(&path)
    };
    serve(&wanted(port, context), prepare, |running, log| {
        std::env::set_current_dir("/")?;
        println!("{READY} 127.0.0.1:{}, process {}", running.port, running.pid);
        // From here on it is nobody's terminal's.
        sys::leave_terminal(&log)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn wanted(port: u16, context: &Context) -> Wanted {
    Wanted {
        narrow: context.scope.narrow.clone(),
        home: context.home.clone(),
        project: context.project.clone(),
        environment: context.environment.clone(),
        port,
    }
}

/// The files by which clients trust the proxy. The authority's key never leaves its process.
fn write_roots(context: &Context, authority: &str) -> io::Result<()> {
    files::replace(&context.home.proxy_authority(), authority.as_bytes())?;
    files::replace(&context.home.proxy_bundle(), bundle(authority).as_bytes())
}

fn stop(context: &Context) -> Result<ExitCode, Failure> {
    let running = running(context)?;
    let pid = running.pid;
    sys::ask_to_end(pid)
        .map_err(|error| Failure::new(Exit::Failure, format!("cannot end process {pid}: {error}")))?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if found(context)?.is_none() {
            eprintln!("the proxy has ended");
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(LOOK);
    }
    Err(Failure::new(Exit::Failure, format!("process {pid} has not ended in {} seconds", PATIENCE.as_secs()))
        .hint(format!("{} {pid}", sys::KILL)))
}

fn status(context: &Context) -> Result<ExitCode, Failure> {
    let running = found(context)?;
    let code = if running.is_some() { ExitCode::SUCCESS } else { ExitCode::from(Exit::Unreachable as u8) };
    match (context.json, running) {
        (true, Some(Running { pid, port })) => {
            println!("{}", serde_json::json!({ "running": true, "port": port, "pid": pid }));
        }
        (true, None) => println!("{}", serde_json::json!({ "running": false })),
        (false, Some(Running { pid, port })) => println!("the proxy runs: 127.0.0.1:{port}, process {pid}"),
        (false, None) => println!("the proxy does not run; to start it, run: agentsecrets proxy start"),
    }
    Ok(code)
}

fn variables(shell: Shell, context: &Context) -> Result<ExitCode, Failure> {
    let Running { port, .. } = running(context)?;
    let (proxy, here) = (format!("http://127.0.0.1:{port}"), "localhost,127.0.0.1,::1");
    let bundle = context.home.proxy_bundle().display().to_string();
    let authority = context.home.proxy_authority().display().to_string();
    let mut variables: Vec<(&str, &str)> = Vec::new();
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
        variables.push((name, &proxy));
    }
    variables.extend(["NO_PROXY", "no_proxy"].map(|name| (name, here)));
    variables.extend(ROOTS.iter().map(|name| (*name, bundle.as_str())));
    variables.extend(ADDED_ROOTS.iter().map(|name| (*name, authority.as_str())));
    if context.json {
        let object: serde_json::Map<_, _> =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        println!("{}", serde_json::Value::Object(object));
        return Ok(ExitCode::SUCCESS);
    }
    for (name, value) in variables {
        println!("{}", shell.sets(name, value));
    }
    Ok(ExitCode::SUCCESS)
}

fn running(context: &Context) -> Result<Running, Failure> {
    found(context)?.ok_or_else(|| {
        Failure::new(Exit::Unreachable, "the proxy does not run").hint("agentsecrets proxy start")
    })
}

fn found(context: &Context) -> Result<Option<Running>, Failure> {
    Instance::running(&context.home).map_err(|error| {
        let path = Instance::path(&context.home);
        Failure::new(Exit::Failure, format!("{} cannot be read: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_is_told_in_its_own_words() {
        let said = |shell: Shell| shell.sets("CA", r"C:\it's ’here’\ca.pem");
        assert_eq!(said(Shell::Sh), r"export CA='C:\it'\''s ’here’\ca.pem'");
        assert_eq!(said(Shell::Powershell), r"$env:CA = 'C:\it''s ’’here’’\ca.pem'");
        assert_eq!(said(Shell::Cmd), r#"set "CA=C:\it's ’here’\ca.pem""#);
    }
}
