//! `wlc`: the fewest connections for its weight (`ip_vs_wlc.c`), counted as `lc` does.

use super::ranks::By;
use super::{Ask, Load, lightest};

pub(super) static WLC: By = By {
    cost: Load::overhead,
    weighted: true,
    walk: pick,
    figures: overheads,
    rule: "the least (256*active+active+inactive)/weight",
};

/// Also what `lblc` and `lblcr` do with a destination that they do not know.
pub(super) fn pick(ask: &Ask<'_>) -> Option<usize> {
    lightest(ask.usable(), |server| ask.load(server).overhead())
}

/// What each server weighs, for people.
pub(super) fn overheads(ask: &Ask<'_>) -> Vec<String> {
    ask.ratios(|load| load.overhead())
}
