//! What a server's packets say of it: connections that it never answered, or refused.

use std::collections::VecDeque;
use std::time::Duration;

use control::Passive;

/// A connection has so many seconds to be answered before it counts.
const GRACE_S: usize = 2;

/// What a server's page counted, second by second.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Connections and answers to them, the oldest first.
    seen: VecDeque<Counts>,
    ejected_until: Option<Duration>,
    /// Since it is ejected, or is not any more.
    since: Duration,
    /// What ejected it last, in words, and how often something did.
    pub(super) why: String,
    pub(super) ejections: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Since the director started.
    pub(super) connections: u64,
    /// A SYN/ACK each.
    pub(super) answers: u64,
}

impl Traffic {
    pub(super) const fn is_ejected(&self) -> bool {
        self.ejected_until.is_some()
    }

    /// A second has passed. Whether the server's ejection ends.
    pub(super) fn ends(&mut self, now: Duration) -> bool {
        let ends = self.ejected_until.is_some_and(|until| now >= until);
        if ends {
            self.ejected_until = None;
            self.since = now;
        }
        ends
    }

    /// How long it has been as it is.
    pub(super) fn since(&self, now: Duration) -> Duration {
        now.saturating_sub(self.since)
    }

    /// A second has passed, and this was counted. Why the server should be ejected, if so.
    pub(super) fn fails(&mut self, counts: Counts, passive: &Passive) -> Option<String> {
        let window = passive.window_s as usize;
        self.seen.push_back(counts);
        while self.seen.len() > window + GRACE_S + 1 {
            self.seen.pop_front();
        }
        let settled = self.seen.len().checked_sub(GRACE_S + 1)?;
        let (before, then) = (self.seen.front()?, self.seen.get(settled)?);
        let opened = then.connections.wrapping_sub(before.connections);
        // Later ones may be among them: in doubt for the server.
        let answered = counts.answers.wrapping_sub(before.answers);
        let failed = opened.saturating_sub(answered);
        let is_bad = opened >= u64::from(passive.connections)
            && failed * 100 >= opened * u64::from(passive.failed_percent);
        is_bad.then(|| format!("{failed} of {opened} connections were not answered"))
    }

    pub(super) fn eject(&mut self, why: String, now: Duration, passive: &Passive) {
        self.ejected_until = Some(now + Duration::from_secs(passive.eject_s.into()));
        self.since = now;
        self.why = why;
        self.ejections += 1;
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSIVE: Passive = Passive {
        window_s: 3,
        connections: 10,
        failed_percent: 50,
        eject_s: 30,
        ejected_max_percent: 100,
    };

    /// Each second's connections and answers; the second at which it is to be ejected.
    fn fails_at(seconds: &[(u64, u64)]) -> Option<usize> {
        let (mut traffic, mut sum) = (Traffic::default(), Counts::default());
        traffic.fails(sum, &PASSIVE);
        seconds.iter().position(|(connections, answers)| {
            sum.connections += connections;
            sum.answers += answers;
            traffic.fails(sum, &PASSIVE).is_some()
        })
    }

    #[test]
    fn a_server_that_does_not_answer_is_found() {
        assert_eq!(fails_at(&[(20, 0); 9]), Some(2));
        assert_eq!(fails_at(&[(5, 1); 9]), Some(3));
        // As many answers as were wanted, though late.
        assert_eq!(
            fails_at(&[(20, 0), (20, 0), (20, 20), (20, 20), (0, 20)]),
            None
        );
        assert_eq!(fails_at(&[(20, 11); 9]), None);
        // Too few to tell.
        assert_eq!(fails_at(&[(3, 0); 9]), None);
    }

    #[test]
    fn an_ejection_ends() {
        let mut traffic = Traffic::default();
        let now = Duration::from_secs(100);
        traffic.eject("it failed".to_owned(), now, &PASSIVE);
        assert!(traffic.is_ejected());
        assert!(!traffic.ends(Duration::from_secs(129)));
        assert!(traffic.ends(Duration::from_secs(130)));
        assert!(!traffic.is_ejected() && !traffic.ends(Duration::from_secs(131)));
    }
}
