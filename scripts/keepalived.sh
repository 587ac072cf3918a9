# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # scripts/e2e has the rest, addresses are the lab's
# Sourced by scripts/e2e: Debian's ipvsadm and keepalived, which know nothing of the director, with the
# library that gives it to them, in lab "d" with a third server that says sorry.

# Under the library, where the director is.
with_library() {
    in_lab dir env LD_PRELOAD="$PRELOAD" DIRECTOR_SOCKET="$DIRECTOR_SOCKET" "$@"
}

# Keepalived's checks go the kernel's way: a cable of its own to every server.
management_cables() {
    local n
    for n in $(seq "$SERVERS"); do
        ip link add "check$n" netns "$LAB-dir" type veth peer name check netns "$LAB-rs$n"
        ip -n "$LAB-dir" address add "10.77.$n.1/30" dev "check$n"
        ip -n "$LAB-rs$n" address add "10.77.$n.2/30" dev check
        ip -n "$LAB-dir" link set "check$n" up
        ip -n "$LAB-rs$n" link set check up
        ip -n "$LAB-dir" route add "$(server_address "$n")/32" via "10.77.$n.2"
    done
}

# ---- its configuration ------------------------------------------------------------------------------

digest_of() {
    printf '%s\n' "$1" | md5sum | cut -d ' ' -f 1
}

# real_server N PORT WEIGHT CHECK: CHECK is the block of its check.
real_server() {
    printf '    real_server %s %s {\n        weight %s\n%s\n    }\n' "$(server_address "$1")" "$2" "$3" "$4"
}

# All that every check has: it fails at once, and nothing begins late by chance.
quickly() {
    echo "connect_timeout 5 retry 0 delay_before_retry 1 delay_loop 1 warmup 0" | xargs -n 2 printf '            %s %s\n'
}

# http_check SERVER: what it says, and a page that is there while it wants clients.
http_check() {
    printf '        HTTP_GET {\n            url {\n                path /\n                digest %s\n            }\n' "$(digest_of "$1")"
    printf '            url {\n                path /put/ready\n                status_code 200\n            }\n%s\n        }\n' "$(quickly)"
}

tls_check() {
    printf '        SSL_GET {\n            url {\n                path /\n                status_code 200\n            }\n%s\n        }\n' "$(quickly)"
}

tcp_check() {
    printf '        %s        TCP_CHECK {\n            connect_port 80\n%s\n        }\n' "${1:-}" "$(quickly)"
}

file_check() {
    printf '        MISC_CHECK {\n            misc_path "/usr/bin/test -e %s"\n            misc_timeout 5\n            retry 0\n            delay_loop 1\n            warmup 0\n        }\n' "$SCRATCH/echoes-$1"
}

# virtual_server NAME SCHEDULER PROTOCOL LINE…: real servers come from standard input.
virtual_server() {
    printf 'virtual_server %s {\n    delay_loop 1\n    lvs_sched %s\n    lvs_method NAT\n    protocol %s\n' "$1" "$2" "$3"
    shift 3
    printf '    %s\n' "$@"
    cat
    echo '}'
}

# keepalived_config WEIGHT: that of the first server.
keepalived_config() {
    printf 'global_defs {\n    script_user root\n    enable_script_security\n}\n'
    { real_server 1 80 "$1" "$(http_check rs1)" && real_server 2 80 1 "$(http_check rs2)"; } |
        virtual_server "$VIP 80" wrr TCP "sorry_server $(server_address 3) 80"
    { real_server 1 443 1 "$(tls_check)" && real_server 2 443 1 "$(tls_check)"; } |
        virtual_server "$VIP 443" rr TCP
    { real_server 1 8080 5 "$(tcp_check $'inhibit_on_failure\n')" && real_server 2 8080 5 "$(tcp_check)"; } |
        virtual_server "$VIP 8080" rr TCP
    { real_server 1 7 1 "$(file_check 1)" && real_server 2 7 1 "$(file_check 2)"; } |
        virtual_server "$VIP 7" rr UDP
    { real_server 1 0 1 "$(tcp_check)" && real_server 2 0 1 "$(tcp_check)"; } |
        virtual_server "fwmark 7" wlc TCP "persistence_timeout 60" "quorum 2" \
            "quorum_up \"/usr/bin/touch $SCRATCH/quorum\"" "quorum_down \"/usr/bin/rm $SCRATCH/quorum\""
}

