# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # scripts/e2e has the rest, addresses are the lab's
# Sourced by scripts/e2e: two directors in lab "all", of which one stands by for the other. It has the other's
# Ethernet addresses, as behind VRRP's virtual router, and its cables are put in when that is killed.

STANDBY_ROWS=('nat 4 4' 'nat 6 6' 'fullnat 4 4' 'fullnat 6 6' 'dr 4 4' 'dr 6 6' 'ipip 4 4' 'gue 6 6')
STANDBY_SOCKET=$STATE/standby.sock

# On the director that stands by.
standing_by() {
    DIRECTOR_SOCKET=$STANDBY_SOCKET "$@"
}

# clone_port PORT BRIDGE: as the first director's, but not plugged in.
clone_port() {
    local mac
    mac=$(ip netns exec "$LAB-dir" cat "/sys/class/net/$1/address")
    veth dir2 "$1" switch "dir2-$2"
    ip -n "$LAB-dir2" link set "$1" arp off address "$mac"
}

# The switches forget where the first one was, as they do when its cables go down with it: there is nothing
# that makes the other send before something came to it.
plug_in() {
    local bridge
    for bridge in lan inner; do
        ip -n "$LAB-switch" link set "dir-$bridge" nomaster
        ip -n "$LAB-switch" link set "dir2-$bridge" master "$bridge"
    done
}

# A cable between the two for what they tell each other.
sync_cable() {
    ip link add sync netns "$LAB-dir" type veth peer name sync netns "$LAB-dir2"
    ip -n "$LAB-dir" address add 10.88.0.1/30 dev sync
    ip -n "$LAB-dir2" address add 10.88.0.2/30 dev sync
    ip -n "$LAB-dir" link set sync up
    ip -n "$LAB-dir2" link set sync up
}

standby_answers() {
    standing_by directorctl status
}

start_standby() {
    new_namespace dir2
    clone_port lan lan
    clone_port rs inner
    sync_cable
    sed -e "s|^socket = .*|socket = \"$STANDBY_SOCKET\"|" -e "s|^file_prefix = .*|file_prefix = \"$LAB-2\"|" \
        "$STATE/director.toml" >"$STATE/standby.toml"
    ip netns exec "$LAB-dir2" "$DIRECTORD" --config "$STATE/standby.toml" </dev/null >"$STATE/standby.log" 2>&1 &
    echo $! >"$STATE/standby.pid"
    wait_for 15 standby_answers || die "the second director did not start: $(tail -n 3 "$STATE/standby.log")"
}

two_directors() {
    lab_up --topology all --device af_packet
    # shellcheck source=/dev/null
    . "$STATE/env"
    (
        # shellcheck source=/dev/null
        . "$SCRIPTS/lab-network.sh"
        start_standby
    )
}

each_row() {
    local row
    for row in "${STANDBY_ROWS[@]}"; do
        choose_row "$(row_of "$row")"
        "$@"
    done
}

same_services() {
    each_row row_vips
    each_row row_service -t 80
    ipvsadm -Sn | standing_by ipvsadm -R
    equal "$(standing_by ipvsadm -Sn)" "$(ipvsadm -Sn)"
}

daemons_start() {
    ipvsadm --start-daemon master --mcast-interface sync --syncid 7
    standing_by ipvsadm --start-daemon backup --mcast-interface sync --syncid 7
    ipvsadm -L --daemon
    equal "$(ipvsadm -L --daemon)" \
        'master sync daemon (mcast=sync, syncid=7, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)'
    wait_for 10 complete || die "nothing was complete: $(standing_by directorctl sync status)"
}

complete() {
    standing_by directorctl sync status | grep -q 'yes$'
}

transfer_urls() {
    local row
    for row in "${STANDBY_ROWS[@]}"; do
        choose_row "$(row_of "$row")"
        echo "http://$HOST/put/$1-${row// /-}-"
    done
}

# begin_transfers NAME COUNT: by each row.
begin_transfers() {
    local urls end
    mapfile -t urls < <(transfer_urls "$1")
    coproc UPLOADS { in_lab client "$SCRIPTS/transfers" "$2" "${urls[@]}" 2>&1; }
    # The shell closes its own ends when the program ends, whatever is still to be read.
    end=${UPLOADS[1]}
    exec {UPLOADS_OUT}<&"${UPLOADS[0]}" {UPLOADS_IN}>&"$end" {end}>&-
    under_way
}

under_way() {
    local line
    IFS= read -r -t 60 -u "$UPLOADS_OUT" line || die "the transfers say nothing"
    [ "$line" = "under way" ] || die "the transfers: $line $(timeout 5 cat <&"$UPLOADS_OUT")"
}

still_under_way() {
    echo >&"$UPLOADS_IN"
    under_way
}

# What was sent is what the servers have, COUNT times.
end_transfers() {
    local url sum count=0
    exec {UPLOADS_IN}>&-
    while read -r -t 60 -u "$UPLOADS_OUT" url sum; do
        equal "$(cat "$STATE"/rs*/"put/${url##*/}" | sha256sum | cut -d ' ' -f 1)" "$sum"
        rm "$STATE"/rs*/"put/${url##*/}"
        count=$((count + 1))
    done
    equal "$count" "$1"
}

# open_at COMMAND…: connections that are established, at the director that COMMAND asks.
open_at() {
    "$@" directorctl connection list --json | jq '[.[] | select(.state == "ESTABLISHED")] | length'
}

# told_of COUNT COMMAND…: that director knows so many.
told_of() {
    local count=$1
    shift
    [ "$(open_at "$@")" = "$count" ]
}

# The master is killed in the midst of transfers by every method; all of them arrive as they are.
survive_the_master() {
    local all=${#STANDBY_ROWS[@]}
    begin_transfers standby 1
    wait_for 10 told_of "$all" standing_by || die "the backup knows $(open_at standing_by): $(standing_by directorctl sync status)"
    kill -KILL "$(director_pid)"
    plug_in
    still_under_way
    end_transfers "$all"
}

ends_are_counted() {
    wait_for 5 standing_by balanced || die "not balanced: $(standing_by directorctl status --json)"
    standing_by directorctl sync status
    # None of them was scheduled here.
    equal "$(standing_by ipvsadm -Ln --stats --exact | awk '$1 == "->" { sum += $3 } END { print sum }')" 0
}

new_clients_are_served() {
    each_row row_serves
}

row_serves() {
    standing_by answers 2 "$HOST"
}

standby() {
    check "a second director that stands by starts" two_directors
    [ -e "$STATE/env" ] || return 0
    # shellcheck source=/dev/null
    . "$STATE/env"
    check "the same services on both" same_services
    check "a master and a backup" daemons_start
    check "transfers by every method survive the master's end" survive_the_master
    check "the backup goes on with them, and schedules none" ends_are_counted
    check "new clients are served" new_clients_are_served
}
