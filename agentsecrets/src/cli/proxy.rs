//! `agentsecrets proxy`: the explicit proxy, for clients that use it deliberately. One instance runs per
//! home.

use std::io::{self, BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anstream::{eprintln, println};

use super::audit;
use crate::cli::context::Context;
use crate::server::explicit_proxy::{ProxyConfig, ProxyInfo, ProxyLock, serve};
use crate::server::socket_activation;
use crate::sys;
use crate::sys::files;
use crate::tls::bundle::{CA_BUNDLE_VARIABLES, EXTRA_CA_VARIABLES, bundle};
use crate::types::failure::{ErrorContext, Exit, Failure};
use crate::types::name::{Environment, SecretName};

const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Prefix of the line that the background process prints when it accepts connections.
const READY_PREFIX: &str = "ready";
/// A log larger than this is rotated when the proxy starts.
const MAX_LOG_BYTES: u64 = 4 << 20;

/// Run the explicit proxy, for clients that use HTTPS_PROXY
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
    /// Start the proxy in the background; with --foreground it uses a socket passed by systemd
    #[command(after_help = "Example: agentsecrets proxy start --port 8765")]
    Start {
        /// Port on 127.0.0.1
        #[arg(long, value_name = "PORT", default_value_t = 8765)]
        port: u16,
        /// Stay in the foreground, and log to standard error
        #[arg(long)]
        foreground: bool,
        /// Report on standard output that it is ready, then leave the terminal
        #[arg(long, hide = true)]
        background: bool,
    },
    /// Stop the proxy
    #[command(after_help = "Example: agentsecrets proxy stop")]
    Stop,
    /// Show whether the proxy runs, and its address; exit code 6 if it does not
    #[command(after_help = "Example: agentsecrets proxy status --json")]
    Status,
    /// List requests, oldest first; JSON lines unless standard output is a terminal
    #[command(after_help = "Example: agentsecrets proxy logs --last 20 --secret STRIPE_KEY")]
    Logs {
        /// Show only the newest N
        #[arg(long, value_name = "N")]
        last: Option<usize>,
        /// Show only requests that involve this secret
        #[arg(long, value_name = "K")]
        secret: Option<SecretName>,
        /// Show only requests of this environment
        #[arg(long, value_name = "E")]
        env: Option<Environment>,
    },
    /// Print environment variables that make programs use and trust the proxy
    #[command(after_help = "Examples:
  eval \"$(agentsecrets proxy env)\"
  agentsecrets proxy env --shell powershell | Out-String | Invoke-Expression")]
    Env {
        /// Shell syntax of the output
        #[arg(long, value_enum, default_value = if cfg!(windows) { "powershell" } else { "sh" })]
        shell: Shell,
    },
}

/// The shell whose syntax is printed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Sh,
    Powershell,
    Cmd,
}

