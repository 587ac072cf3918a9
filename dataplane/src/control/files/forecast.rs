//! What a plan would do to connections, to hash slots and to memory.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use control::plan::{Action, Difference, Forecast, ServerForecast, SlotsForecast, What};
use control::{Change, Refusal, ServiceKey};

use crate::control::model::Model;
use crate::sched::Spread;

type Spreads = HashMap<ServiceKey, Spread>;

/// Of the changes that lead to `differences`; refused if the model would refuse them.
pub(super) fn forecast(
    model: &mut Model,
    changes: &[Change],
    differences: &[Difference],
) -> Result<Forecast, Refusal> {
    let touched: BTreeSet<ServiceKey> = differences.iter().filter_map(service).collect();
    let spreads = |model: &Model| -> Spreads {
        let spread = |key: &ServiceKey| Some((*key, model.spread(key)?));
        touched.iter().filter_map(spread).collect()
    };
    let before = spreads(model);
    let after = model.try_out(changes, spreads)?;
    let mut forecast = connections(model, differences);
    forecast.slots = slots(&before, &after);
    let bytes = |spreads: &Spreads| spreads.values().map(Spread::bytes).sum::<usize>() as i64;
    forecast.table_bytes_more = bytes(&after) - bytes(&before);
    Ok(forecast)
}

fn service(difference: &Difference) -> Option<ServiceKey> {
    match difference.what {
        What::Service { service } | What::Server { service, .. } => Some(service),
        _ => None,
    }
}

/// Connections are their server's: they are kept as long as it stays.
fn connections(model: &Model, differences: &[Difference]) -> Forecast {
    let mut gone = BTreeSet::new();
    let mut touched = HashMap::<(ServiceKey, SocketAddr), Action>::new();
    for difference in differences {
        match (&difference.what, difference.action) {
            (What::Service { service }, Action::Delete) => {
                gone.insert(*service);
            }
            (What::Server { service, server }, action) => {
                touched.insert((*service, *server), action);
            }
            _ => {}
        }
    }
    let mut forecast = Forecast::default();
    for (service, server, connections) in model.loads() {
        let action = touched.get(&(service, server));
        let kept = !gone.contains(&service) && action != Some(&Action::Delete);
        match kept {
            true => forecast.kept += connections,
            false => forecast.cut += connections,
        }
        if !kept || action.is_some() {
            forecast.servers.push(ServerForecast {
                service,
                server,
                connections,
                kept,
            });
        }
    }
    forecast
}

/// Of services that are there before and after.
fn slots(before: &Spreads, after: &Spreads) -> Vec<SlotsForecast> {
    let moved = |(key, after): (&ServiceKey, &Spread)| {
        let (moved, of) = before.get(key)?.moved(after);
        let scheduler = after.scheduler().to_owned();
        (moved > 0).then_some(SlotsForecast {
            service: *key,
            scheduler,
            moved,
            of,
        })
    };
    let mut slots: Vec<SlotsForecast> = after.iter().filter_map(moved).collect();
    slots.sort_unstable_by_key(|slots| slots.service);
    slots
}
