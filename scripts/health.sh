# shellcheck shell=bash disable=SC2034,SC2154 # scripts/e2e has the rest, addresses are the lab's
# Sourced by scripts/e2e: health checks of the director's own, in lab "d" with a third server that says
# sorry. Servers and cables are those of keepalived.sh.

# health_config ON_FAILURE: what runs, and three services whose servers are watched.
health_config() {
    directorctl save
    cat <<END

[[service]]
protocol = "tcp"
address = "$VIP:80"
scheduler = "wrr"
on_failure = "$1"
min_healthy = 2

[[service.check]]
type = "http"
path = "/put/ready"
status = "200"
interval_ms = 100
rise = 1
fall = 1

[[service.server]]
address = "$(server_address 1):80"
weight = 3

[[service.server]]
address = "$(server_address 2):80"

[[service.server]]
address = "$(server_address 3):80"
sorry = true

[[service]]
protocol = "tcp"
address = "$VIP:443"
scheduler = "rr"
check = [{ type = "https", interval_ms = 100, rise = 1, fall = 1 }]
server = [{ address = "$(server_address 1):443" }, { address = "$(server_address 2):443" }]

[[service]]
protocol = "udp"
address = "$VIP:7"
scheduler = "rr"
check = [
    { type = "icmp", interval_ms = 100, rise = 1, fall = 1 },
    { type = "command", command = ["/usr/bin/test", "-e", "$SCRATCH/echoes"], interval_ms = 100, rise = 1, fall = 1 },
]
server = [{ address = "$(server_address 1):7" }, { address = "$(server_address 2):7" }]
END
}

# server_is N STATE: in every check of the web service.
server_is() {
    directorctl health --json | jq -e --arg server "$(server_address "$1"):80" --arg state "$2" \
        '[.[] | select(.server == $server)] | length > 0 and all(.fitness == $state)' >/dev/null
}

becomes_healthy() {
    becomes "TCP $VIP:80" rs1=3 rs2=1 rs3=0
    becomes "TCP $VIP:443" rs1=1 rs2=1
    becomes "UDP $VIP:7" rs1=1 rs2=1
}

nothing_to_apply() {
    directorctl plan "$SCRATCH/health.toml" || die "a plan sees changes: $(directorctl plan "$SCRATCH/health.toml")"
}

watch_servers() {
    local n
    management_cables
    : >"$SCRATCH/keepalived.log"
    touch "$SCRATCH/echoes"
    for n in 1 2 3; do ready "$n"; done
    health_config quiesce >"$SCRATCH/health.toml"
    directorctl apply "$SCRATCH/health.toml"
    becomes_healthy
    for n in 1 2 3; do wait_for 15 server_is "$n" up; done
    directorctl service list
    directorctl service list | grep -q "^tcp $VIP:80 .* 2 up$"
    equal "$(answers 8 | tr ' ' '\n' | grep -c rs1)" 6
    nothing_to_apply
}

# New clients go elsewhere, those that are there notice nothing, and nobody's request is lost.
watched_server_fails() {
    keep 4 "http://$VIP/"
    local before=$KEPT
    rm "$STATE/rs1/put/ready" "$SCRATCH/echoes"
    becomes "TCP $VIP:80" rs1=0 rs2=1 rs3=0
    becomes "UDP $VIP:7" rs1=0 rs2=0
    becomes "TCP $VIP:443" rs1=1 rs2=1
    requests 100 10
    equal "$(answers 3)" 'rs2 rs2 rs2 '
    ask_kept
    equal "$KEPT" "$before"
    let_go
    server_is 1 down
    directorctl service list | grep -q "^tcp $VIP:80 .* 1 up, 2 needed$"
    directorctl metrics | grep -q "^director_server_up{service=\"tcp $VIP:80\",server=\"$(server_address 1):80\"} 0$"
    nothing_to_apply
}

watched_server_returns() {
    ready 1
    touch "$SCRATCH/echoes"
    becomes_healthy
    equal "$(answers 8 | tr ' ' '\n' | grep -c rs1)" 6
}

watched_server_stops() {
    stop_server 1
    becomes "TCP $VIP:80" rs1=0 rs2=1 rs3=0
    becomes "TCP $VIP:443" rs1=0 rs2=1
    directorctl health | grep -q "connection refused"
    requests 100 10
    # What an operator sets meanwhile counts when the server is back.
    ipvsadm -e -t "$VIP:80" -r "$(server_address 1):80" -m -w 5
    stop_server 2
    becomes "TCP $VIP:80" rs1=0 rs2=0 rs3=1
    equal "$(answers 3)" 'rs3 rs3 rs3 '
    start_server_again 1
    becomes "TCP $VIP:80" rs1=5 rs2=0 rs3=0
    start_server_again 2
    becomes "TCP $VIP:80" rs1=5 rs2=1 rs3=0
}

watched_server_is_removed() {
    ipvsadm -C
    health_config remove >"$SCRATCH/health.toml"
    directorctl apply "$SCRATCH/health.toml"
    becomes_healthy
    stop_server 1
    becomes "TCP $VIP:80" rs2=1 rs3=0
    becomes "TCP $VIP:443" rs1=0 rs2=1
    nothing_to_apply
    requests 100 10
    start_server_again 1
    becomes_healthy
}

unwatched() {
    ipvsadm -C
    equal "$(directorctl health --json)" "[]"
}

health() {
    check "lab d for health checks starts" lab_up --topology d --servers 3
    [ -e "$STATE/env" ] || return 0
    # shellcheck source=/dev/null
    . "$STATE/env"
    MBUFS_AT_START=$(status_field mbufs_in_use) || MBUFS_AT_START=0
    check "servers are watched" watch_servers
    check "a watched server fails its check" watched_server_fails
    check "a watched server passes again" watched_server_returns
    check "watched servers stop and return" watched_server_stops
    check "a watched server is removed and added" watched_server_is_removed
    check "nobody is watched" unwatched
    check "every packet accounted for with health checks" accounting
}
