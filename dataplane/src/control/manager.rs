//! The service manager (systemd), told that the director is ready, how it does, and, as long as every
//! worker makes progress, that its watchdog need not act.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::counters::Page;

/// How often workers are looked at when nobody wants to hear of it but the log.
const PERIOD: Duration = Duration::from_secs(1);
/// Looks in the time after which the watchdog acts.
const LOOKS: u32 = 4;
/// A worker that makes no pass for so long is reported. One pass takes microseconds.
const STUCK: Duration = Duration::from_secs(1);

/// Who hears what is told.
type Listener = Box<dyn FnMut(&[NotifyState])>;

/// What the service manager was told, and what its watchdog goes by.
pub struct Manager {
    workers: Vec<Watched>,
    /// Whether a watchdog waits for us.
    watchdog: bool,
    period: Duration,
    due: Duration,
    services: usize,
    listener: Listener,
}

/// A worker's loop as it was seen last.
#[derive(Debug)]
struct Watched {
    core: u16,
    page: Arc<Page>,
    passes: u64,
    /// When it was seen to have moved.
    moved: Duration,
    reported: bool,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager")
            .field("workers", &self.workers)
            .field("period", &self.period)
            .finish_non_exhaustive()
    }
}

impl Manager {
    /// `workers` are cores and pages; `watchdog` is the time without a sign of life after which the
    /// service manager acts.
    pub fn new(workers: Vec<(u16, Arc<Page>)>, watchdog: Option<Duration>) -> Self {
        // Fails only when nobody asked to be notified in a way we can reach: nothing to do about it.
        let tell = |states: &[NotifyState]| drop(sd_notify::notify(states));
        Self::telling(workers, watchdog, Box::new(tell))
    }

    fn telling(
        workers: Vec<(u16, Arc<Page>)>,
        watchdog: Option<Duration>,
        listener: Listener,
    ) -> Self {
        let watched = |(core, page): (u16, Arc<Page>)| Watched {
            core,
            passes: page.passes.get(),
            page,
            moved: Duration::ZERO,
            reported: false,
        };
        Self {
            workers: workers.into_iter().map(watched).collect(),
            watchdog: watchdog.is_some(),
            period: watchdog.map_or(PERIOD, |acts| acts / LOOKS),
            due: Duration::ZERO,
            services: 0,
            listener,
        }
    }

    pub fn ready(&mut self, services: usize) {
        self.services = services;
        (self.listener)(&[NotifyState::Ready, NotifyState::Status(&status(services))]);
    }

    /// The configuration is read again; [`Self::ready`] follows.
    pub fn reloading(&mut self) {
        // systemd takes it with the time only.
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            (self.listener)(&[NotifyState::Reloading, now]);
        }
    }

    /// Of the process, whatever was told before.
    pub fn stopping() {
        let _ = sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    /// Looks at the workers if it is time. That this is called is the main thread's own progress.
    pub fn tick(&mut self, now: Duration, services: usize) {
        if now < self.due {
            return;
        }
        self.due = now + self.period;
        if services != self.services {
            self.services = services;
            (self.listener)(&[NotifyState::Status(&status(services))]);
        }
        let watchdog = self.watchdog;
        let looks = self
            .workers
            .iter_mut()
            .map(|worker| worker.look(now, watchdog));
        // Every one of them is looked at.
        let all = looks.fold(true, |all, moved| all & moved);
        if all && self.watchdog {
            (self.listener)(&[NotifyState::Watchdog]);
        }
    }
}

impl Watched {
    /// Whether the worker has made a pass since the last look.
    fn look(&mut self, now: Duration, watchdog: bool) -> bool {
        let passes = self.page.passes.get();
        let has_moved = passes != self.passes;
        let stood_ms = now.saturating_sub(self.moved).as_millis();
        let core = self.core;
        if has_moved {
            if self.reported {
                tracing::warn!("the worker on core {core} goes on after {stood_ms} ms");
            }
            (self.passes, self.moved, self.reported) = (passes, now, false);
        } else if !self.reported && now.saturating_sub(self.moved) >= STUCK {
            let then = if watchdog {
                "; the watchdog will act unless it goes on"
            } else {
                ""
            };
            tracing::error!(
                "the worker on core {core} has made no progress for {stood_ms} ms{then}"
            );
            self.reported = true;
        }
        has_moved
    }
}

fn status(services: usize) -> String {
    match services {
        1 => "forwarding, 1 service".to_owned(),
        n => format!("forwarding, {n} services"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    struct Bench {
        pages: Vec<Arc<Page>>,
        told: Rc<RefCell<Vec<String>>>,
        manager: Manager,
    }

    /// Two workers on cores 2 and 3.
    fn bench(watchdog: Option<Duration>) -> Bench {
        let pages: Vec<_> = (0..2).map(|_| Arc::new(Page::new(1, 1).unwrap())).collect();
        let told = Rc::new(RefCell::new(Vec::new()));
        let heard = Rc::clone(&told);
        let listener = move |states: &[NotifyState]| {
            heard
                .borrow_mut()
                .extend(states.iter().map(ToString::to_string));
        };
        let workers = [2, 3].into_iter().zip(pages.clone()).collect();
        let manager = Manager::telling(workers, watchdog, Box::new(listener));
        Bench {
            pages,
            told,
            manager,
        }
    }

    impl Bench {
        /// The workers of `moving` make a pass, and then it is `ms`.
        fn at(&mut self, ms: u64, moving: &[usize]) -> Vec<String> {
            for worker in moving {
                self.pages[*worker].passes.add(1);
            }
            self.manager.tick(Duration::from_millis(ms), 3);
            self.told.take()
        }
    }

    const PING: [&str; 1] = ["WATCHDOG=1"];
    const SILENCE: [&str; 0] = [];

    #[test]
    fn the_watchdog_hears_of_progress_only() {
        let mut bench = bench(Some(Duration::from_secs(4)));
        bench.manager.ready(3);
        assert_eq!(
            bench.told.take(),
            ["READY=1", "STATUS=forwarding, 3 services"]
        );
        assert_eq!(bench.at(1000, &[0, 1]), PING);
        assert_eq!(
            bench.at(1500, &[0, 1]),
            SILENCE,
            "a quarter of its time is not over"
        );
        assert_eq!(bench.at(2000, &[]), PING, "they moved in between");
        assert_eq!(bench.at(3000, &[0]), SILENCE, "one stands");
        assert_eq!(bench.at(4000, &[1]), SILENCE, "the other one stands");
        assert_eq!(bench.at(5000, &[0, 1]), PING, "both go on");
    }

    #[test]
    fn one_that_stands_is_reported_once() {
        let mut bench = bench(Some(Duration::from_secs(4)));
        let reported = |bench: &Bench| {
            bench
                .manager
                .workers
                .iter()
                .map(|w| w.reported)
                .collect::<Vec<_>>()
        };
        bench.at(1000, &[0, 1]);
        bench.at(2000, &[1]);
        assert_eq!(reported(&bench), [true, false]);
        bench.at(3000, &[0, 1]);
        assert_eq!(reported(&bench), [false, false]);
    }

    #[test]
    fn without_a_watchdog_there_is_only_the_status() {
        let mut bench = bench(None);
        assert_eq!(bench.at(1000, &[0, 1]), ["STATUS=forwarding, 3 services"]);
        assert_eq!(bench.at(2000, &[0, 1]), SILENCE);
        assert_eq!(status(1), "forwarding, 1 service");
    }
}
