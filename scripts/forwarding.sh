# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # scripts/e2e has the rest, addresses are the lab's
# Sourced by scripts/e2e: every forwarding method in every family that it has, in lab "all".

# Method, family of the client and the VIP, family of the server. "kernel" is ipip, taken out of the
# tunnel by the server's kernel.
ROWS=(
    'nat 4 4' 'nat 6 6'
    'fullnat 4 4' 'fullnat 6 6' 'fullnat 6 4' 'fullnat 4 6'
    'dr 4 4' 'dr 6 6'
    'ipip 4 4' 'ipip 6 6' 'ipip 4 6' 'ipip 6 4'
    'gre 4 4' 'gre 6 6' 'gre 4 6' 'gre 6 4'
    'gue 4 4' 'gue 6 6' 'gue 4 6' 'gue 6 4'
    'kernel 4 6' 'kernel 6 6'
)
LOCAL=10.1.0.50

# ---- rows -------------------------------------------------------------------------------------

# in_family 4|6 ADDRESS
in_family() {
    if [ "$1" = 4 ]; then echo "$2"; else v6_of "$2"; fi
}

# As part of a URL or in front of a port.
bracketed() {
    case $1 in *:*) echo "[$1]" ;; *) echo "$1" ;; esac
}

# Sets METHOD, FAMILY, SERVER_FAMILY, NAME, ROW_VIP, HOST (bracketed) and ROW_SERVERS (numbers) of row $1.
choose_row() {
    read -r METHOD FAMILY SERVER_FAMILY <<<"${ROWS[$1]}"
    ROW_VIP=$(in_family "$FAMILY" "10.1.0.$((100 + $1))")
    HOST=$(bracketed "$ROW_VIP")
    case $METHOD in
    nat) NAME=NAT ROW_SERVERS='1 2' ;;
    dr) NAME=DR ROW_SERVERS='3 4' ;;
    fullnat) NAME=FULLNAT ROW_SERVERS='5 6' ;;
    kernel) NAME='TUN/ipip to the kernel' ROW_SERVERS='5 6' ;;
    *) NAME=TUN/$METHOD ROW_SERVERS='5 6' ;;
    esac
    case $METHOD in
    nat | dr) NAME+=", IPv$FAMILY" ;;
    fullnat) NAME+=", IPv$FAMILY to IPv$SERVER_FAMILY" ;;
    *) NAME+=", IPv$FAMILY in IPv$SERVER_FAMILY" ;;
    esac
}

# The row of "METHOD FAMILY FAMILY".
row_of() {
    local row
    for row in "${!ROWS[@]}"; do [ "${ROWS[row]}" != "$1" ] || echo "$row"; done
}

# What ipvsadm is told of a server of the row. Over IPv6 tunnels have checksums, over IPv4 none.
method_options() {
    local checksum=--tun-nocsum
    [ "$SERVER_FAMILY" = 4 ] || checksum=--tun-csum
    case $METHOD in
    nat) echo -m ;;
    dr) echo -g ;;
    fullnat) echo --fullnat ;;
    ipip | kernel) echo -i ;;
    gre) echo -i --tun-type gre $checksum ;;
    gue) echo -i --tun-type gue --tun-port "$GUE_PORT" $checksum ;;
    esac
}

# Where packets for server $1 of the row go.
row_server() {
    local address
    address=$(server_address "$1")
    [ "$METHOD" != kernel ] || address=${address%.*}.$FAMILY${address##*.}
    bracketed "$(in_family "$SERVER_FAMILY" "$address")"
}

# row_service -t|-u PORT: on all servers of the row.
row_service() {
    local n options
    read -ra options <<<"$(method_options)"
    ipvsadm -A "$1" "$HOST:$2" -s rr
    [ "$METHOD" != fullnat ] || ipvsadm --add-laddr -z "$(in_family "$SERVER_FAMILY" $LOCAL)" "$1" "$HOST:$2"
    for n in $ROW_SERVERS; do ipvsadm -a "$1" "$HOST:$2" -r "$(row_server "$n"):$2" "${options[@]}"; done
}

# Servers that see the VIP as destination have it.
row_vips() {
    local n length=32
    [ "$FAMILY" = 4 ] || length=128
    case $METHOD in nat | fullnat) return ;; esac
    for n in $ROW_SERVERS; do ip -n "$LAB-rs$n" address add "$ROW_VIP/$length" dev lo; done
}

