//! `lc`: the fewest connections (`ip_vs_lc.c`), an active one counting as 257 others; weights count
//! only as zero or not.

use super::ranks::By;
use super::{Ask, Load};

pub(super) static LC: By = By {
    cost: Load::overhead,
    weighted: false,
    walk: pick,
    figures,
    rule: "the least 256*active+active+inactive",
};

fn pick(ask: &Ask<'_>) -> Option<usize> {
    let least = ask
        .usable()
        .min_by_key(|(_, server)| ask.load(server).overhead());
    least.map(|(at, _)| at)
}

fn figures(ask: &Ask<'_>) -> Vec<String> {
    let servers = ask.servers.iter();
    servers
        .map(|server| ask.load(server).overhead().to_string())
        .collect()
}
