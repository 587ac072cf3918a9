//! `HOST[:PORT]`, masks and numbers as ipvsadm reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::names::{Names, Transport};

/// A decimal number as strtol(3) reads it, the whole text, within `range`.
pub fn number(text: &str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: i64 = text.parse().ok()?;
    u32::try_from(value)
        .ok()
        .filter(|value| range.contains(value))
}

/// The address and, when one is written, the port.
pub fn host_port(
    text: &str,
    transport: Option<Transport>,
    names: &dyn Names,
) -> Option<(IpAddr, Option<u16>)> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    if let Some(bracketed) = text.strip_prefix('[') {
        let (host, port) = bracketed.split_once("]:")?;
        let host: Ipv6Addr = host.parse().ok()?;
        return Some((host.into(), Some(port_number(port, transport, names)?)));
    }
    if let Ok(v6) = text.parse::<Ipv6Addr>() {
        return Some((v6.into(), None));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port_number(port, transport, names)?)),
        None => (text, None),
    };
    Some((v4_host(host, names)?.into(), port))
}

/// An address as inet_aton(3) reads it, or a host name.
pub fn v4_host(text: &str, names: &dyn Names) -> Option<Ipv4Addr> {
    inet_aton(text).or_else(|| {
        if text.is_empty() {
            None
        } else {
            names.host(text)
        }
    })
}

fn port_number(text: &str, transport: Option<Transport>, names: &dyn Names) -> Option<u16> {
    match number(text, 0..=u32::from(u16::MAX)) {
        Some(port) => u16::try_from(port).ok(),
        None if text.is_empty() => None,
        // A number out of range is not a name.
        None if text
            .bytes()
            .all(|b| b.is_ascii_digit() || b == b'-' || b == b'+') =>
        {
            None
        }
        None => names.port(text, transport),
    }
}

/// One to four parts in decimal, octal or hexadecimal; the last fills what is left.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u32> = text.split('.').map(c_number).collect::<Option<_>>()?;
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|part| *part > 255) {
        return None;
    }
    let free_bits = 32 - 8 * u32::try_from(leading.len()).ok()?;
    if u64::from(*last) >> free_bits != 0 {
        return None;
    }
    let high = (0..)
        .zip(leading)
        .fold(0, |sum, (i, part)| sum | part << (24 - 8 * i));
    Some(Ipv4Addr::from(high | last))
}

fn c_number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    if digits.starts_with('+') {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inet_aton_reads_c_notation() {
        let read = |text| inet_aton(text).map(|a| a.to_string());
        assert_eq!(read("10.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(read("0x0a000001").as_deref(), Some("10.0.0.1"));
        assert_eq!(read("010.0.0.1").as_deref(), Some("8.0.0.1"));
        assert_eq!(read("24").as_deref(), Some("0.0.0.24"));
        for wrong in [
            "",
            "1.2.3.4.5",
            "256.1",
            "1.2.3.256",
            "1..2",
            "x",
            "08",
            "0x",
            "+1.2.3.4",
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn numbers_are_whole_and_in_range() {
        assert_eq!(number(" +7", 0..=9), Some(7));
        for wrong in ["", "-1", "10", "1.5", "0x1", "+", "7 "] {
            assert_eq!(number(wrong, 0..=9), None, "{wrong:?}");
        }
    }
}
