# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # scripts/e2e has the rest, addresses are the lab's
# Sourced by scripts/e2e: lab H, two directors that Debian's keepalived makes one: virtual addresses, services,
# checks and the daemons of synchronisation are all its own; the directors are told of nothing but their ports.
# Beside the other's helpers it takes vrrp.sh's and keepalived.sh's.

# Where the servers' proxies listen; each asks the applications of both.
PROXY=8000

h_check() {
    printf '        HTTP_GET {\n            url {\n                path /\n                status_code 200\n            }\n%s\n        }\n' "$(quickly)"
}

h_config() {
    local port
    vrrp_config "$1" "$2" | sed 's/^global_defs {$/&\n    lvs_sync_daemon sync clients id 7/'
    for port in 80 $PROXY; do
        { real_server 1 "$port" 1 "$(h_check)" && real_server 2 "$port" 1 "$(h_check)"; } |
            virtual_server "$VIP $port" rr TCP
    done
}

# h_keepalived NAME PRIORITY SOCKET
h_keepalived() {
    h_config "$1" "$2" >"$STATE/$1.keepalived"
    ip netns exec "$LAB-$1" env LD_PRELOAD="$PRELOAD" DIRECTOR_SOCKET="$3" keepalived --dont-fork --log-console --log-detail \
        --use-file "$STATE/$1.keepalived" --pid "$STATE/$1.keepalived.pid" --vrrp_pid "$STATE/$1.vrrp.pid" \
        --checkers_pid "$STATE/$1.checkers.pid" </dev/null >>"$STATE/$1.keepalived.log" 2>&1 &
}

# An nginx of its own on server N, in front of the applications.
start_proxy() {
    local dir=$STATE/rs$1 n
    {
        printf 'user nobody nogroup;\npid %s/proxy.pid;\nerror_log %s/proxy.error;\nevents { }\nhttp {\n    access_log off;\n' "$dir" "$dir"
        printf '    proxy_temp_path %s/tmp;\n    client_body_temp_path %s/tmp;\n    upstream applications {\n' "$dir" "$dir"
        for n in 1 2; do printf '        server %s:8080 fail_timeout=1;\n' "$(server_address $n)"; done
        printf '    }\n    server {\n        listen %d;\n        location / { proxy_pass http://applications; proxy_connect_timeout 1; }\n    }\n}\n' $PROXY
    } >"$dir/proxy.conf"
    in_lab "rs$1" nginx -p "$dir" -e "$dir/proxy.error" -c "$dir/proxy.conf"
}

h_starts() {
    start_proxy 1
    start_proxy 2
    h_keepalived dir 100 "$DIRECTOR_SOCKET"
    becomes_master dir
    h_keepalived dir2 90 "$STANDBY_SOCKET"
    wait_for 10 has_services standing_by || die "the second has no services: $(tail -n 5 "$STATE/dir2.keepalived.log")"
    wait_for 10 has_services env || die "the first has no services: $(tail -n 5 "$STATE/dir.keepalived.log")"
    wait_for 10 syncs env master
    wait_for 10 syncs standing_by backup
}

has_services() {
    [ "$("$@" ipvsadm -Sn | grep -c "^-a .* -m ")" = 4 ]
}

# syncs COMMAND ROLE
syncs() {
    "$1" directorctl sync status | grep -c "^$2 " >/dev/null
}

# Both servers, and behind the proxies both applications.
h_serves() {
    alternates "$(answers 6)"
    equal "$(answers 8 "$VIP:$PROXY" | tr ' ' '\n' | sort -u | xargs)" "rs1 rs2"
}

h_server_dies() {
    SERVERS=2
    stop_server 1
    become_rs "rs2=1"
    equal "$(answers 3)" 'rs2 rs2 rs2 '
    equal "$(answers 4 "$VIP:$PROXY")" 'rs2 rs2 rs2 rs2 '
    start_server_again 1
    become_rs "rs1=1 rs2=1"
    alternates "$(answers 6)"
}

# become_rs WEIGHTS: at both directors.
become_rs() {
    wait_for 15 both_have "$1" || die "$(weights "TCP $VIP:80"), not $1: $(tail -n 5 "$STATE/dir.keepalived.log")"
}

both_have() {
    [ "$(weights "TCP $VIP:80")" = "$1" ] && [ "$(DIRECTOR_SOCKET=$STANDBY_SOCKET weights "TCP $VIP:80")" = "$1" ]
}

h_director_dies() {
    begin_uploads 5 "http://$VIP/put/h-"
    wait_for 20 told_of 5 standing_by || die "the other knows $(open_at standing_by): $(standing_by directorctl sync status)"
    power_off dir
    becomes_master dir2
    still_under_way
    end_transfers 5
    h_serves
    wait_for 10 syncs standing_by master
}

tutorial_h() {
    check "lab of tutorial h starts" two_stations --kernel-vips true
    [ -e "$STATE/env" ] || return 0
    # shellcheck source=/dev/null
    . "$STATE/env"
    check "tutorial h: keepalived makes two directors one" h_starts
    check "tutorial h: proxies in front of applications" h_serves
    check "tutorial h: a server dies and comes back" h_server_dies
    check "tutorial h: the active director is killed" h_director_dies
}
