# shellcheck shell=bash disable=SC2034 # what is unused here, scripts/lab uses
# Sourced by scripts/lab: what the topologies are, and how namespaces and links are made.

# ---- what a topology is ---------------------------------------------------------------------

# Sets the addresses of topology $1. Networks are all /24. Where V6 is yes, every 10.N.0.H has fd00:N::H
# beside it, in a /64.
choose_topology() {
    ROUTER='' INNER='' FAR='' FAR_GATEWAY='' V6=no KERNEL_DECAPSULATES=no
    case $1 in
    two-arm) VIP=10.0.0.1 CLIENT=10.0.0.2 OUTER=10.0.0.254 INNER=192.168.1.1 ;;
    a) VIP=13.133.222.13 CLIENT=198.51.100.2 OUTER=13.133.222.3 ROUTER=13.133.222.1 ;;
    d) VIP=192.168.1.100 CLIENT=192.168.1.2 OUTER=192.168.1.1 INNER=10.0.1.254 ;;
    b) VIP=10.0.0.1 CLIENT=10.0.0.2 OUTER=10.0.0.254 INNER=192.168.255.101 ;;
    c) VIP=192.168.116.200 CLIENT=198.51.100.2 OUTER=192.168.116.2 ROUTER=192.168.116.1 ;;
    e | f) VIP=192.168.10.100 CLIENT=198.51.100.2 OUTER=192.168.10.2 ROUTER=192.168.10.1 FAR=192.168.10.254 FAR_GATEWAY=172.16.0.1 ;;
    all) VIP=10.1.0.100 CLIENT=10.9.0.2 OUTER=10.1.0.254 ROUTER=10.1.0.1 INNER=10.2.0.254 FAR=10.1.0.2 FAR_GATEWAY=10.3.0.1 V6=yes ;;
    *) die "no topology $1: two-arm, a, b, c, d, e, f or all" ;;
    esac
    [ "$1" != all ] || SERVERS=6
    choose_servers "$1"
}

# Where server $1 of topology $2 is: on the director's inner network, on its link, or far behind a router.
home_of() {
    case $2 in
    two-arm | b | d) echo inner ;;
    a | c) echo link ;;
    e | f) echo far ;;
    all) if [ "$1" -le 2 ]; then echo inner; elif [ "$1" -le 4 ]; then echo link; else echo far; fi ;;
    esac
}

choose_servers() {
    local n first
    case $1 in
    two-arm) first=192.168.1.2 ;;
    a) first=13.133.222.4 ;;
    b) first=192.168.255.102 ;;
    c) first=192.168.116.3 ;;
    d) first=10.0.1.1 ;;
    e | f) first=172.16.0.3 ;;
    all)
        SERVER_ADDRESSES='10.2.0.11 10.2.0.12 10.1.0.13 10.1.0.14 10.3.0.15 10.3.0.16'
        return
        ;;
    esac
    SERVER_ADDRESSES=''
    for n in $(seq 0 $((SERVERS - 1))); do SERVER_ADDRESSES+="${first%.*}.$((${first##*.} + n)) "; done
}

# ---- namespaces and links ---------------------------------------------------------------------

namespaces() {
    ip netns list | awk -v prefix="$LAB-" 'index($1, prefix) == 1 { print $1 }'
}

# set_sysctls NAME SETTING…
set_sysctls() {
    local name=$1
    shift
    in_lab "$name" sysctl -qw "$@"
}

new_namespace() {
    ip netns add "$LAB-$1"
    ip -n "$LAB-$1" link set lo up
    if [ "$V6" = yes ] && [ "$1" != dir ] && [ "$1" != switch ] && [ "$1" != wire ]; then
        set_sysctls "$1" net.ipv6.conf.{all,default}.{accept_dad,accept_ra,router_solicitations}=0
    else
        # Only so that nothing but the tests' own packets crosses the director.
        set_sysctls "$1" net.ipv6.conf.{all,default}.disable_ipv6=1 2>/dev/null || true
    fi
}

