# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # scripts/e2e has the rest, addresses are the lab's
# Sourced by scripts/e2e: health checks by each forwarding method, and servers that clients' packets tell
# of, in lab "all" with the kernel beside the director. Rows are those of forwarding.sh.

PROBED_ROWS=('nat 4 4' 'fullnat 4 4' 'dr 4 4' 'dr 6 6' 'ipip 4 4')
PROBE_TIMES='interval_ms = 250, timeout_ms = 2000, rise = 1, fall = 1'

# In the words of the file.
method_key() {
    case $METHOD in
    ipip) echo tunnel ;;
    dr) echo direct ;;
    *) echo "$METHOD" ;;
    esac
}

# probed_service tcp|udp PORT CHECKS: the row's.
probed_service() {
    local n
    printf '\n[[service]]\nprotocol = "%s"\naddress = "%s:%s"\nscheduler = "rr"\n' "$1" "$HOST" "$2"
    [ "$METHOD" != fullnat ] || printf 'local_addresses = ["%s"]\n' "$(in_family "$SERVER_FAMILY" "$LOCAL")"
    printf 'check = [%s]\nserver = [\n' "$3"
    for n in $ROW_SERVERS; do
        printf '    { address = "%s:%s", method = "%s" },\n' "$(row_server "$n")" "$2" "$(method_key)"
    done
    printf ']\n'
}

# Each web server by its method and by the host's own network, to the server's own address.
probes_config() {
    local row by_host="{ type = \"http\", $PROBE_TIMES }"
    directorctl save
    for row in "${PROBED_ROWS[@]}"; do
        choose_row "$(row_of "$row")"
        probed_service tcp 80 "{ type = \"http\", via = \"method\", $PROBE_TIMES }, $by_host"
    done
    choose_row "$(row_of 'dr 4 4')"
    probed_service udp 7 "{ type = \"udp\", via = \"method\", send = \"ping\", expect = \"rs\", $PROBE_TIMES }"
}

# The lab's host speaks IPv6 by its sides of ports only, and knows the way to far servers.
host_beside_director() {
    set_host net.ipv6.conf.klan.disable_ipv6=0 net.ipv6.conf.klan.accept_dad=0
    in_lab dir ip -6 address replace "$(v6_of "$OUTER")/64" dev klan nodad
    in_lab dir ip route add "${FAR_GATEWAY%.*}.0/24" via "$FAR"
}

set_host() {
    in_lab dir sysctl -qw "$@"
}

# probed STATE: every check by a method, and there are some, is so.
probed() {
    directorctl health --json | jq -e --arg state "$1" \
        '[.[] | select(.check | endswith("by its method"))] | length > 0 and all(.fitness == $state)' >/dev/null
}

# by_host_up: whoever else is probed.
by_host_up() {
    directorctl health --json |
        jq -e '[.[] | select(.check | endswith("by its method") | not)] | length > 0 and all(.fitness == "up")' >/dev/null
}

probe_servers() {
    local row
    host_beside_director
    for row in 'dr 4 4' 'dr 6 6' 'ipip 4 4'; do
        choose_row "$(row_of "$row")"
        row_vips
    done
    probes_config >"$SCRATCH/probes.toml"
    directorctl apply "$SCRATCH/probes.toml"
    wait_for 15 probed up || die "not all are up: $(directorctl health)"
    wait_for 15 by_host_up || die "not all are up: $(directorctl health)"
    directorctl health
    directorctl plan "$SCRATCH/probes.toml"
}

decapsulator() {
    local pid
    for pid in $(ip netns pids "$LAB-rs5"); do
        if grep -q decap0 "/proc/$pid/cmdline" && ! grep -q netns "/proc/$pid/cmdline"; then echo "$pid"; fi
    done
}

# first_is up|down: the first server of the row by its method.
first_is() {
    local first
    read -r first _ <<<"$ROW_SERVERS"
    directorctl health --json | jq -e --arg server "$(row_server "$first"):80" --arg vip "$HOST:80" --arg state "$1" \
        '[.[] | select(.server == $server and .check == "http " + $vip + " by its method")] | length > 0 and all(.fitness == $state)' >/dev/null
}

# What only clients would notice: no way back, no virtual address, nobody who opens the tunnel.
break_servers() {
    ip -n "$LAB-rs1" route delete default
    choose_row "$(row_of 'dr 4 4')"
    ip -n "$LAB-rs3" address delete "$ROW_VIP/32" dev lo
    choose_row "$(row_of 'dr 6 6')"
    ip -n "$LAB-rs3" address delete "$ROW_VIP/128" dev lo
    # shellcheck disable=SC2046 # process ids are words
    kill -STOP $(decapsulator)
}

mend_servers() {
    ip -n "$LAB-rs1" route add default via "$INNER"
    choose_row "$(row_of 'dr 4 4')"
    ip -n "$LAB-rs3" address add "$ROW_VIP/32" dev lo
    choose_row "$(row_of 'dr 6 6')"
    ip -n "$LAB-rs3" address add "$ROW_VIP/128" dev lo
    # shellcheck disable=SC2046 # process ids are words
    kill -CONT $(decapsulator)
}

