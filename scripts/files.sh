# shellcheck shell=bash disable=SC2034,SC2153,SC2154 # scripts/e2e has the rest, addresses are the lab's
# Sourced by scripts/e2e: configuration files under traffic, in lab "d": plan, apply, confirm, roll back,
# SIGHUP, save.

# ---- files ------------------------------------------------------------------------------------------

# new_file NAME SCHEDULER SERVER=WEIGHT…: the file that the lab's director was started with, a service on
# the VIP's port 80 with these servers, and one on port 8080 that is always the same.
new_file() {
    local file=$SCRATCH/$1.toml scheduler=$2 server
    shift 2
    cp "$SCRATCH/start.toml" "$file"
    {
        printf '\n[[service]]\nprotocol = "tcp"\naddress = "%s:80"\nscheduler = "%s"\n' "$VIP" "$scheduler"
        for server; do
            printf '\n[[service.server]]\naddress = "%s"\nweight = %s\n' "${server%=*}" "${server#*=}"
        done
        printf '\n[[service]]\nprotocol = "tcp"\naddress = "%s:8080"\nscheduler = "rr"\n' "$VIP"
        printf '\n[[service.server]]\naddress = "%s:8080"\n' 10.0.1.1 10.0.1.2
    } >>"$file"
}

new_files() {
    cp "$STATE/director.toml" "$SCRATCH/start.toml"
    new_file a rr 10.0.1.1:80=1 10.0.1.2:80=1
    new_file b wrr 10.0.1.2:80=5 10.0.1.2:8080=1
}

# plan_says NAME CODE: and what it says.
plan_says() {
    local code=0
    directorctl plan "$SCRATCH/$1.toml" || code=$?
    equal $code "$2"
}

# Whether the file is what runs.
runs() {
    directorctl plan "$SCRATCH/$1.toml"
}

apply() {
    directorctl apply "$SCRATCH/$1.toml" "${@:2}"
}

# How many of the answers in KEPT are of a server.
kept_of() {
    tr ' ' '\n' <<<"$KEPT" | grep -c "^$1\$"
}

# ---- under traffic ----------------------------------------------------------------------------------

# What the plan says of connections is what happens.
files_apply() {
    apply a
    runs a
    keep 12 "http://$VIP/"
    local before=$KEPT plan
    equal "$(kept_of rs1) $(kept_of rs2)" '6 6'
    plan=$(plan_says b 2)
    grep -Fx "~ tcp $VIP:80: scheduler \"rr\" -> \"wrr\"" <<<"$plan"
    grep -Fx '    - server 10.0.1.1:80: 6 connections are cut' <<<"$plan"
    grep -Fx '    ~ server 10.0.1.2:80: weight 1 -> 5' <<<"$plan"
    grep -Fx '    + server 10.0.1.2:8080' <<<"$plan"
    grep -Fx '6 connections are kept, 6 are cut' <<<"$plan"
    runs a
    apply b
    runs b
    ask_kept
    equal "$KEPT" "${before//rs1/-}"
    let_go
    equal "$(answers 6)" 'rs2 rs2 rs2 rs2 rs2 rs2 '
}

# Back and forth while many short connections come to what stays, and long ones wait.
files_under_load() {
    apply a
    keep 12 "http://$VIP/"
    local before=$KEPT load rounds=0
    ip netns exec "$LAB-client" "$SCRIPTS/http-load" 2000 50 "http://$VIP:8080/" &
    load=$!
    until gone $load; do
        apply b >"$SCRATCH/said"
        apply a >"$SCRATCH/said"
        rounds=$((rounds + 1))
    done
    wait $load || die "a connection of an unchanged service broke"
    [ $rounds -ge 2 ] || die "no load while files were applied"
    runs a
    ask_kept
    equal "$KEPT" "$before"
    let_go
}

files_confirm() {
    apply a
    keep 12 "http://$VIP/"
    local before=$KEPT
    apply b --confirm 3 | grep -Fx 'applied for 3 s: directorctl confirm keeps it, directorctl rollback goes back'
    runs b
    ! apply a 2>"$SCRATCH/said" || die "applied while another file waits"
    grep -F 'b.toml was applied and waits for its confirmation' "$SCRATCH/said"
    wait_for 8 runs a || die "not rolled back"
    ask_kept
    equal "$KEPT" "$before"
    apply b --confirm 600
    directorctl rollback
    runs a
    ask_kept
    equal "$KEPT" "$before"
    apply b --confirm 600
    directorctl confirm
    ! directorctl rollback 2>"$SCRATCH/said" || die "rolled back what is confirmed"
    runs b
    let_go
}

files_reload() {
    local pid
    pid=$(cat "$STATE/director.pid")
    apply a
    cp "$SCRATCH/b.toml" "$STATE/director.toml"
    kill -HUP "$pid"
    wait_for 5 runs b || die "not read again"
    echo 'nonsense' >>"$STATE/director.toml"
    kill -HUP "$pid"
    wait_for 5 grep -q 'SIGHUP changes nothing' "$STATE/director.log" || die "no complaint"
    runs b
    cp "$SCRATCH/start.toml" "$STATE/director.toml"
    kill -HUP "$pid"
    wait_for 5 runs start || die "not read again after a mistake"
}

files_save() {
    # The lab's directorctl has no directord beside it.
    local PATH=$PATH:${DIRECTORD%/*}
    apply a
    ipvsadm -e -t "$VIP:80" -r 10.0.1.1:80 -m -w 9
    plan_says a 2 | grep -Fx '    ~ server 10.0.1.1:80: weight 9 -> 1 (9 by hand)'
    directorctl save "$SCRATCH/saved.toml"
    directorctl check "$SCRATCH/saved.toml"
    runs saved
    directorctl save | cmp - "$SCRATCH/saved.toml"
    apply a
    plan_says saved 2
    echo nonsense >"$SCRATCH/wrong.toml"
    ! directorctl check "$SCRATCH/wrong.toml" 2>"$SCRATCH/checked" || die "valid nonsense"
    ! directorctl plan "$SCRATCH/wrong.toml" 2>"$SCRATCH/planned" || die "planned nonsense"
    equal "$(cut -d ' ' -f 2- "$SCRATCH/planned")" "$(cut -d ' ' -f 2- "$SCRATCH/checked")"
}

# ---- all of it --------------------------------------------------------------------------------------

# files WORKERS
files() {
    WORKERS=$1
    local with="$1 worker(s)"
    check "lab d starts for files with $with" lab_up --topology d --workers "$1"
    [ -e "$STATE/env" ] || return 0
    # shellcheck source=/dev/null
    . "$STATE/env"
    MBUFS_AT_START=$(status_field mbufs_in_use) || MBUFS_AT_START=0
    new_files
    with_services "a file is planned and applied, $with" files_apply
    with_services "files are applied under load, $with" files_under_load
    with_services "what is not confirmed goes back, $with" files_confirm
    with_services "SIGHUP, $with" files_reload
    with_services "what runs is saved, $with" files_save
    check "every packet accounted for after files, $with" accounting
}
