//! `[[mark]]`: rules that mark packets, in the order in which they are tried.

use std::ops::Range;
use std::str::FromStr;

use control::{Change, MarkRule, Ports};
use toml::Spanned;

use super::file::{RawMark, RawPorts};
use super::reader::{Checked, Reader};
use super::services::Changes;

impl Reader<'_> {
    pub(super) fn mark(&self, raw: &RawMark, changes: &mut Changes) -> Checked<()> {
        let network = |raw: &Option<Spanned<String>>| {
            let raw = raw.as_ref();
            raw.map(|raw| self.parsed(raw.span(), raw.get_ref()))
                .transpose()
        };
        let rule = MarkRule {
            mark: self.number("mark", Some(&raw.mark), 0, 0..=i64::from(u32::MAX))?,
            source: network(&raw.source)?,
            destination: network(&raw.destination)?,
            protocol: raw.protocol,
            source_ports: self.marked_ports(raw.source_ports.as_ref())?,
            ports: self.marked_ports(raw.ports.as_ref())?,
            in_port: raw.in_port.clone(),
            vlan: (raw.vlan.as_ref())
                .map(|vlan| self.number("vlan", Some(vlan), 0, 1..=4094))
                .transpose()?,
        };
        changes.push(raw.mark.span(), Change::AddMark { rule, at: None });
        Ok(())
    }

    fn marked_ports(&self, raw: Option<&Spanned<RawPorts>>) -> Checked<Option<Ports>> {
        let Some(raw) = raw else { return Ok(None) };
        let ports = match raw.get_ref() {
            RawPorts::One(port) => self.parsed(raw.span(), &port.to_string()),
            RawPorts::Text(text) => self.parsed(raw.span(), text),
        };
        ports.map(Some)
    }

    /// Of what says itself why a text is none of it.
    fn parsed<T: FromStr<Err = String>>(&self, place: Range<usize>, text: &str) -> Checked<T> {
        text.parse().map_err(|reason| self.wrong(place, reason))
    }
}
