//! Prometheus's text format, version 0.0.4.

use std::fmt::{self, Display, Write};

use crate::counters::{BUCKETS, bound};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// Sum and count alone.
    Summary,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// The samples of one metric, as they are written.
#[derive(Debug)]
pub(super) struct Samples<'o> {
    name: &'static str,
    out: &'o mut String,
}

// Writing to a `String` does not fail.
impl<'o> Samples<'o> {
    pub(super) fn begin(name: &'static str, kind: Kind, help: &str, out: &'o mut String) -> Self {
        let kind = kind.name();
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Self { name, out }
    }

    /// Goes on after [`Self::begin`] in another part.
    pub(super) fn go_on(name: &'static str, out: &'o mut String) -> Self {
        Self { name, out }
    }

    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    pub(super) fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.write("", labels, None, value);
    }

    /// A sum in seconds, and how many.
    pub(super) fn summary(&mut self, labels: Labels<'_>, seconds: f64, count: u64) {
        self.write("_sum", labels, None, seconds);
        self.write("_count", labels, None, count);
    }

    /// Buckets of nanoseconds and their sum, in seconds.
    pub(super) fn histogram(&mut self, labels: Labels<'_>, counts: &[u64; BUCKETS], sum_ns: u64) {
        let mut below = 0;
        for (index, count) in counts.iter().enumerate() {
            below += count;
            let bound = bound(index).map_or("+Inf".to_owned(), |ns| seconds(ns).to_string());
            self.write("_bucket", labels, Some(&bound), below);
        }
        self.summary(labels, seconds(sum_ns), below);
    }

    fn write(&mut self, suffix: &str, labels: Labels<'_>, le: Option<&str>, value: impl Display) {
        let out = &mut *self.out;
        out.push_str(self.name);
        out.push_str(suffix);
        let mut before = '{';
        let last = le.as_ref().map(|le| ("le", le as &dyn Display));
        for (name, value) in labels.iter().copied().chain(last) {
            out.push(before);
            let _ = write!(out, "{name}=\"");
            let _ = write!(Escaped(out), "{value}");
            out.push('"');
            before = ',';
        }
        out.push_str(if before == '{' { " " } else { "} " });
        let _ = writeln!(out, "{value}");
    }
}

/// Names and values.
pub(super) type Labels<'l> = &'l [(&'l str, &'l dyn Display)];

#[expect(clippy::cast_precision_loss, reason = "for graphs")]
pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// A label's value on its way into the text.
struct Escaped<'o>(&'o mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}
