//! Checks that trusted programs are unchanged.

use super::finding::Finding;
use crate::audit::visible;
use crate::authz::registry;
use crate::authz::trust::pins::Pins;
use crate::cli::context::Context;
use crate::cli::trust::pin_state;

/// One finding for each pin that does not match, or one that reports that all match. Without pins there is
/// none.
pub(super) fn all(context: &Context) -> Vec<Finding> {
    let pins = match registry::read::<Pins>(&context.home.trust()) {
        Ok(pins) => pins,
        Err(error) => {
            let fix = "correct the file, or put it back from a copy: nothing starts until then";
            return vec![Finding::bad(error.to_string(), fix)];
        }
    };
    let found: Vec<_> = pins
        .all()
        .iter()
        .filter_map(|pin| {
            let path = visible(&pin.program.path.to_string_lossy());
            let fix = match pin_state(pin) {
                ("as pinned", _) => return None,
                ("unbound", _) => {
                    format!("agentsecrets trust add {path} --session, or --cgroup GLOB or --script FILE")
                }
                ("missing", _) => format!("agentsecrets trust remove {path}"),
                _ => format!(
                    "agentsecrets trust update {path}, with --from-package where a package brought it"
                ),
            };
            Some(Finding::warning(pin_state(pin).1.unwrap_or_default(), fix))
        })
        .collect();
    match (found.is_empty(), pins.all().len()) {
        (_, 0) => Vec::new(),
        (true, count) => vec![Finding::good(format!("trusted programs are as they were trusted ({count})"))],
        (false, _) => found,
    }
}
