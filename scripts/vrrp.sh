# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # scripts/e2e has the rest, addresses are the lab's
# Sourced by scripts/e2e: two directors with Debian's keepalived in lab "all", which moves virtual addresses,
# local addresses and the servers' gateway between them. Beside the other's helpers it takes standby.sh's.

# Transfers by each row: a hundred and more of all.
VRRP_TRANSFERS=13
GATEWAY=10.2.0.254

# ---- two directors with the same services ------------------------------------------------------------

# second_port IF BRIDGE: with an Ethernet address of its own.
second_port() {
    veth dir2 "$1" switch "dir2-$2"
    ip -n "$LAB-switch" link set "dir2-$2" master "$2"
    ip -n "$LAB-dir2" link set "$1" arp off
    set_sysctls dir2 "net.ipv4.conf.$1.rp_filter=1"
}

# The kernel's sides of ports speak IPv6, the ports themselves do not.
kernel_has_ipv6() {
    set_sysctls "$1" net.ipv6.conf.{lan,rs}.disable_ipv6=1
    set_sysctls "$1" net.ipv6.conf.{all,default}.{accept_dad,accept_ra,router_solicitations}=0
    set_sysctls "$1" net.ipv6.conf.{lo,default}.disable_ipv6=0
}

# row_block: the row's service as the configuration has it.
row_block() {
    local n
    printf '\n[[service]]\nprotocol = "tcp"\naddress = "%s:80"\nscheduler = "mh"\n' "$HOST"
    [ "$METHOD" != fullnat ] || printf 'local_addresses = ["%s"]\n' "$(in_family "$SERVER_FAMILY" "$LOCAL")"
    for n in $ROW_SERVERS; do
        printf '[[service.server]]\naddress = "%s:80"\n' "$(row_server "$n")"
        case $METHOD in
        nat | fullnat) printf 'method = "%s"\n' "$METHOD" ;;
        dr) printf 'method = "direct"\n' ;;
        *) printf 'method = "tunnel"\ntunnel = "%s"\n' "$METHOD" ;;
        esac
        [ "$METHOD" != gue ] || printf 'tunnel_port = %d\ntunnel_checksum = "full"\n' "$GUE_PORT"
    done
}

same_configuration() {
    local role
    each_row row_block
    for role in master backup; do
        printf '\n[[sync]]\nrole = "%s"\ninterface = "sync"\nsync_id = 7\n' "$role"
    done
}

# start_second: as the first, with addresses of its own.
start_second() {
    standing_by directorctl status && return
    sed -e "s|^socket = .*|socket = \"$STANDBY_SOCKET\"|" -e "s|^file_prefix = .*|file_prefix = \"$LAB-2\"|" \
        -e '/^addresses = /s/\.251\//.252\//; /^addresses = /s/::251\//::252\//' \
        "$STATE/director.toml" >"$STATE/second.toml"
    ip netns exec "$LAB-dir2" "$DIRECTORD" --config "$STATE/second.toml" </dev/null >"$STATE/second.log" 2>&1 &
    wait_for 15 standby_answers || die "the second director did not start: $(tail -n 3 "$STATE/second.log")"
}

two_stations() {
    lab_up --topology all --kernel-vips --device af_packet --no-director
    # Each has addresses of its own; that which is the servers' gateway goes with the virtual ones.
    sed -i 's/^OUTER=.*/OUTER=10.1.0.251/; s/^INNER=.*/INNER=10.2.0.251/' "$STATE/env"
    (
        # shellcheck source=/dev/null
        . "$SCRIPTS/lab-network.sh"
        new_namespace dir2
        second_port lan lan
        second_port rs inner
        sync_cable
        kernel_has_ipv6 dir
        kernel_has_ipv6 dir2
    )
    each_row row_vips
    same_configuration >"$STATE/services.toml"
    "$SCRIPTS/lab" start
    start_second
    wait_for 10 complete || die "nothing was complete: $(standing_by directorctl sync status)"
}

# ---- keepalived ------------------------------------------------------------------------------------------

row_address() {
    if [ "$FAMILY" = 4 ]; then echo "        $ROW_VIP/32 dev klan"; else echo "        $ROW_VIP/128 dev klan"; fi
}

# vrrp_config NAME PRIORITY
vrrp_config() {
    cat <<END
global_defs {
    router_id $1
    script_user root
    enable_script_security
    dynamic_interfaces
    vrrp_version 3
}
vrrp_script director {
    script "$STATE/bin/directorctl status"
    interval 1
    timeout 2
    rise 1
    fall 1
}
vrrp_sync_group director {
    group {
        clients
        servers
    }
    track_script {
        director
    }
}
vrrp_instance clients {
    interface klan
    state BACKUP
    nopreempt
    virtual_router_id 51
    priority $2
    advert_int 0.2
    virtual_ipaddress {
$(each_row row_address | grep -v :)
        $LOCAL/32 dev klan
    }
    virtual_ipaddress_excluded {
$(each_row row_address | grep :)
        $(v6_of "$LOCAL")/128 dev klan
    }
}
vrrp_instance servers {
    interface krs
    state BACKUP
    nopreempt
    virtual_router_id 51
    priority $2
    advert_int 0.2
    virtual_ipaddress {
        $GATEWAY/24 dev krs
    }
    virtual_ipaddress_excluded {
        $(v6_of "$GATEWAY")/64 dev krs
    }
}
END
}