impl Shell {
    fn assignment(self, name: &str, value: &str) -> String {
        match self {
            Self::Sh => format!("export {name}='{}'", value.replace('\'', r"'\''")),
            Self::Powershell => {
                // PowerShell treats typographic quotes as quotes.
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

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    match args.verb {
        Verb::Start { port, background: true, .. } => in_background(port, context),
        Verb::Start { port, foreground: true, .. } => in_foreground(port, context),
        Verb::Start { port, .. } => start(port, context),
        Verb::Stop => stop(context),
        Verb::Status => status(context),
        Verb::Logs { last, secret, env } => audit::list_requests(last, secret, env, context),
        Verb::Env { shell } => print_variables(shell, context),
    }
}

fn start(port: u16, context: &Context) -> Result<ExitCode, Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Failure, format!("cannot start the proxy: {error}"));
    let mut command = Command::new(sys::own_program().map_err(failed)?);
    command.args(["--project", context.project.as_str(), "--environment", context.environment.as_str()]);
    command.args(["proxy", "start", "--background", "--port", &port.to_string()]);
    sys::prepare_to_leave(&mut command).map_err(failed)?;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut first_line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut first_line).map_err(failed)?;
    }
    if let Some(address) = first_line.trim_end().strip_prefix(READY_PREFIX) {
        eprintln!("the proxy listens on{address}; for a shell's programs, run: {}", sys::USE_PROXY);
        return Ok(ExitCode::SUCCESS);
    }
    // The child has printed the reason.
    let ended = child.wait().map_err(failed)?;
    Ok(ExitCode::from(ended.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn in_foreground(port: u16, context: &Context) -> Result<ExitCode, Failure> {
    crate::server::logging::to_stderr();
    let prepare = |authority: &str| write_roots(context, authority);
    serve(&proxy_config(port, context), prepare, |running, ()| {
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
        if path.metadata().is_ok_and(|log| log.len() > MAX_LOG_BYTES) {
            std::fs::rename(&path, path.with_extension("log.1"))?;
        }
        files::append(&path)
    };
    serve(&proxy_config(port, context), prepare, |running, log| {
        std::env::set_current_dir("/")?;
        println!("{READY_PREFIX} 127.0.0.1:{}, process {}", running.port, running.pid);
        // From here on the process has no terminal.
        sys::leave_terminal(&log)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn proxy_config(port: u16, context: &Context) -> ProxyConfig {
    ProxyConfig {
        restriction: context.scope.restriction.clone(),
        home: context.home.clone(),
        project: context.project.clone(),
        environment: context.environment.clone(),
        port,
    }
}

/// Writes the CA files for clients. The CA's key never leaves the proxy process.
fn write_roots(context: &Context, authority: &str) -> io::Result<()> {
    files::replace(&context.home.proxy_authority(), authority.as_bytes())?;
    files::replace(&context.home.proxy_bundle(), bundle(authority).as_bytes())
}

fn stop(context: &Context) -> Result<ExitCode, Failure> {
    let running = require_running(context)?;
    let pid = running.pid;
    sys::request_shutdown(pid).context(format!("cannot end process {pid}"))?;
    let deadline = Instant::now() + STOP_TIMEOUT;
    while Instant::now() < deadline {
        if find_running(context)?.is_none() {
            eprintln!("the proxy has ended");
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Err(Failure::new(
        Exit::Failure,
        format!("process {pid} has not ended in {} seconds", STOP_TIMEOUT.as_secs()),
    )
    .hint(format!("{} {pid}", sys::KILL)))
}

fn status(context: &Context) -> Result<ExitCode, Failure> {
    let running = find_running(context)?;
    let code = if running.is_some() { ExitCode::SUCCESS } else { ExitCode::from(Exit::Unreachable as u8) };
    match (context.json, running) {
        (true, Some(ProxyInfo { pid, port })) => {
            println!("{}", serde_json::json!({ "running": true, "port": port, "pid": pid }));
        }
        (true, None) => println!("{}", serde_json::json!({ "running": false })),
        (false, Some(ProxyInfo { pid, port })) => println!("the proxy runs: 127.0.0.1:{port}, process {pid}"),
        (false, None) => println!("the proxy does not run; to start it, run: agentsecrets proxy start"),
    }
    Ok(code)
}

fn print_variables(shell: Shell, context: &Context) -> Result<ExitCode, Failure> {
    let ProxyInfo { port, .. } = require_running(context)?;
    let (proxy, here) = (format!("http://127.0.0.1:{port}"), "localhost,127.0.0.1,::1");
    let bundle = context.home.proxy_bundle().display().to_string();
    let authority = context.home.proxy_authority().display().to_string();
    let mut variables: Vec<(&str, &str)> = Vec::new();
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
        variables.push((name, &proxy));
    }
    variables.extend(["NO_PROXY", "no_proxy"].map(|name| (name, here)));
    variables.extend(CA_BUNDLE_VARIABLES.iter().map(|name| (*name, bundle.as_str())));
    variables.extend(EXTRA_CA_VARIABLES.iter().map(|name| (*name, authority.as_str())));
    if context.json {
        let object: serde_json::Map<_, _> =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        println!("{}", serde_json::Value::Object(object));
        return Ok(ExitCode::SUCCESS);
    }
    for (name, value) in variables {
        println!("{}", shell.assignment(name, value));
    }
    Ok(ExitCode::SUCCESS)
}

fn require_running(context: &Context) -> Result<ProxyInfo, Failure> {
    find_running(context)?.ok_or_else(|| {
        Failure::new(Exit::Unreachable, "the proxy does not run").hint("agentsecrets proxy start")
    })
}

fn find_running(context: &Context) -> Result<Option<ProxyInfo>, Failure> {
    ProxyLock::find_running(&context.home)
        .context(format!("{} cannot be read", ProxyLock::path(&context.home).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_for_each_shell() {
        let line = |shell: Shell| shell.assignment("CA", r"C:\it's ’here’\ca.pem");
        assert_eq!(line(Shell::Sh), r"export CA='C:\it'\''s ’here’\ca.pem'");
        assert_eq!(line(Shell::Powershell), r"$env:CA = 'C:\it''s ’’here’’\ca.pem'");
        assert_eq!(line(Shell::Cmd), r#"set "CA=C:\it's ’here’\ca.pem""#);
    }
}