ready() {
    in_lab "rs$1" curl -fsS -T - "http://127.0.0.1/put/ready" <<<ready
}

start_keepalived() {
    local n
    for n in 1 2; do
        touch "$SCRATCH/echoes-$n"
        ready "$n"
    done
    keepalived_config 3 >"$SCRATCH/keepalived.conf"
    ip netns exec "$LAB-dir" env LD_PRELOAD="$PRELOAD" DIRECTOR_SOCKET="$DIRECTOR_SOCKET" \
        keepalived --dont-fork --log-console --log-detail --check --use-file "$SCRATCH/keepalived.conf" \
        --pid "$SCRATCH/keepalived.pid" --checkers_pid "$SCRATCH/checkers.pid" </dev/null >"$SCRATCH/keepalived.log" 2>&1 &
    echo $! >"$SCRATCH/started.pid"
}

# ---- what the director has --------------------------------------------------------------------------

# weights SERVICE: of its servers: "rs1=3 rs2=1".
weights() {
    ipvsadm -Ln | awk -v service="$1" -v servers="$SERVER_ADDRESSES" '
        BEGIN { count = split(servers, addresses, " ") }
        /^[A-Z]/ { inside = ($1 " " $2 == service) }
        inside && $1 == "->" { split($2, address, ":"); weight[address[1]] = $4 }
        END { for (n = 1; n <= count; n++) if (addresses[n] in weight) { printf "%srs%d=%s", between, n, weight[addresses[n]]; between = " " } }'
}

# has SERVICE SERVER=WEIGHT…
has() {
    local service=$1
    shift
    [ "$(weights "$service")" = "$*" ]
}

# becomes SERVICE SERVER=WEIGHT…: within a time in which every check is made several times.
becomes() {
    wait_for 15 has "$@" || die "$1 has $(weights "$1"), not ${*:2}: $(tail -n 5 "$SCRATCH/keepalived.log")"
}

all_as_configured() {
    becomes "TCP $VIP:80" "rs1=$1" rs2=1
    becomes "TCP $VIP:443" rs1=1 rs2=1
    becomes "TCP $VIP:8080" rs1=5 rs2=5
    becomes "FWM 7" rs1=1 rs2=1
    wait_for 5 test -e "$SCRATCH/quorum" || die "quorum_up was not called"
}

stop_server() {
    local pid
    pid=$(cat "$STATE/rs$1/nginx.pid")
    kill -TERM "$pid"
    wait_for 5 gone "$pid"
}

start_server_again() {
    in_lab "rs$1" nginx -p "$STATE/rs$1" -e "$STATE/rs$1/error.log" -c "$STATE/rs$1/nginx.conf"
}

# ---- tests ------------------------------------------------------------------------------------------

# without_expiry LISTING: of connections.
without_expiry() {
    sort <<<"$1" | sed -E 's/^(TCP|UDP|IP ) [0-9:]+ +/\1 /'
}

# The same as our own, with traffic.
debians_ipvsadm() {
    local line service="$VIP:80"
    for line in "-A -t $service -s rr" "-a -t $service -r 10.0.1.1:80 -m" "-a -t $service -r 10.0.1.2:80 -m -w 2"; do
        # shellcheck disable=SC2086 # words
        with_library /sbin/ipvsadm $line
    done
    requests 20 2
    wait_for 5 balanced
    for line in -Ln '-Ln --stats --exact' '-Ln --thresholds' '-Ln --timeout' -Sn; do
        # shellcheck disable=SC2086 # words
        equal "$(with_library /sbin/ipvsadm $line)" "$(ipvsadm $line)"
    done
    [ "$(ipvsadm -Lnc | wc -l)" -gt 20 ] || die "no connections: $(ipvsadm -Lnc)"
    equal "$(without_expiry "$(with_library /sbin/ipvsadm -Lnc)")" "$(without_expiry "$(ipvsadm -Lnc)")"
    with_library /sbin/ipvsadm -e -t "$service" -r 10.0.1.1:80 -m -w 0
    equal "$(answers 3)" 'rs2 rs2 rs2 '
    with_library /sbin/ipvsadm -C
    equal "$(ipvsadm -Sn)" ''
}

