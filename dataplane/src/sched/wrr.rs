//! `wrr`: level-descending weighted rotation (`ip_vs_wrr.c`). At level `w` every server of weight
//! `w` or more is picked once; levels go down by the weights' greatest common divisor.

use std::net::IpAddr;

use super::{Ask, Candidate, Scheduler, gcd, next};

#[derive(Debug, Clone)]
pub(super) struct Wrr {
    /// Picked last; `None` is the list's head.
    cursor: Option<usize>,
    level: i64,
    max: i64,
    step: i64,
    /// Of the weights; 0 of none.
    gcd: i64,
    highest: i64,
}

impl Wrr {
    pub(super) fn new(servers: &[Candidate]) -> Self {
        let mut wrr = Self {
            cursor: None,
            level: 0,
            max: 0,
            step: 1,
            gcd: 0,
            highest: 0,
        };
        wrr.measure(servers);
        wrr.level = wrr.max;
        wrr
    }

    fn measure(&mut self, servers: &[Candidate]) {
        (self.gcd, self.highest) = (0, 0);
        for server in servers {
            self.include(server);
        }
        self.settle();
    }

    fn include(&mut self, server: &Candidate) {
        let weight = i64::from(server.weight);
        self.gcd = gcd(self.gcd, weight);
        self.highest = self.highest.max(weight);
    }

    fn settle(&mut self) {
        self.step = self.gcd.max(1);
        self.max = self.highest - (self.step - 1);
    }

    /// Passes over the levels at which nobody would be picked, but the last: where LVS takes a step
    /// for each, an overloaded server of a high weight would stop the worker.
    fn descend(&mut self, servers: &[Candidate]) {
        let ready = servers.iter().filter(|server| !server.limit.is_over());
        let highest = ready.map(|s| i64::from(s.weight)).max().unwrap_or(0);
        if self.level > highest {
            let above = (self.level - highest + self.step - 1) / self.step;
            let positive = (self.level - 1) / self.step;
            self.level -= above.min(positive) * self.step;
        }
    }

    /// The weights were measured anew.
    fn restart(&mut self) {
        self.cursor = None;
        if self.level > self.max || self.level == 0 {
            self.level = self.max;
        } else if self.step > 1 {
            self.level = self.level / self.step * self.step + 1;
        }
    }
}

impl Scheduler for Wrr {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let servers = ask.servers;
        if self.max == 0 {
            return None;
        }
        let entry = self.cursor;
        let (mut stop, mut restarted, mut last_pass) = (None, false, false);
        loop {
            while let Some(i) = next(servers, self.cursor) {
                self.cursor = Some(i);
                let server = &servers[i];
                if !server.limit.is_over() && i64::from(server.weight) >= self.level {
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
            self.descend(servers);
            last_pass = self.level <= self.step;
            if last_pass && restarted {
                stop = entry;
            }
        }
    }

    /// Looks at the new one only: thousands may be added between two bursts.
    fn added(&mut self, servers: &[Candidate]) {
        if let Some(new) = servers.last() {
            self.include(new);
            self.settle();
        }
        self.restart();
    }

    fn removed(&mut self, servers: &[Candidate], _index: usize, _gone: &Candidate) {
        self.measure(servers);
        self.restart();
    }

    fn reweighted(&mut self, servers: &[Candidate]) {
        self.measure(servers);
        self.restart();
    }

    fn copy(&self, _destination: IpAddr) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn figures(&self, ask: &Ask<'_>) -> Vec<String> {
        let mark = |at| {
            if self.cursor == Some(at) {
                "picked last"
            } else {
                ""
            }
        };
        (0..ask.servers.len())
            .map(|at| mark(at).to_owned())
            .collect()
    }

    fn rule(&self, _ask: &Ask<'_>) -> String {
        let Self { level, step, .. } = self;
        format!(
            "the next after the one picked last whose weight is {level} or more; levels go down by {step}"
        )
    }
}
