//! The director: a packet comes in, a verdict goes out. `ARCHITECTURE.md` draws the walk.

pub mod answers; // servers whose packets are for clients though no connection says so
pub mod config; // the TOML file, validated
pub mod conn; // connections: key, table, states, timers
pub mod control; // the Unix-socket server: a request becomes updates in every worker's mailbox
pub mod counters; // what each worker counts, readable by anyone
pub mod cpu; // prefetch and the cycle counter
pub mod director; // the packet walk
pub mod exchange; // rings between workers
pub mod fragments; // IP fragments, followed without being put together
pub mod ftp; // what FTP's control connections say of data connections
pub mod fullnat; // FULLNAT: local ports, and how a server learns who the client is
pub mod health; // servers probed
pub mod icmp; // answers of our own: echo, unreachable, time exceeded, TCP reset
pub mod kernel; // what the kernel knows of the network
pub mod marks; // marks of packets, which services by mark go by
pub mod mem; // fixed arrays on huge pages, or in files
pub mod net; // where a packet leaves: interfaces, routes, neighbours, ARP
pub mod packet; // PacketBuf, Burst, Egress
pub mod related; // ICMP errors about connections and tunnels, readdressed or told on
pub mod replay; // capture in, capture and counters out: the director without DPDK
pub mod restart; // what outlives the daemon
pub mod sched; // schedulers, one a file
pub mod service; // virtual services and real servers as one worker sees them
pub mod sip; // the Call-ID of SIP messages
pub mod split; // IPv4 packets made into fragments
pub mod steer; // which worker owns a packet
pub mod sync; // connections that other directors know of
pub mod templates; // which server a client is tied to, shared by all workers
pub mod time; // milliseconds, handed in by the worker
pub mod tunnel; // the outer headers of packets to real servers behind a tunnel
pub mod update; // what the control side tells every worker
pub mod watch; // what is shown of packets: the last drops, captures
pub mod wire; // headers as typed views, checksums

#[cfg(feature = "dpdk")]
pub mod bench; // clients and servers played on the worker's own core
#[cfg(feature = "dpdk")]
pub mod daemon; // configuration, EAL, ports, workers, control server; the log
#[cfg(feature = "dpdk")]
pub mod dpdk; // EAL, mempools, mbufs, ports, queues
#[cfg(feature = "dpdk")]
pub mod worker; // the lcore loop
