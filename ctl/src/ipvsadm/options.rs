//! `--options mss=1380,refuse=reset`: what LVS has no words for, under the names that files have.

use std::fmt::Display;

use crate::{ServiceOptions, Word};

/// ` --options client_address=none,mss=1380`; nothing where nothing is set. What conhash goes by has an
/// option of its own.
pub(super) fn written(options: &ServiceOptions) -> String {
    let ServiceOptions {
        client_address,
        mss,
        mh_table_size,
        timeouts,
        refuse,
        on_server_gone,
        reset_on_expiry,
        slow_start_s,
        hash_target: _,
    } = *options;
    let usual = ServiceOptions::default();
    let said: Vec<String> = [
        word("client_address", client_address, usual.client_address),
        number("mss", mss),
        number("mh_table_size", mh_table_size),
        number("timeout_tcp", timeouts.tcp),
        number("timeout_tcp_fin", timeouts.tcp_fin),
        number("timeout_udp", timeouts.udp),
        word("refuse", refuse, usual.refuse),
        word("on_server_gone", on_server_gone, usual.on_server_gone),
        number("reset_on_expiry", reset_on_expiry.then_some(true)),
        number("slow_start", Some(slow_start_s).filter(|s| *s != 0)),
    ]
    .into_iter()
    .flatten()
    .collect();
    if said.is_empty() {
        return String::new();
    }
    format!(" --options {}", said.join(","))
}

fn word<T: Word + PartialEq>(name: &str, value: T, usual: T) -> Option<String> {
    (value != usual).then(|| format!("{name}={}", value.word()))
}

fn number(name: &str, value: Option<impl Display>) -> Option<String> {
    value.map(|value| format!("{name}={value}"))
}

/// Says what is wrong, and what would be right.
pub(super) fn read(text: &str) -> Result<ServiceOptions, String> {
    let mut options = ServiceOptions::default();
    for pair in text.split(',') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        set(&mut options, name, value).ok_or_else(|| {
            format!("no option {pair:?}, --options mss=1380,refuse=reset is right")
        })?;
    }
    Ok(options)
}

fn set(options: &mut ServiceOptions, name: &str, value: &str) -> Option<()> {
    fn one_of<T: Word>(value: &str) -> Option<T> {
        T::ALL.iter().copied().find(|known| known.word() == value)
    }
    let seconds = || value.parse().ok();
    match name {
        "client_address" => options.client_address = one_of(value)?,
        "mss" => options.mss = Some(value.parse().ok()?),
        "mh_table_size" => options.mh_table_size = Some(value.parse().ok()?),
        "timeout_tcp" => options.timeouts.tcp = Some(seconds()?),
        "timeout_tcp_fin" => options.timeouts.tcp_fin = Some(seconds()?),
        "timeout_udp" => options.timeouts.udp = Some(seconds()?),
        "refuse" => options.refuse = one_of(value)?,
        "on_server_gone" => options.on_server_gone = one_of(value)?,
        "reset_on_expiry" => options.reset_on_expiry = value.parse().ok()?,
        "slow_start" => options.slow_start_s = seconds()?,
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClientAddress, OnServerGone, Refuse, ServiceTimeouts};

    #[test]
    fn what_is_written_is_read() {
        let all = ServiceOptions {
            client_address: ClientAddress::ProxyV2,
            mss: Some(1380),
            mh_table_size: Some(251),
            timeouts: ServiceTimeouts {
                tcp: Some(60),
                tcp_fin: Some(5),
                udp: Some(7),
            },
            refuse: Refuse::Reset,
            on_server_gone: OnServerGone::Reschedule,
            reset_on_expiry: true,
            slow_start_s: 30,
            ..ServiceOptions::default()
        };
        let text = written(&all);
        assert_eq!(
            text,
            " --options client_address=proxy-v2,mss=1380,mh_table_size=251,timeout_tcp=60,\
             timeout_tcp_fin=5,timeout_udp=7,refuse=reset,on_server_gone=reschedule,\
             reset_on_expiry=true,slow_start=30"
        );
        assert_eq!(read(text.trim_start_matches(" --options ")), Ok(all));
        assert_eq!(written(&ServiceOptions::default()), "");
        for wrong in [
            "",
            "mss",
            "mss=",
            "mss=x",
            "refuse=no",
            "colour=blue",
            "mss=1380,",
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
