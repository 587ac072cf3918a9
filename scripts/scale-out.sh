# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # scripts/e2e has the rest, addresses are the lab's
# Sourced by scripts/e2e: two directors in lab "all" that have clients at the same time. BIRD announces their
# virtual addresses to the router's, which spreads flows over them. Beside the other's helpers it takes
# vrrp.sh's.

# By direct routing in both families, and through tunnels.
SHARED=(10.50.0.1 10.50.0.2 fd00:50::1)
# Transfers to each.
SHARED_TRANSFERS=10

# shared_block VIP METHOD SERVER…: a service with the method's servers, announced while both are up.
shared_block() {
    local vip=$1 method=$2 server
    shift 2
    printf '\n[[service]]\nprotocol = "tcp"\naddress = "%s:80"\nscheduler = "mh"\nscheduler_flags = ["mh-port"]\n' "$(bracketed "$vip")"
    printf 'announce = "lo"\n'
    if [ "$method" = direct ]; then
        printf 'min_healthy = 2\n[[service.check]]\ntype = "tcp"\ninterval_ms = 200\nrise = 1\nfall = 1\n'
    fi
    for server in "$@"; do printf '[[service.server]]\naddress = "%s:80"\nmethod = "%s"\n' "$(bracketed "$server")" "$method"; done
}

# shared_vip VIP SERVER…: the servers have it.
shared_vip() {
    local vip=$1 n
    shift
    for n in "$@"; do in_lab "rs$n" ip address add "$vip" dev lo; done
}

shared_services() {
    shared_vip 10.50.0.1/32 3 4
    shared_vip 10.50.0.2/32 5 6
    shared_vip fd00:50::1/128 3 4
    shared_block 10.50.0.1 direct 10.1.0.13 10.1.0.14
    shared_block 10.50.0.2 tunnel 10.3.0.15 10.3.0.16
    shared_block fd00:50::1 direct fd00:1::13 fd00:1::14
    sync_blocks
}

# ---- BIRD ----------------------------------------------------------------------------------------------

fast_bfd() {
    cat <<END
log stderr all;
router id $1;
protocol device { }
protocol bfd { interface "$2" { interval 100 ms; multiplier 3; }; }
END
}

# node_bird HOST: of the director at 10.1.0.HOST and fd00:1::HOST.
node_bird() {
    fast_bfd "10.1.0.$1" klan
    cat <<END
protocol direct { ipv4; ipv6; interface "lo"; }
template bgp upstream {
    bfd on;
    connect delay time 1;
    connect retry time 1;
    error wait time 1, 2;
}
protocol bgp upstream4 from upstream {
    local 10.1.0.$1 as 65001;
    neighbor 10.1.0.1 as 65000;
    ipv4 { import none; export where net ~ [ 10.50.0.0/24{32,32} ]; };
}
protocol bgp upstream6 from upstream {
    local fd00:1::$1 as 65001;
    neighbor fd00:1::1 as 65000;
    ipv6 { import none; export where net ~ [ fd00:50::/64{128,128} ]; };
}
END
}

router_bird() {
    local host
    fast_bfd 10.1.0.1 eth0
    cat <<END
protocol kernel { merge paths on; ipv4 { import none; export all; }; }
protocol kernel { merge paths on; ipv6 { import none; export all; }; }
END
    for host in 251 252; do
        cat <<END
protocol bgp {
    local 10.1.0.1 as 65000;
    neighbor 10.1.0.$host as 65001;
    bfd on;
    passive on;
    error wait time 1, 2;
    ipv4 { import where net ~ [ 10.50.0.0/24{32,32} ]; export none; };
}
protocol bgp {
    local fd00:1::1 as 65000;
    neighbor fd00:1::$host as 65001;
    bfd on;
    passive on;
    error wait time 1, 2;
    ipv6 { import where net ~ [ fd00:50::/64{128,128} ]; export none; };
}
END
    done
}

# start_bird NAME: with the configuration that comes on standard input.
start_bird() {
    cat >"$STATE/$1.bird"
    ip netns exec "$LAB-$1" bird -f -c "$STATE/$1.bird" -s "$STATE/$1.bird.ctl" -P "$STATE/$1.bird.pid" \
        </dev/null >"$STATE/$1.bird.log" 2>&1 &
}

# next_hops VIP: in the router's kernel, by the last number of their addresses.
next_hops() {
    local family=-4
    case $1 in *:*) family=-6 ;; esac
    in_lab router ip "$family" route show "$1" | grep -Eo 'via [0-9a-f.:]+' | grep -Eo '25[12]$' | sort -u | xargs
}

