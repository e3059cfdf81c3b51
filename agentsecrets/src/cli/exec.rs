//! `agentsecrets exec`: the exec provider of OpenClaw. Its protocol returns real values, so it gives a value
//! only to a program that a person trusts with that secret. The kernel identifies the program.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::audit::Status;
use crate::authz::trust::Trust;
use crate::call::describe_json_error;
use crate::cli::context::Context;
use crate::cli::records;
use crate::cli::stores::open_store;
use crate::config::Config;
use crate::identity::Caller;
use crate::identity::process_details;
use crate::store::{Key, Store};
use crate::types::failure::{ErrorContext, Exit, Failure};
use crate::types::name::SecretName;
use crate::types::secret::Secret;

/// The supported version of the protocol.
const PROTOCOL_VERSION: u32 = 1;
const MAX_REQUEST_BYTES: u64 = 1 << 20;

/// Give secret values to a trusted program (OpenClaw exec provider)
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  echo '{\"protocolVersion\":1,\"provider\":\"agentsecrets\",\"ids\":[\"STRIPE_KEY\"]}' | agentsecrets exec

The response holds real values, so a program gets only the secrets that it is trusted with:
  agentsecrets trust add /path/to/program --secrets STRIPE_KEY
Programs that need no value should use `agentsecrets mcp serve` or `agentsecrets proxy start`.")]
pub(super) struct Args {}

/// The request. Unknown keys are ignored, since later versions of the protocol may add some.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExecRequest {
    protocol_version: u32,
    provider: String,
    ids: Vec<String>,
}

/// The response: a value or an error for every id.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecResponse<'a> {
    protocol_version: u32,
    values: BTreeMap<&'a str, &'a str>,
    errors: BTreeMap<&'a str, ExecError>,
}

#[derive(Debug, Serialize)]
struct ExecError {
    message: String,
}

pub(super) fn run(_args: Args, context: &Context) -> Result<ExitCode, Failure> {
    // A process that may trace us could read the values from our memory.
    crate::sys::protect_memory().context("cannot protect our memory")?;
    if io::stdout().is_terminal() {
        return Err(Failure::new(
            Exit::Failure,
            "this is for programs: values are not printed at a terminal",
        )
        .hint("agentsecrets secrets get NAME --reveal"));
    }
    let request = read_request()?;
    let mut pending = records::begin_export("EXEC", request.provider.clone(), context, Exit::Failure)?;
    let (values, errors) = match look_up(&request, context) {
        Ok(found) => found,
        Err(failure) => {
            let written = pending.finish(records::export_failed(Status::Error, failure.message()));
            return Err(written
                .context("this is not recorded")
                .map_or_else(|unrecorded| unrecorded, |()| failure));
        }
    };
    let denied = || errors.keys().filter_map(|id| id.parse::<SecretName>().ok());
    if values.is_empty() {
        pending.secret_keys(&denied().collect::<Vec<_>>());
        let ended = records::export_failed(Status::Blocked, "no value was given");
        pending.finish(ended).context("this is not recorded")?;
        return write_response(&[], errors);
    }
    pending.exports(values.iter().map(|(name, _)| name), "exec_provider");
    denied().for_each(|name| pending.note(format!("{name} was not given")));
    pending.intent().context("no value is given")?;
    let answered = write_response(&values, errors);
    let outcome = match &answered {
        Ok(_) => records::export_done(),
        Err(failure) => records::export_failed(Status::Error, failure.message()),
    };
    pending.finish(outcome).context("the end of this is not recorded")?;
    answered
}

fn read_request() -> Result<ExecRequest, Failure> {
    let mut text = Vec::new();
    let taken = io::stdin().lock().take(MAX_REQUEST_BYTES + 1).read_to_end(&mut text);
    taken.context("the request cannot be read")?;
    if text.len() as u64 > MAX_REQUEST_BYTES {
        return Err(Failure::new(
            Exit::Failure,
            format!("the request is larger than {} MiB", MAX_REQUEST_BYTES >> 20),
        ));
    }
    let request: ExecRequest = serde_json::from_slice(&text)
        .map_err(|error| describe_json_error(&error))
        .context("the request is not valid")?;
    if request.protocol_version != PROTOCOL_VERSION {
        let what =
            format!("protocol version {} is not supported; {PROTOCOL_VERSION} is", request.protocol_version);
        return Err(Failure::new(Exit::Failure, what));
    }
    Ok(request)
}

type LookupResult<'a> = (Vec<(SecretName, Secret)>, BTreeMap<&'a str, ExecError>);

