# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # scripts/e2e has the rest, addresses are the lab's
# Sourced by scripts/e2e: ports, addresses, routes and neighbours that change under traffic, in lab "a", whose
# clients are behind a router.

# The router has a second address, at which it is as good a gateway.
OTHER_ROUTER=13.133.222.9

# A download that is under way while the route to its client changes to and fro.
route_under_traffic() {
    local expected got=$SCRATCH/got n download
    expected=$(sha256sum <"$STATE/big")
    in_lab client curl -fsS --max-time 60 --limit-rate 25M "http://$VIP/big" 2>&1 | sha256sum >"$got" &
    download=$!
    for n in 1 2 3; do
        sleep 0.5
        directorctl route replace default via "$OTHER_ROUTER"
        sleep 0.3
        directorctl route list | grep -Eq "^0\.0\.0\.0/0 +$OTHER_ROUTER +lan +-\$"
        directorctl route replace default via "$ROUTER"
    done
    [ -e "/proc/$download" ] || die "the download ended before the route had changed"
    wait $download
    equal "$(cat "$got")" "$expected"
    # Of several workers the one that is asked may not have needed it.
    [ "$WORKERS" != 1 ] || directorctl neighbour list | grep -Eq "^lan +$OTHER_ROUTER +[0-9a-f:]{17} +reachable"
}

no_route_drops() {
    directorctl status --json | jq '[.ports[].drops.no_route // 0] | add'
}

# Without a route answers are dropped, and counted; with one the same connection goes on.
route_gone_and_back() {
    local before first
    before=$(no_route_drops)
    keep 1 "http://$VIP/"
    first=$KEPT
    directorctl route delete 0.0.0.0/0
    ! ask || die "answered without a route"
    [ "$(no_route_drops)" -gt "$before" ] || die "no_route is not counted"
    directorctl route add default via "$ROUTER"
    ask
    ask_kept
    equal "$KEPT" "$first"
    let_go
}

has_mac() {
    in_lab router ip neighbour show to "$1" | grep -q lladdr
}

# Whether the director tells the router by ARP that an address is its own.
is_claimed() {
    in_lab router ip neighbour flush to "$1"
    in_lab router bash -c "echo >/dev/udp/$1/9"
    wait_for 2 has_mac "$1"
}

address_comes_and_goes() {
    local address=13.133.222.20
    ! is_claimed $address || die "answered before it was ours"
    directorctl address add $address/24 lan
    is_claimed $address || die "not answered"
    directorctl address list | grep -Eq "^lan +- +$address/24\$"
    directorctl address delete $address/24 lan
    ! is_claimed $address || die "answered though it was deleted"
    refuses "gateway $ROUTER of the route to 0.0.0.0/0 is reached by address" \
        directorctl address delete "$OUTER/24" lan
    ask
}

neighbours() {
    local mac
    mac=$(in_lab router cat /sys/class/net/eth0/address)
    directorctl neighbour add "$ROUTER" "$mac"
    directorctl neighbour list | grep -Eq "^lan +$ROUTER +$mac +static"
    ask
    directorctl neighbour delete "$ROUTER"
    ask
    [ "$WORKERS" != 1 ] || directorctl neighbour list | grep -Eq "^lan +$ROUTER +$mac +reachable"
    directorctl neighbour flush
    ask
}

# A link of the director's to a guest who is its router's client there.
GUEST=10.77.0.2
GUEST_PORT=10.77.0.254

make_guest() {
    ip netns add "$LAB-guest"
    ip link add dmz netns "$LAB-dir" numtxqueues "$WORKERS" numrxqueues "$WORKERS" \
        type veth peer name eth0 netns "$LAB-guest" numtxqueues "$WORKERS" numrxqueues "$WORKERS"
    ip netns exec "$LAB-dir" ethtool -K dmz tx off tso off gso off gro off >/dev/null
    in_lab guest ethtool -K eth0 tx off tso off gso off gro off >/dev/null
    ip -n "$LAB-dir" link set dmz up arp off
    ip -n "$LAB-guest" address add $GUEST/24 dev eth0
    ip -n "$LAB-guest" link set eth0 up
    ip -n "$LAB-guest" route add default via $GUEST_PORT
}

add_dmz() {
    directorctl port add dmz "net_af_packet7,iface=dmz,qpairs=$WORKERS" --address $GUEST_PORT/24
}

guest_asks() {
    in_lab guest curl -fsS --max-time 2 "http://$VIP/"
}

port_names() {
    directorctl port list --json | jq -r '[.[].name] | join(" ")'
}

# A port comes, is used, goes and comes back while a download passes through another one.
port_comes_and_goes() {
    local expected got=$SCRATCH/got download n
    make_guest
    expected=$(sha256sum <"$STATE/big")
    in_lab client curl -fsS --max-time 60 --limit-rate 12M "http://$VIP/big" 2>&1 | sha256sum >"$got" &
    download=$!
    refuses 'MTU 9000 needs mbufs' directorctl port add dmz \
        "net_af_packet7,iface=dmz,qpairs=$WORKERS" --mtu 9000
    refuses 'no network interface .nosuch' directorctl port add dmz net_af_packet7,iface=nosuch
    for n in 1 2; do
        equal "$(port_names)" lan
        add_dmz
        equal "$(port_names)" 'lan dmz'
        wait_for 5 guest_asks || die "the guest gets no answer"
        directorctl neighbour list | grep -Eq "^dmz +$GUEST +" || [ "$WORKERS" != 1 ]
        directorctl save | grep -Fq 'name = "dmz"'
        refuses 'device net_af_packet7 is port dmz already' \
            directorctl port add other net_af_packet7,iface=dmz
        directorctl port delete dmz
        ! guest_asks || die "answered by a port that is gone"
    done
    refuses 'port lan is the only one' directorctl port delete lan
    [ -e "/proc/$download" ] || die "the download ended before the port had come and gone"
    wait $download
    equal "$(cat "$got")" "$expected"
    wait_for 5 balanced || die "not balanced: $(directorctl status --json)"
    grep -Fq 'add port dmz: device' "$STATE/director.log"
    grep -Fq 'delete port dmz (was dmz: device' "$STATE/director.log"
}

network() {
    WORKERS=$1
    local with="$1 worker(s)"
    check "lab a starts with $with" lab_up --topology a --big-file --workers "$1"
    [ -e "$STATE/env" ] || return 0
    # shellcheck source=/dev/null
    . "$STATE/env"
    MBUFS_AT_START=$(status_field mbufs_in_use) || MBUFS_AT_START=0
    serve tcp 80 sh
    in_lab router ip address add $OTHER_ROUTER/24 dev eth0
    check "a route changes under a download, $with" route_under_traffic
    check "a route goes and comes back, $with" route_gone_and_back
    check "an address comes and goes, $with" address_comes_and_goes
    check "static and learned neighbours, $with" neighbours
    check "a port comes and goes under a download, $with" port_comes_and_goes
    check "every packet accounted for in lab a, $with" accounting
}
