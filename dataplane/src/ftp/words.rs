//! Lines of a control connection that speak of data connections (RFC 959, RFC 2428).
//!
//! A line is understood only when all of what matters is in one segment, and it begins one or follows
//! another line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;

/// How much of a segment is looked at: replies and commands are short.
const LOOK_MAX: usize = 2048;
/// Longer than any port or byte in decimal.
const DIGITS_MAX: usize = 5;

/// Where a server awaits a data connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// 227 names an address: six numbers, at this place of the line that begins at `line`.
    Passive {
        address: SocketAddrV4,
        line: usize,
        numbers: Range<usize>,
    },
    /// 229 names only a port.
    Extended { port: u16 },
}

/// Where a client awaits a data connection, as its `PORT` or `EPRT` says.
pub fn command(payload: &[u8]) -> Option<SocketAddr> {
    lines(payload).find_map(|(_, line)| {
        after(line, b"PORT ")
            .and_then(port)
            .or_else(|| after(line, b"EPRT ").and_then(extended_port))
    })
}

/// Where a server awaits a data connection, as its reply to `PASV` or `EPSV` says.
pub fn reply(payload: &[u8]) -> Option<Reply> {
    lines(payload).find_map(|(at, line)| {
        if let Some(text) = after(line, b"227 ") {
            let start = text.iter().position(|byte| byte.is_ascii_digit())?;
            let (address, len) = six_numbers(&text[start..])?;
            let start = at + line.len() - text.len() + start;
            return Some(Reply::Passive {
                address,
                line: at,
                numbers: start..start + len,
            });
        }
        let port = after(line, b"229 ").and_then(extended_reply)?;
        Some(Reply::Extended { port })
    })
}

/// The lines of a payload, each with its place and its end of line; the last one may lack it.
fn lines(payload: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let looked_at = &payload[..payload.len().min(LOOK_MAX)];
    let mut at = 0;
    looked_at
        .split_inclusive(|byte| *byte == b'\n')
        .map(move |line| {
            at += line.len();
            (at - line.len(), line)
        })
}

/// What follows a word, in capitals or not.
fn after<'l>(line: &'l [u8], word: &[u8]) -> Option<&'l [u8]> {
    let (first, rest) = line.split_at_checked(word.len())?;
    first.eq_ignore_ascii_case(word).then_some(rest)
}

/// `h1,h2,h3,h4,p1,p2` and the end of the line.
fn port(text: &[u8]) -> Option<SocketAddr> {
    let (address, len) = six_numbers(text)?;
    matches!(text[len], b'\r' | b'\n').then_some(address.into())
}

/// `|1|132.235.1.2|6275|` or `|2|1080::8:800:200C:417A|5282|` with any delimiter.
fn extended_port(text: &[u8]) -> Option<SocketAddr> {
    let delimiter = *text.first().filter(|byte| is_delimiter(**byte))?;
    let mut parts = text[1..].split(|byte| *byte == delimiter);
    let (family, address, port) = (parts.next()?, parts.next()?, parts.next()?);
    // The last delimiter must be there too.
    parts.next()?;
    let address = str::from_utf8(address).ok()?;
    let ip: IpAddr = match family {
        b"1" => address.parse::<Ipv4Addr>().ok()?.into(),
        b"2" => address.parse::<Ipv6Addr>().ok()?.into(),
        _ => return None,
    };
    match number(port)? {
        (port, []) => Some(SocketAddr::new(ip, u16::try_from(port).ok()?)),
        _ => None,
    }
}

/// `…(|||6446|)` with any delimiter.
fn extended_reply(text: &[u8]) -> Option<u16> {
    let start = text.iter().position(|byte| *byte == b'(')?;
    let (delimiters, rest) = text[start + 1..].split_at_checked(3)?;
    let delimiter = *delimiters.first().filter(|byte| is_delimiter(**byte))?;
    let (port, rest) = number(rest)?;
    let closed = delimiters == [delimiter; 3] && rest.first() == Some(&delimiter);
    u16::try_from(port).ok().filter(|_| closed)
}

/// Any printable character but a digit, which could not be told from a number.
fn is_delimiter(byte: u8) -> bool {
    (33..=126).contains(&byte) && !byte.is_ascii_digit()
}

/// An address and a port as six numbers with commas between them, and the length of that. Something
/// must follow: the last number could go on in the next segment.
fn six_numbers(text: &[u8]) -> Option<(SocketAddrV4, usize)> {
    let (mut bytes, mut rest) = ([0; 6], text);
    for (n, byte) in bytes.iter_mut().enumerate() {
        if n > 0 {
            rest = rest.strip_prefix(b",")?;
        }
        let (value, left) = number(rest)?;
        (*byte, rest) = (u8::try_from(value).ok()?, left);
    }
    if rest.is_empty() {
        return None;
    }
    let [a, b, c, d, high, low] = bytes;
    let port = u16::from_be_bytes([high, low]);
    let address = SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port);
    Some((address, text.len() - rest.len()))
}

