//! What each user takes of the control side, so that none can take it from another: memory for
//! messages that wait, and time.

use std::time::Duration;

/// Bytes of messages that one user's clients may have waiting here, those of who may change
/// everything ...
pub(super) const WAITING_MAX: usize = 1 << 30;
/// ... and of who may only look.
pub(super) const WAITING_MAX_LOOKING: usize = 128 << 20;
/// A user whose clients took so long in this round waits for the next one.
pub(super) const ROUND_TIME: Duration = Duration::from_millis(5);

/// One round's account of each user.
#[derive(Debug, Default)]
pub(super) struct Shares(Vec<Share>);

#[derive(Debug)]
struct Share {
    uid: u32,
    waiting: usize,
    time: Duration,
}

impl Shares {
    fn of(&mut self, uid: u32) -> &mut Share {
        // As many as there are users with clients: a handful.
        let at = self.0.iter().position(|share| share.uid == uid);
        let at = at.unwrap_or_else(|| {
            let (waiting, time) = (0, Duration::ZERO);
            self.0.push(Share { uid, waiting, time });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    pub(super) fn add_waiting(&mut self, uid: u32, bytes: usize) {
        self.of(uid).waiting += bytes;
    }

    pub(super) fn waiting(&mut self, uid: u32) -> usize {
        self.of(uid).waiting
    }

    pub(super) fn spend(&mut self, uid: u32, time: Duration) {
        self.of(uid).time += time;
    }

    pub(super) fn is_spent(&mut self, uid: u32) -> bool {
        self.of(uid).time >= ROUND_TIME
    }
}
