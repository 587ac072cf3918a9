# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # scripts/e2e has the rest, addresses are the lab's
# Sourced by scripts/e2e: metrics while traffic runs, in any lab with NAT; and what shows them.

METRICS_URL=http://127.0.0.1:9145/metrics

# scrape FILE [OPTION…]: what Prometheus would get.
scrape() {
    "${IN_DIR[@]}" curl -fsS --max-time 10 "${@:2}" -o "$1" "$METRICS_URL"
}

# value FILE SERIES
value() {
    awk -v series="$2" '{ v = $NF; sub(/ [^ ]*$/, ""); if ($0 == series) { print v; exit } }' "$1"
}

# rises SERIES: it is no smaller than in the scrape before.
rises() {
    local before now
    before=$(value "$SCRATCH/before" "$1")
    now=$(value "$SCRATCH/now" "$1")
    awk -v before="${before:-0}" -v now="$now" 'BEGIN { exit !(now != "" && now >= before) }' ||
        die "$1 was $before and is ${now:-missing}"
}

# above NUMBER SERIES
above() {
    awk -v least="$1" -v now="$(value "$SCRATCH/now" "$2")" 'BEGIN { exit !(now > least) }' ||
        die "$2 is $(value "$SCRATCH/now" "$2"), not more than $1"
}

metrics_while_traffic_runs() {
    local server load service="service=\"tcp $VIP:80\"" n
    server=$(server_address 1)
    serve tcp 80
    ip netns exec "$LAB-client" "$SCRIPTS/http-load" 3000 20 "http://$VIP/" >/dev/null &
    load=$!
    for n in 1 2 3; do
        scrape "$SCRATCH/now"
        promtool check metrics <"$SCRATCH/now" || die "promtool does not accept the metrics"
    done
    wait $load || die "clients were not answered while metrics were scraped"
    scrape "$SCRATCH/now"
    above 2999 "director_service_connections_total{$service}"
    above 1000 "director_server_connections_total{$service,server=\"$server:80\"}"
    above 1000 "director_server_answer_seconds_count{$service,server=\"$server:80\"}"
    above 0 "director_server_answer_seconds_sum{$service,server=\"$server:80\"}"
    above 10000 'director_worker_residence_seconds_count{worker="0"}'
    above 0 'director_worker_seconds_total{worker="0",state="packets"}'
    above 0 'director_worker_longest_gap_seconds{worker="0"}'
    # Neither zeroing nor deleting makes a counter run backwards.
    cp "$SCRATCH/now" "$SCRATCH/before"
    ipvsadm -Z
    ipvsadm -D -t "$VIP:80"
    serve tcp 80
    ask >/dev/null
    scrape "$SCRATCH/now"
    rises "director_service_connections_total{$service}"
    rises "director_service_incoming_bytes_total{$service}"
    rises "director_server_connections_total{$service,server=\"$server:80\"}"
    rises "director_server_outgoing_packets_total{$service,server=\"$server:80\"}"
}

# The same through the socket; and every metric that the dashboard and the rules want is there.
metrics_through_the_socket() {
    local name
    serve tcp 80
    scrape "$SCRATCH/now"
    directorctl metrics >"$SCRATCH/socket"
    promtool check metrics <"$SCRATCH/socket"
    diff <(sed 's/ [^ ]*$//' "$SCRATCH/now") <(sed 's/ [^ ]*$//' "$SCRATCH/socket")
    directorctl --json metrics | jq -e '.text | length > 10000' >/dev/null
    grep -oh 'director_[a-z_]*' "$ROOT/configs/grafana-dashboard.json" "$ROOT/configs/prometheus-rules.yml" | sort -u >"$SCRATCH/names"
    while read -r name; do
        grep -Eq "^(# TYPE )?${name}[{ ]" "$SCRATCH/now" || die "there is no metric $name"
    done <"$SCRATCH/names"
    promtool check rules "$ROOT/configs/prometheus-rules.yml"
    promtool check config "$ROOT/configs/prometheus.yml"
}

# Clients that say nothing, more than are served at once, let a scrape wait for a little.
metrics_with_slow_clients() {
    local pids=() n
    for n in $(seq 12); do
        "${IN_DIR[@]}" python3 -c 'import socket, time
s = socket.create_connection(("127.0.0.1", 9145)); s.send(b"GET /m"); time.sleep(20)' &
        pids+=($!)
    done
    sleep 0.5
    scrape "$SCRATCH/now" || die "slow clients hold up a scrape"
    end_pids "${pids[@]}"
}

top_and_watch() {
    local load
    serve tcp 80
    ip netns exec "$LAB-client" "$SCRIPTS/http-load" 2000 10 "http://$VIP/" >/dev/null &
    load=$!
    directorctl top --iterations 2 --interval 1 >"$SCRATCH/top"
    wait $load
    grep -Eq "^core [0-9]+ +[0-9.]+ %" "$SCRATCH/top" || die "no worker's busy share: $(cat "$SCRATCH/top")"
    equal "$(grep -c "^tcp $VIP:80 " "$SCRATCH/top")" 2
    directorctl top --servers --sort conns --iterations 1 | grep -q "^tcp $VIP:80 > $(server_address 1):80 "
    directorctl --json top --iterations 2 --interval 0.2 | jq -es 'length == 2 and .[1].workers[0].busy_percent != null' >/dev/null
    timeout 2 directorctl stats --watch 0.5 >"$SCRATCH/watched" || true
    [ "$(grep -c "^tcp $VIP:80 " "$SCRATCH/watched")" -ge 2 ] || die "stats --watch shows nothing again"
}

metrics_tests() {
    with_services "metrics while traffic runs, $1" metrics_while_traffic_runs
    with_services "metrics through the socket, $1" metrics_through_the_socket
    with_services "metrics with slow clients, $1" metrics_with_slow_clients
    with_services "top and stats --watch, $1" top_and_watch
}
