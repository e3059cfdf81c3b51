//! `agentsecrets exec`: the exec provider of OpenClaw. By its protocol it returns real values, so that it gives
//! none but to a program that a person trusted with that secret: who it is, the kernel says.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::secrets::{open_store, store_failure};
use crate::audit::Status;
use crate::authz::trust::Trust;
use crate::call::describe_json_error;
use crate::cli::Context;
use crate::cli::Exit;
use crate::cli::Failure;
use crate::cli::value_export;
use crate::config::Config;
use crate::identity::Caller;
use crate::identity::look_closer;
use crate::store::{Key, Store};
use crate::types::name::SecretName;
use crate::types::secret::Secret;

/// The only version of the protocol.
const VERSION: u32 = 1;
/// The largest request, in bytes.
const LARGEST: u64 = 1 << 20;

/// Give a trusted program the values that it asks for; OpenClaw's exec provider.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  echo '{\"protocolVersion\":1,\"provider\":\"agentsecrets\",\"ids\":[\"STRIPE_KEY\"]}' | agentsecrets exec

The answer holds real values, so that a program gets those alone that it is trusted with:
  agentsecrets trust add /path/to/program --secrets STRIPE_KEY
What needs no value is better served by `agentsecrets mcp serve` or `agentsecrets proxy start`.")]
pub(super) struct Args {}

/// What is asked. Other keys may come in later versions of the protocol.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    protocol_version: u32,
    provider: String,
    ids: Vec<String>,
}

/// What is answered: for every id a value or an error.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answered<'a> {
    protocol_version: u32,
    values: BTreeMap<&'a str, &'a str>,
    errors: BTreeMap<&'a str, Problem>,
}

#[derive(Debug, Serialize)]
struct Problem {
    message: String,
}

/// Runs the verb.
pub(super) fn run(_args: Args, context: &Context) -> Result<ExitCode, Failure> {
    // Whoever may trace us could read the values out of our memory.
    crate::sys::protect_memory().map_err(|error| failed("cannot protect our memory", &error))?;
    if io::stdout().is_terminal() {
        return Err(Failure::new(
            Exit::Failure,
            "this is for programs: values are not printed at a terminal",
        )
        .hint("agentsecrets secrets get NAME --reveal"));
    }
    let asked = read()?;
    let mut pending = value_export::open("EXEC", asked.provider.clone(), context, failed)?;
    let (values, errors) = match look_up(&asked, context) {
        Ok(found) => found,
        Err(failure) => {
            let written = pending.finish(value_export::ended(Status::Error, failure.what()));
            return Err(written.map_or_else(|error| failed("this is not recorded", &error), |()| failure));
        }
    };
    let refused = || errors.keys().filter_map(|id| id.parse::<SecretName>().ok());
    if values.is_empty() {
        pending.secret_keys(&refused().collect::<Vec<_>>());
        let ended = value_export::ended(Status::Blocked, "no value was given");
        pending.finish(ended).map_err(|error| failed("this is not recorded", &error))?;
        return answer(&[], errors);
    }
    pending.handed_over(values.iter().map(|(name, _)| name), "exec_provider");
    refused().for_each(|name| pending.note(format!("{name} was not given")));
    pending.intent().map_err(|error| failed("nothing is handed over", &error))?;
    let answered = answer(&values, errors);
    let outcome = match &answered {
        Ok(_) => value_export::done(),
        Err(failure) => value_export::ended(Status::Error, failure.what()),
    };
    pending.finish(outcome).map_err(|error| failed("the end of this is not recorded", &error))?;
    answered
}

fn read() -> Result<Asked, Failure> {
    let mut text = Vec::new();
    let taken = io::stdin().lock().take(LARGEST + 1).read_to_end(&mut text);
    taken.map_err(|error| failed("the request cannot be read", &error))?;
    if text.len() as u64 > LARGEST {
        return Err(Failure::new(Exit::Failure, format!("the request is larger than {} MiB", LARGEST >> 20)));
    }
    let asked: Asked = serde_json::from_slice(&text)
        .map_err(|error| failed("the request cannot be understood", &describe_json_error(&error)))?;
    if asked.protocol_version != VERSION {
        let what = format!("protocol version {} is not known; {VERSION} is", asked.protocol_version);
        return Err(Failure::new(Exit::Failure, what));
    }
    Ok(asked)
}

type Found<'a> = (Vec<(SecretName, Secret)>, BTreeMap<&'a str, Problem>);

