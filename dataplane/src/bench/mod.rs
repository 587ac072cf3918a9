//! `directord bench`: what one packet costs the director itself.
//!
//! Clients and real servers are played on the worker's own core, in real mbufs, so that no
//! neighbour's noise, no driver and no second core is in the figure. Measured per burst: `process`,
//! `tick`, the accounting of what was sent, two readings of the cycle counter, and the push of each
//! sent packet into an array. Not measured: making, checking and answering packets. Every packet
//! that leaves is checked to the last checksum.

mod generator; // clients and servers
mod measure; // cycles, windows, calibration
mod network; // addresses and frames
mod report; // what was found
mod way; // methods, families, protocols

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use control::Protocol;
use pcap_file::pcap::{PcapPacket, PcapWriter};

pub use measure::{Calibration, Spread};
pub use report::{Case, Machine, Report, Traffic};
pub use way::{Family, Method, Way};

use crate::counters::{DropReason, Page};
use crate::cpu;
use crate::director::Director;
use crate::dpdk::{Eal, EalConfig, Mempool};
use crate::packet::{HeapBuf, PacketBuf};
use crate::steer::Steer;
use crate::wire::flow::tcp_flags;
use generator::{Generator, Script};
use measure::{Clock, Meter, Yardstick};
use network::Message;

const DATA_ROOM: u16 = 2048 + crate::dpdk::HEADROOM;
/// Connections that open and close over so many flows, so that each ends before its flow returns.
const CHURN_FLOWS: u32 = 1_000_000;
/// Flows of a capture for net_pcap, which holds each packet in an mbuf.
const PCAP_FLOWS: u32 = 4096;
const SECRET: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];

/// Measures the director's cost per packet on this machine.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Numbers of flows, each measured on its own
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 1_000_000],
          value_parser = clap::value_parser!(u32).range(1..=100_000_000), value_name = "N")]
    flows: Vec<u32>,
    /// Protocols, each measured on its own: tcp, udp
    #[arg(long, value_delimiter = ',', default_values = ["tcp", "udp"],
          value_parser = protocol_by_name, value_name = "NAME")]
    protocol: Vec<Protocol>,
    /// Forwarding methods; those other than NAT are measured in turns with NAT over IPv4
    #[arg(long, value_delimiter = ',', value_enum, value_name = "NAME",
          default_values = ["nat", "fullnat", "direct", "ipip", "gre", "gue"])]
    method: Vec<Method>,
    /// Families of the addresses; mixed: clients of IPv6 and servers of IPv4, with FULLNAT
    #[arg(long, value_delimiter = ',', value_enum, value_name = "NAME",
          default_values = ["ipv4", "ipv6", "mixed"])]
    family: Vec<Family>,
    /// Windows per measurement; the best and the median are printed
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    windows: u32,
    /// Length of a window, the generator's own time included
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    window_ms: u32,
    /// Core to run on
    #[arg(long, default_value_t = 0)]
    core: u16,
    /// Use no huge pages for packets
    #[arg(long)]
    no_huge: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write the clients' packets of 4096 flows to FILE, for net_pcap, and stop
    #[arg(long, value_name = "FILE")]
    write_pcap: Option<PathBuf>,
}

fn protocol_by_name(name: &str) -> Result<Protocol, String> {
    match name {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err("one of tcp, udp".to_owned()),
    }
}

/// `directord bench`: measures and prints, or writes the capture.
#[expect(clippy::print_stdout, reason = "the command's result")]
pub fn command(options: &Options) -> Result<()> {
    if let Some(path) = &options.write_pcap {
        let protocol = options.protocol.first().copied().unwrap_or(Protocol::Udp);
        return write_pcap(path, protocol)
            .with_context(|| format!("writing the capture {}", path.display()));
    }
    let report = run(options)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

/// Measures everything that `options` name. Takes the process's EAL and pins the calling thread.
pub fn run(options: &Options) -> Result<Report> {
    let eal = Eal::init(&EalConfig {
        file_prefix: format!("director-bench-{}", std::process::id()),
        huge_pages: !options.no_huge,
        memory_mb: 64,
        pci: false,
        single_file_segments: false,
        vdevs: Vec::new(),
        devices: Vec::new(),
        main_core: options.core,
        extra: Vec::new(),
    })?;
    let clock = Clock::calibrated();
    let mut bench = Bench {
        options,
        clock,
        pool: Mempool::new(&eal, "bench", generator::MBUFS, DATA_ROOM, -1)?,
        yardstick: Yardstick::new(clock).context("memory for the calibration")?,
    };
    let mut cases = Vec::new();
    for &protocol in &options.protocol {
        for &flows in &options.flows {
            cases.extend(bench.established(protocol, flows)?);
        }
    }
    if options.protocol.contains(&Protocol::Tcp) && options.method.contains(&Method::Nat) {
        cases.push(bench.connections()?);
    }
    bench.yardstick.sample();
    let windows = (options.windows, options.window_ms);
    Ok(Report {
        machine: Machine::here(options.core, clock.ghz(), !options.no_huge, windows),
        calibration: bench.yardstick.calibration(),
        cases,
    })
}

struct Bench<'o> {
    options: &'o Options,
    clock: Clock,
    pool: Mempool,
    yardstick: Yardstick,
}

/// Open connections of one kind, and what was measured on them.
struct Measured {
    way: Way,
    flows: u32,
    generator: Generator,
    /// Nanoseconds per connection, of opening them.
    opening: f64,
    packet: Vec<f64>,
    connection: Vec<f64>,
    packets: u64,
    stalls: u32,
}