row_starts() {
    row_vips
    row_service -t 80
    row_service -u 7
    ask "$HOST"
    row_answers
}

# ---- what every row must do -----------------------------------------------------------------------

# $1, the names that answered in order, are those of the row in turn; with several workers each has its
# own turn.
answered_by_row() {
    local first second
    read -r first second <<<"$ROW_SERVERS"
    if [ "$WORKERS" = 1 ]; then
        alternates "$1" "rs$first" "rs$second"
    else
        grep -Eq "^(rs[$first$second] ){6}$" <<<"$1" || die "answers of '$1'"
    fi
}

row_answers() {
    answered_by_row "$(answers 6 "$HOST")"
    local report
    report=$(in_lab client "$SCRIPTS/udp-echo" ask "$ROW_VIP" 7 20)
    equal "$(awk '/^rs/ { sum += $2 } END { print sum }' <<<"$report")" 20
}

# A transfer that fills every link's MTU; both ways where both pass the director.
row_big() {
    upload "$HOST"
    case $METHOD in nat | fullnat) download "$HOST" ;; esac
}

# PUT of 100 MB; it arrives as it is.
upload() {
    local file
    in_lab client curl -fsS --max-time 30 -T "$STATE/big" "http://$1/put/big"
    file=$(echo "$STATE"/rs*/put/big)
    equal "$(sha256sum <"$file")" "$BIG_SHA"
    rm "$file"
}

download() {
    equal "$(in_lab client curl -fsS --max-time 30 "http://$1/big" | sha256sum)" "$BIG_SHA"
}

row_datagrams() {
    in_lab client "$SCRIPTS/udp-echo" ask "$ROW_VIP" 7 10 8000
}

# PACKETS in and out of the row's TCP service.
row_packets() {
    ipvsadm -Ln --stats --exact | awk -v service="$HOST:80" '$1 == "TCP" && $2 == service { print $4, $5 }'
}

# Answers pass the director in NAT and FULLNAT only.
row_path() {
    local in out
    read -r in out <<<"$(row_packets)"
    echo "$in packets in, $out out"
    [ "$in" -gt 0 ]
    case $METHOD in
    nat | fullnat) [ "$out" -gt 0 ] ;;
    *) equal "$out" 0 ;;
    esac
}

