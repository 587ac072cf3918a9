//! `wrr`: level-descending weighted rotation (`ip_vs_wrr.c`). At level `w` every server of weight
//! `w` or more is picked once; levels go down by the weights' greatest common divisor.

use super::{Candidate, Scheduler, next};
use crate::wire::flow::Tuple;

#[derive(Debug)]
pub(super) struct Wrr {
    /// Picked last; `None` is the list's head.
    cursor: Option<usize>,
    level: i64,
    max: i64,
    step: i64,
}

impl Wrr {
    pub(super) fn new(servers: &[Candidate]) -> Self {
        let mut wrr = Self {
            cursor: None,
            level: 0,
            max: 0,
            step: 1,
        };
        wrr.measure(servers);
        wrr.level = wrr.max;
        wrr
    }

    fn measure(&mut self, servers: &[Candidate]) {
        let gcd = servers.iter().map(|s| i64::from(s.weight)).fold(0, gcd);
        self.step = gcd.max(1);
        let max = servers
            .iter()
            .map(|s| i64::from(s.weight))
            .max()
            .unwrap_or(0);
        self.max = max - (self.step - 1);
    }

    fn changed(&mut self, servers: &[Candidate]) {
        self.cursor = None;
        self.measure(servers);
        if self.level > self.max || self.level == 0 {
            self.level = self.max;
        } else if self.step > 1 {
            self.level = self.level / self.step * self.step + 1;
        }
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Scheduler for Wrr {
    fn pick(&mut self, servers: &[Candidate], _tuple: &Tuple) -> Option<usize> {
        if self.max == 0 {
            return None;
        }
        let entry = self.cursor;
        let (mut stop, mut restarted, mut last_pass) = (None, false, false);
        loop {
            while let Some(i) = next(servers, self.cursor) {
                self.cursor = Some(i);
                if i64::from(servers[i].weight) >= self.level {
                    return Some(i);
                }
                if stop == Some(i) {
                    return None;
                }
                if i == 0 {
                    break;
                }
            }
            self.cursor = None;
            self.level -= self.step;
            if self.level <= 0 {
                self.level = self.max;
                if last_pass || entry.is_none() {
                    return None;
                }
                restarted = true;
            }
            last_pass = self.level <= self.step;
            if last_pass && restarted {
                stop = entry;
            }
        }
    }

    fn added(&mut self, servers: &[Candidate]) {
        self.changed(servers);
    }

    fn removed(&mut self, servers: &[Candidate], _index: usize) {
        self.changed(servers);
    }

    fn reweighted(&mut self, servers: &[Candidate]) {
        self.changed(servers);
    }
}
