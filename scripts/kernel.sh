# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # scripts/e2e has the rest, addresses are the lab's
# Sourced by scripts/e2e: the kernel beside the director, in lab "b" with its two arms.

punted() {
    directorctl status --json | jq '[.ports[].ends.punted // 0] | add'
}

# echo_from NAME ADDRESS: whether who has that address answers an ICMP echo request from there.
echo_from() {
    in_lab "$1" python3 -c '
import socket, struct, sys
request = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + b"ping"
total = sum(struct.unpack("!6H", request))
total = (total & 0xffff) + (total >> 16)
request = request[:2] + struct.pack("!H", ~total & 0xffff) + request[4:]
echo = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
echo.settimeout(2)
echo.sendto(request, (sys.argv[1], 0))
while True:
    answer, (sender, _) = echo.recvfrom(100)
    if sender == sys.argv[1] and answer[20] == 0 and answer[24:] == request[4:]:
        break
' "$2"
}

# As little as an ssh server says first, on the director's machine, to whoever comes.
hello_on_director() {
    in_lab dir python3 -c '
import socket
server = socket.create_server(("", 2222), backlog=9)
while True:
    client, _ = server.accept()
    client.sendall(b"hello from the director\n")
    client.close()
' &
    HELLO=$!
    wait_for 15 in_lab dir bash -c 'ss -ltn | grep -q :2222'
}

host_is_reached() {
    local before
    before=$(punted)
    echo_from client "$OUTER"
    echo_from rs1 "$INNER"
    [ "$(punted)" -gt "$before" ] || die "the kernel was not asked"
    hello_on_director
    equal "$(in_lab client timeout 5 bash -c "cat </dev/tcp/$OUTER/2222")" "hello from the director"
    equal "$(in_lab rs1 timeout 5 bash -c "cat </dev/tcp/$INNER/2222")" "hello from the director"
    kill "$HELLO"
}

# curl typed on the director itself.
host_is_a_client() {
    local n
    for n in 1 2 3 4; do in_lab dir curl -fsS --max-time 5 "http://$VIP/"; done >"$SCRATCH/host"
    cat "$SCRATCH/host"
    # Each worker has its own turn.
    differ_at_most $((2 * SLACK)) "$(grep -cx rs1 "$SCRATCH/host")" "$(grep -cx rs2 "$SCRATCH/host")"
}

lists() {
    directorctl "$1" list | grep -Eq "$2"
}

lists_not() {
    ! lists "$@"
}

kernels_addresses() {
    local new=${OUTER%.*}.77
    wait_for 15 in_lab dir bash -c "ip address show dev klan | grep -q $OUTER/24"
    in_lab dir ip address add "$new/24" dev klan
    wait_for 15 lists address "^lan +- +$new/24"
    echo_from client "$new"
    in_lab dir ip address delete "$new/24" dev klan
    wait_for 15 lists_not address "$new/24"
    directorctl address add "$new/24" lan
    wait_for 15 in_lab dir bash -c "ip address show dev klan | grep -q $new/24"
    directorctl address delete "$new/24" lan
    wait_for 15 in_lab dir bash -c "! ip address show dev klan | grep -q $new/24"
}

kernels_routes() {
    local one=${INNER%.*}.102 two=${INNER%.*}.103 count
    in_lab dir ip route add 10.78.0.0/16 nexthop via "$one" weight 1 nexthop via "$two" weight 2
    wait_for 15 lists route "^10\.78\.0\.0/16 +$one +rs"
    lists route "^10\.78\.0\.0/16 +$two +rs"
    directorctl route add 10.79.0.0/16 via "$one,$two"
    lists route "^10\.79\.0\.0/16 +$two +rs"
    in_lab dir ip route delete 10.78.0.0/16
    wait_for 15 lists_not route '^10\.78\.'
    for count in $(seq 0 9999); do
        echo "route add 10.$((100 + count / 256)).$((count % 256)).0/24 via $one"
    done | in_lab dir ip -batch -
    wait_for 20 has_routes 10000
    in_lab dir ip route flush via "$one"
    wait_for 20 has_routes 0
}

# In networks 10.100.0.0 and up.
has_routes() {
    [ "$(directorctl route list | grep -Ec '^10\.1[0-9][0-9]\.')" = "$1" ]
}

# has_carrier NAME yes|no: of a port and of the kernel's interface beside it.
has_carrier() {
    local name=$1 is_up=$2
    [ "$(directorctl port list --json | jq ".[] | select(.name == \"$name\") | .link_up")" = "$([ "$is_up" = yes ] && echo true || echo false)" ]
    [ "$(in_lab dir cat "/sys/class/net/k$name/carrier")" = "$([ "$is_up" = yes ] && echo 1 || echo 0)" ]
}

# A cable that is pulled out is for routing daemons and keepalived what it is without a director.
kernels_links() {
    local outer=${OUTER%.*}.77 inner=${INNER%.*}.102
    in_lab dir ip route add 10.78.0.0/16 nexthop via "$outer" nexthop via "$inner"
    wait_for 15 lists route "^10\.78\.0\.0/16 +$inner +rs"
    ip -n "$LAB-switch" link set dir-inner down
    wait_for 15 has_carrier rs no
    has_carrier lan yes
    wait_for 15 lists_not route "^10\.78\.0\.0/16 +$inner +rs"
    lists route "^10\.78\.0\.0/16 +$outer +lan"
    ip -n "$LAB-switch" link set dir-inner up
    wait_for 15 has_carrier rs yes
    wait_for 15 lists route "^10\.78\.0\.0/16 +$inner +rs"
    in_lab dir ip route delete 10.78.0.0/16
    ask
}

beside_kernel() {
    local with="with $1 worker(s)"
    SLACK=$(($1 - 1))
    check "lab with the kernel beside it $with" lab_up --topology b --kernel --workers "$1"
    [ -e "$STATE/env" ] || return 0
    # shellcheck source=/dev/null
    . "$STATE/env"
    check "service $with" serve tcp 80
    check "clients beside the kernel $with" ask
    check "ping and TCP to the director itself $with" host_is_reached
    check "curl on the director itself $with" host_is_a_client
    check "addresses of the kernel $with" kernels_addresses
    check "routes of the kernel $with" kernels_routes
    check "links of the kernel $with" kernels_links
    check "every packet accounted for $with" wait_for 5 balanced
}
