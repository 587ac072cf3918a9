# shellcheck shell=bash disable=SC2034 # what is unused here, the scripts use
# Sourced by every script: paths, messages, waiting, and the way into the lab's namespaces.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SCRIPTS=$ROOT/scripts
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
# The daemon and the command line that the lab runs.
DIRECTORD=${DIRECTORD:-$TARGET/release/directord}
DIRECTORCTL=${DIRECTORCTL:-$TARGET/release/directorctl}
# For LD_PRELOAD: what speaks to the kernel's IPVS gets the director.
PRELOAD=${PRELOAD:-$TARGET/release/libdirector_ipvs.so}
# Namespaces are called $LAB-client, $LAB-rs1, …; two labs with different names do not meet.
LAB=${LAB:-dlab}
STATE=/run/$LAB
# Where servers of the lab expect GUE.
GUE_PORT=6080

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

heading() {
    printf '\n== %s\n' "$*"
}

need_root() {
    [ "$(id -u)" = 0 ] || die "needs root, for network namespaces and veth pairs"
}

now_ms() {
    echo $(("${EPOCHREALTIME/./}" / 1000))
}

# wait_for SECONDS COMMAND…: until COMMAND succeeds; fails when the time is over.
wait_for() {
    local deadline=$(($(now_ms) + $1 * 1000))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$(now_ms)" -lt $deadline ] || return 1
        sleep 0.05
    done
}

# Whether a process has ended; one that only waits to be reaped has.
gone() {
    ! grep -q '^State:[[:space:]]*[^ZX]' "/proc/$1/status" 2>/dev/null
}

# in_lab NAME COMMAND…: in one of the lab's namespaces (client, dir, rs1, …). Not for the background:
# $! would be a shell's; `ip netns exec` itself becomes the command.
in_lab() {
    local name=$1
    shift
    ip netns exec "$LAB-$name" "$@"
}

# Ends the processes named by id: politely, after three seconds for good.
end_pids() {
    local pid
    for pid in "$@"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "$@"; do
        wait_for 3 gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
    done
}

build_release() {
    (cd "$ROOT" && cargo build --quiet --release -p dataplane -p ctl -p director-ipvs)
}

# The IPv6 address beside an IPv4 address of a lab with both: fd00:N::H for 10.N.0.H.
v6_of() {
    local n=${1#10.}
    echo "fd00:${n%%.*}::${1##*.}"
}

v6_network() {
    local n=${1#10.}
    echo "fd00:${n%%.*}::/64"
}
