//! SIP (RFC 3261), as far as persistence goes by it: the Call-ID of a message.

/// The longest Call-ID that counts, in bytes.
pub const CALL_ID_MAX: usize = 255;

/// The Call-ID of a message, if it has one as LVS takes it.
///
/// That is the value of a header `Call-ID`, `i` for short, in any case, folded or not: 1 to
/// [`CALL_ID_MAX`] bytes of a word, or of two joined by `@`, and then the end of the line. A line ends
/// with CR, LF or both.
pub fn call_id(message: &[u8]) -> Option<&[u8]> {
    let mut rest = message;
    loop {
        rest = next_line(rest)?;
        if let Some(found) = value(rest) {
            return Some(found);
        }
    }
}

/// The Call-ID of the header line that `text` begins with, if that is what it is.
fn value(text: &[u8]) -> Option<&[u8]> {
    let rest = without_name(text, b"call-id").or_else(|| without_name(text, b"i"))?;
    let value = without_blanks(without_blanks(rest).strip_prefix(b":")?);
    let local = word(value);
    let host = match value.get(local) {
        Some(b'@') => 1 + Some(word(&value[local + 1..])).filter(|len| *len > 0)?,
        _ => 0,
    };
    let (found, after) = value.split_at(local + host);
    let ends = after.first().is_some_and(|byte| is_line_end(*byte));
    (ends && local > 0 && found.len() <= CALL_ID_MAX).then_some(found)
}

fn without_name<'t>(text: &'t [u8], name: &[u8]) -> Option<&'t [u8]> {
    let (start, rest) = text.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(rest)
}

/// What follows the end of the line.
fn next_line(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|byte| is_line_end(*byte))?;
    let rest = &text[end..];
    Some(rest.strip_prefix(b"\r\n").unwrap_or(&rest[1..]))
}

/// A value may begin on the next line, if that begins with a blank.
fn without_blanks(text: &[u8]) -> &[u8] {
    let blanks = |text: &[u8]| text.iter().take_while(|byte| is_blank(**byte)).count();
    let text = &text[blanks(text)..];
    match text.first() {
        Some(byte) if is_line_end(*byte) => {
            let next = next_line(text).unwrap_or_default();
            match blanks(next) {
                0 => text,
                n => &next[n..],
            }
        }
        _ => text,
    }
}

/// The length of the word that `text` begins with (RFC 3261 §25.1); LVS takes commas for letters.
fn word(text: &[u8]) -> usize {
    let is_word =
        |byte: &&u8| byte.is_ascii_alphanumeric() || br#"-.!%*_+`'~()<>:\"/[]?{},"#.contains(byte);
    text.iter().take_while(is_word).count()
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str) -> Option<&str> {
        call_id(text.as_bytes()).map(|found| std::str::from_utf8(found).unwrap())
    }

    /// A request with this header among others.
    fn with(header: &str) -> String {
        format!("INVITE sip:bob@example.com SIP/2.0\r\nTo: Bob\r\n{header}CSeq: 1 INVITE\r\n\r\n")
    }

    #[test]
    fn names() {
        for name in ["Call-ID", "call-id", "CALL-ID", "i", "I"] {
            for colon in [":", ": ", " : ", "\t:\t ", ":\r\n ", " \r\n :\n\t"] {
                let text = with(&format!("{name}{colon}a84b4c76e66710@pc33.example.com\r\n"));
                assert_eq!(
                    found(&text),
                    Some("a84b4c76e66710@pc33.example.com"),
                    "{text}"
                );
            }
        }
        for other in [
            "Call-IDs: x",
            "Call-I: x",
            "ix: x",
            "Info: x",
            " Call-ID: x",
            "x-Call-ID: x",
            "Call-ID x",
        ] {
            assert_eq!(found(&with(&format!("{other}\r\n"))), None, "{other}");
        }
    }

    #[test]
    fn values() {
        for whole in ["a", "1", "a@b", "a.b-c!%*_+`'~()<>:\\\"/[]?{}@[::1]"] {
            for end in ["\r\n", "\r", "\n"] {
                assert_eq!(found(&with(&format!("i: {whole}{end}"))), Some(whole));
            }
        }
        for none in ["", "@b", "a@", "a@b@c", "a b", "a ", "a;b", "a@b=c"] {
            assert_eq!(found(&with(&format!("i: {none}\r\n"))), None, "{none}");
        }
    }

    #[test]
    fn lines_end_as_anybody_ends_them() {
        for end in ["\r\n", "\r", "\n"] {
            let text = [
                "OPTIONS sip:a SIP/2.0",
                "Via: x",
                "Call-ID: c",
                "Via: y",
                "",
            ]
            .join(end);
            assert_eq!(found(&text), Some("c"));
        }
        assert_eq!(found("Call-ID: c\r\n"), None, "the first line is no header");
        assert_eq!(found("x\r\nCall-ID: c"), None, "the line does not end");
        assert_eq!(found("x\r\nCall-ID: c\r\nCall-ID: d\r\n"), Some("c"));
    }

    #[test]
    fn lengths() {
        let of = |len| found(&with(&format!("i:{}\n", "c".repeat(len)))).map(str::len);
        assert_eq!((of(255), of(256)), (Some(255), None));
        let of = |len| found(&with(&format!("i:{}@h\n", "c".repeat(len)))).map(str::len);
        assert_eq!((of(253), of(254)), (Some(255), None));
    }

    proptest! {
        /// Whatever comes, what is found stands in a line of its own, and is what a Call-ID may be.
        #[test]
        fn anything(
            text in proptest::collection::vec(
                prop::sample::select(&b"\r\n\t :@iIcall-ID.x\0\xff"[..]), 0..80,
            ),
        ) {
            if let Some(found) = call_id(&text) {
                prop_assert!((1..=CALL_ID_MAX).contains(&found.len()));
                prop_assert!(!found.iter().any(|byte| is_line_end(*byte) || is_blank(*byte)));
                prop_assert!(found.iter().filter(|byte| **byte == b'@').count() <= 1);
                let at = found.as_ptr() as usize - text.as_ptr() as usize;
                prop_assert!(is_line_end(text[at + found.len()]));
            }
        }

        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = call_id(&text);
        }
    }
}
