//! What a process that serves has to say of itself.

/// From here on it goes to standard error; `AGENTSECRETS_LOG` says how much.
pub fn to_stderr() {
    let level = tracing_subscriber::EnvFilter::try_from_env("AGENTSECRETS_LOG");
    let level = level.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    // Somebody may listen already, in a test.
    let _ = tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).try_init();
}