# Frames never exceed the MTU, and leave with finished checksums unless the lab is to do without.
plain_frames() {
    in_lab "$1" ethtool -K "$2" tx "$OFFLOAD" tso off gso off gro off >/dev/null
}

# veth NAME1 IF1 NAME2 IF2: a cable between two namespaces, both ends up.
veth() {
    ip link add "$2" netns "$LAB-$1" numtxqueues "$WORKERS" numrxqueues "$WORKERS" mtu "$MTU" \
        type veth peer name "$4" netns "$LAB-$3" numtxqueues "$WORKERS" numrxqueues "$WORKERS" mtu "$MTU"
    plain_frames "$1" "$2"
    plain_frames "$3" "$4"
    ip -n "$LAB-$1" link set "$2" up
    ip -n "$LAB-$3" link set "$4" up
}

# director_end IF: the kernel leaves this end to DPDK.
director_end() {
    ip -n "$LAB-dir" link set "$1" arp off
    # Nor does the kernel beside the director take what it hears here.
    [ -z "$KERNEL" ] || set_sysctls dir "net.ipv4.conf.$1.rp_filter=1"
}

address() {
    ip -n "$LAB-$1" address add "$3/24" dev "$2"
    [ "$V6" = no ] || ip -n "$LAB-$1" address add "$(v6_of "$3")/64" dev "$2" nodad
}

# route NAME TO|default VIA; TO is the first address of a /24.
route() {
    local name=$1 to=$2 via=$3
    if [ "$to" = default ]; then
        ip -n "$LAB-$name" route add default via "$via"
        [ "$V6" = no ] || ip -n "$LAB-$name" -6 route add default via "$(v6_of "$via")"
    else
        ip -n "$LAB-$name" route add "$to/24" via "$via"
        [ "$V6" = no ] || ip -n "$LAB-$name" -6 route add "$(v6_network "$to")" via "$(v6_of "$via")"
    fi
}

forwarding() {
    set_sysctls "$1" net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0
    [ "$V6" = no ] || set_sysctls "$1" net.ipv6.conf.all.forwarding=1
}

# make_switches BRIDGE…: all of them in one namespace.
make_switches() {
    local bridge
    new_namespace switch
    for bridge in "$@"; do
        ip -n "$LAB-switch" link add "$bridge" mtu "$MTU" type bridge mcast_snooping 0 || die "this kernel has no bridge"
        ip -n "$LAB-switch" link set "$bridge" up
    done
}

# plug NAME IF BRIDGE: a cable from NAME's interface to a switch.
plug() {
    local end=$1-$3
    veth "$1" "$2" switch "$end"
    ip -n "$LAB-switch" link set "$end" master "$3"
}

# ---- who is on the network ---------------------------------------------------------------------

# The server may have a VIP, but only the director answers ARP for it.
hide_vips() {
    local interface
    for interface in all eth0; do
        set_sysctls "$1" "net.ipv4.conf.$interface.arp_ignore=1" "net.ipv4.conf.$interface.arp_announce=2"
    done
}

# decapsulate NAME: packets out of tunnels appear on decap0. Not every kernel has every kind of tunnel,
# so a program does it for all of them.
decapsulate() {
    ip -n "$LAB-$1" tuntap add dev decap0 mode tun || die "this kernel has no TUN devices"
    ip -n "$LAB-$1" link set decap0 up
    set_sysctls "$1" net.ipv4.conf.{all,decap0}.rp_filter=0
    in_lab "$1" "$SCRIPTS/decap" decap0 "$GUE_PORT" </dev/null >/dev/null 2>"$STATE/$1.decap" &
    [ "$V6" = no ] || kernel_decapsulates "$1" "$2"
}

