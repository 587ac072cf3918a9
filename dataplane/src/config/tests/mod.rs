//! The examples, and the message for each mistake.

mod director;
mod examples;
mod network;
mod services;

use std::path::Path;

use control::{
    Change, ClientAddress, ForwardMode, PortSpec, ServiceOptions, Settings, Tunnel, TunnelChecksum,
    TunnelKind,
};

use super::Config;
use crate::conn::state::State;
use crate::net::{Prefix, Route};

/// The least that is accepted, on one line.
const PORT: &str =
    "port = [{ name = \"lan\", device = \"net_null0\", addresses = [\"10.0.0.254/24\"] }]\n";

fn error(text: &str) -> String {
    Config::parse(text, "f").unwrap_err().to_string()
}

/// The message for `text` after the one line of [`PORT`].
#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(error(&format!("{PORT}{text}")), expected, "for\n{text}");
}

/// The message for a file that is only a port with `keys`.
#[track_caller]
fn check_port(keys: &str, expected: &str) {
    assert_eq!(
        error(&format!(
            "[[port]]\nname = \"a\"\ndevice = \"net_null0\"\n{keys}"
        )),
        expected,
        "for\n{keys}"
    );
}

#[test]
fn an_unreadable_file_is_named() {
    let error = Config::load(Path::new("/nonexistent/d.toml"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "/nonexistent/d.toml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn syntax_and_unknown_keys() {
    check(
        "[director]\nworkers = [1",
        "f:3: unclosed array, expected `]`",
    );
    check(
        "x = 1",
        "f:2: unknown field `x`, expected one of `director`, `eal`, `metrics`, `restart`, `port`, `route`, `neighbour`, `timeouts`, `settings`, `mark`, `sync`, `service`",
    );
    check(
        "[timeouts]\nicmp = 3",
        "f:3: unknown field `icmp`, expected one of `tcp`, `tcp_fin`, `udp`",
    );
    check(
        "[timeouts]\ntcp = \"1\"",
        "f:3: invalid type: string \"1\", expected i64",
    );
    check(
        "[director]\nidle = \"sleep\"",
        "f:3: unknown variant `sleep`, expected `backoff` or `poll`",
    );
    check(
        "[director]\nlog_format = \"xml\"",
        "f:3: unknown variant `xml`, expected `human` or `json`",
    );
    check(
        "\n[[route]]\nto = \"0.0.0.0/0\"",
        "f:3: missing field `via`",
    );
}
