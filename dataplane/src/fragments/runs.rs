//! Which bytes of a datagram were seen.

use arrayvec::ArrayVec;

use super::Piece;

/// The most runs of bytes with gaps between them that are remembered of one datagram.
pub(super) const RUNS_MAX: usize = 8;

/// The bytes of a datagram that were seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs {
    /// In order, with gaps between them; ends are exclusive.
    runs: ArrayVec<(u16, u16), RUNS_MAX>,
    /// The datagram's end, once its last piece came.
    end: Option<u16>,
}

/// Why a piece does not fit to those seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clash {
    /// All of it came before.
    Seen,
    /// Part of it came before, or it contradicts the datagram's end.
    Overlap,
    /// It would leave too many gaps.
    Gaps,
}

impl Runs {
    /// Notes a piece. A piece that clashes is not noted.
    pub(super) fn add(&mut self, piece: &Piece) -> Result<(), Clash> {
        let (start, end) = (piece.offset, piece.end());
        let at = self.runs.partition_point(|run| run.1 <= start);
        if self.contradicts(piece) {
            return Err(Clash::Overlap);
        }
        if let Some(run) = self.runs.get(at).filter(|run| run.0 < end) {
            // As Linux does: what lies inside a run is taken for a copy, and only that is dropped.
            let inside = run.0 <= start && end <= run.1;
            return Err(if inside { Clash::Seen } else { Clash::Overlap });
        }
        let touches_next = self.runs.get(at).is_some_and(|run| run.0 == end);
        let touches_last = at > 0 && self.runs[at - 1].1 == start;
        match (touches_last, touches_next) {
            (true, true) => {
                self.runs[at - 1].1 = self.runs[at].1;
                self.runs.remove(at);
            }
            (true, false) => self.runs[at - 1].1 = end,
            (false, true) => self.runs[at].0 = start,
            (false, false) => self
                .runs
                .try_insert(at, (start, end))
                .map_err(|_| Clash::Gaps)?,
        }
        if !piece.more {
            self.end = Some(end);
        }
        Ok(())
    }

    fn contradicts(&self, piece: &Piece) -> bool {
        let end = piece.end();
        match self.end {
            Some(known) if piece.more => end >= known,
            Some(known) => end != known,
            None => !piece.more && self.runs.last().is_some_and(|run| end < run.1),
        }
    }

    pub(super) fn complete(&self) -> bool {
        self.end.is_some_and(|end| self.runs[..] == [(0, end)])
    }
}
