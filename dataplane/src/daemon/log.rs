//! The log: to stderr, for people or for programs.

use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;

use crate::config::{Director, LogFormat};

/// Everything that is logged from here on goes to stderr as `director` says.
pub fn start(director: &Director) {
    let log = tracing_subscriber::fmt()
        .with_max_level(director.log)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match director.log_format {
        // The journal has the time of each line already.
        LogFormat::Human if goes_to_journal() => log.with_target(false).without_time().init(),
        LogFormat::Human => log.with_target(false).init(),
        LogFormat::Json => {
            log.json()
                .flatten_event(true)
                .with_current_span(false)
                .init();
            std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
        }
    }
}

/// Why the daemon ends, as its log is written.
pub fn failure(format: LogFormat, reason: &anyhow::Error) {
    match format {
        LogFormat::Human => eprintln!("directord: {reason:#}"),
        LogFormat::Json => tracing::error!("{reason:#}"),
    }
}

/// systemd names the stream that it connected to stderr; what was redirected since is another one.
fn goes_to_journal() -> bool {
    let stderr = std::fs::metadata("/proc/self/fd/2");
    let stderr = stderr.map(|stderr| format!("{}:{}", stderr.dev(), stderr.ino()));
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| stderr.is_ok_and(|stderr| stream == stderr))
}
