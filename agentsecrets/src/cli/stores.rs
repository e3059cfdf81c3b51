//! Opens the stores that the person's configuration names.

use super::context::Context;
use crate::config::Config;
use crate::store;
use crate::store::ChainedStore;
use crate::store::StoreConfig;
use crate::store::StoreError;
use crate::types::failure::{ErrorContext, Failure};

/// Opens the stores for reading; without a vault and any other store this fails.
pub(crate) fn open_store(context: &Context) -> Result<ChainedStore, Failure> {
    let choices = store_choices(context)?;
    if choices.iter().all(|choice| choice.kind.is_missing(&context.home)) {
        let path = context.home.vault();
        let missing = StoreError::Locked(format!("there is no vault at {} yet", path.display()));
        return Err(Failure::from(missing).hint("to make one, run: agentsecrets secrets set NAME"));
    }
    Ok(store::open(&choices, &context.home))
}

/// Opens the stores for writing; a missing vault is created by the first write.
pub(crate) fn open_store_to_write(context: &Context) -> Result<ChainedStore, Failure> {
    Ok(store::open(&store_choices(context)?, &context.home))
}

/// The stores of the configuration, in their order.
pub(crate) fn store_choices(context: &Context) -> Result<Vec<StoreConfig>, Failure> {
    let config = Config::load(&context.home.config())
        .context("the configuration is not valid")
        .map_err(|failure| failure.hint("agentsecrets doctor"))?;
    Ok(config.stores)
}
