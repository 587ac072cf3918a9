//! Packets into a file, as they pass a stage of the director.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use control::client::{Client, ClientError};
use control::{
    BUFFER, BUFFER_MAX, BUFFER_MIN, CaptureSpec, Captured, PacketFilter, Reply, Request,
    SNAPLEN_MAX, Stage,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::pcapng::{self, Packet, Writer};
use super::values::one_of;

/// How long the director is left alone when it had no packet.
const PAUSE: Duration = Duration::from_millis(50);
const KIB: u32 = 1024;

#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(super) struct CaptureArgs {
    /// As packets are received (rx), once it is decided what becomes of them (decided), as ports take
    /// them (tx), or those that are dropped (drop).
    #[arg(long, value_parser = one_of::<Stage>(), default_value = "rx")]
    stage: Stage,
    /// Stop after so many packets.
    #[arg(long, short = 'c', value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Bytes of each packet.
    #[arg(long, short = 's', value_name = "BYTES", default_value_t = SNAPLEN_MAX,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(SNAPLEN_MAX)))]
    snaplen: u32,
    /// KiB that may wait in each worker; what does not fit is missed.
    #[arg(long, value_name = "KIB", default_value_t = BUFFER / KIB,
        value_parser = clap::value_parser!(u32).range(i64::from(BUFFER_MIN / KIB)..=i64::from(BUFFER_MAX / KIB)))]
    buffer: u32,
    /// Packets dropped for this reason only, by the counter's name: no_server for example.
    #[arg(long, value_name = "NAME")]
    reason: Option<String>,
    /// Packets that come from or leave by this port of the director only.
    #[arg(long, value_name = "NAME")]
    port: Option<String>,
    /// What must hold: host ADDRESS, net PREFIX, port NUMBER, tcp, udp, sctp, icmp, arp, joined by
    /// "and". Addresses and ports are those of either end.
    filter: Vec<String>,
    /// Where the packets go; "-" is standard output: directorctl capture - | tcpdump -nr -
    #[arg(required = true)]
    file: PathBuf,
}

impl CaptureArgs {
    fn spec(&self) -> Result<CaptureSpec> {
        let filter = PacketFilter {
            reason: self.reason.clone(),
            port: self.port.clone(),
            ..PacketFilter::parse(&self.filter).map_err(anyhow::Error::msg)?
        };
        Ok(CaptureSpec {
            stage: self.stage,
            filter,
            snaplen: self.snaplen,
            buffer: self.buffer * KIB,
        })
    }
}

pub(super) fn run(args: &CaptureArgs, client: &mut Client, json: bool) -> Result<String> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .context("taking over signals")?;
    }
    let ports = match client.ask(&Request::StartCapture(args.spec()?))? {
        Reply::CaptureStarted { ports } => ports,
        Reply::Refused(refusal) => return Err(refusal.into()),
        _ => bail!(ClientError::Unexpected),
    };
    let mut file = Writer::create(&args.file, args.snaplen)?;
    for port in &ports {
        file.interface(port)?;
    }
    let mut capture = Capture {
        args,
        ports,
        file,
        captured: 0,
        missed: 0,
    };
    match capture.take(client, &interrupted) {
        Err(error) if pcapng::is_closed(&error) => {}
        taken => taken?,
    }
    let (captured, missed) = (capture.captured, capture.missed);
    eprintln!("{captured} packets captured, {missed} missed");
    match json && !pcapng::is_stdout(&args.file) {
        true => super::json(&super::answers::Captured { captured, missed }),
        false => Ok(String::new()),
    }
}

struct Capture<'a> {
    args: &'a CaptureArgs,
    ports: Vec<String>,
    file: Writer,
    captured: u64,
    missed: u64,
}

impl Capture<'_> {
    #[expect(clippy::disallowed_methods, reason = "--seconds is by the clock")]
    fn take(&mut self, client: &mut Client, interrupted: &AtomicBool) -> Result<()> {
        self.file.flush()?;
        let seconds = self.args.seconds.map(Duration::from_secs);
        let began = Instant::now();
        let mut stopped = false;
        loop {
            let is_over = interrupted.load(Relaxed)
                || self.is_full()
                || seconds.is_some_and(|seconds| began.elapsed() >= seconds);
            if is_over && !stopped {
                match client.ask(&Request::StopCapture)? {
                    Reply::Done => stopped = true,
                    Reply::Refused(refusal) => return Err(refusal.into()),
                    _ => bail!(ClientError::Unexpected),
                }
            }
            let (packets, done) = match client.ask(&Request::CapturedNext)? {
                Reply::Captured {
                    packets,
                    ports,
                    missed,
                    done,
                } => {
                    (self.ports, self.missed) = (ports, missed);
                    (packets, done)
                }
                Reply::Refused(refusal) => return Err(refusal.into()),
                _ => bail!(ClientError::Unexpected),
            };
            for packet in &packets {
                self.write(packet)?;
            }
            self.file.flush()?;
            if done {
                return Ok(());
            }
            if packets.is_empty() {
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.args.count.is_some_and(|count| self.captured >= count)
    }

    fn write(&mut self, packet: &Captured) -> Result<()> {
        if self.is_full() {
            return Ok(());
        }
        let number = packet.to.unwrap_or(packet.from);
        let port = (self.ports.get(usize::from(number)))
            .with_context(|| format!("the director has no port {number}"))?;
        self.file.write(&Packet {
            port,
            leaves: packet.to.is_some(),
            at_ns: packet.at_ns,
            bytes: &packet.bytes.0,
            length: packet.length,
            missed: packet.missed,
            comment: &packet.comment(&self.ports),
        })?;
        self.captured += 1;
        Ok(())
    }
}
