# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # scripts/e2e has the rest, addresses are the lab's
# Sourced by scripts/e2e: the director of lab "all" is killed, restarted, replaced by another one and given a
# spoilt memory of what was; whatever goes on below it goes on.

RESTART_ROWS=('nat 4 4' 'nat 6 6' 'fullnat 4 4' 'fullnat 6 6' 'dr 4 4' 'dr 6 6' 'ipip 4 4' 'gue 6 6')
# Bytes a second of each transfer: all of them last some seconds.
RESTART_RATE=20M

# What the lab's director is started with from now on beside its ports, and on standard input.
restart_config() {
    {
        printf '\n[restart]\ndirectory = "%s"\n' "$RESTART_MEMORY"
        cat
    } >"$STATE/services.toml"
}

killed() {
    local pid
    pid=$(director_pid)
    kill -KILL "$pid"
    wait_for 5 gone "$pid"
}

killed_and_started() {
    killed
    "$SCRIPTS/lab" start
}

director_said() {
    grep -F "$1" "$STATE/director.log"
}

remembering_director() {
    rm -rf "$RESTART_MEMORY"
    lab_up --topology all --big-file --device af_packet --workers "$1"
    restart_config </dev/null
    "$SCRIPTS/lab" stop
    "$SCRIPTS/lab" start
    # shellcheck source=/dev/null
    . "$STATE/env"
    sha256sum <"$STATE/big" >"$SCRATCH/big.sha"
    restart_rows row_vips
    restart_rows row_service -t 80
}

restart_rows() {
    local row
    for row in "${RESTART_ROWS[@]}"; do
        choose_row "$(row_of "$row")"
        "$@"
    done
}

