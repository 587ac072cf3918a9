//! `metrics`: the text that Prometheus gets over HTTP, through the socket.

use anyhow::{Result, bail};
use control::client::{Client, ClientError};
use control::{MetricsCursor, Reply, Request};

/// All parts of it.
pub(super) fn run(client: &mut Client, json: bool) -> Result<String> {
    let (mut all, mut cursor) = (String::new(), Some(MetricsCursor::default()));
    while let Some(from) = cursor {
        match client.ask(&Request::Metrics { cursor: from })? {
            Reply::Metrics { text, next } => {
                all += &text;
                cursor = next;
            }
            Reply::Refused(refusal) => return Err(refusal.into()),
            _ => bail!(ClientError::Unexpected),
        }
    }
    if json {
        return super::json(&super::answers::Metrics {
            format: "prometheus 0.0.4",
            text: all,
        });
    }
    Ok(all)
}