impl Bench<'_> {
    /// Measures packets on `flows` open connections of each kind, in random order. NAT over IPv4 is
    /// measured in any case, a window of it before each window of any other.
    fn established(&mut self, protocol: Protocol, flows: u32) -> Result<Vec<Case>> {
        let Options { method, family, .. } = self.options;
        let others = family.iter().flat_map(|&family| {
            method.iter().map(move |&method| Way {
                method,
                family,
                protocol,
            })
        });
        let mut nat = self.open(Way::nat(protocol), flows)?;
        let mut cases = Vec::new();
        for way in others.filter(|way| *way != Way::nat(protocol) && way.exists()) {
            let mut other = self.open(way, flows)?;
            let before = nat.packet.len();
            self.yardstick.sample();
            for _ in 0..self.options.windows {
                self.window(&mut nat)?;
                self.window(&mut other)?;
            }
            let nat = Spread::of(nat.packet[before..].to_vec());
            cases.push(other.case(Traffic::Established, Some(nat))?);
        }
        while nat.packet.len() < self.options.windows as usize {
            self.window(&mut nat)?;
        }
        cases.insert(0, nat.case(Traffic::Established, None)?);
        Ok(cases)
    }

    fn open(&mut self, way: Way, flows: u32) -> Result<Measured> {
        let mut generator = self.generator(way, flows)?;
        let mut opening = Meter::new(self.clock);
        generator.open(flows, &mut opening)?;
        let open = generator.director().page().connections.get();
        ensure!(open == flows, "of {flows} connections {open} are open");
        let opening = opening.per(flows.into());
        generator.play(Script::Established(flows), &mut Meter::new(self.clock))?;
        Ok(Measured::new(way, flows, generator, opening))
    }

    /// Measures connections that open and close.
    fn connections(&mut self) -> Result<Case> {
        let way = Way::nat(Protocol::Tcp);
        let mut generator = self.generator(way, CHURN_FLOWS)?;
        let mut first = Meter::new(self.clock);
        generator.play(Script::Connections(CHURN_FLOWS), &mut first)?;
        // Once round, so that each connection that is measured takes the place of one that ended.
        while generator.completed() < u64::from(CHURN_FLOWS) {
            generator.round(&mut first)?;
        }
        let mut churn = Measured::new(way, CHURN_FLOWS, generator, f64::NAN);
        self.yardstick.sample();
        for _ in 0..self.options.windows {
            self.window(&mut churn)?;
        }
        churn.case(Traffic::Connections, None)
    }

    fn generator(&self, way: Way, flows: u32) -> Result<Generator> {
        let page = Arc::new(Page::new(1, usize::from(network::SERVERS)));
        let director = Director::new(flows, SECRET, network::setup(), Steer::new(0, 1), page)
            .with_context(|| format!("memory for {flows} connections"))?;
        Generator::new(director, self.clock, way, flows, self.pool.clone())
    }

    fn window(&self, of: &mut Measured) -> Result<()> {
        let completed = of.generator.completed();
        let mut meter = Meter::new(self.clock);
        let end = self.clock.deadline(self.options.window_ms);
        while cpu::cycles() < end {
            of.generator
                .round(&mut meter)
                .with_context(|| of.way.to_string())?;
        }
        of.packet.push(meter.per(meter.packets));
        let completed = of.generator.completed() - completed;
        of.connection.push(meter.per(completed));
        of.packets += meter.packets;
        of.stalls += meter.stalls;
        Ok(())
    }
}

impl Measured {
    fn new(way: Way, flows: u32, generator: Generator, opening: f64) -> Self {
        Self {
            way,
            flows,
            generator,
            opening,
            packet: Vec::new(),
            connection: Vec::new(),
            packets: 0,
            stalls: 0,
        }
    }

    /// What was found; `nat` was measured in the same minute.
    fn case(self, traffic: Traffic, nat: Option<Spread>) -> Result<Case> {
        let director = self.generator.director();
        let page = director.page();
        ensure!(page.balanced(), "{}: packets are unaccounted for", self.way);
        let packet = Spread::of(self.packet);
        let connection = match traffic {
            Traffic::Established => vec![self.opening],
            Traffic::Connections => self.connection,
        };
        Ok(Case {
            traffic,
            way: self.way,
            flows: self.flows,
            packet,
            rate_to_nat: nat.map(|nat| nat.best_ns / packet.best_ns),
            connection: Spread::of(connection),
            packets: self.packets,
            bytes_per_connection: director.table_bytes() as f64 / f64::from(self.flows),
            stalls: self.stalls,
            dropped: drops(page),
        })
    }
}

fn drops(page: &Page) -> BTreeMap<&'static str, u64> {
    let count = |reason: DropReason| {
        page.ports
            .iter()
            .map(|p| p.drops[reason as usize].get())
            .sum()
    };
    let all = DropReason::ALL
        .iter()
        .map(|reason| (reason.name(), count(*reason)));
    all.filter(|(_, packets)| *packets > 0).collect()
}

/// A capture of one packet from each of [`PCAP_FLOWS`] clients.
fn write_pcap(path: &Path, protocol: Protocol) -> Result<()> {
    let mut writer = PcapWriter::new(File::create(path)?)?;
    let mut packet = HeapBuf::new(&[]);
    for flow in 0..PCAP_FLOWS {
        let message = Message::from_client(Way::nat(protocol), flow, tcp_flags::ACK);
        ensure!(
            message.write(&mut packet, network::CLIENT_SIDE),
            "no room for a frame"
        );
        let frame = packet.bytes();
        let stamp = Duration::from_micros(u64::from(flow));
        writer.write_packet(&PcapPacket::new(stamp, u32::try_from(frame.len())?, frame))?;
    }
    Ok(())
}
