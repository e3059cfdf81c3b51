//! Checks that the configured stores can be read, in their order.

use super::finding::Finding;
use crate::cli::context::Context;
use crate::config::Config;
use crate::store::{StoreCheck, StoreConfig};

/// One finding per store. An invalid configuration gives none, since it has a finding of its own.
pub(super) fn all(context: &Context) -> Vec<Finding> {
    let configs = Config::load(&context.home.config()).map(|config| config.stores).unwrap_or_default();
    configs.iter().map(|config| check_store(config, context)).collect()
}

fn check_store(config: &StoreConfig, context: &Context) -> Finding {
    match config.kind.check(&context.home, (&context.project, &context.environment)) {
        StoreCheck::Good(what) => Finding::good(what),
        StoreCheck::Warning { what, fix } => Finding::warning(what, fix),
        StoreCheck::Bad { what, fix } if config.optional => {
            Finding::warning(format!("{what} (it is optional: the next store answers)"), fix)
        }
        StoreCheck::Bad { what, fix } => Finding::bad(what, fix),
    }
}