# broken_rows_are up|down: the rows whose first server was broken.
broken_rows_are() {
    local row
    for row in 'nat 4 4' 'dr 4 4' 'dr 6 6' 'ipip 4 4'; do
        choose_row "$(row_of "$row")"
        wait_for 15 first_is "$1" || die "$row is not $1: $(directorctl health)"
    done
}

misconfigured_servers() {
    local row second
    break_servers
    broken_rows_are down
    directorctl health
    by_host_up
    for row in 'nat 4 4' 'dr 4 4' 'dr 6 6' 'ipip 4 4'; do
        choose_row "$(row_of "$row")"
        read -r _ second <<<"$ROW_SERVERS"
        equal "$(answers 3 "$HOST")" "rs$second rs$second rs$second "
    done
    choose_row "$(row_of 'fullnat 4 4')"
    first_is up
    mend_servers
    broken_rows_are up
    choose_row "$(row_of 'dr 4 4')"
    wait_for 5 probed up
    answered_by_row "$(answers 6 "$HOST")"
}

# probes_of_row: how many were sent by the method.
probes_of_row() {
    directorctl health --json | jq --arg check "http $HOST:80 by its method" '[.[] | select(.check == $check) | .probes] | add'
}

more_probes() {
    [ "$(probes_of_row)" -gt "$1" ]
}

# The host has the virtual address itself, for others to hear of it.
announced_address() {
    choose_row "$(row_of 'dr 4 4')"
    set_host net.ipv4.conf.klan.accept_local=1
    in_lab dir ip address add "$ROW_VIP/32" dev lo
    wait_for 15 more_probes $(($(probes_of_row) + 4))
    first_is up
    directorctl health | grep "http $HOST:80 by its method" | grep -vq " ok" && die "not ok: $(directorctl health)"
    in_lab dir ip address delete "$ROW_VIP/32" dev lo
    set_host net.ipv4.conf.klan.accept_local=0
}

# Without a kernel to speak of there is no such check.
refused_checks() {
    choose_row "$(row_of 'nat 4 4')"
    ipvsadm -C
    {
        directorctl save
        probed_service tcp 80 "{ type = \"icmp\", via = \"method\" }"
    } >"$SCRATCH/refused.toml"
    refuses 'icmp.*by no method' directorctl apply "$SCRATCH/refused.toml"
}

# ---- what packets say -------------------------------------------------------------------------------

passive_config() {
    choose_row "$(row_of 'nat 4 4')"
    directorctl save
    probed_service tcp 80 "{ type = \"http\", $PROBE_TIMES }"
    cat <<END
[service.passive]
window_s = 2
connections = 5
eject_s = 2
ejected_max_percent = 50
END
}

# Clients who give up soon.
impatient_clients() {
    while [ -d "$SCRATCH" ] && [ ! -e "$SCRATCH/enough" ]; do
        in_lab client curl -s --connect-timeout 0.1 --max-time 1 -o /dev/null "http://$HOST/" || true
    done
}

ejected() {
    [ "$(directorctl health --json | jq '[.[] | select(.check == "traffic" and .fitness == "down")] | length')" = "$1" ]
}

# Its checks pass, and clients get no answer.
silent_server() {
    local clients
    passive_config >"$SCRATCH/passive.toml"
    directorctl apply "$SCRATCH/passive.toml"
    wait_for 15 by_host_up || die "not all are up: $(directorctl health)"
    ip -n "$LAB-rs1" route add blackhole "${CLIENT%.*}.0/24"
    impatient_clients &
    clients=$!
    wait_for 15 ejected 1 || die "nobody is ejected: $(directorctl health)"
    directorctl health | tee "$SCRATCH/ejected"
    grep "$(server_address 1):80" "$SCRATCH/ejected" | grep -q 'connections were not answered'
    has "TCP $HOST:80" rs1=0 rs2=1
    requests_to "$HOST"
    ip -n "$LAB-rs1" route delete blackhole "${CLIENT%.*}.0/24"
    wait_for 15 ejected 0
    wait_for 15 has "TCP $HOST:80" rs1=1 rs2=1
    touch "$SCRATCH/enough"
    wait "$clients"
    answered_by_row "$(answers 6 "$HOST")"
}

requests_to() {
    in_lab client "$SCRIPTS/http-load" 20 2 "http://$1/"
}

probes() {
    WORKERS=1
    check "lab for probes by each method starts" lab_up --topology all --kernel
    [ -e "$STATE/env" ] || return 0
    # shellcheck source=/dev/null
    . "$STATE/env"
    check "servers probed by NAT, FULLNAT, DR and TUN" probe_servers
    check "servers that only their method shows to be wrong" misconfigured_servers
    check "probes to an address that the host has too" announced_address
    check "checks that go by no method" refused_checks
    check "a server that does not answer its clients is ejected" silent_server
    check "every packet accounted for with probes" wait_for 5 balanced
}
