//! The table: packet in, packet out, and what was counted.

mod arrival; // packets that a NIC spreads over the workers
mod capture; // packets are seen at every stage
mod changes; // services and servers that change under their connections
mod cut; // connections that are ended from here
mod direct; // what direct routing leaves alone
mod errors; // ICMP errors about connections
mod family; // IPv6 clients of IPv4 servers and the reverse
mod fragments; // all go the way of the first
mod ftp; // data connections that control connections announce
mod fullnat; // local addresses, and what servers are told of their clients
mod handshake; // how long servers take to answer
mod ipv6;
mod kernel; // what the kernel takes, and what it sends
mod marks; // services by mark
mod nat; // what is rewritten, and what is not
mod network; // frames, tags, neighbours, routes
mod one_packet; // each datagram for itself
mod overload; // more than there is room or time for
mod persist; // clients come back to the server they had
mod quic; // connections that are known by their id
mod refusals; // what is not carried on
mod restart; // left by a director before this one
mod rules; // what settings and options change
mod sctp;
mod sip; // calls stay with their server
mod states; // connections: how they open, live, close and give way
mod sync; // told to other directors, and by them
mod tunnel;
mod ways; // the network changes
mod workers; // several, side by side

use control::{ForwardMode, OnServerGone, Protocol, ServiceOptions};

use super::frames::{
    DONT_FRAGMENT, Frame, MORE_FRAGMENTS, arp, checksum, icmp, link, other_ip, tcp, udp,
};
use super::testbed::{
    C, C6, CLIENTS, End, KERNEL, RS, RS2, RS6, RS6B, SERVERS, Testbed, VIP, VIP6, add_server,
    arriving, beside_kernel, key, leaving, local_addresses, mac, port_mac, seen, setup, weigh,
};
use super::*;
use crate::conn::State;
use crate::packet::{Burst, HeapBuf};
use crate::update::{ServerId, ServiceId, Update};
use End::{
    Answer, Both, Consume, Direct, Drop, Emit, Forward, ForwardUncounted, Hold, Host, Punt, Refuse,
    Tell, To, ToHost,
};
use Protocol::{Tcp, Udp};

const VIP_IP: &str = "203.0.113.1";
const C_IP: &str = "192.0.2.10";
const VIP6_IP: &str = "2001:db8:f::1";
const C6_IP: &str = "2001:db8:c::10";

/// What the director sends on: one hop less to live.
fn on(frame: Frame) -> End {
    let ttl = frame.ttl - 1;
    Forward(frame.ttl(ttl))
}

/// A TCP connection in ESTABLISHED at 2 ms, from this client to the server that is next.
fn establish(t: &mut Testbed, at: u32, client: &str, server: &str) {
    t.check(at, tcp(client, VIP, "S"), on(tcp(client, server, "S")));
    t.check(at, tcp(server, client, "SA"), on(tcp(VIP, client, "SA")));
    t.check(at, tcp(client, VIP, "A"), on(tcp(client, server, "A")));
}

/// Gives service 0 its options.
fn options(t: &mut Testbed, options: ServiceOptions) {
    let id = ServiceId(0);
    t.apply(Update::SetOptions { id, options });
}

fn on_server_gone(t: &mut Testbed, on_server_gone: OnServerGone) {
    options(
        t,
        ServiceOptions {
            on_server_gone,
            ..ServiceOptions::default()
        },
    );
}

/// As the director makes packets.
fn ours(mut frame: Frame) -> Frame {
    frame.id = 0;
    frame.fragment(DONT_FRAGMENT).window(0)
}

/// The reset that answers `tcp(from, to, "A")`.
fn reset(from: &str, to: &str) -> Frame {
    ours(tcp(from, to, "R").numbers(2000, 0))
}

/// An ICMP error about `original`, from `from` to its sender.
fn error(from: &str, kind: u8, code: u8, mtu: u16, original: &Frame) -> Frame {
    let to = original.from.ip().to_string();
    let (longest, tos) = if original.is_v6() {
        (1280 - 48, 0)
    } else {
        (576 - 28, 0xc0)
    };
    let quote: Vec<u8> = original.ip().into_iter().take(longest).collect();
    ours(told(from, &to, kind, code, mtu, &quote).tos(tos))
}

/// An ICMP error that quotes these bytes, as a router sends it.
fn told(from: &str, to: &str, kind: u8, code: u8, mtu: u16, quote: &[u8]) -> Frame {
    let [a, b] = mtu.to_be_bytes();
    icmp(from, to, kind, code, [0, 0, a, b], quote)
}

#[test]
fn every_drop_reason_is_reached() {
    // Only a worker can refuse: it owns the ports' queues and the rings between workers.
    let workers = [
        DropReason::TxRefused,
        DropReason::PortGone,
        DropReason::SteerRingFull,
        DropReason::Scattered,
    ];
    let table = [
        refusals::a_segment_without_connection_is_reset,
        refusals::no_service_on_a_virtual_address,
        refusals::no_server,
        changes::a_deleted_server_leaves_its_connections_without_a_word,
        cut::what_cannot_be_turned_into_a_reset,
        rules::some_packets_that_would_open_are_dropped,
        refusals::the_last_hop,
        refusals::too_long_for_the_next_network,
        refusals::fragments_of_other_protocols,
        network::other_stations_frames,
        network::tags_are_put_on_and_taken_off,
        network::no_room_for_a_tag,
        refusals::sources_that_no_client_has,
        states::a_full_table_gives_up_the_oldest_half_open_connection,
        network::packets_wait_for_a_neighbour_in_order,
        network::a_neighbour_that_does_not_answer,
        network::waiting_packets_are_given_back_at_the_end,
        network::no_route_to_the_server,
        network::arp_is_spoken,
        direct::a_server_behind_a_gateway,
        refusals::malformed_frames,
        ipv6::neighbour_discovery_is_spoken,
        fullnat::no_local_address,
        errors::wrong_checksums,
        fragments::overlaps_duplicates_and_tiny_ones,
        fragments::a_first_one_that_does_not_come,
        fragments::too_many_wait,
        fragments::no_buffers_to_cut_into,
        persist::a_full_table_of_templates,
        sip::what_is_no_call_is_dropped,
        kernel::a_flood_does_not_keep_the_kernel_from_its_neighbours,
    ];
    for case in table {
        case();
    }
    for reason in DropReason::ALL {
        assert_eq!(
            seen(*reason),
            !workers.contains(reason),
            "{}",
            reason.name()
        );
    }
}
