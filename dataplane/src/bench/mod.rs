//! `directord bench`: what packets and connections cost the director itself.
//!
//! Clients and real servers are played on the worker's own core, in real mbufs, so that no
//! neighbour's noise, no driver and no second core is in the figure. Measured per burst: `process`,
//! `tick`, the accounting of what was sent, two readings of the cycle counter, and the push of each
//! sent packet into an array. Not measured: making, checking and answering packets. Every packet
//! that leaves is checked to the last checksum, and every packet is accounted for.

mod generator; // clients and servers
mod instructions; // fixed amounts of work, for callgrind
mod measure; // cycles, windows, calibration
mod network; // addresses and frames
mod paced; // packets that come when it is time, whether the director is ready or not
mod report; // what was found
mod subject; // a generator at work, window by window
mod way; // methods, families, protocols
mod workloads; // one a file

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use control::Protocol;
use pcap_file::pcap::{PcapPacket, PcapWriter};

pub use measure::{Calibration, Spread};
pub use report::{Figure, Figures, Machine, Report, Row};
pub use way::{Family, Method, Way};
pub use workloads::Workload;

use crate::control::model::{Limits, Model};
use crate::counters::Page;
use crate::director::Director;
use crate::dpdk::{Eal, EalConfig, Mempool};
use crate::packet::{HeapBuf, PacketBuf};
use crate::steer::Steer;
use crate::wire::flow::tcp_flags;
use generator::{Generator, Pace};
use measure::{Clock, Yardstick};
use network::{Message, SEGMENT_MIN, Site};
use subject::Subject;

const DATA_ROOM: u16 = 2048 + crate::dpdk::HEADROOM;
/// Flows of a capture for net_pcap, which holds each packet in an mbuf.
const PCAP_FLOWS: u32 = 4096;
const SECRET: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];
/// Flows where their number is what is measured, and where it is not.
const FLOWS: [u32; 5] = [1, 1_000, 100_000, 1_000_000, 10_000_000];
const FLOWS_QUICK: [u32; 2] = [1_000, 1_000_000];

/// Measures what packets and connections cost the director on this machine.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// What to measure; without any, everything
    #[arg(value_enum, value_name = "WORKLOAD")]
    workloads: Vec<Workload>,
    /// A first look: few short windows, few numbers of flows; three minutes for everything
    #[arg(long)]
    quick: bool,
    /// Numbers of flows, each measured on its own [default: 1, 1000, 100000, 1000000, 10000000]
    #[arg(long, value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=100_000_000), value_name = "N")]
    flows: Vec<u32>,
    /// Protocols, each measured on its own: tcp, udp
    #[arg(long, value_delimiter = ',', default_values = ["tcp"],
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
    /// Windows per measurement; the best and the median are printed [default: 7, or 3 if quick]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    windows: Option<u32>,
    /// Milliseconds of a window, the generator's own time included [default: 100, or 50 if quick]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    window_ms: Option<u32>,
    /// Core to run on
    #[arg(long, default_value_t = 0)]
    core: u16,
    /// Core of what runs beside it: a second worker, the control side
    #[arg(long, default_value_t = 1)]
    second_core: u16,
    /// Use no huge pages for packets
    #[arg(long)]
    no_huge: bool,
    /// What testpmd takes for a packet, to be reported beside: nanoseconds by its forwarding mode
    #[arg(long, value_delimiter = ',', value_parser = mode_and_ns, value_name = "MODE=NS")]
    testpmd: Vec<(String, f64)>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Play fixed amounts of everything, for scripts/instructions
    #[arg(long, hide = true)]
    instructions: bool,
    /// Write the clients' packets of 4096 flows to FILE, for net_pcap, and stop
    #[arg(long, value_name = "FILE")]
    write_pcap: Option<PathBuf>,
}

impl Options {
    fn windows(&self) -> u32 {
        self.windows.unwrap_or(if self.quick { 3 } else { 7 })
    }

    fn window_ms(&self) -> u32 {
        self.window_ms.unwrap_or(if self.quick { 50 } else { 100 })
    }

    fn flows(&self) -> &[u32] {
        match (self.flows.is_empty(), self.quick) {
            (false, _) => &self.flows,
            (true, true) => &FLOWS_QUICK,
            (true, false) => &FLOWS,
        }
    }

    /// What methods and families are asked for, for this protocol.
    fn ways(&self, protocol: Protocol) -> impl Iterator<Item = Way> {
        let all = self.family.iter().flat_map(move |&family| {
            self.method.iter().map(move |&method| Way {
                method,
                family,
                protocol,
            })
        });
        all.filter(|way| way.exists())
    }

    fn workloads(&self) -> &[Workload] {
        match self.workloads.as_slice() {
            [] => Workload::value_variants(),
            some => some,
        }
    }
}

fn protocol_by_name(name: &str) -> Result<Protocol, String> {
    match name {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err("one of tcp, udp".to_owned()),
    }
}

fn mode_and_ns(text: &str) -> Result<(String, f64), String> {
    let parts = text.split_once('=');
    let parsed = parts.and_then(|(mode, ns)| Some((mode.to_owned(), ns.parse().ok()?)));
    let parsed = parsed.filter(|(_, ns)| *ns > 0.0);
    parsed.ok_or_else(|| "a mode and nanoseconds, such as io=21.1".to_owned())
}

