//! Files against a director that runs: any two of them, hands that change things, time.

mod random; // any configuration

use control::plan::{Action, Difference, What};
use control::{Request, ServerConf, ServiceConf};

use super::*;
use crate::control::model::Limits;
use crate::control::server::{Backend, Peer};
use crate::control::stats::Machine;
use crate::control::{Command, Worker};
use crate::counters::Page;

const LIMITS: Limits = Limits {
    services_max: 4096,
    servers_max: 16_384,
};

const PORT: &str = "[[port]]\nname = \"wan\"\ndevice = \"net_null0\"\n";

const A: &str = "
[[service]]
protocol = \"tcp\"
address = \"10.0.0.1:80\"
scheduler = \"rr\"
[[service.server]]
address = \"192.168.1.1:80\"
[[service.server]]
address = \"192.168.1.2:80\"

[[service]]
protocol = \"udp\"
address = \"10.0.0.1:53\"
";

const B: &str = "
[timeouts]
udp = 10

[[service]]
protocol = \"tcp\"
address = \"10.0.0.1:80\"
scheduler = \"wrr\"
mss = 1400
[[service.server]]
address = \"192.168.1.2:80\"
weight = 5
[[service.server]]
address = \"192.168.1.3:80\"
";

fn text(services: &str) -> String {
    format!("{PORT}{services}")
}

fn file(services: &str) -> File {
    File {
        name: "f".to_owned(),
        text: text(services),
    }
}

fn config(text: &str) -> Config {
    Config::parse(text, "f").unwrap()
}

/// Without workers, started with a file.
fn started(services: &str) -> Control {
    let config = config(&text(services));
    let mut control =
        Control::new(LIMITS, Vec::new(), 64, Machine::default).with_ports(config.port_specs());
    control.start(&config).unwrap();
    control
}

fn ask(control: &mut Control, request: Request) -> Plan {
    match control.handle(request, &Peer::root(0)) {
        Reply::Plan(plan) => plan,
        other => panic!("{other:?}"),
    }
}

fn plan(control: &mut Control, services: &str) -> Plan {
    ask(control, Request::Plan(file(services)))
}

fn apply(control: &mut Control, services: &str, confirm_s: Option<u32>) -> Plan {
    let file = file(services);
    ask(control, Request::Apply { file, confirm_s })
}

