//! The rules that mark packets: a list with an order.

use std::net::IpAddr;
use std::sync::Arc;

use control::{Errno, MarkRule, Prefix, Refusal, WhichMark};

use super::network::VLAN_MAX;
use super::undo::{Transaction, Undo};
use super::uses::Use;
use super::{Model, refuse};
use crate::marks::{MARK_RULES_MAX, Marks, Rule};
use crate::packet::PortId;
use crate::update::Update;

impl Model {
    /// In order.
    pub fn marks(&self) -> Vec<MarkRule> {
        self.marks.iter().map(|rule| rule.said.clone()).collect()
    }

    pub(super) fn add_mark(
        &mut self,
        rule: &MarkRule,
        at: Option<usize>,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let count = self.marks.len();
        let number = at.unwrap_or(count + 1);
        if !(1..=count + 1).contains(&number) {
            let detail = format!(
                "a mark rule cannot be number {number} of {count}, 1 to {} is right",
                count + 1
            );
            return Err(refuse(Errno::Erange, detail));
        }
        if count >= MARK_RULES_MAX {
            let detail = format!("there are {MARK_RULES_MAX} mark rules already, no more is right");
            return Err(refuse(Errno::Enomem, detail));
        }
        if let Some(other) = self.marks.iter().position(|other| other.said == *rule) {
            let detail = format!("mark rule {} says the same: {rule}", other + 1);
            return Err(refuse(Errno::Eexist, detail));
        }
        sensible(rule)?;
        let in_port = rule.in_port.as_deref();
        let from = in_port
            .map(|name| self.port_named(name, "a mark rule"))
            .transpose()?;
        if let Some(address) = asked(rule) {
            self.uses.allow(address, Use::Rule)?;
        }
        let said = rule.clone();
        self.put_mark(number - 1, Rule { said, from });
        done.undo.push(Undo::MarkAdded(number - 1));
        done.updates_marks = true;
        Ok(())
    }

    pub(super) fn delete_mark(
        &mut self,
        which: &WhichMark,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let place = match which {
            WhichMark::Number(number) => {
                let place = number
                    .checked_sub(1)
                    .filter(|place| *place < self.marks.len());
                place.ok_or_else(|| format!("no mark rule {number}"))
            }
            WhichMark::Rule(rule) => {
                let place = self.marks.iter().position(|known| known.said == *rule);
                place.ok_or_else(|| format!("no such mark rule: {rule}"))
            }
        };
        let place = place.map_err(|what| {
            let there = match self.marks.len() {
                0 => "there is none".to_owned(),
                count => format!("there are 1 to {count}"),
            };
            refuse(Errno::Enoent, format!("{what}, {there}"))
        })?;
        let rule = self.take_mark(place);
        done.undo.push(Undo::MarkDeleted(place, rule));
        done.updates_marks = true;
        Ok(())
    }

    pub(super) fn put_mark(&mut self, place: usize, rule: Rule) {
        if let Some(address) = asked(&rule.said) {
            self.uses.add(address, Use::Rule);
        }
        self.marks.insert(place, rule);
    }

    pub(super) fn take_mark(&mut self, place: usize) -> Rule {
        let rule = self.marks.remove(place);
        if let Some(address) = asked(&rule.said) {
            self.uses.remove(address, Use::Rule);
        }
        rule
    }

    /// All rules, compiled once for all workers.
    pub(super) fn compiled_marks(&self) -> Update {
        Update::SetMarks(Arc::new(Marks::new(self.marks.clone())))
    }

    /// The port of that name, for `what`.
    pub(super) fn port_named(&self, name: &str, what: &str) -> Result<PortId, Refusal> {
        if let Some(id) = self.ports.find(name) {
            return Ok(id);
        }
        let known = match self.ports.listed() {
            none if none.is_empty() => "there is none".to_owned(),
            some => format!("there is {some}"),
        };
        let detail = format!("no port {name:?} for {what}, {known}");
        Err(refuse(Errno::Enoent, detail))
    }
}

/// The one address that a rule's packets are sent to; the director speaks for it.
pub(super) fn asked(rule: &MarkRule) -> Option<IpAddr> {
    rule.destination.and_then(Prefix::only)
}

fn sensible(rule: &MarkRule) -> Result<(), Refusal> {
    if !rule.is_of(false) && !rule.is_of(true) {
        let detail = "source and destination of a mark rule are of two families, one is right";
        return Err(refuse(Errno::Einval, detail));
    }
    if let Some(vlan) = rule.vlan
        && !(1..=VLAN_MAX).contains(&vlan)
    {
        let detail = format!("VLAN {vlan} cannot be, 1 to {VLAN_MAX} is right");
        return Err(refuse(Errno::Einval, detail));
    }
    Ok(())
}