keepalived_starts() {
    management_cables
    start_keepalived
    all_as_configured 3
    becomes "UDP $VIP:7" rs1=1 rs2=1
    directorctl service list
    directorctl service list | grep -q "^tcp $VIP:443 "
    ipvsadm -Ln | grep -q '^FWM  7 wlc persistent 60$'
    equal "$(answers 8 | tr ' ' '\n' | grep -c rs1)" 6
}

# A page that is gone, a script that fails: the server leaves that service alone.
checks_fail_and_pass() {
    rm "$STATE/rs1/put/ready" "$SCRATCH/echoes-2"
    becomes "TCP $VIP:80" rs2=1
    becomes "UDP $VIP:7" rs1=1
    becomes "TCP $VIP:443" rs1=1 rs2=1
    requests 100 10
    equal "$(answers 3)" 'rs2 rs2 rs2 '
    ready 1
    touch "$SCRATCH/echoes-2"
    becomes "TCP $VIP:80" rs1=3 rs2=1
    becomes "UDP $VIP:7" rs1=1 rs2=1
}

server_stops() {
    stop_server 1
    becomes "TCP $VIP:80" rs2=1
    becomes "TCP $VIP:443" rs2=1
    becomes "TCP $VIP:8080" rs1=0 rs2=5
    # One is no quorum; without a sorry server it serves all the same.
    becomes "FWM 7" rs2=1
    wait_for 5 test ! -e "$SCRATCH/quorum" || die "quorum_down was not called"
    requests 100 10
    equal "$(answers 3)" 'rs2 rs2 rs2 '
}

sorry() {
    stop_server 2
    becomes "TCP $VIP:80" rs3=1
    becomes "TCP $VIP:443"
    equal "$(answers 3)" 'rs3 rs3 rs3 '
}

servers_return() {
    start_server_again 1
    start_server_again 2
    all_as_configured 3
    equal "$(answers 8 | tr ' ' '\n' | grep -c rs3)" 0
}

# What is as before stays as it is: open connections notice nothing.
reload() {
    keep 4 "http://$VIP/"
    local before=$KEPT
    keepalived_config 7 | sed "s/virtual_server $VIP 7 /virtual_server $VIP 9 /; s/lvs_sched wlc/lvs_sched lc/" >"$SCRATCH/keepalived.conf"
    kill -HUP "$(cat "$SCRATCH/keepalived.pid")"
    all_as_configured 7
    becomes "UDP $VIP:9" rs1=1 rs2=1
    becomes "UDP $VIP:7"
    ipvsadm -Ln
    ! ipvsadm -Ln | grep -q "$VIP:7 " || die "the service that is configured no more is left"
    ipvsadm -Ln | grep -q '^FWM  7 lc persistent 60$'
    ask_kept
    equal "$KEPT" "$before"
    let_go
}

without_services() {
    [ -z "$(ipvsadm -Sn)" ]
}

keepalived_stops() {
    local pid
    pid=$(cat "$SCRATCH/started.pid")
    kill -TERM "$pid"
    wait_for 15 gone "$pid" || die "still runs: $(tail -n 5 "$SCRATCH/keepalived.log")"
    wait_for 5 without_services || die "left behind: $(ipvsadm -Sn)"
}

# An ipvsadm that finds no director must not find the kernel's IPVS instead.
no_director_no_services() {
    local said rc=0
    said=$(DIRECTOR_SOCKET=$SCRATCH/none.sock with_library /sbin/ipvsadm -Ln 2>&1) || rc=$?
    equal "$rc" 2
    equal "$(head -n 1 <<<"$said")" "Can't initialize ipvs: Connection refused"
}

other_programs() {
    check "lab d with a third server starts" lab_up --topology d --servers 3
    [ -e "$STATE/env" ] || return 0
    # shellcheck source=/dev/null
    . "$STATE/env"
    MBUFS_AT_START=$(status_field mbufs_in_use) || MBUFS_AT_START=0
    check "Debian's ipvsadm" debians_ipvsadm
    check "Debian's ipvsadm without a director" no_director_no_services
    check "keepalived's services" keepalived_starts
    check "keepalived's checks by page and script" checks_fail_and_pass
    check "keepalived and a server that stops" server_stops
    check "keepalived's sorry server" sorry
    check "keepalived and servers that return" servers_return
    check "keepalived reloads" reload
    check "keepalived stops" keepalived_stops
    check "every packet accounted for with keepalived" accounting
}
