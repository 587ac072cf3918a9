//! Servers that are probed, or watched by their packets.

use super::*;

/// Ticks until it is so.
fn until(control: &mut Control, is_so: impl Fn(&Control) -> bool) {
    while !is_so(control) {
        control.tick(Duration::from_secs(1));
        thread::yield_now();
    }
}

fn watched(probe: control::Probe) -> Change {
    let rhythm = control::Rhythm {
        interval_ms: 50,
        rise: 1,
        fall: 1,
        ..control::Rhythm::default()
    };
    let check = control::Check {
        probe,
        via: control::Via::Host,
        address: None,
        port: None,
        rhythm,
    };
    let health = control::Health {
        checks: vec![check],
        ..control::Health::default()
    };
    Change::SetHealth {
        service: key(),
        health: Box::new(health),
    }
}

#[test]
fn a_server_that_dies_has_no_weight_until_it_is_back() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let mut control = Control::new(LIMITS, Vec::new(), 64, Machine::default);
    let options = control::ServerOptions {
        check_address: Some(at.ip()),
        check_port: Some(at.port()),
        ..control::ServerOptions::default()
    };
    let server = "10.1.0.1:80".parse().unwrap();
    let look_there = Change::SetServerOptions {
        service: key(),
        server,
        options,
    };
    let probe = control::Probe::Tcp(control::Talk::default());
    let changes = vec![add_service(), add_server(), look_there, watched(probe)];
    let reply = control.handle(Request::Change(changes), &Peer::root(1));
    assert_eq!(reply, Reply::Done);
    let conf = control.model.conf();
    let is = |control: &Control, word: &str, weight: u32| {
        let services = control.model.services(None).unwrap();
        let server = &services[0].servers[0];
        let health = server.health.map(|health| health.word());
        health == Some(word) && server.weight_listed() == weight
    };
    until(&mut control, |control| is(control, "up", 1));
    drop(listener);
    until(&mut control, |control| is(control, "down", 0));
    let Reply::Health(list) = control.handle(Request::Health, &Peer::root(1)) else {
        panic!()
    };
    assert_eq!(list[0].check, format!("tcp {at}"));
    assert_eq!(
        (list[0].server, list[0].last.as_str()),
        (server, "connection refused")
    );
    assert_eq!(control.model.conf(), conf);
    let _again = loop {
        if let Ok(listener) = std::net::TcpListener::bind(at) {
            break listener;
        }
    };
    until(&mut control, |control| is(control, "up", 1));
    // Nobody is probed when nobody is to be.
    let delete = Change::DeleteService { service: key() };
    control.change(&[delete]).unwrap();
    until(&mut control, |control| control.health().is_empty());
}

#[test]
fn programs_are_run_for_root_only() {
    let mut control = Control::new(LIMITS, Vec::new(), 64, Machine::default);
    control.change(&[add_service()]).unwrap();
    let program = control::Probe::Command(vec!["/bin/true".to_owned()]);
    let change = Request::Change(vec![watched(program)]);
    let somebody = Peer {
        uid: 4242,
        ..Peer::root(1)
    };
    let Reply::Refused(refusal) = control.handle(change.clone(), &somebody) else {
        panic!()
    };
    assert_eq!(refusal.errno, Errno::Eperm);
    assert_eq!(control.handle(change, &Peer::root(1)), Reply::Done);
}

#[test]
fn packets_eject_no_more_servers_than_they_may() {
    let (a, commands) = worker(1, 64);
    let page = Arc::clone(&a.page);
    let applying = thread::spawn(move || while commands.recv().is_ok_and(is_confirmed) {});
    let mut control = Control::new(LIMITS, vec![a], 64, Machine::default);
    let passive = control::Passive {
        window_s: 2,
        connections: 10,
        eject_s: 5,
        ejected_max_percent: 50,
        ..control::Passive::default()
    };
    let health = control::Health {
        passive: Some(passive),
        ..control::Health::default()
    };
    let watched = Change::SetHealth {
        service: key(),
        health: Box::new(health),
    };
    let mut second_server = add_server();
    if let Change::AddServer { server, .. } = &mut second_server {
        *server = "10.1.0.2:80".parse().unwrap();
    }
    let changes = [add_service(), add_server(), second_server, watched];
    control.change(&changes).unwrap();
    let ejected = (1..30).map(|second| {
        for server in &page.servers[..2] {
            server.conns.add(20);
            server.answers.add(if second > 12 { 20 } else { 0 });
        }
        control.tick(Duration::from_secs(second));
        let list = control.health();
        let is_down = |check: &&control::CheckStatus| check.fitness == control::Fitness::Down;
        list.iter().filter(is_down).count()
    });
    let ejected: Vec<usize> = ejected.collect();
    assert!(ejected.contains(&1) && !ejected.contains(&2), "{ejected:?}");
    assert_eq!((ejected[0], ejected.last()), (0, Some(&0)));
    drop(control);
    applying.join().unwrap();
}

fn is_confirmed(command: Command) -> bool {
    matches!(command, Command::Apply(_, done) if done.send(()).is_ok())
}
