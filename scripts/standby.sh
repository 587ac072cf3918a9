# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # scripts/e2e has the rest, addresses are the lab's
# Sourced by scripts/e2e: two directors in lab "all", of which one stands by for the other. It has the other's
# Ethernet addresses, as behind VRRP's virtual router, and its cables are put in when that is killed.

STANDBY_ROWS=('nat 4 4' 'nat 6 6' 'fullnat 4 4' 'fullnat 6 6' 'dr 4 4' 'dr 6 6' 'ipip 4 4' 'gue 6 6')
STANDBY_SOCKET=$STATE/standby.sock
# Bytes a second of each transfer: all of them last some seconds.
STANDBY_RATE=20M

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

# The first one's cables are pulled, as those of a machine without power are, and the second one's put in.
change_cables() {
    ip -n "$LAB-switch" link set dir-lan nomaster
    ip -n "$LAB-switch" link set dir-inner nomaster
    ip -n "$LAB-switch" link set dir2-lan master lan
    ip -n "$LAB-switch" link set dir2-inner master inner
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
    lab_up --topology all --big-file --device af_packet
    # shellcheck source=/dev/null
    . "$STATE/env"
    (
        # shellcheck source=/dev/null
        . "$SCRIPTS/lab-network.sh"
        start_standby
    )
    BIG_SHA=$(sha256sum <"$STATE/big")
    echo "$BIG_SHA" >"$SCRATCH/big.sha"
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

established() {
    "$@" directorctl connection list --json | jq '[.[] | select(.state == "ESTABLISHED" or .state == "FIN_WAIT")] | length'
}

row_transfer() {
    in_lab client curl -fsS --max-time 60 --limit-rate "$STANDBY_RATE" -T "$STATE/big" "http://$HOST/put/$1" &
}

all_told() {
    [ "$(established standing_by)" -ge ${#STANDBY_ROWS[@]} ]
}

# The master is killed in the midst of transfers by every method; all of them arrive as they are.
survive_the_master() {
    local row pids=() number=0 pid
    for row in "${STANDBY_ROWS[@]}"; do
        choose_row "$(row_of "$row")"
        number=$((number + 1))
        row_transfer "standby$number"
        pids+=($!)
    done
    wait_for 10 all_told || die "the backup knows $(established standing_by): $(standing_by directorctl sync status)"
    kill -KILL "$(director_pid)"
    change_cables
    for number in "${!pids[@]}"; do
        wait "${pids[number]}" || die "the transfer by ${STANDBY_ROWS[number]} failed: $(standing_by directorctl connection list)"
    done
    for number in $(seq ${#STANDBY_ROWS[@]}); do
        equal "$(cat "$STATE"/rs*/put/"standby$number" | sha256sum)" "$(cat "$SCRATCH/big.sha")"
        rm "$STATE"/rs*/put/"standby$number"
    done
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
