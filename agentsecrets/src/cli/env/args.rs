//! The command line of `agentsecrets env`.

use std::ffi::OsString;
use std::path::PathBuf;

use super::child::OutputArgs;
use crate::types::name::SecretName;

/// Run a command with the real values in its environment: every secret under its own name, or selected ones
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets env -- npm start
  agentsecrets env --only STRIPE_KEY,DATABASE_URL -- ./deploy.sh
  agentsecrets env --env-file app.env -- npm start

A line of the file may contain references to secrets instead of their values:
  DATABASE_URL=postgres://app:AS_SECRET_DB_PASSWORD@db.internal/app
  STRIPE_KEY=agentsecrets://STRIPE_KEY

The exit code is the command's own, or 128 plus the number of the signal that ended it. 125 is our own
failure, 126 a command that cannot be executed, 127 a command that does not exist. The command and
everything that it starts can read the values: run a program that must not see them with
`agentsecrets run`. An agent may use `env` only if its policy entry has `env: true`.")]
pub(in crate::cli) struct Args {
    /// Use only these secrets
    #[arg(long, value_name = "K1,K2", value_delimiter = ',')]
    pub(super) only: Vec<SecretName>,
    /// Use the variables of this .env file and the secrets that it refers to, instead of every secret
    #[arg(long, value_name = "FILE")]
    pub(super) env_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    /// Command and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,
}

impl Args {
    /// The secrets that the options name.
    pub(in crate::cli) fn secret_names(&self) -> Vec<SecretName> {
        self.only.clone()
    }

    /// The input files.
    pub(in crate::cli) fn input_files(&self) -> Vec<PathBuf> {
        self.env_file.iter().cloned().collect()
    }
}
