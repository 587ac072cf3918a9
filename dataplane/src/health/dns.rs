//! Questions, and whether their answers are right.

use control::{Dns, DnsRecord, Word};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};

use super::Outcome;
use super::talk::Judge;

/// A question as it is sent.
pub(super) fn question(dns: &Dns, id: u16) -> Result<Vec<u8>, String> {
    let wrong = |error| format!("{:?} cannot be asked for: {error}", dns.name);
    let name = Name::new(dns.name.trim_end_matches('.')).map_err(wrong)?;
    let kind = QTYPE::TYPE(kind(dns.record));
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let question = Question::new(name, kind, QCLASS::CLASS(CLASS::IN), false);
    packet.questions.push(question);
    packet.build_bytes_vec().map_err(wrong)
}

fn kind(record: DnsRecord) -> TYPE {
    match record {
        DnsRecord::A => TYPE::A,
        DnsRecord::Aaaa => TYPE::AAAA,
        DnsRecord::Cname => TYPE::CNAME,
        DnsRecord::Mx => TYPE::MX,
        DnsRecord::Ns => TYPE::NS,
        DnsRecord::Ptr => TYPE::PTR,
        DnsRecord::Soa => TYPE::SOA,
        DnsRecord::Srv => TYPE::SRV,
        DnsRecord::Txt => TYPE::TXT,
    }
}

/// What was asked, for who judges the answer.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) dns: &'a Dns,
    pub(super) question: &'a [u8],
}

impl Judge for Asked<'_> {
    fn judge(&self, heard: &[u8]) -> Option<Outcome> {
        Some(match answered(self.dns, self.question, heard) {
            Ok(()) => Outcome::Passed,
            Err(why) => Outcome::Failed(why),
        })
    }
}

fn answered(dns: &Dns, question: &[u8], heard: &[u8]) -> Result<(), String> {
    let answer = Packet::parse(heard).map_err(|_| "answered something that is no DNS")?;
    let is_ours = heard.get(..2) == question.get(..2) && answer.has_flags(PacketFlag::RESPONSE);
    if !is_ours {
        return Err("answered another question".to_owned());
    }
    let rcode = u16::from(heard.get(3).copied().unwrap_or_default() & 0x0f);
    if rcode != dns.rcode.number() {
        let mut known = control::Rcode::ALL.iter();
        let word = known.find(|known| known.number() == rcode);
        let word = word.map_or_else(|| format!("rcode {rcode}"), |word| word.word().to_owned());
        return Err(format!("answered {word}"));
    }
    let Some(expected) = &dns.answer else {
        return Ok(());
    };
    let records = answer.answers.iter();
    let said: Vec<String> = records.filter_map(|record| text(&record.rdata)).collect();
    let is_right = |said: &String| said.eq_ignore_ascii_case(expected.trim_end_matches('.'));
    match said.as_slice() {
        said if said.iter().any(is_right) => Ok(()),
        [] => Err("answered no record".to_owned()),
        said => Err(format!("answered {}", said.join(", "))),
    }
}

/// What a record says, but for its numbers.
fn text(data: &RData) -> Option<String> {
    match data {
        RData::A(a) => Some(std::net::Ipv4Addr::from(a.address).to_string()),
        RData::AAAA(aaaa) => Some(std::net::Ipv6Addr::from(aaaa.address).to_string()),
        RData::CNAME(name) => Some(name.0.to_string()),
        RData::NS(name) => Some(name.0.to_string()),
        RData::PTR(name) => Some(name.0.to_string()),
        RData::MX(mx) => Some(mx.exchange.to_string()),
        RData::SOA(soa) => Some(soa.mname.to_string()),
        RData::SRV(srv) => Some(srv.target.to_string()),
        RData::TXT(txt) => String::try_from(txt.clone()).ok(),
        _ => None,
    }
}