# transfers COMMAND…: by every method at once; in their midst the command replaces the director.
transfers_survive() {
    local row pids=() number=0 pid
    for row in "${RESTART_ROWS[@]}"; do
        choose_row "$(row_of "$row")"
        number=$((number + 1))
        in_lab client curl -fsS --max-time 60 --limit-rate $RESTART_RATE -T "$STATE/big" "http://$HOST/put/restart$number" &
        pids+=($!)
    done
    wait_for 10 all_open || die "there are $(open_connections) connections"
    "$@"
    for pid in "${pids[@]}"; do wait "$pid" || die "a transfer failed"; done
    for number in $(seq ${#RESTART_ROWS[@]}); do
        equal "$(cat "$STATE"/rs*/put/"restart$number" | sha256sum)" "$(cat "$SCRATCH/big.sha")"
        rm "$STATE"/rs*/put/"restart$number"
    done
    director_said 'goes on with'
    wait_for 5 balanced || die "not balanced: $(directorctl status --json)"
}

open_connections() {
    directorctl connection list --json | jq '[.[] | select(.state == "ESTABLISHED" or .state == "FIN_WAIT")] | length'
}

all_open() {
    [ "$(open_connections)" -ge ${#RESTART_ROWS[@]} ]
}

# crowd_survives ROW COUNT COMMAND…: connections of HTTP that stay open, of which each gets an answer before
# the command replaces the director and after.
crowd_survives() {
    local count=$2 before after
    choose_row "$(row_of "$1")"
    shift 2
    coproc CLIENTS { in_lab client "$SCRIPTS/keep-alive" "$count" "http://$HOST/"; }
    read -r before <&"${CLIENTS[0]}"
    equal "$(wc -w <<<"$before")" "$count"
    "$@"
    echo >&"${CLIENTS[1]}"
    read -r after <&"${CLIENTS[0]}"
    equal "$after" "$before"
    eval "exec ${CLIENTS[1]}>&-"
    wait "$CLIENTS_PID"
}

# All that ipvsadm knows of services and servers, their counters included, but for how many connections there
# are: those end.
known() {
    ipvsadm -Sn
    ipvsadm -Ln --stats --exact
    ipvsadm --get-laddr -n | awk '{ print $1, $2 }'
    ipvsadm -L --timeout
}

# What was changed by hand stays: a weight, a timeout, an address, a server that is drained.
hand_made_survives() {
    choose_row "$(row_of 'nat 4 4')"
    ipvsadm -e -t "$HOST:80" -r "$(server_address 1):80" -m -w 7
    ipvsadm --set 800 100 200
    ipvsadm -A -t "$HOST:8080" -s wlc -p 600
    ipvsadm -a -t "$HOST:8080" -r "$(server_address 1):8080" -m
    ipvsadm -a -t "$HOST:8080" -r "$(server_address 2):8080" -m
    local server before
    server=$(ask "$HOST:8080")
    before=$(known)
    killed_and_started
    equal "$(known)" "$before"
    ipvsadm -Lnc | grep -E '^TCP +(0?9:|10:00).* ASSURED +.*:0 '
    equal "$(answers 3 "$HOST:8080")" "$server $server $server "
    ipvsadm -D -t "$HOST:8080"
}

# Servers of a deleted service are known as long as their connections are.
deleted_stays_deleted() {
    choose_row "$(row_of 'nat 4 4')"
    ipvsadm -A -t "$HOST:8080" -s rr
    ipvsadm -a -t "$HOST:8080" -r "$(server_address 1):8080" -m
    ask "$HOST:8080"
    ipvsadm -D -t "$HOST:8080"
    killed_and_started
    ! ipvsadm -Sn | grep :8080
    ipvsadm -Lnc | grep -F "$HOST:8080"
}

# What a file that was changed meanwhile says of services that stay is no end of their connections.
started_with_another_file() {
    restart_config <<END
[[service]]
protocol = "tcp"
address = "$HOST:80"
scheduler = "wrr"
[[service.server]]
address = "$(server_address 1):80"
[[service.server]]
address = "$(server_address 2):80"
END
    killed_and_started
    equal "$(ipvsadm -Sn | head -n 1)" "-A -t $HOST:80 -s wrr"
    equal "$(ipvsadm -Sn | grep -c '^-A')" 1
}

started_with_one_worker() {
    killed
    sed -i 's/^WORKERS=.*/WORKERS=1/' "$STATE/env"
    "$SCRIPTS/lab" start
}

taken_over() {
    local old
    old=$(director_pid)
    ip netns exec "$LAB-dir" "$DIRECTORD" --config "$STATE/director.toml" --take-over </dev/null >"$STATE/director.log" 2>&1 &
    echo $! >"$STATE/director.pid"
    wait_for 10 gone "$old" || die "the old director did not end"
    wait_for 15 director_answers
}

director_answers() {
    directorctl status
}

newest_record() {
    find "$RESTART_MEMORY" -name record
}

# The one that runs is left alone by what could not go on with it.
no_take_over_of_what_is_spoilt() {
    local record said
    record=$(newest_record)
    cp "$record" "$SCRATCH/record"
    "$DIRECTORD" --config "$STATE/director.toml" --check --take-over
    printf '\377' | dd of="$record" bs=1 seek=100 conv=notrunc status=none
    said=$("$DIRECTORD" --config "$STATE/director.toml" --take-over 2>&1) && die "it took over: $said"
    grep -F 'its checksum is wrong' <<<"$said"
    director_answers
    cp "$SCRATCH/record" "$record"
}

spoilt_starts_empty() {
    choose_row "$(row_of 'nat 4 4')"
    "$SCRIPTS/lab" stop
    printf '\377' | dd of="$(newest_record)" bs=1 seek=100 conv=notrunc status=none
    "$SCRIPTS/lab" start
    director_said 'starts empty'
    director_said 'its checksum is wrong'
    equal "$(ipvsadm -Lnc | wc -l)" 2
    ask "$HOST"
}

one_at_a_time() {
    local said
    said=$(sed 's|^socket = .*|socket = "'"$STATE"'/other.sock"|' "$STATE/director.toml" >"$SCRATCH/other.toml" &&
        "$DIRECTORD" --config "$SCRATCH/other.toml" 2>&1) && die "two of them: $said"
    grep -F 'another directord keeps its state in' <<<"$said"
}

forgetful() {
    "$SCRIPTS/lab" stop
    ip netns exec "$LAB-dir" "$DIRECTORD" --config "$STATE/director.toml" --forget </dev/null >"$STATE/director.log" 2>&1 &
    echo $! >"$STATE/director.pid"
    wait_for 15 director_answers
    equal "$(ipvsadm -Lnc | wc -l)" 2
}

restart() {
    # Which `lab down` removes.
    RESTART_MEMORY=/dev/shm/$LAB
    check "a director that remembers starts, $1 worker(s)" remembering_director "$1"
    [ -e "$STATE/env" ] || return 0
    # shellcheck source=/dev/null
    . "$STATE/env"
    check "transfers by every method survive a director that is killed" transfers_survive killed_and_started
    check "1000 open connections survive a director that is killed, FULLNAT" \
        crowd_survives 'fullnat 4 4' 1000 killed_and_started
    check "what was made by hand and what was counted is there again" hand_made_survives
    if [ "$1" != 1 ]; then
        check "connections survive with another number of workers" \
            crowd_survives 'nat 4 4' 40 started_with_one_worker
        return
    fi
    check "1000 open connections survive a director that is killed, NAT" \
        crowd_survives 'nat 4 4' 1000 killed_and_started
    check "1000 open connections survive a director that is killed, DR" \
        crowd_survives 'dr 6 6' 1000 killed_and_started
    check "transfers by every method survive a director that is replaced" transfers_survive taken_over
    check "what was deleted is not there again" deleted_stays_deleted
    check "what could not be taken over goes on" no_take_over_of_what_is_spoilt
    check "two directors do not share a memory" one_at_a_time
    check "a file that was changed is applied" crowd_survives 'nat 4 4' 4 started_with_another_file
    check "what is spoilt is refused" spoilt_starts_empty
    check "what is to be forgotten is forgotten" forgetful
}