# rows quick|thorough [METHOD…]
rows() {
    local depth=$1 row
    shift
    for row in "${!ROWS[@]}"; do
        choose_row "$row"
        [ $# = 0 ] || [[ " $* " == *" $METHOD "* ]] || continue
        if [ "$METHOD" = kernel ] && [ "$KERNEL_DECAPSULATES" = no ]; then
            skip "$NAME" "this kernel has no segment routing"
            continue
        fi
        check "$NAME: curl, UDP echo${WITH:+ $WITH}" row_starts
        # What does not answer at all would only wait for each time limit.
        [ "$LAST" = 0 ] || continue
        [ "$depth" = quick ] || check "$NAME: 100 MB" row_big
        [ "$depth" = quick ] || check "$NAME: datagrams of 8 kB" row_datagrams
        check "$NAME: answers' way${WITH:+ $WITH}" row_path
    done
}

# ---- ICMP -------------------------------------------------------------------------------------------

hops() {
    in_lab client traceroute -n -T -p 80 -q 1 -w 2 -m 6 "$1" | awk 'NR > 1 { print $2 }' | tr '\n' ' '
}

# The path through the VIP: the router, the director, then the server under the VIP's name.
traceroute_shows_director() {
    choose_row "$(row_of "$1")"
    local path director
    path=$(hops "$ROW_VIP") director=$(in_family "$FAMILY" "$OUTER")
    echo "$path"
    # As LVS does, the director may say so from the address that was asked for.
    equal "${path/ $director / $ROW_VIP }" "$(in_family "$FAMILY" 10.9.0.1) $ROW_VIP $ROW_VIP "
}

traceroute_arrives() {
    choose_row "$(row_of "$1")"
    local path
    path=$(hops "$ROW_VIP")
    echo "$path"
    [ "$(awk '{ print $NF }' <<<"$path")" = "$ROW_VIP" ]
}

# "Port unreachable" of a server comes from the VIP.
closed_port() {
    choose_row "$(row_of "$1")"
    row_service -u 9
    equal "$(in_lab client "$SCRIPTS/udp-echo" refused "$ROW_VIP" 9)" "$ROW_VIP"
}

# A link between router and client shrinks: what the router says of it must reach the server.
narrow_link() {
    choose_row "$(row_of "$1")"
    ip -n "$LAB-router" link set eth1 mtu 1400
    local rc=0
    download "$HOST" || rc=$?
    ip -n "$LAB-router" link set eth1 mtu 1500
    return $rc
}

# A server is client of a service, of itself too.
hairpin() {
    choose_row "$(row_of "$1")"
    local from
    for from in rs1 rs3 rs5; do
        equal "$(for _ in 1 2; do in_lab $from curl -fsS --max-time 5 "http://$HOST/"; done | sort | tr '\n' ' ')" 'rs5 rs6 '
    done
}

icmp() {
    local row
    for row in 'nat 4 4' 'nat 6 6'; do check "traceroute shows the director: $row" traceroute_shows_director "$row"; done
    for row in 'fullnat 4 4' 'fullnat 6 6' 'fullnat 6 4' 'fullnat 4 6'; do check "traceroute arrives: $row" traceroute_arrives "$row"; done
    for row in 'nat 4 4' 'nat 6 6' 'fullnat 4 4' 'fullnat 6 4'; do check "closed port: $row" closed_port "$row"; done
    for row in 'fullnat 4 4' 'fullnat 6 6' 'fullnat 6 4'; do check "servers as clients: $row" hairpin "$row"; done
    for row in 'nat 4 4' 'nat 6 6' 'fullnat 4 4' 'fullnat 6 6' 'fullnat 6 4' 'dr 4 4' 'ipip 4 4'; do
        check "a narrow link behind the router: $row" narrow_link "$row"
    done
}

# ---- FULLNAT: who the client is --------------------------------------------------------------------

# Last part of the VIP, how, family of the client, family of the server. One server, rs5.
TOLD=(
    '140 proxy-v1 4 4' '141 proxy-v1 6 6' '142 proxy-v2 4 4' '143 proxy-v2 6 6' '144 proxy-v2 6 4' '145 proxy-v2 4 6'
    '146 toa 4 4' '147 toa 6 6' '148 toa 6 4' '149 toa 4 6'
)

told_services() {
    local told vip how family server_family port
    for told in "${TOLD[@]}"; do
        read -r vip how family server_family <<<"$told"
        port=80
        [ "$how" = toa ] || port=81
        cat <<TOML

[[service]]
protocol = "tcp"
address = "$(bracketed "$(in_family "$family" "10.1.0.$vip")"):80"
scheduler = "rr"
client_address = "$how"
local_addresses = ["$(in_family "$server_family" $LOCAL)"]
[[service.server]]
address = "$(bracketed "$(in_family "$server_family" "$(server_address 5)")"):$port"
method = "fullnat"
TOML
    done
}

with_told_services() {
    "$SCRIPTS/lab" stop
    told_services >"$STATE/services.toml"
    "$SCRIPTS/lab" start
    ipvsadm -Ln
}

# ask_from VIP FAMILY: prints the client's port.
ask_from() {
    local host
    host=$(bracketed "$(in_family "$2" "10.1.0.$1")")
    in_lab client curl -fsS --max-time 5 -o "$SCRATCH/answer" -w '%{local_port}' "http://$host/"
}

# told_by_proxy VIP FAMILY SERVER_FAMILY: nginx logs the client's address and port, and whom it saw.
told_by_proxy() {
    local port told
    port=$(ask_from "$1" "$2")
    told="$(in_family "$2" "$CLIENT") $port $(in_family "$3" $LOCAL)"
    wait_for 3 grep -Fx "$told" "$STATE/rs5/proxy.log" || die "logged $(tail -n 1 "$STATE/rs5/proxy.log"), expected $told"
}

# The option of a client's address and port in hexadecimal.
toa_of() {
    python3 - "$@" <<'PYTHON'
import ipaddress, sys
address = ipaddress.ip_address(sys.argv[1]).packed
print(f"fe{4 + len(address):02x}{int(sys.argv[2]):04x}{address.hex()}")
PYTHON
}

# captured CAPTURE BYTES: a packet of the capture has these bytes, in hexadecimal.
captured() {
    tcpdump -n -v -x -r "$1" 2>/dev/null >"$SCRATCH/toa" || true
    awk '/^\t0x/ { for (i = 2; i <= NF; i++) printf "%s", $i; next } { print "" }' "$SCRATCH/toa" | grep -q "$2"
}

# told_by_toa VIP FAMILY SERVER_FAMILY: the option is in the segments, and these are well-formed.
told_by_toa() {
    local capture=$SCRATCH/toa.pcap tcpdump port missing=no
    ip netns exec "$LAB-rs5" tcpdump -n -i eth0 --immediate-mode -U -w "$capture" 'dst port 80' 2>"$SCRATCH/tcpdump" &
    tcpdump=$!
    wait_for 5 grep -q listening "$SCRATCH/tcpdump"
    port=$(ask_from "$1" "$2")
    wait_for 5 captured "$capture" "$(toa_of "$(in_family "$2" "$CLIENT")" "$port")" || missing=yes
    end_pids $tcpdump
    cat "$SCRATCH/toa"
    [ $missing = no ] || die "no such option"
    ! grep -E 'incorrect|bad cksum|truncated' "$SCRATCH/toa"
}

client_address() {
    local told vip how family server_family
    check "FULLNAT services from a file" with_told_services
    for told in "${TOLD[@]}"; do
        read -r vip how family server_family <<<"$told"
        check "client's address by $how, IPv$family to IPv$server_family" "told_by_${how%-v*}" "$vip" "$family" "$server_family"
    done
}

# ---- FULLNAT: very many clients ---------------------------------------------------------------------

CROWD=60000 CROWD_VIP=10.1.0.130

crowd_service() {
    local n
    for n in 3 4 5; do ip -n "$LAB-client" address add "10.9.0.$n/24" dev eth0; done
    in_lab client sysctl -qw net.ipv4.ip_local_port_range='1024 65535'
    ip netns exec "$LAB-rs5" "$SCRIPTS/crowd" serve tcp 7000 </dev/null >/dev/null 2>"$STATE/rs5/crowd.log" &
    wait_for 5 in_lab rs5 "$SCRIPTS/crowd" hold tcp 127.0.0.1 7000 1 127.0.0.1 </dev/null
    ipvsadm -A -t $CROWD_VIP:7000 -s rr
    ipvsadm --add-laddr -z 10.1.0.51 -t $CROWD_VIP:7000
    ipvsadm -a -t $CROWD_VIP:7000 -r "$(server_address 5):7000" --fullnat
}

crowd_open_or_ended() {
    grep -qx "$CROWD open" "$SCRATCH/crowd" || gone "$1"
}

crowd_connections() {
    ipvsadm -Ln | awk '$1 == "->" && $2 ~ /:7000$/ { print $5 + $6 }'
}

crowd_gone() {
    [ "$(crowd_connections)" = 0 ]
}

# Connections from one local address to one server; when they have ended, as many can come again, which
# would not be so if their ports had not come back.
crowd() {
    local holder
    mkfifo "$SCRATCH/hold"
    ip netns exec "$LAB-client" "$SCRIPTS/crowd" hold tcp $CROWD_VIP 7000 $CROWD 10.9.0.3 10.9.0.4 10.9.0.5 \
        <>"$SCRATCH/hold" >"$SCRATCH/crowd" 2>&1 &
    holder=$!
    wait_for 60 crowd_open_or_ended $holder || true
    rm "$SCRATCH/hold"
    cat "$SCRATCH/crowd" "$STATE/rs5/crowd.log"
    local open
    open=$(crowd_connections)
    end_pids $holder
    equal "$open" $CROWD
    wait_for 30 crowd_gone || die "$(crowd_connections) connections are left"
}

many_clients() {
    check "a service for very many clients" crowd_service
    check "$CROWD connections through one local address" crowd
    check "$CROWD connections through the same ports again" crowd
}

# ---- SCTP -------------------------------------------------------------------------------------------

kernel_has_sctp() {
    python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)' 2>/dev/null
}

