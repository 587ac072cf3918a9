//! The director itself, its metrics and its memory, timeouts and settings.

use super::*;

#[test]
fn director_and_eal() {
    check(
        "[director]\nsocket = \"run/s\"",
        "f:3: socket \"run/s\" cannot be one, an absolute path of at most 107 bytes like \"/run/director/director.sock\" is right",
    );
    check(
        "[director]\nsocket_group = \"a b\"",
        "f:3: socket_group \"a b\" cannot be a group, \"director\" is right",
    );
    check(
        "[director]\nworkers = []",
        "f:3: workers is empty, at least one core like [1] is right",
    );
    check(
        "[director]\nworkers = [\n1,\n2,\n1]",
        "f:6: core 1 has a worker already, name each core once",
    );
    check(
        "[director]\nworkers = [-1]",
        "f:3: worker core = -1 is out of range, 0 to 1023 is right",
    );
    check(
        "[director]\nworkers = [1, 2]\nidle = \"poll\"\ncontrol_core = 2",
        "f:5: control_core = 2 has a worker that never sleeps, a core without one, or idle = \"backoff\", is right",
    );
    check(
        "[director]\nmax_connections = 63",
        "f:3: max_connections = 63 is out of range, 64 to 1073741824 is right",
    );
    check(
        "[director]\nmax_templates = 63",
        "f:3: max_templates = 63 is out of range, 64 to 16777216 is right",
    );
    check(
        "[director]\nmax_servers = 0",
        "f:3: max_servers = 0 is out of range, 1 to 1048576 is right",
    );
    check(
        "[director]\nlog = \"loud\"",
        "f:3: log level \"loud\" is unknown, \"error\", \"warn\", \"info\", \"debug\" or \"trace\" is right",
    );
    check(
        "[eal]\nmemory_mb = 1",
        "f:3: memory_mb = 1 is out of range, 64 to 1048576 is right",
    );
    check(
        "[eal]\nfile_prefix = \"a/b\"",
        "f:3: file_prefix \"a/b\" cannot be one, letters, digits, - _ . are right",
    );
    check(
        "[eal]\nmbufs = 2048",
        "f:3: mbufs = 2048 is too few for descriptors of 2048 packets, more than that is right",
    );
}

#[test]
fn what_outlives_the_daemon_lies_in_a_directory() {
    let directory = |keys: &str| {
        let config = Config::parse(&format!("{PORT}\n[restart]\n{keys}"), "f");
        config.map(|config| config.restart.directory)
    };
    assert_eq!(directory(""), Ok(None));
    let path = Some("/dev/shm/a".into());
    assert_eq!(directory("directory = \"/dev/shm/a\""), Ok(path));
    assert!(directory("directory = \"shm\"").unwrap_err().to_string().ends_with(
        ": restart directory \"shm\" cannot be one, an absolute path like \"/dev/shm/director\" is right"
    ));
}

#[test]
fn metrics_may_be_elsewhere_or_nowhere() {
    let metrics = |keys: &str| {
        let config = Config::parse(&format!("{PORT}\n[metrics]\n{keys}"), "f");
        config.map(|config| (config.metrics.address, config.metrics.servers))
    };
    let address = "[::1]:80".parse().ok();
    assert_eq!(metrics("address = \"[::1]:80\""), Ok((address, true)));
    assert_eq!(
        metrics("address = \"none\"\nservers = false"),
        Ok((None, false))
    );
    assert!(metrics("address = \"localhost\"").unwrap_err().to_string().ends_with(
        ": metrics address \"localhost\" is not one, \"127.0.0.1:9145\", \"[::1]:9145\" or \"none\" is right"
    ));
}

#[test]
fn timeouts() {
    check(
        "[timeouts]\ntcp = 0",
        "f:3: tcp = 0 is out of range, 1 to 2678400 is right",
    );
    let config = Config::parse(&format!("{PORT}[timeouts]\nudp = 60"), "f").unwrap();
    assert_eq!(
        (
            config.timeouts.ms(State::Udp),
            config.timeouts.ms(State::Established)
        ),
        (60_000, 900_000)
    );
    assert_eq!(
        config.changes,
        [
            Change::SetTimeouts {
                tcp: Some(900),
                tcp_fin: Some(120),
                udp: Some(60)
            },
            Change::SetSettings(Settings::default())
        ]
    );
}

#[test]
fn settings() {
    check(
        "[settings]\nschedule_icpm = true",
        "f:3: unknown field `schedule_icpm`, expected one of `schedule_icmp`, `pmtu_disc`, `conn_reuse_mode`, `expire_nodest_conn`, `expire_quiescent_template`, \
         `sloppy_tcp`, `sloppy_sctp`, `drop_entry`, `drop_packet`, `secure_tcp`, `am_droprate`, `amemthresh`, \
         `one_packet_replies_untranslated`, `sync_version`, `sync_threshold`, `sync_period`, `sync_refresh_period`, \
         `sync_retries`, `sync_persist_mode`, `sync_ports`",
    );
    check(
        "[settings]\npmtu_disc = 1",
        "f:3: pmtu_disc = 1, true or false is right",
    );
    check(
        "[settings]\npmtu_disc = true\ndrop_entry = 4",
        "f:4: drop_entry = 4 is out of range, 0 to 3 is right",
    );
    check(
        "[settings]\nam_droprate = 0",
        "f:3: am_droprate = 0 is out of range, 1 to 2147483647 is right",
    );
    check(
        "[settings]\namemthresh = -1",
        "f:3: amemthresh = -1 is out of range, 0 to 2147483647 is right",
    );
    check(
        "[settings]\nsloppy_tcp = \"yes\"",
        "f:3: sloppy_tcp = \"yes\" is out of range, true or false is right",
    );
    let config = Config::parse(&format!("{PORT}[settings]\npmtu_disc = false"), "f").unwrap();
    let settings = Settings {
        pmtu_disc: false,
        ..Settings::default()
    };
    assert_eq!(config.changes[1], Change::SetSettings(settings));
}
