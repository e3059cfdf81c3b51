//! The parts that the settings of several store kinds share: times, names and values that must be there.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_yaml::Spanned;

use crate::policy::parse_duration;

/// A text of `config.yaml`, with its line.
pub(super) type SpannedText = Spanned<String>;

/// Takes an error at a line of `config.yaml`.
pub(crate) type ReportProblem<'a> = &'a mut dyn FnMut(u64, String);

/// The time that is written, or `default`.
pub(super) fn duration_or_default(
    written: Option<SpannedText>,
    default: Duration,
    report: ReportProblem<'_>,
) -> Duration {
    let Some(written) = written else { return default };
    parse_duration(&written.value).unwrap_or_else(|message| {
        report(written.referenced.line(), message);
        default
    })
}

/// The name that is written, if there is one and it is valid.
pub(super) fn parse_optional_name<T: std::str::FromStr<Err: fmt::Display>>(
    written: Option<SpannedText>,
    report: ReportProblem<'_>,
) -> Option<T> {
    let written = written?;
    written.value.parse().map_err(|error: T::Err| report(written.referenced.line(), error.to_string())).ok()
}

/// Deserialises a key that may be absent but, if present, must have a value.
pub(crate) fn required_value<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