# start_vrrp NAME PRIORITY SOCKET
start_vrrp() {
    vrrp_config "$1" "$2" >"$STATE/$1.keepalived"
    ip netns exec "$LAB-$1" env DIRECTOR_SOCKET="$3" keepalived --dont-fork --log-console --log-detail --vrrp \
        --use-file "$STATE/$1.keepalived" --pid "$STATE/$1.keepalived.pid" --vrrp_pid "$STATE/$1.vrrp.pid" \
        </dev/null >>"$STATE/$1.keepalived.log" 2>&1 &
}

# has_vips NAME: the kernel has them there.
has_vips() {
    local all address
    all=$(in_lab "$1" ip address show dev klan) || return 1
    for address in 10.1.0.100 10.1.0.50 fd00:1::101; do
        [[ $all == *" $address/"* ]] || return 1
    done
}

has_none() {
    ! in_lab "$1" ip address show | grep -c " 10.1.0.100/" >/dev/null
}

# knows NAME IF ADDRESS DIRECTOR SIDE: NAME has heard that the address is at that director's side.
knows() {
    local mac
    mac=$(in_lab "$4" cat "/sys/class/net/$5/address")
    in_lab "$1" ip neighbour show "$3" dev "$2" | grep -q "$mac"
}

becomes_master() {
    wait_for 10 has_vips "$1" || die "$1 has no virtual addresses: $(tail -n 5 "$STATE/$1.keepalived.log")"
}

one_is_master() {
    start_vrrp dir 100 "$DIRECTOR_SOCKET"
    becomes_master dir
    wait_for 5 lists address "^lan +- +10.1.0.100/32"
    start_vrrp dir2 90 "$STANDBY_SOCKET"
    each_row row_is_served
    has_none dir2
}

row_is_served() {
    wait_for 10 ask "$HOST" || die "$NAME is not served"
}

# ---- the end of one -------------------------------------------------------------------------------------

# power_off NAME: whatever runs there.
power_off() {
    local pids
    mapfile -t pids < <(ip netns pids "$LAB-$1")
    kill -KILL "${pids[@]}"
}

survive_a_machine() {
    local all=$((${#STANDBY_ROWS[@]} * VRRP_TRANSFERS))
    begin_transfers machine "$VRRP_TRANSFERS"
    wait_for 20 told_of "$all" standing_by || die "the backup knows $(open_at standing_by): $(standing_by directorctl sync status)"
    power_off dir
    becomes_master dir2
    still_under_way
    end_transfers "$all"
}

network_is_told() {
    wait_for 2 knows router eth0 10.1.0.100 dir2 klan
    wait_for 2 knows router eth0 fd00:1::101 dir2 klan
    wait_for 2 knows rs1 eth0 "$GATEWAY" dir2 krs
    wait_for 2 knows rs1 eth0 "$(v6_of "$GATEWAY")" dir2 krs
    wait_for 2 knows far eth0 "$LOCAL" dir2 klan
}

# It comes back, learns what there is, and leaves the addresses where they are.
returns() {
    "$SCRIPTS/lab" start
    start_vrrp dir 100 "$DIRECTOR_SOCKET"
    wait_for 10 both_complete || die "nothing was complete: $(directorctl sync status)"
    has_none dir
    has_vips dir2
}

both_complete() {
    directorctl sync status | grep -q 'yes$'
}

# The director alone ends: its keepalived gives the addresses away.
survive_a_director() {
    local all=${#STANDBY_ROWS[@]} pid
    begin_transfers director 1
    wait_for 20 told_of "$all" env || die "the backup knows $(open_at env): $(directorctl sync status)"
    pid=$(second_pid)
    kill -KILL "$pid"
    becomes_master dir
    still_under_way
    end_transfers "$all"
    wait_for 5 has_none dir2
}

second_pid() {
    local pid
    for pid in $(ip netns pids "$LAB-dir2"); do
        [ "$(cat "/proc/$pid/comm")" != directord ] || echo "$pid"
    done
}

vrrp() {
    check "two directors with keepalived start" two_stations
    [ -e "$STATE/env" ] || return 0
    # shellcheck source=/dev/null
    . "$STATE/env"
    check "keepalived gives one of them the addresses" one_is_master
    check "$((${#STANDBY_ROWS[@]} * VRRP_TRANSFERS)) transfers by every method survive the end of a machine" survive_a_machine
    check "the network is told of the new place of addresses" network_is_told
    check "the other goes on with them, and schedules none" ends_are_counted
    check "the first comes back and stands by" returns
    check "transfers survive the end of the director alone" survive_a_director
    check "every packet accounted for with keepalived's addresses" wait_for 5 balanced
}
