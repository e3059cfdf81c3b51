//! The stores that the person's configuration names, for the verbs that touch secrets.

use crate::cli::{Context, Exit, Failure};
use crate::config::Config;
use crate::store;
use crate::store::Choice;
use crate::store::Kind;
use crate::store::StoreError;
use crate::store::Stores;
use crate::vault;

/// The person's stores for whoever reads them: there must be something to read.
pub(crate) fn open_store(context: &Context) -> Result<Stores, Failure> {
    let choices = choices(context)?;
    let path = context.home.vault();
    if choices.iter().all(|choice| choice.kind == Kind::Vault) && !vault::exists(&path) {
        let missing = StoreError::Locked(format!("there is no vault at {} yet", path.display()));
        return Err(store_failure(missing).hint("to make one, run: agentsecrets secrets set NAME"));
    }
    Ok(store::open(&choices, &context.home))
}

/// The person's stores for whoever writes: a vault that is not there yet is made.
pub(crate) fn open_store_to_write(context: &Context) -> Result<Stores, Failure> {
    Ok(store::open(&choices(context)?, &context.home))
}

/// Which stores the configuration names.
pub(crate) fn choices(context: &Context) -> Result<Vec<Choice>, Failure> {
    let config = Config::load(&context.home.config()).map_err(|error| {
        Failure::new(Exit::Failure, format!("the configuration is not valid: {error}"))
            .hint("agentsecrets doctor")
    })?;
    Ok(config.stores)
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        store_failure(error)
    }
}

/// How a store's error ends a command.
pub(crate) fn store_failure(error: StoreError) -> Failure {
    let exit = match error {
        StoreError::Absent(_) | StoreError::Locked(_) => Exit::Locked,
        StoreError::Refused(_) => Exit::Usage,
        StoreError::Damaged(_) | StoreError::Io(_) => Exit::Failure,
    };
    Failure::new(exit, error)
}