/// A decimal number, and what follows it.
fn number(text: &[u8]) -> Option<(u32, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=DIGITS_MAX).contains(&digits) {
        return None;
    }
    let (digits, rest) = text.split_at(digits);
    let add = |value, digit: &u8| value * 10 + u32::from(digit - b'0');
    Some((digits.iter().fold(0, add), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn passive(text: &str) -> Option<(String, &str)> {
        match reply(text.as_bytes())? {
            Reply::Passive {
                address, numbers, ..
            } => Some((address.to_string(), &text[numbers])),
            Reply::Extended { .. } => None,
        }
    }

    fn extended(text: &str) -> Option<u16> {
        match reply(text.as_bytes())? {
            Reply::Extended { port } => Some(port),
            Reply::Passive { .. } => None,
        }
    }

    fn asked(text: &str) -> Option<String> {
        command(text.as_bytes()).map(|address| address.to_string())
    }

    #[test]
    fn what_servers_say() {
        for text in [
            "227 Entering Passive Mode (10,1,0,7,195,80)\r\n",
            "227 Entering Passive Mode (10,1,0,7,195,80).",
            "227 =10,1,0,7,195,80\r\n",
            "227 ok 10,1,0,7,195,80\n",
            "200 TYPE is now binary\r\n227 at (10,1,0,7,195,80)\r\n",
            "226-one\r\n226 done\r\n227 (10,1,0,7,195,80)",
        ] {
            let expected = ("10.1.0.7:50000".to_owned(), "10,1,0,7,195,80");
            assert_eq!(passive(text), Some(expected), "{text}");
        }
        let Some(Reply::Passive { line, numbers, .. }) = reply(b"200 x\r\n227 (1,2,3,4,5,6)")
        else {
            panic!("not understood");
        };
        assert_eq!((line, numbers), (7, 12..23));
        for text in [
            "227 Entering Passive Mode (10,1,0,7,195,80",
            "227 Entering Passive Mode (10,1,0,7,195)",
            "227 Entering Passive Mode (10,1,0,256,195,80)",
            "227 Entering Passive Mode (10, 1,0,7,195,80)",
            "227 Entering Passive Mode",
            "227",
            "227-Entering Passive Mode (10,1,0,7,195,80)\r\n",
            " 227 (10,1,0,7,195,80)\r\n",
            "x227 (10,1,0,7,195,80)\r\n",
        ] {
            assert_eq!(passive(text), None, "{text}");
        }
        for text in [
            "229 Entering Extended Passive Mode (|||6446|)\r\n",
            "229 ok (!!!6446!)\r\n",
        ] {
            assert_eq!(extended(text), Some(6446), "{text}");
        }
        for text in [
            "229 (|||6446)\r\n",
            "229 (||!6446|)\r\n",
            "229 (|||65536|)\r\n",
            "229 (|||6446",
            "229 (||||)",
            "229 (11164461)\r\n",
            "229 |||6446|\r\n",
            "229 (",
        ] {
            assert_eq!(extended(text), None, "{text}");
        }
    }

    #[test]
    fn what_clients_say() {
        for (text, address) in [
            ("PORT 192,0,2,10,156,64\r\n", "192.0.2.10:40000"),
            ("port 192,0,2,10,156,64\n", "192.0.2.10:40000"),
            ("TYPE I\r\nPORT 192,0,2,10,156,64\r\n", "192.0.2.10:40000"),
            ("EPRT |1|192.0.2.10|40000|\r\n", "192.0.2.10:40000"),
            ("Eprt !2!2001:db8::a!40000!\r\n", "[2001:db8::a]:40000"),
        ] {
            assert_eq!(asked(text).as_deref(), Some(address), "{text}");
        }
        for text in [
            "PORT 192,0,2,10,156,64",
            "PORT 192,0,2,10,156,64,1\r\n",
            "PORT192,0,2,10,156,64\r\n",
            "REPORT 192,0,2,10,156,64\r\n",
            "EPRT |1|192.0.2.10|40000\r\n",
            "EPRT |1|2001:db8::a|40000|\r\n",
            "EPRT |2|192.0.2.10|40000|\r\n",
            "EPRT |3|192.0.2.10|40000|\r\n",
            "EPRT |1|192.0.2.10|4000x|\r\n",
            "EPRT |1|192.0.2.10|70000|\r\n",
            "EPRT ",
            "PASV\r\n",
        ] {
            assert_eq!(asked(text), None, "{text}");
        }
    }

    /// Text that is nearly what is looked for.
    fn nearly() -> impl Strategy<Value = Vec<u8>> {
        let words = prop::sample::select(vec![
            &b"227 "[..],
            b"229 ",
            b"PORT ",
            b"EPRT ",
            b"(",
            b")",
            b"|",
            b"|||",
            b"1,2,3,4,5,6",
            b"|1|1.2.3.4|5|",
            b",",
            b"\r\n",
            b"\n",
            b"99999",
            b"7",
            b"\xff",
        ]);
        proptest::collection::vec(words, 0..20).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn never_panics(text in nearly(), rubbish in proptest::collection::vec(any::<u8>(), 0..3000)) {
            for text in [&text, &rubbish] {
                let _ = command(text);
                if let Some(Reply::Passive { line, numbers, address }) = reply(text) {
                    prop_assert!(line + 4 <= numbers.start && numbers.end < text.len());
                    let said = [&text[numbers], b"\n"].concat();
                    prop_assert_eq!(port(&said), Some(address.into()));
                }
            }
        }

        /// A part of a line is not taken for the whole.
        #[test]
        fn parts_say_nothing_else(address: [u8; 4], port: u16, cut: usize) {
            let [a, b, c, d] = address;
            let [high, low] = port.to_be_bytes();
            let whole = format!("227 Entering Passive Mode ({a},{b},{c},{d},{high},{low})\r\n");
            let part = &whole[..cut % (whole.len() + 1)];
            let said = passive(part);
            prop_assert!(said.is_none() || said == passive(&whole));
            let whole = format!("PORT {a},{b},{c},{d},{high},{low}\r\n");
            let part = &whole[..cut % (whole.len() + 1)];
            prop_assert!(asked(part).is_none() || asked(part) == asked(&whole));
        }
    }
}
