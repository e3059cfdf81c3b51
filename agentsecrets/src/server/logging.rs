//! Log output of a serving process.

/// Logs to standard error; `AGENTSECRETS_LOG` sets the filter.
pub(crate) fn to_stderr() {
    let level = tracing_subscriber::EnvFilter::try_from_env("AGENTSECRETS_LOG");
    let level = level.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    // A test may have installed a subscriber already.
    let _ = tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).try_init();
}
