# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # scripts/e2e has the rest, addresses are the lab's
# Sourced by scripts/e2e: the last drops, and captures at every stage, of real traffic.

# start_capture FILE OPTION…: in the background, as CAPTURE; what it says is in FILE.said.
start_capture() {
    local file=$1
    shift
    rm -f "$file"
    directorctl capture "$@" "$file" 2>"$file.said" &
    CAPTURE=$!
    wait_for 10 test -s "$file" || die "no capture: $(cat "$file.said")"
}

# end_capture FILE: as Ctrl-C does; what it took is in CAPTURED and MISSED.
end_capture() {
    kill -INT "$CAPTURE"
    wait "$CAPTURE" || die "the capture failed: $(cat "$1.said")"
    read -r CAPTURED _ _ MISSED _ <"$1.said"
}

# packets FILE FILTER: how many tcpdump finds.
packets() {
    tcpdump -nr "$1" "$2" 2>/dev/null | wc -l
}

# at_stage STAGE COMMENT FILTER: each of ten requests' SYNs is in the capture once, and some packet has
# that comment.
at_stage() {
    local file=$SCRATCH/capture-$1.pcapng
    serve tcp 80
    start_capture "$file" --stage "$1" tcp and port 80
    answers 10 >/dev/null
    end_capture "$file"
    equal "$MISSED" 0
    equal "$(packets "$file" tcp)" "$CAPTURED"
    equal "$(packets "$file" "$3 and tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn")" 10
    grep -qa "$2" "$file" || die "no comment $2"
}

dropped_packets() {
    local file=$SCRATCH/drops.pcapng before last
    serve tcp 80
    start_capture "$file" --stage drop --reason not_ours port 99
    ! in_lab client curl -s --max-time 2 "http://$VIP:99/" || die "somebody answers at port 99"
    end_capture "$file"
    equal "$CAPTURED" 1
    grep -qa "dropped: not_ours (no service" "$file" || die "no comment"
    last=$(directorctl drops --reason not_ours --last 1)
    grep -q " lan not_ours: .*> $VIP:99: Flags \[S\].*(no service" <<<"$last" || die "drops says: $last"
    equal "$(directorctl --json drops --last 1000 | jq 'map(select(.packet | contains(":99:"))) | length')" 1
    directorctl drops --reason not_ours --pcapng "$file"
    equal "$(packets "$file" 'port 99')" 1
}

# The ring is as small as can be: most packets find no room, and nobody notices.
more_than_fits() {
    local file=$SCRATCH/capture-small.pcapng
    serve tcp 80
    start_capture "$file" --stage rx --buffer 4
    big_download
    end_capture "$file"
    [ "$MISSED" -gt 0 ] || die "nothing was missed"
    equal "$(packets "$file" '')" "$CAPTURED"
}

through_a_pipe() {
    serve tcp 80
    directorctl capture --stage tx --count 5 tcp and host "$VIP" - 2>"$SCRATCH/said" |
        tcpdump -nr - >"$SCRATCH/lines" 2>"$SCRATCH/reader" &
    local pipe=$!
    wait_for 10 grep -q "^reading from file" "$SCRATCH/reader"
    answers 5 >/dev/null
    wait $pipe
    equal "$(wc -l <"$SCRATCH/lines")" 5
    equal "$(cut -d ' ' -f 1 "$SCRATCH/said")" 5
}

# As many captures as there may be; their clients die.
killed_clients() {
    local n pids=() said
    for n in 1 2 3 4; do
        start_capture "$SCRATCH/capture-$n" --stage rx
        pids+=("$CAPTURE")
    done
    said=$(directorctl capture --seconds 1 "$SCRATCH/capture-5" 2>&1) && die "a fifth capture begins"
    grep -q '4 captures .* are taken already' <<<"$said" || die "$said"
    kill -KILL "${pids[@]}"
    wait "${pids[@]}" || true
    wait_for 5 directorctl capture --seconds 0 "$SCRATCH/capture-5" || die "they go on"
}

captures() {
    WORKERS=2
    check "lab for captures starts" lab_up --workers 2 --big-file
    [ -e "$STATE/env" ] || return 0
    # shellcheck source=/dev/null
    . "$STATE/env"
    MBUFS_AT_START=$(status_field mbufs_in_use) || MBUFS_AT_START=0
    with_services "capture of what is received" at_stage rx "received; from lan; worker" "dst $VIP"
    with_services "capture of what is decided" at_stage decided "forwarded; from lan to rs; .*by nat" "not dst $VIP"
    with_services "capture of what is sent" at_stage tx "forwarded; from lan to rs; .*by nat" "not dst $VIP"
    with_services "dropped packets" dropped_packets
    with_services "capture of more than fits" more_than_fits
    with_services "capture through a pipe" through_a_pipe
    with_services "captures end with their clients" killed_clients
    check "every packet accounted for while captured" accounting
}