fn refusal(control: &mut Control, request: Request) -> Refusal {
    match control.handle(request, &Peer::root(0)) {
        Reply::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

fn said(services: &str) -> Conf {
    config(&text(services)).conf().unwrap()
}

/// But for the order of services and servers, which does not change.
fn unordered(mut conf: Conf) -> Conf {
    conf.services.sort_by_key(|service| service.key);
    for service in &mut conf.services {
        service.servers.sort_by_key(|server| server.address);
    }
    conf
}

fn lines(plan: &Plan) -> Vec<String> {
    let line = |difference: &Difference| {
        let keys = difference.keys.iter().map(|key| {
            let hand = if key.by_hand { " by hand" } else { "" };
            let before = key.before.as_deref().unwrap_or("");
            format!(" {} {before}>{}{hand}", key.key, key.after)
        });
        let what = match &difference.what {
            What::Port { port } => format!("port {port}"),
            What::Address { address } => address.to_string(),
            What::Route { to } => format!("route to {to}"),
            What::Neighbour { neighbour } => format!("neighbour {neighbour}"),
            What::Timeouts => "timeouts".to_owned(),
            What::Settings => "settings".to_owned(),
            What::Mark { rule, number } => format!("{number} {rule}"),
            What::Sync { sync } => format!("sync {sync}"),
            What::Service { service } => service.to_string(),
            What::Server { server, .. } => server.to_string(),
        };
        let keys: String = keys.collect();
        let hand = if difference.by_hand { " (hand)" } else { "" };
        format!("{:?} {what}{keys}{hand}", difference.action)
    };
    plan.differences.iter().map(line).collect()
}

#[test]
fn a_plan_says_what_differs_and_changes_nothing() {
    let mut control = started(A);
    let plan = plan(&mut control, B);
    assert_eq!(
        lines(&plan),
        [
            "Edit timeouts udp 300>10",
            "Edit tcp 10.0.0.1:80 scheduler \"rr\">\"wrr\" mss unset>1400",
            "Delete 192.168.1.1:80",
            "Edit 192.168.1.2:80 weight 1>5",
            "Add 192.168.1.3:80",
            "Delete udp 10.0.0.1:53",
        ]
    );
    assert_eq!(plan.needs_restart, []);
    assert_eq!(control.model.conf(), said(A));
    assert!(self::plan(&mut control, A).is_empty());
}

#[test]
fn a_file_with_a_mistake_is_told_as_check_tells_it() {
    let mut control = started(A);
    let wrong = "[[service]]\nprotocol = \"tcp\"\naddress = \"x\"\n";
    let words =
        "f:6: address \"x\" is not an address and port, 10.0.0.1:80 or [2001:db8::1]:80 is right";
    let request = Request::Plan(file(wrong));
    assert_eq!(refusal(&mut control, request).detail, words);
    let request = Request::Apply {
        file: file(wrong),
        confirm_s: None,
    };
    assert_eq!(refusal(&mut control, request).detail, words);
    assert_eq!(control.model.conf(), said(A));
}

#[test]
fn what_was_changed_by_hand_is_told_apart() {
    let mut control = started(A);
    let weight = |weight| {
        let service = said(A).services[0].clone();
        let ServiceConf { key, servers, .. } = service;
        let ServerConf { address, spec, .. } = servers[1];
        Change::EditServer {
            service: key,
            server: address,
            spec: control::ServerSpec { weight, ..spec },
        }
    };
    let delete = Change::DeleteServer {
        service: said(A).services[0].key,
        server: said(A).services[0].servers[0].address,
    };
    control.change(&[weight(7), delete]).unwrap();
    assert_eq!(
        lines(&plan(&mut control, A)),
        [
            "Edit 192.168.1.2:80 weight 7>1 by hand (hand)",
            "Add 192.168.1.1:80 (hand)",
        ]
    );
    // What the file changes itself is its own.
    let ours = lines(&plan(&mut control, B));
    assert!(ours.contains(&"Edit 192.168.1.2:80 weight 7>5 by hand (hand)".to_owned()));
    assert!(ours.contains(&"Add 192.168.1.3:80".to_owned()));
    apply(&mut control, B, None);
    assert!(plan(&mut control, B).is_empty());
    control.change(&[weight(2)]).unwrap();
    assert_eq!(
        lines(&plan(&mut control, B)),
        ["Edit 192.168.1.2:80 weight 2>5 by hand (hand)"]
    );
}

#[test]
fn what_needs_a_restart_is_told_and_left_alone() {
    let mut control = started(A);
    let text = format!(
        "[director]\nworkers = [1, 2]\n{}[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\n\
         addresses = [\"10.9.0.1/24\"]\n[[route]]\nto = \"0.0.0.0/0\"\nvia = \"10.9.0.2\"\n{B}",
        PORT.replace("null0", "null7"),
    );
    let name = "g".to_owned();
    let file = File { name, text };
    let confirm_s = None;
    let plan = ask(&mut control, Request::Apply { file, confirm_s });
    let needs: Vec<String> = plan.needs_restart.iter().map(ToString::to_string).collect();
    assert_eq!(
        needs,
        [
            "director: workers [1] -> [1, 2]",
            "port wan: device \"net_null0\" -> \"net_null7\"",
            "port lan: only in the file",
            "route 0.0.0.0/0: only in the file",
        ]
    );
    // max_templates follows from the number of workers, and says nothing of its own.
    assert_eq!(unordered(control.model.conf()), unordered(said(B)));
    let Reply::Saved { text, flaw } = control.handle(Request::Save, &Peer::root(0)) else {
        panic!()
    };
    assert_eq!(flaw, None);
    assert!(!text.contains("workers") && text.contains("net_null0"));
}

#[test]
fn the_network_follows_the_file() {
    let before = |addresses: &str, rest: &str| {
        format!("[[port]]\nname = \"wan\"\ndevice = \"net_null0\"\naddresses = {addresses}\n{rest}")
    };
    let first = before(
        "[\"10.0.0.254/24\"]",
        "[[route]]\nto = \"10.8.0.0/16\"\nvia = \"10.0.0.1\"\n\
         [[neighbour]]\naddress = \"10.0.0.9\"\nmac = \"02:00:00:00:00:09\"\n",
    );
    let second = before(
        "[\"10.0.0.253/24\"]",
        "[[port.vlan]]\nid = 7\naddresses = [\"10.7.0.1/24\"]\n\
         [[route]]\nto = \"10.8.0.0/16\"\nvia = \"10.0.0.1\"\n\
         [[route]]\nto = \"0.0.0.0/0\"\nvia = \"10.7.0.9\"\n\
         [[neighbour]]\naddress = \"10.0.0.9\"\nmac = \"02:00:00:00:00:0a\"\n\
         [[port]]\nname = \"new\"\ndevice = \"net_null1\"\naddresses = [\"10.9.0.1/24\"]\n\
         [[route]]\nto = \"10.99.0.0/16\"\nvia = \"10.9.0.2\"\n",
    );
    let start = config(&first);
    let mut control = Control::new(LIMITS, Vec::new(), 64, Machine::default)
        .with_ports(start.port_specs())
        .networked(start.setup(|_| [2; 6]));
    control.start(&start).unwrap();
    let whole = |text: &str| File {
        name: "f".to_owned(),
        text: text.to_owned(),
    };
    assert!(ask(&mut control, Request::Plan(whole(&first))).is_empty());
    let request = Request::Apply {
        file: whole(&second),
        confirm_s: Some(9),
    };
    let plan = ask(&mut control, request);
    assert_eq!(
        lines(&plan),
        [
            "Add route to 0.0.0.0/0 via >10.7.0.9",
            "Add route to 10.99.0.0/16 via >10.9.0.2",
            "Edit neighbour 10.0.0.9 mac 02:00:00:00:00:09>02:00:00:00:00:0a",
            "Delete 10.0.0.254/24 on wan",
            "Add port new device >\"net_null1\"",
            "Add 10.0.0.253/24 on wan",
            "Add 10.7.0.1/24 on wan.7",
            "Add 10.9.0.1/24 on new",
        ]
    );
    assert_eq!(plan.needs_restart, []);
    let again = ask(&mut control, Request::Plan(whole(&second)));
    assert_eq!(again.differences, []);
    let Reply::Saved { text, flaw } = control.save() else {
        panic!()
    };
    assert_eq!(flaw, None);
    assert!(ask(&mut control, Request::Plan(whole(&text))).is_empty());
    ask(&mut control, Request::Rollback);
    assert_eq!(control.model.network(), start.network());
    assert!(ask(&mut control, Request::Plan(whole(&first))).is_empty());
}

/// Ports come and go; one that takes the device of another waits, and what of a port stays as it was started.
#[test]
fn ports_come_and_go_but_for_what_needs_a_restart() {
    let port = |name: &str, device: &str, more: &str| {
        format!("[[port]]\nname = \"{name}\"\ndevice = \"{device}\"\n{more}")
    };
    let whole = |ports: &[String]| File {
        name: "f".to_owned(),
        text: ports.concat(),
    };
    let (wan, lan) = (port("wan", "net_null0", ""), port("lan", "net_null1", ""));
    let address = "addresses = [\"10.9.0.1/24\"]\n";
    let mark = "[[mark]]\nmark = 7\nin_port = \"dmz\"\n".to_owned();
    let start = config(&wan);
    let mut control = Control::new(LIMITS, Vec::new(), 64, Machine::default)
        .with_ports(start.port_specs())
        .networked(start.setup(|_| [2; 6]));
    control.start(&start).unwrap();
    let mut become_ = |ports: &[String], confirm_s| {
        let file = whole(ports);
        let plan = ask(&mut control, Request::Apply { file, confirm_s });
        let needs: Vec<String> = plan.needs_restart.iter().map(ToString::to_string).collect();
        (lines(&plan), needs)
    };
    let dmz = port("dmz", "net_null2", &format!("mtu = 9000\n{address}"));
    assert_eq!(
        become_(&[wan.clone(), lan.clone(), dmz.clone(), mark.clone()], None),
        (
            vec![
                "Add port lan device >\"net_null1\"".to_owned(),
                "Add port dmz device >\"net_null2\" mtu >9000".to_owned(),
                "Add 10.9.0.1/24 on dmz".to_owned(),
                "Add 1 mark 7: in at dmz".to_owned(),
            ],
            vec![]
        )
    );
    // Another MTU, and another name for lan's device.
    let other = port("dmz", "net_null2", &format!("mtu = 1500\n{address}"));
    let renamed = port("office", "net_null1", "addresses = [\"10.8.0.1/24\"]\n");
    assert_eq!(
        become_(&[wan.clone(), renamed, other, mark], None),
        (
            vec![],
            vec![
                "port lan: not in the file".to_owned(),
                "port dmz: mtu 9000 -> 1500".to_owned(),
                "port office: only in the file".to_owned(),
            ]
        )
    );
    assert_eq!(
        become_(&[lan], Some(9)).0,
        [
            "Delete 10.9.0.1/24 on dmz",
            "Delete 1 mark 7: in at dmz",
            "Delete port wan",
            "Delete port dmz"
        ]
    );
    assert_eq!(control.model.ports().listed(), "lan");
    ask(&mut control, Request::Rollback);
    assert_eq!(control.model.ports().listed(), "wan, lan, dmz");
    assert_eq!(control.model.marks().len(), 1);
}

#[test]
fn what_is_not_confirmed_goes_back_by_itself() {
    let mut control = started(A);
    let at = Duration::from_secs;
    control.tick(at(100));
    let plan = apply(&mut control, B, Some(30));
    assert_eq!(plan.confirm_s, Some(30));
    assert_eq!(unordered(control.model.conf()), unordered(said(B)));
    // Another one is not taken meanwhile.
    let request = Request::Apply {
        file: file(A),
        confirm_s: None,
    };
    assert_eq!(
        refusal(&mut control, request).detail,
        "f was applied and waits for its confirmation for 30 s more, \
         directorctl confirm or directorctl rollback first is right"
    );
    control.tick(at(130));
    assert_eq!(unordered(control.model.conf()), unordered(said(B)));
    control.tick(at(131));
    assert_eq!(unordered(control.model.conf()), unordered(said(A)));
    assert_eq!(control.files.said, said(A));
    assert_eq!(refusal(&mut control, Request::Confirm).errno, Errno::Enoent);
}

#[test]
fn what_is_confirmed_stays_and_what_is_rolled_back_goes_at_once() {
    let mut control = started(A);
    apply(&mut control, B, Some(30));
    assert_eq!(
        control.handle(Request::Confirm, &Peer::root(0)),
        Reply::Done
    );
    control.tick(Duration::from_secs(1000));
    assert_eq!(unordered(control.model.conf()), unordered(said(B)));
    assert_eq!(
        refusal(&mut control, Request::Rollback).errno,
        Errno::Enoent
    );
    apply(&mut control, A, Some(30));
    // What was changed by hand since goes too.
    control.change(&[Change::Flush]).unwrap();
    let plan = ask(&mut control, Request::Rollback);
    assert_eq!(plan.file, "the configuration before f");
    assert!(
        plan.differences
            .iter()
            .any(|one| one.action == Action::Add && one.by_hand)
    );
    assert_eq!(unordered(control.model.conf()), unordered(said(B)));
    assert_eq!(control.files.said, said(B));
    let wrong = Request::Apply {
        file: file(A),
        confirm_s: Some(0),
    };
    assert_eq!(refusal(&mut control, wrong).errno, Errno::Erange);
}

#[test]
fn a_server_that_is_drained_stays_so_and_comes_back_so() {
    let mut control = started(A);
    let service = said(A).services[0].key;
    let server = said(A).services[0].servers[0].address;
    let drain = Drain {
        deadline_s: Some(60),
        ..Drain::default()
    };
    let drained = Change::DrainServer {
        service,
        server,
        drain,
    };
    control.change(&[drained]).unwrap();
    assert!(plan(&mut control, A).is_empty());
    let Reply::Saved { text, .. } = control.save() else {
        panic!()
    };
    assert_eq!(config(&text).conf().unwrap(), said(A), "the weight it had");
    // Weight 0 is what it has, and an edit of something else does not end it.
    let quiet = A.replacen(
        "address = \"192.168.1.1:80\"",
        "address = \"192.168.1.1:80\"\nweight = 0",
        1,
    );
    assert!(plan(&mut control, &quiet).is_empty());
    let limited = quiet.replacen("weight = 0", "upper_threshold = 9", 1);
    let limits = apply(&mut control, &limited, None);
    assert_eq!(lines(&limits), ["Edit 192.168.1.1:80 upper_threshold 0>9"]);
    assert_eq!(control.model.draining().count(), 1);
    assert!(plan(&mut control, &limited).is_empty());
    // It goes, and comes back as it was.
    apply(&mut control, B, Some(9));
    assert_eq!(control.model.draining().count(), 0);
    ask(&mut control, Request::Rollback);
    assert_eq!(
        control.model.draining().collect::<Vec<_>>(),
        [((service, server), drain)]
    );
    let heavier = limited.replacen("upper_threshold = 9", "weight = 3", 1);
    apply(&mut control, &heavier, None);
    assert_eq!(control.model.draining().count(), 0);
    assert!(plan(&mut control, &heavier).is_empty());
}

#[test]
fn connections_of_servers_that_go_are_cut() {
    let page = Arc::new(Page::new(LIMITS.services_max, LIMITS.servers_max).unwrap());
    let (mailbox, commands) = crossbeam::channel::bounded(8);
    let worker = Worker {
        core: 1,
        page: Arc::clone(&page),
        mailbox,
    };
    let answers = std::thread::spawn(move || {
        for command in commands {
            if let Command::Apply(_, done) = command {
                done.send(()).unwrap();
            }
        }
    });
    let mut control = Control::new(LIMITS, vec![worker], 64, Machine::default);
    control.start(&config(&text(A))).unwrap();
    page.servers[0].active.set(12);
    page.servers[1].active.set(100);
    page.servers[1].inactive.set(20);
    let forecast = plan(&mut control, B).forecast;
    assert_eq!((forecast.kept, forecast.cut), (120, 12));
    let servers: Vec<(u64, bool)> = (forecast.servers.iter())
        .map(|server| (server.connections, server.kept))
        .collect();
    assert_eq!(servers, [(12, false), (120, true)]);
    let forecast = plan(&mut control, "").forecast;
    assert_eq!((forecast.kept, forecast.cut), (0, 132));
    drop(control);
    answers.join().unwrap();
}

#[test]
fn hash_slots_that_move_are_counted_and_tables_weighed() {
    let mh = |more: &str| {
        let head = A.replacen("\"rr\"", "\"mh\"\nmh_table_size = 251", 1);
        let at = "[[service]]\nprotocol = \"udp\"";
        head.replacen(at, &format!("{more}{at}"), 1)
    };
    let mut control = started(&mh(""));
    let third = mh("[[service.server]]\naddress = \"192.168.1.3:80\"\n");
    let forecast = plan(&mut control, &third).forecast;
    let [slots] = &forecast.slots[..] else {
        panic!("{forecast:?}")
    };
    assert_eq!((slots.scheduler.as_str(), slots.of), ("mh", 251));
    assert!((60..130).contains(&slots.moved), "{}", slots.moved);
    assert_eq!(forecast.table_bytes_more, 0);
    assert_eq!(plan(&mut control, A).forecast.table_bytes_more, -4 * 251);
    // As many as really move.
    let service = said(A).services[0].key;
    let before = control.model.spread(&service).unwrap();
    apply(&mut control, &third, None);
    let after = control.model.spread(&service).unwrap();
    assert_eq!(before.moved(&after), (slots.moved, slots.of));
}

#[test]
fn what_the_running_director_cannot_take_is_refused_whole() {
    let limits = Limits {
        services_max: 2,
        servers_max: 2,
    };
    let start = config(&text(A));
    let mut control =
        Control::new(limits, Vec::new(), 64, Machine::default).with_ports(start.port_specs());
    control.start(&start).unwrap();
    let three =
        format!("{A}[[service.server]]\naddress = \"192.168.1.9:53\"\n[[service]]\nmark = 1\n");
    let plan = plan(&mut control, &three);
    let words = "all 2 servers are in use";
    assert!(plan.refused.unwrap().detail.starts_with(words));
    assert_eq!(plan.differences.len(), 2);
    let request = Request::Apply {
        file: file(&three),
        confirm_s: Some(9),
    };
    let refused = refusal(&mut control, request).detail;
    assert!(refused.starts_with(&format!("f: cannot be applied: {words}")));
    assert_eq!(control.model.conf(), said(A));
    assert!(control.files.waiting.is_none());
}

#[test]
fn a_signal_reads_the_file_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("director.toml");
    std::fs::write(&path, text(B)).unwrap();
    let wanted = Arc::new(AtomicBool::new(false));
    let mut control = started(A).reloading(path.clone(), Arc::clone(&wanted));
    control.tick(Duration::from_secs(1));
    assert_eq!(control.model.conf(), said(A));
    wanted.store(true, Relaxed);
    control.tick(Duration::from_secs(2));
    assert_eq!(unordered(control.model.conf()), unordered(said(B)));
    assert!(!wanted.load(Relaxed));
    // A mistake, or no file, changes nothing.
    for ruin in [
        |path: &std::path::Path| std::fs::write(path, "[nonsense]").unwrap(),
        |path: &std::path::Path| std::fs::remove_file(path).unwrap(),
    ] {
        ruin(&path);
        wanted.store(true, Relaxed);
        control.tick(Duration::from_secs(3));
        assert_eq!(unordered(control.model.conf()), unordered(said(B)));
    }
}
