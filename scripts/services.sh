# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # scripts/e2e has the rest, addresses are the lab's
# Sourced by scripts/e2e: what LVS does beside forwarding, with real clients, in lab "d". Marks,
# persistence, thresholds, single datagrams, draining, deleting and coming back.

# ---- clients that stay ------------------------------------------------------------------------------

# keep COUNT URL [SOURCE]: so many connections that stay open; their first answers are in KEPT.
keep() {
    coproc KEEPER { in_lab client "$SCRIPTS/keep-alive" "$@" 2>&1; }
    KEEPER_IN=${KEEPER[1]} KEEPER_OUT=${KEEPER[0]} KEEPER_ID=$KEEPER_PID
    heard
}

# What the next line of answers is.
heard() {
    IFS= read -r -t 20 -u "$KEEPER_OUT" KEPT || die "the kept connections say nothing"
}

# ask_kept: a request on each connection.
ask_kept() {
    echo >&"$KEEPER_IN"
    heard
}

let_go() {
    exec {KEEPER_IN}>&-
    wait_for 5 gone "$KEEPER_ID" || die "the kept connections do not end"
}

# from ADDRESS URL: what the client says from one of its addresses.
from() {
    in_lab client curl -fsSk --max-time 5 --interface "$1" "$2"
}

# all_equal WORD…
all_equal() {
    [ "$(printf '%s\n' "$@" | sort -u | wc -l)" = 1 ] || die "not the same: $*"
}

log_in() {
    in_lab client ssh -q -i "$STATE/ssh_key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
        -o ConnectTimeout=5 "root@$VIP"
}

# server_column SERVER COLUMN: of the plain listing: 5 active, 6 inactive.
server_column() {
    ipvsadm -Ln | awk -v server="$1" -v column="$2" '$1 == "->" && $2 == server { print $column; exit }'
}

# What else the tests leave is theirs alone.
clear_services() {
    ipvsadm -C
}

# ---- tutorials --------------------------------------------------------------------------------------

tutorial_d() {
    ipvsadm -A -t 192.168.1.100:80 -s rr
    ipvsadm -A -t 192.168.1.100:443 -s wlc
    ipvsadm -A -t 192.168.1.100:22 -s sh
    ipvsadm -a -t 192.168.1.100:80 -r 10.0.1.1:80 -m
    ipvsadm -a -t 192.168.1.100:80 -r 10.0.1.2:80 -m
    ipvsadm -a -t 192.168.1.100:443 -r 10.0.1.1:443 -m
    ipvsadm -a -t 192.168.1.100:443 -r 10.0.1.2:443 -m
    ipvsadm -L -n
    ipvsadm -L -n | grep -Eq '^TCP  192\.168\.1\.100:22 sh$'
    ipvsadm -L -t 192.168.1.100:80 -n
    equal "$(ipvsadm -L -t 192.168.1.100:80 -n | grep -c -- '-> 10\.0\.1\.[12]:80 ')" 2
    alternates "$(answers 6)"
    local tls
    tls=$(for _ in 1 2 3 4; do from "$CLIENT" "https://$VIP/"; done | sort | uniq -c | tr -s ' \n' ' ')
    equal "$tls" ' 2 rs1 2 rs2 '
    ipvsadm -a -t 192.168.1.100:22 -r 10.0.1.1:22 -m
    ipvsadm -a -t 192.168.1.100:22 -r 10.0.1.2:22 -m
    all_equal "$(log_in)" "$(log_in)" "$(log_in)"
    ipvsadm -d -t 192.168.1.100:80 -r 10.0.1.1:80
    equal "$(answers 2)" 'rs2 rs2 '
    ipvsadm -D -t 192.168.1.100:80
    ! ask || die "answered without a service"
    ! ipvsadm -L -n | grep -q ':80 ' || die "a service's servers are left"
    from "$CLIENT" "https://$VIP/"
}