# leads VIP HOSTS: the router knows these directors for it, and no others.
leads() {
    [ "$(next_hops "$1")" = "$2" ]
}

all_lead() {
    local vip
    for vip in "${SHARED[@]}"; do leads "$vip" "$1" || return 1; done
}

# become VIP|all HOSTS
become() {
    case $1 in
    all) wait_for 15 all_lead "$2" ;;
    *) wait_for 15 leads "$1" "$2" ;;
    esac || die "the router has $(for vip in "${SHARED[@]}"; do echo "$vip by $(next_hops "$vip"),"; done) not $*: $(directorctl node status)"
}

router_spreads() {
    set_sysctls router net.ipv4.fib_multipath_hash_policy=1 net.ipv6.fib_multipath_hash_policy=1
}

addresses_are_announced() {
    (
        # shellcheck source=/dev/null
        . "$SCRIPTS/lab-network.sh"
        router_spreads
    )
    router_bird | start_bird router
    node_bird 251 | start_bird dir
    node_bird 252 | start_bird dir2
    become all "251 252"
    directorctl node status
    directorctl node status | grep -q '^10.50.0.1 .* yes$'
}

# ---- tests -----------------------------------------------------------------------------------------------

# Connections that a director scheduled.
scheduled() {
    "$@" ipvsadm -Ln --stats --exact | awk '$1 == "TCP" { sum += $3 } END { print sum + 0 }'
}

both_have_clients() {
    local vip
    for vip in "${SHARED[@]}"; do in_lab client "$SCRIPTS/http-load" 40 4 "http://$(bracketed "$vip")/"; done
    echo "$(scheduled env) and $(scheduled standing_by) connections"
    [ "$(scheduled env)" -gt 0 ]
    [ "$(scheduled standing_by)" -gt 0 ]
}

# choice PORT COMMAND…: the server for a client at that port.
choice() {
    local port=$1
    shift
    "$@" directorctl explain tcp "10.9.0.2:$port" 10.50.0.1:80 | awk '$1 == "forwarding"'
}

hashing_agrees() {
    local port
    for port in $(seq 1 20); do equal "$(choice "$port" env)" "$(choice "$port" standing_by)"; done
    equal "$(for port in $(seq 1 20); do choice "$port" env; done | sort -u | wc -l)" 2
}

unhealthy_is_withdrawn() {
    stop_server 3
    become 10.50.0.1 ""
    become fd00:50::1 ""
    become 10.50.0.2 "251 252"
    directorctl node status | grep -q '^10.50.0.1 .* no: too few servers are up$'
    start_server_again 3
    become all "251 252"
}

shared_urls() {
    local vip
    for vip in "${SHARED[@]}"; do echo "http://$(bracketed "$vip")/put/$1-${vip//[.:]/}-"; done
}

shared_total() {
    echo $((${#SHARED[@]} * SHARED_TRANSFERS))
}

# both_told COUNT: wherever a flow comes, it is known.
both_told() {
    local count
    count=$(shared_total)
    wait_for 20 told_of "$count" env && wait_for 20 told_of "$count" standing_by ||
        die "$(open_at env) and $(open_at standing_by) are known: $(standing_by directorctl sync status)"
}

# One leaves as it should, comes back, and the other is killed; the transfers go on.
flows_survive() {
    local urls
    mapfile -t urls < <(shared_urls flows)
    begin_uploads "$SHARED_TRANSFERS" "${urls[@]}"
    both_told
    directorctl node drain --quiet 1 --timeout 30
    all_lead 252 || die "it was safe while the router knew it"
    still_under_way
    "$SCRIPTS/lab" stop
    still_under_way
    "$SCRIPTS/lab" start
    become all "251 252"
    both_told
    still_under_way
    power_off dir2
    become all 251
    still_under_way
    end_transfers "$(shared_total)"
}

draining_is_taken_back() {
    directorctl node drain --no-wait
    become all ""
    if directorctl node status; then die "a director that is drained is said to be active"; fi
    directorctl node undrain
    become all 251
    directorctl node status
}

scale_out() {
    check "two directors for BIRD start" two_stations --kernel shared_services
    [ -e "$STATE/env" ] || return 0
    # shellcheck source=/dev/null
    . "$STATE/env"
    check "their addresses are announced" addresses_are_announced
    check "both have clients" both_have_clients
    check "both would choose the same servers" hashing_agrees
    check "an address is announced while enough servers are up" unhealthy_is_withdrawn
    check "$(shared_total) transfers survive a drained director, its return, and the other's end" flows_survive
    check "a drained director is taken back" draining_is_taken_back
    check "every packet accounted for with several directors" wait_for 5 balanced
}