/// The values that the calling program may have, and the errors for the others.
fn look_up<'a>(request: &'a ExecRequest, context: &Context) -> Result<LookupResult<'a>, Failure> {
    let (mut allowed, mut errors) = (Vec::new(), BTreeMap::new());
    let caller = caller(context);
    let trust = open_trust(context)?;
    for id in &request.ids {
        match authorize(id, caller.as_ref(), &trust, context) {
            Ok(name) if allowed.contains(&name) => {}
            Ok(name) => allowed.push(name),
            Err(message) => drop(errors.insert(id.as_str(), ExecError { message })),
        }
    }
    let mut values = Vec::with_capacity(allowed.len());
    if allowed.is_empty() {
        return Ok((values, errors));
    }
    let store = open_store(context)?;
    for id in &request.ids {
        let Some(name) = allowed.iter().find(|name| name.as_str() == id) else { continue };
        let (project, environment) = (context.project.clone(), context.environment.clone());
        let value = store.get(&Key { project, environment, name: name.clone() })?;
        let message = match value {
            Some(value) if std::str::from_utf8(value.expose()).is_ok() => {
                if values.iter().all(|(other, _)| other != name) {
                    values.push((name.clone(), value));
                }
                continue;
            }
            Some(_) => format!("secret '{name}' is not text, and JSON cannot hold it"),
            None => format!("secret '{name}' not found in keychain"),
        };
        errors.insert(id, ExecError { message });
    }
    Ok((values, errors))
}

/// The calling program, if it is known and runs as our user.
fn caller(context: &Context) -> Result<Caller, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    runtime.block_on(context.caller_as_agent(None)).map_err(|error| error.to_string())
}

/// Opens the pins of trusted programs.
fn open_trust(context: &Context) -> Result<Trust, Failure> {
    let config = Config::load(&context.home.config())
        .context("the configuration is not valid")
        .map_err(|failure| failure.hint("agentsecrets doctor"))?;
    let trust = Trust::open(&context.home.trust(), config.require_trust, process_details());
    trust.map_err(|error| Failure::from_error(error).hint("agentsecrets trust list"))
}

/// The secret named `id`, if `caller` may have its value.
fn authorize(
    id: &str,
    caller: Result<&Caller, &String>,
    trust: &Trust,
    context: &Context,
) -> Result<SecretName, String> {
    let name: SecretName = id.parse().map_err(|_| "this is not the name of a secret".to_owned())?;
    let caller = caller.map_err(|error| format!("the calling program cannot be proven: {error}"))?;
    let path = caller.process.exe.display();
    trust.vouches(caller, &name).map_err(|reason| {
        // The program is known here.
        reason.replace("trust add PROGRAM", &format!("trust add {path}"))
    })?;
    // Without a confirmation the program must be a service.
    #[cfg(target_os = "linux")]
    if context.invocation.as_ref().is_some_and(|invocation| invocation.by_trusted_program)
        && !crate::cli::service_trust::is_service(&context.home, &caller.process, std::slice::from_ref(&name))
    {
        return Err(format!(
            "{path} may use '{name}' on a strict machine only as a service: agentsecrets trust add {path} --secrets \
             {name} --cgroup CGROUP"
        ));
    }
    if !context.scope.restriction.allows_secret(&name) {
        return Err(format!("{} leaves {name} out of its `secrets`", context.scope.restriction.file));
    }
    Ok(name)
}

/// Writes the response, and zeroes its buffer afterwards.
fn write_response(
    values: &[(SecretName, Secret)],
    errors: BTreeMap<&str, ExecError>,
) -> Result<ExitCode, Failure> {
    let texts = values
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), std::str::from_utf8(value.expose()).ok()?)));
    let values: BTreeMap<&str, &str> = texts.collect();
    // Large enough if every byte is escaped, so that the buffer is never reallocated.
    let values_size = values.iter().map(|(name, value)| 6 * (name.len() + value.len()) + 256).sum::<usize>();
    let errors_size =
        errors.iter().map(|(id, problem)| 6 * (id.len() + problem.message.len()) + 1024).sum::<usize>();
    let mut text = Zeroizing::new(Vec::with_capacity(values_size + errors_size + 256));
    let answered = ExecResponse { protocol_version: PROTOCOL_VERSION, values, errors };
    serde_json::to_writer(&mut *text, &answered).context("cannot encode the response")?;
    text.push(b'\n');
    // Bypasses the buffer of standard output, which would keep the values.
    let file = crate::sys::standard_output();
    let mut file = file.context("cannot write the response")?;
    file.write_all(&text).context("cannot write the response")?;
    Ok(ExitCode::SUCCESS)
}
