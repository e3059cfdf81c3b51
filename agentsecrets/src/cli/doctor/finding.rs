//! A finding of `agentsecrets doctor`, with its severity and its fix.

use anstream::println;
use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// The result of one check.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    #[serde(rename = "mark")]
    pub(super) severity: Severity,
    pub(super) what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fix: Option<String>,
}

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Severity {
    Good,
    Warning,
    Bad,
}

impl Finding {
    pub(super) fn good(what: impl Into<String>) -> Self {
        Self { severity: Severity::Good, what: what.into(), fix: None }
    }

    pub(super) fn warning(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, what: what.into(), fix: Some(fix.into()) }
    }

    pub(super) fn bad(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Bad, what: what.into(), fix: Some(fix.into()) }
    }

    pub(super) fn print(&self) {
        let (sign, colour) = match self.severity {
            Severity::Good => ("✓", AnsiColor::Green),
            Severity::Warning => ("!", AnsiColor::Yellow),
            Severity::Bad => ("✗", AnsiColor::Red),
        };
        let style = Style::new().bold().fg_color(Some(colour.into()));
        println!("{style}{sign}{style:#} {}", self.what);
        if let Some(fix) = &self.fix {
            println!("    {fix}");
        }
    }
}