tutorial_g() {
    directorctl mark add 1 --destination 192.168.1.100 --protocol tcp --port 80
    directorctl mark add 1 --destination 192.168.1.100 --protocol tcp --port 443
    ipvsadm -A -f 1 -s rr -p 600
    ipvsadm -a -f 1 -r 10.0.1.1 -m
    ipvsadm -a -f 1 -r 10.0.1.2 -m
    ipvsadm -L -n
    ipvsadm -L -n | grep -Eq '^FWM  1 rr persistent 600$'
    local two three
    two=$(from 192.168.1.2 "http://$VIP/") three=$(from 192.168.1.3 "https://$VIP/")
    [ "$two" != "$three" ] || die "both clients have $two"
    all_equal "$two" "$(from 192.168.1.2 "https://$VIP/")" "$(from 192.168.1.2 "http://$VIP/")"
    all_equal "$three" "$(from 192.168.1.3 "http://$VIP/")" "$(from 192.168.1.3 "https://$VIP/")"
    ipvsadm -L -n -c
    ipvsadm -L -n -c | grep -Eq '^IP  (09:5[0-9]|10:00)  ASSURED +192\.168\.1\.2:0 +0\.0\.0\.1:0 +10\.0\.1\.[12]:0$'
    ipvsadm -L -n --persistent-conn
    ipvsadm -C
    ipvsadm -A -t 192.168.1.100:80 -s wrr
    ipvsadm -a -t 192.168.1.100:80 -r 10.0.1.1:8080 -m -w 3
    ipvsadm -a -t 192.168.1.100:80 -r 10.0.1.2:8080 -m -w 1
    equal "$(answers 8 | tr ' ' '\n' | grep -c rs1)" 6
}

# ---- what LVS does ----------------------------------------------------------------------------------