/// The values that the program which started us may have, and why it does not get the others.
fn look_up<'a>(asked: &'a Asked, context: &Context) -> Result<Found<'a>, Failure> {
    let (mut allowed, mut errors) = (Vec::new(), BTreeMap::new());
    let caller = caller(context);
    let trust = trust(context)?;
    for id in &asked.ids {
        match permitted(id, caller.as_ref(), &trust, context) {
            Ok(name) if allowed.contains(&name) => {}
            Ok(name) => allowed.push(name),
            Err(message) => drop(errors.insert(id.as_str(), Problem { message })),
        }
    }
    let mut values = Vec::with_capacity(allowed.len());
    if allowed.is_empty() {
        return Ok((values, errors));
    }
    let store = open_store(context)?;
    for id in &asked.ids {
        let Some(name) = allowed.iter().find(|name| name.as_str() == id) else { continue };
        let (project, environment) = (context.project.clone(), context.environment.clone());
        let value = store.get(&Key { project, environment, name: name.clone() }).map_err(store_failure)?;
        let message = match value {
            Some(value) if std::str::from_utf8(value.expose()).is_ok() => {
                if values.iter().all(|(known, _)| known != name) {
                    values.push((name.clone(), value));
                }
                continue;
            }
            Some(_) => format!("secret '{name}' is no text, and cannot be said in JSON"),
            None => format!("secret '{name}' not found in keychain"),
        };
        errors.insert(id, Problem { message });
    }
    Ok((values, errors))
}

/// The program that started us, if it is known and of our user.
fn caller(context: &Context) -> Result<Caller, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    runtime.block_on(context.caller_as(None)).map_err(|error| error.to_string())
}

/// Which programs a person trusted.
fn trust(context: &Context) -> Result<Trust, Failure> {
    let config = Config::load(&context.home.config())
        .map_err(|error| failed("the configuration is not valid", &error).hint("agentsecrets doctor"))?;
    let trust = Trust::open(&context.home.trust(), config.require_trust, look_closer());
    trust.map_err(|error| Failure::new(Exit::Failure, error).hint("agentsecrets trust list"))
}

/// The secret that `id` names, if `caller` may have its value.
fn permitted(
    id: &str,
    caller: Result<&Caller, &String>,
    trust: &Trust,
    context: &Context,
) -> Result<SecretName, String> {
    let name: SecretName = id.parse().map_err(|_| "this is not the name of a secret".to_owned())?;
    let caller = caller.map_err(|error| format!("the calling program cannot be proven: {error}"))?;
    let path = caller.process.exe.display();
    trust.vouches(caller, &name).map_err(|why| {
        // What is left open in general is known here.
        why.replace("trust add PROGRAM", &format!("trust add {path}"))
    })?;
    // Where nobody was there to be asked, that must be certain.
    #[cfg(target_os = "linux")]
    if context.ticket.as_ref().is_some_and(|ticket| ticket.by_trust)
        && !crate::cli::privsep::is_service(&context.home, &caller.process, std::slice::from_ref(&name))
    {
        return Err(format!(
            "{path} has '{name}' on a strict machine as a service alone: agentsecrets trust add {path} --secrets \
             {name} --cgroup CGROUP"
        ));
    }
    if !context.scope.narrow.leaves(&name) {
        return Err(format!("{} leaves {name} out of its `secrets`", context.scope.narrow.file));
    }
    Ok(name)
}

/// Writes the answer, whose bytes are not left lying in memory.
fn answer(values: &[(SecretName, Secret)], errors: BTreeMap<&str, Problem>) -> Result<ExitCode, Failure> {
    let texts = values
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), std::str::from_utf8(value.expose()).ok()?)));
    let values: BTreeMap<&str, &str> = texts.collect();
    // Room for every byte as an escape, so that the buffer is never moved.
    let values_size = values.iter().map(|(name, value)| 6 * (name.len() + value.len()) + 256).sum::<usize>();
    let errors_size =
        errors.iter().map(|(id, problem)| 6 * (id.len() + problem.message.len()) + 1024).sum::<usize>();
    let mut text = Zeroizing::new(Vec::with_capacity(values_size + errors_size + 256));
    let answered = Answered { protocol_version: VERSION, values, errors };
    serde_json::to_writer(&mut *text, &answered).map_err(|error| failed("there is no answer", &error))?;
    text.push(b'\n');
    // Past the buffer of standard output, which would keep them.
    let file = crate::sys::standard_output();
    let mut file = file.map_err(|error| failed("there is no answer", &error))?;
    file.write_all(&text).map_err(|error| failed("the answer was not taken", &error))?;
    Ok(ExitCode::SUCCESS)
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Failure, format!("{what}: {error}"))
}