sctp_service() {
    ip netns exec "$LAB-rs1" "$SCRIPTS/crowd" serve sctp 7001 </dev/null >/dev/null 2>"$STATE/rs1/sctp.log" &
    wait_for 5 in_lab rs1 "$SCRIPTS/crowd" hold sctp 127.0.0.1 7001 1 127.0.0.1 </dev/null
    ipvsadm -A --sctp-service "$VIP:7001" -s rr
    ipvsadm -a --sctp-service "$VIP:7001" -r "$(server_address 1):7001" -m
    in_lab client "$SCRIPTS/crowd" hold sctp "$VIP" 7001 10 "$CLIENT" </dev/null
}

sctp() {
    if kernel_has_sctp; then
        check "SCTP through NAT" sctp_service
    else
        skip "SCTP through NAT" "this kernel has no SCTP"
    fi
}

# ---- what runs when --------------------------------------------------------------------------------

# lab_all WITH OPTION…: a fresh lab, of which WITH says what is particular.
lab_all() {
    WITH=$1
    shift
    check "lab of all methods starts${WITH:+ $WITH}" lab_up --topology all --big-file "$@"
    [ -e "$STATE/env" ] || return 1
    # shellcheck source=/dev/null
    . "$STATE/env"
    BIG_SHA=$(sha256sum <"$STATE/big")
    MBUFS_AT_START=$(status_field mbufs_in_use) || MBUFS_AT_START=0
}

big_in_row() {
    choose_row "$(row_of "$1")"
    row_big
}

forwarding() {
    local row
    if lab_all ''; then
        rows thorough
        icmp
        sctp
        many_clients
        check "every packet accounted for, all methods" accounting
        client_address
    fi
    if lab_all 'with 2 workers' --workers 2; then
        rows quick
        check "every packet accounted for, all methods $WITH" accounting
    fi
    if lab_all 'with unfinished checksums' --offload; then
        rows quick nat fullnat ipip
        for row in 'nat 4 4' 'fullnat 6 4'; do check "100 MB $WITH: $row" big_in_row "$row"; done
    fi
    if lab_all 'on a VLAN' --vlan 100; then rows quick nat fullnat dr ipip; fi
    if lab_all 'with jumbo frames' --mtu 9000; then
        rows quick nat fullnat dr gue
        for row in 'nat 4 4' 'fullnat 4 6' 'gue 6 4'; do check "100 MB $WITH: $row" big_in_row "$row"; done
    fi
}