persistent_clients() {
    ipvsadm -A -t "$VIP:80" -s rr -p 300 -M 255.255.255.254
    ipvsadm -a -t "$VIP:80" -r 10.0.1.1:80 -m
    ipvsadm -a -t "$VIP:80" -r 10.0.1.2:80 -m
    local group other
    group=$(from 192.168.1.2 "http://$VIP/") other=$(from 192.168.1.4 "http://$VIP/")
    [ "$group" != "$other" ] || die "both have $group"
    all_equal "$group" "$(from 192.168.1.3 "http://$VIP/")" "$(from 192.168.1.2 "http://$VIP/")"
    all_equal "$other" "$(from 192.168.1.4 "http://$VIP/")"
    ipvsadm -Lnc
    equal "$(ipvsadm -Lnc | grep -Ec ':0 +192\.168\.1\.100:80 +10\.0\.1\.[12]:80$')" 2
    ipvsadm -Ln --persistent-conn
    equal "$(ipvsadm -Ln --persistent-conn | awk '$1 == "->" && /10\.0/ { sum += $4 } END { print sum }')" 2
    # A quiesced server keeps its persistent clients, unless told otherwise.
    local address=10.0.1.${group#rs}
    ipvsadm -e -t "$VIP:80" -r "$address:80" -m -w 0
    equal "$(from 192.168.1.3 "http://$VIP/")" "$group"
    directorctl settings --expire-quiescent-template true
    equal "$(from 192.168.1.3 "http://$VIP/")" "$other"
    directorctl settings --expire-quiescent-template false
}

every_port() {
    ipvsadm -A -t "$VIP:0" -s rr -p
    ipvsadm -a -t "$VIP:0" -r 10.0.1.1 -m
    ipvsadm -a -t "$VIP:0" -r 10.0.1.2 -m
    local two three
    two=$(from 192.168.1.2 "http://$VIP/") three=$(from 192.168.1.3 "http://$VIP/")
    [ "$two" != "$three" ] || die "both clients have $two"
    all_equal "$two" "$(from 192.168.1.2 "http://$VIP:8080/")" "$(from 192.168.1.2 "https://$VIP/")" "$(log_in)"
    all_equal "$three" "$(from 192.168.1.3 "https://$VIP/")"
}

single_datagrams() {
    ipvsadm -A -u "$VIP:7" -s rr -o
    ipvsadm -a -u "$VIP:7" -r 10.0.1.1:7 -m
    ipvsadm -a -u "$VIP:7" -r 10.0.1.2:7 -m
    local report
    report=$(in_lab client "$SCRIPTS/udp-echo" ask-from-one-port "$VIP" 7 100)
    equal "$(grep ^rs <<<"$report" | tr '\n' ' ')" 'rs1 50 rs2 50 '
    ipvsadm -Lnc
    ! ipvsadm -Lnc | grep -q ^UDP || die "connections are left"
    equal "$(server_column 10.0.1.1:7 6)" 0
}

# On a port of its own: connections of the other tests that have not expired would count.
full_servers() {
    ipvsadm -A -t "$VIP:8080" -s rr
    ipvsadm -a -t "$VIP:8080" -r 10.0.1.1:8080 -m -x 2
    ipvsadm -a -t "$VIP:8080" -r 10.0.1.2:8080 -m
    keep 6 "http://$VIP:8080/"
    equal "$(tr ' ' '\n' <<<"$KEPT" | grep -c rs1)" 2
    equal "$(server_column 10.0.1.1:8080 5)" 2
    equal "$(answers 3 "$VIP:8080")" 'rs2 rs2 rs2 '
    let_go
}

deleted_and_back() {
    serve tcp 80
    keep 4 "http://$VIP/"
    local before=$KEPT
    ask_kept
    equal "$KEPT" "$before"
    ipvsadm -d -t "$VIP:80" -r 10.0.1.1:80
    # A new connection is not for a server that is gone; old ones wait for it.
    equal "$(answers 2)" 'rs2 rs2 '
    ipvsadm -a -t "$VIP:80" -r 10.0.1.1:80 -m
    ask_kept
    equal "$KEPT" "$before"
    # So with the whole service.
    ipvsadm -D -t "$VIP:80"
    serve tcp 80
    ask_kept
    equal "$KEPT" "$before"
    # Without a server to wait for: they end, as many as it had.
    directorctl settings --expire-nodest-conn true
    ipvsadm -d -t "$VIP:80" -r 10.0.1.1:80
    wait_for 5 none_established_to 10.0.1.1:80 || die "not ended: $(ipvsadm -Lnc)"
    ask_kept
    equal "$KEPT" "${before//rs1/-}"
    directorctl settings --expire-nodest-conn false
    let_go
}

none_established_to() {
    ! ipvsadm -Lnc | grep -q " ESTABLISHED .* $1$"
}

draining() {
    serve tcp 80
    keep 4 "http://$VIP/"
    local before=$KEPT
    directorctl server drain tcp "$VIP:80" 10.0.1.1:80 --deadline 2 --reset --no-wait
    equal "$(answers 3)" 'rs2 rs2 rs2 '
    ask_kept
    equal "$KEPT" "$before"
    wait_for 10 none_established_to 10.0.1.1:80 || die "not ended: $(ipvsadm -Lnc)"
    ask_kept
    equal "$KEPT" "${before//rs1/-}"
    let_go
}

# with_services NAME FUNCTION: on an empty director, which is empty and balanced again afterwards.
with_services() {
    local name=$1
    shift
    check "$name" "$@"
    check "$name: cleared" clear_services
}

# explain names the server that the very next packet gets, and asking changes nothing.
explained() {
    ipvsadm -A -t "$VIP:80" -s wlc
    ipvsadm -a -t "$VIP:80" -r 10.0.1.1:80 -m -w 2
    ipvsadm -a -t "$VIP:80" -r 10.0.1.2:80 -m
    local n said before
    for n in 1 2 3 4 5 6; do
        before=$(ipvsadm -Ln --stats && ipvsadm -Ln)
        said=$(directorctl explain tcp "$CLIENT:3000$n" "$VIP:80" | awk '$1 == "forwarding" { print $4 }')
        equal "$(ipvsadm -Ln --stats && ipvsadm -Ln)" "$before"
        equal "rs${said:7:1}" "$(in_lab client curl -fsS --max-time 5 --local-port "3000$n" "http://$VIP/")"
    done
    directorctl explain tcp "$CLIENT:30001" "$VIP:81" | grep -q 'near: tcp .*:80, but it is at port 80'
    directorctl explain tcp "$CLIENT:30001" "$VIP:81" | grep -q '^end *DROPPED (not_ours)'
}

# services WORKERS: what does not depend on how many there are runs with one.
services() {
    WORKERS=$1
    local with="$1 worker(s)"
    check "lab d starts with $with" lab_up --topology d --workers "$1"
    [ -e "$STATE/env" ] || return 0
    # shellcheck source=/dev/null
    . "$STATE/env"
    MBUFS_AT_START=$(status_field mbufs_in_use) || MBUFS_AT_START=0
    if [ "$1" = 1 ]; then
        with_services "tutorial d as typed" tutorial_d
        with_services "tutorial g as typed" tutorial_g
        with_services "single datagrams" single_datagrams
        with_services "full servers" full_servers
        with_services "explained before asked" explained
    fi
    with_services "persistent clients, $with" persistent_clients
    with_services "services of every port, $with" every_port
    with_services "servers deleted and back, $with" deleted_and_back
    with_services "draining, $with" draining
    metrics_tests "$with"
    check "every packet accounted for in lab d, $with" accounting
}