/// `directord bench`: measures and prints, or writes the capture.
#[expect(clippy::print_stdout, reason = "the command's result")]
pub fn command(options: &Options) -> Result<()> {
    if let Some(path) = &options.write_pcap {
        let protocol = options.protocol.first().copied().unwrap_or(Protocol::Udp);
        return write_pcap(path, protocol)
            .with_context(|| format!("writing the capture {}", path.display()));
    }
    let eal = eal(options)?;
    if options.instructions {
        return instructions::run(&Lab::new(&eal, Clock::still())?);
    }
    let report = run(options, &eal)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

/// The process's EAL; the calling thread is pinned.
fn eal(options: &Options) -> Result<Eal> {
    Ok(Eal::init(&EalConfig {
        file_prefix: format!("director-bench-{}", std::process::id()),
        huge_pages: !options.no_huge,
        memory_mb: 192,
        pci: false,
        single_file_segments: false,
        vdevs: Vec::new(),
        devices: Vec::new(),
        main_core: options.core,
        extra: Vec::new(),
    })?)
}

/// Measures everything that the options name.
fn run(options: &Options, eal: &Eal) -> Result<Report> {
    let clock = Clock::calibrated();
    let mut bench = Bench {
        options,
        eal,
        lab: Lab::new(eal, clock)?,
        yardstick: Yardstick::new(clock).context("memory for the calibration")?,
        rows: Vec::new(),
    };
    for workload in options.workloads() {
        bench.progress(&workload.about());
        workload.run(&mut bench)?;
    }
    bench.yardstick.sample();
    let windows = (options.windows(), options.window_ms());
    let cores = vec![options.core, options.second_core];
    Ok(Report {
        machine: Machine::here(cores, clock.ghz(), !options.no_huge, windows),
        calibration: bench.yardstick.calibration(),
        testpmd: options.testpmd.iter().cloned().collect(),
        rows: bench.rows,
    })
}

/// Where generators are made.
struct Lab {
    clock: Clock,
    pool: Mempool,
}

impl Lab {
    fn new(eal: &Eal, clock: Clock) -> Result<Self> {
        Self::named(eal, clock, "bench", generator::MBUFS)
    }

    /// With so many packets of its own.
    fn named(eal: &Eal, clock: Clock, name: &str, mbufs: u32) -> Result<Self> {
        let pool = Mempool::new(eal, name, mbufs, DATA_ROOM, -1)?;
        Ok(Self { clock, pool })
    }

    /// Around a director with everything that `site` has, and room for `connections`.
    fn generator(&self, site: Site, connections: u32, pace: Pace) -> Result<Generator> {
        self.generator_of(site, connections, pace, Steer::new(0, 1))
    }

    /// The same of one worker among others.
    fn generator_of(
        &self,
        site: Site,
        connections: u32,
        pace: Pace,
        steer: Steer,
    ) -> Result<Generator> {
        let mut generator = self.bare(site, connections, pace, steer)?;
        let page = Arc::clone(generator.director().page());
        let mut model = Model::new(site.limits()).watching(vec![page]);
        let updates = model.apply(&site.changes(connections));
        for update in updates.map_err(|refusal| anyhow::anyhow!(refusal.detail))? {
            generator.apply(&update)?;
        }
        Ok(generator)
    }

    /// The same before it is configured.
    fn bare(&self, site: Site, connections: u32, pace: Pace, steer: Steer) -> Result<Generator> {
        let Limits {
            services_max,
            servers_max,
        } = site.limits();
        let page = Arc::new(Page::new(services_max, servers_max)?);
        let director = Director::new(connections, SECRET, site.setup(), steer, page)
            .with_context(|| format!("memory for {connections} connections"))?;
        Ok(Generator::new(director, pace, site, self.pool.clone()))
    }
}

/// One run.
struct Bench<'o> {
    options: &'o Options,
    eal: &'o Eal,
    lab: Lab,
    yardstick: Yardstick,
    rows: Vec<Row>,
}

impl Bench<'_> {
    /// What is being done, for who waits.
    fn progress(&self, what: &str) {
        eprintln!("{what}");
    }

    fn real(&self) -> Pace {
        Pace::Real(self.lab.clock)
    }

    /// So many open connections, on which packets go to and fro.
    fn established(&self, site: Site, flows: u32) -> Result<Subject> {
        let generator = self.lab.generator(site, flows, self.real())?;
        Subject::established(self, generator, flows)
    }

    /// A window of each, in turns, as often as was asked for.
    fn in_turns(&mut self, subjects: &mut [&mut Subject]) -> Result<()> {
        self.yardstick.sample();
        for _ in 0..self.options.windows() {
            for subject in subjects.iter_mut() {
                subject.window(self.lab.clock, self.options.window_ms())?;
            }
        }
        Ok(())
    }
}

/// A capture of one packet from each of [`PCAP_FLOWS`] clients.
fn write_pcap(path: &Path, protocol: Protocol) -> Result<()> {
    let mut writer = PcapWriter::new(File::create(path)?)?;
    let mut packet = HeapBuf::new(&[]);
    let site = Site::of(Way::nat(protocol));
    for flow in 0..PCAP_FLOWS {
        let message = Message::from_client(&site, flow, tcp_flags::ACK, SEGMENT_MIN);
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
