//! Connections that a director before this one left: they go on here.

use std::collections::HashMap;

use control::ForwardMode;

use super::Director;
use crate::conn::{Former, Hit};
use crate::fullnat::lease::Lease;
use crate::packet::PacketBuf;
use crate::restart::Image;
use crate::time::Instant;
use crate::update::ServerId;

/// What has another number here than it had then.
#[derive(Debug, Default)]
pub struct Heirs {
    /// By the number then.
    pub servers: Vec<Option<ServerId>>,
    pub templates: HashMap<u32, u32>,
}

impl Heirs {
    pub fn server(&self, then: ServerId) -> Option<ServerId> {
        self.servers.get(then.index()).copied().flatten()
    }
}

/// What became of the connections that were left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Adopted {
    pub kept: u64,
    /// Their time ran out meanwhile.
    pub over: u64,
    /// No server is there that they went to.
    pub strange: u64,
    /// There is no room for them, or their local port is not this worker's.
    pub homeless: u64,
    /// Half written, or not what a connection can be.
    pub torn: u64,
}

impl Adopted {
    pub fn and(self, other: Self) -> Self {
        Self {
            kept: self.kept + other.kept,
            over: self.over + other.over,
            strange: self.strange + other.strange,
            homeless: self.homeless + other.homeless,
            torn: self.torn + other.torn,
        }
    }

    /// Lost, though their time had not run out.
    pub fn lost(&self) -> u64 {
        self.strange + self.homeless + self.torn
    }
}

impl<P: PacketBuf> Director<P> {
    /// Takes in those connections of an image that are at home here.
    pub fn adopt_image(&mut self, now: Instant, image: &Image, heirs: &Heirs) -> Adopted {
        let (me, then) = (self.steer.me(), image.clock.now().0);
        if image.sizes.workers == self.steer.workers() && image.sizes.reta == self.steer.reta() {
            let own = image.workers.get(me);
            return own.map_or(Adopted::default(), |own| {
                self.adopt(now, own.conns.all(then), heirs, true)
            });
        }
        let all = image.workers.iter();
        let adopted = all.map(|one| self.adopt(now, one.conns.all(then), heirs, me == 0));
        adopted.fold(Adopted::default(), Adopted::and)
    }

    /// Takes in those of `left` that are at home here. What cannot be a connection is counted where
    /// `counts_torn` says so: by one worker of all.
    pub fn adopt(
        &mut self,
        now: Instant,
        left: impl Iterator<Item = Option<Former>>,
        heirs: &Heirs,
        counts_torn: bool,
    ) -> Adopted {
        let mut adopted = Adopted::default();
        for former in left {
            let Some(former) = former else {
                adopted.torn += u64::from(counts_torn);
                continue;
            };
            if self.steer.home(former.sides[0].from) != self.steer.me() {
                continue;
            }
            let count = match self.take_over(now, &former, heirs) {
                _ if former.is_over() => &mut adopted.over,
                Ok(()) => &mut adopted.kept,
                Err(Lost::Strange) => &mut adopted.strange,
                Err(Lost::Homeless) => &mut adopted.homeless,
                Err(Lost::Torn) => &mut adopted.torn,
            };
            *count += 1;
            self.conns.settle();
        }
        adopted
    }

    fn take_over(&mut self, now: Instant, former: &Former, heirs: &Heirs) -> Result<(), Lost> {
        if former.is_over() {
            return Ok(());
        }
        let id = heirs.server(former.server).ok_or(Lost::Strange)?;
        let server = *self.services.server(id).ok_or(Lost::Strange)?;
        let [inbound, outbound] = &former.sides;
        let is_translated = matches!(former.mode, ForwardMode::Nat | ForwardMode::FullNat);
        if is_translated && outbound.from.ip() != server.address.ip()
            || self.conns.find(inbound).is_some_and(|hit| !hit.outbound())
        {
            return Err(Lost::Torn);
        }
        let lease = match former.mode {
            ForwardMode::FullNat => Some(self.claim(outbound).ok_or(Lost::Homeless)?),
            _ => None,
        };
        let sides = [inbound, outbound];
        let opened = self.enter(now, sides, (id, former.mode), lease.as_ref());
        let hit = opened.ok_or(Lost::Homeless)?;
        self.conns.resume(now, hit, former);
        self.resume_beside(hit, former, lease, heirs);
        self.count_in(id, former.state);
        self.services.resumed(now, id, inbound.to.ip());
        Ok(())
    }

    /// What is kept beside a connection's line.
    fn resume_beside(&mut self, hit: Hit, former: &Former, lease: Option<Lease>, heirs: &Heirs) {
        let entry = hit.entry();
        let number = |then: &u32| heirs.templates.get(then).copied();
        if let (Some(client), Some(lease)) = (former.client, lease) {
            let extra = self.conns.extra(entry);
            (extra.client, extra.pool) = (client, lease.pool.0);
            self.conns.get(hit).set_telling(!client.done());
        }
        if let Some(talk) = former.talk {
            self.conns.help(entry);
            let announced = number(&talk.line);
            let own = self.conns.talk(entry);
            own.growth = talk.growth;
            if let Some(line) = announced {
                (own.line, own.port) = (line, talk.port);
            }
        }
        if let Some(parent) = former.parent {
            let number = parent.as_ref().and_then(number);
            let template = number.map(|number| self.templates.hold_again(number));
            self.conns.control(entry, template);
        }
    }
}

/// Why a connection is not taken over.
enum Lost {
    Strange,
    Homeless,
    Torn,
}