# kernel_decapsulates NAME ADDRESS: where the kernel has segment routing, it takes IPv4 and IPv6 out of
# IPv6 by itself at two more addresses of the server, fd00:N::4H and fd00:N::6H.
kernel_decapsulates() {
    local net=${2%.*} host=${2##*.} four six
    four=$(v6_of "$net.4$host") six=$(v6_of "$net.6$host")
    ip -n "$LAB-$1" route add "$four/128" encap seg6local action End.DX4 nh4 0.0.0.0 dev eth0 2>/dev/null || return 0
    ip -n "$LAB-$1" route add "$six/128" encap seg6local action End.DT6 table 255 dev eth0 2>/dev/null || return 0
    ip -n "$LAB-far" route add "$four/128" via "$(v6_of "$2")"
    ip -n "$LAB-far" route add "$six/128" via "$(v6_of "$2")"
    set_sysctls "$1" net.ipv6.conf.all.forwarding=1
    KERNEL_DECAPSULATES=yes
}

make_servers() {
    local n=0 name address
    for address in $SERVER_ADDRESSES; do
        n=$((n + 1)) name=rs$n
        new_namespace "$name"
        make_server "$name" "$address" "$(home_of $n "$TOPOLOGY")"
    done
}

# make_server NAME ADDRESS HOME
make_server() {
    case $3 in
    inner) plug "$1" eth0 inner ;;
    link) plug "$1" eth0 lan ;;
    far) plug "$1" eth0 far ;;
    esac
    address "$1" eth0 "$2"
    case $3 in
    inner) route "$1" default "$INNER" ;;
    link)
        if [ "$TOPOLOGY" = a ]; then route "$1" default "$OUTER"; else route "$1" default "$ROUTER"; fi
        [ "$TOPOLOGY" = a ] || hide_vips "$1"
        ;;
    far)
        route "$1" default "$FAR_GATEWAY"
        [ "$TOPOLOGY" = f ] || decapsulate "$1" "$2"
        ;;
    esac
    case $TOPOLOGY in c | e) ip -n "$LAB-$1" address add "$VIP/32" dev lo ;; esac
}

make_client() {
    new_namespace client
    if [ -n "$ROUTER" ]; then
        make_router
    else
        veth client eth0 dir lan
        director_end lan
    fi
    address client eth0 "$CLIENT"
    [ "$TOPOLOGY" != d ] || more_clients
    [ -z "$ROUTER" ] || route client default "${CLIENT%.*}.1"
}

# The client is three.
more_clients() {
    address client eth0 192.168.1.3
    address client eth0 192.168.1.4
}

# Between the client's network and the director's.
make_router() {
    new_namespace router
    plug router eth0 lan
    address router eth0 "$ROUTER"
    veth client eth0 router eth1
    address router eth1 "${CLIENT%.*}.1"
    forwarding router
}

# Between the director's network and the one of far servers, who answer clients by the other router.
make_far_router() {
    new_namespace far
    plug far eth0 lan
    address far eth0 "$FAR"
    plug far eth1 far
    address far eth1 "$FAR_GATEWAY"
    forwarding far
    route far default "$ROUTER"
    route router "${FAR_GATEWAY%.*}.0" "$FAR"
}

# The director's link to the routers, with a tag at its end where the lab has a VLAN.
make_lan_port() {
    if [ -z "$VLAN" ]; then
        plug dir lan lan
    else
        new_namespace wire
        plug wire plain lan
        veth wire tagged dir lan
        in_lab wire "$SCRIPTS/vlan-wire" plain tagged "$VLAN" </dev/null >/dev/null 2>"$STATE/wire.log" &
    fi
    director_end lan
}

make_network() {
    new_namespace dir
    make_switches lan inner far
    [ -z "$ROUTER" ] || make_lan_port
    make_client
    if [ -n "$INNER" ]; then
        plug dir rs inner
        director_end rs
    fi
    [ -z "$FAR" ] || make_far_router
    make_servers
}
