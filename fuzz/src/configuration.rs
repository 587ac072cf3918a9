//! The daemon's own configuration file.

use control::Reply;
use dataplane::config::Config;
use dataplane::control::model::Model;

/// What was accepted a director takes.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    match Config::parse(text, "director.toml") {
        Ok(config) => {
            let mut model = Model::new(config.director.limits()).with_ports(config.port_specs());
            model.apply(&config.changes).unwrap();
            // All of it can be told.
            let list = model.services(None).unwrap();
            control::send(&mut Vec::new(), &Reply::Services(list)).unwrap();
            let _ = config.setup(|port| [2, 0, 0, 0, 0, port.0]);
        }
        Err(error) => {
            let line = error.to_string();
            assert!(line.starts_with("director.toml:"), "{line}");
        }
    }
}
