# shellcheck shell=bash disable=SC2153,SC2154 # scripts/e2e has the rest, addresses are the lab's
# Sourced by scripts/e2e: FTP by NAT with a real server and client, in lab "all": every way to open a
# data connection, in both families.

# ---- servers and clients ----------------------------------------------------------------------------

# What servers tell apart, and what they have in common.
ftp_files() {
    local dir=$STATE/$1/ftp
    mkdir -p "$dir"
    echo "$1" >"$dir/name"
    [ -e "$STATE/ftp-big" ] || head -c 20000000 /dev/urandom >"$STATE/ftp-big"
    ln -f "$STATE/ftp-big" "$dir/big"
    chmod 555 "$dir"
}

ftp_config() {
    local dir=$STATE/$1
    cat <<END
listen=NO
listen_ipv6=YES
background=NO
anonymous_enable=YES
no_anon_password=YES
anon_root=$dir/ftp
nopriv_user=nobody
secure_chroot_dir=$dir/empty
connect_from_port_20=YES
seccomp_sandbox=NO
ftpd_banner=This is $1.
END
}

ftp_answers() {
    in_lab "$1" curl -fsS --max-time 2 ftp://127.0.0.1/name
}

start_ftp() {
    local name=$1 dir=$STATE/$1
    ftp_files "$name"
    mkdir -p "$dir/empty"
    ftp_config "$name" >"$dir/vsftpd.conf"
    in_lab "$name" vsftpd "$dir/vsftpd.conf" </dev/null >"$dir/vsftpd.log" 2>&1 &
    wait_for 5 ftp_answers "$name" || die "vsftpd of $name does not answer: $(cat "$dir/vsftpd.log")"
}

# ftp_get 4|6 FILE OPTION…: from the virtual address of that family. What PASV is told counts.
ftp_get() {
    local family=$1 file=$2
    shift 2
    in_lab client curl -fsS --max-time 20 --no-ftp-skip-pasv-ip "$@" \
        "ftp://$(bracketed "$(in_family "$family" "$VIP")")/$file"
}

# ---- what works -------------------------------------------------------------------------------------

ftp_starts() {
    local family n
    for n in 1 2; do start_ftp "rs$n"; done
    for family in 4 6; do
        VIP=$(in_family "$family" "$VIP") ftp_serve "$family"
    done
}

# ftp_serve FAMILY: both servers behind the VIP.
ftp_serve() {
    local host n
    host=$(bracketed "$VIP"):21
    ipvsadm -A -t "$host" -s rr
    for n in 1 2; do
        ipvsadm -a -t "$host" -r "$(bracketed "$(in_family "$1" "$(server_address "$n")")"):21" -m
    done
}

# ftp_way FAMILY OPTION…: a listing, a small file of each server, a big one.
ftp_way() {
    local family=$1 names n expected
    shift
    names=$(for n in 1 2 3 4; do ftp_get "$family" name "$@"; done | sort -u | tr '\n' ' ')
    equal "$names" 'rs1 rs2 '
    ftp_get "$family" '' "$@" | grep ' big'
    expected=$(sha256sum <"$STATE/ftp-big")
    equal "$(ftp_get "$family" big "$@" | sha256sum)" "$expected"
}

# The server's reply to PASV as the client sees it.
ftp_names_vip() {
    local says
    says=$(ftp_get 4 name --disable-epsv -v 2>&1)
    grep -E '^< 227 ' <<<"$says"
    grep -Eq "^< 227 .*\(${VIP//./,},[0-9]+,[0-9]+\)" <<<"$says"
}

# Only control connections are scheduled.
ftp_counts_sessions() {
    local n
    ipvsadm -Z
    for n in 1 2 3 4 5 6; do ftp_get 4 name >/dev/null; done
    ipvsadm -Ln --stats --exact
    n=$(ipvsadm -Ln --stats --exact -t "$VIP:21" | awk '$1 == "TCP" { print $3 }')
    equal "$n" 6
}

ftp() {
    local with="with $1 worker(s)"
    check "lab for FTP starts $with" lab_up --topology all --workers "$1"
    [ -e "$STATE/env" ] || return 0
    # shellcheck source=/dev/null
    . "$STATE/env"
    check "FTP servers $with" ftp_starts
    check "FTP, IPv4, PASV $with" ftp_way 4 --disable-epsv
    check "FTP, IPv4, EPSV $with" ftp_way 4
    check "FTP, IPv4, PORT $with" ftp_way 4 --ftp-port - --disable-eprt
    check "FTP, IPv4, EPRT $with" ftp_way 4 --ftp-port -
    check "FTP, IPv6, EPSV $with" ftp_way 6
    check "FTP, IPv6, EPRT $with" ftp_way 6 --ftp-port -
    check "FTP clients are told of the VIP $with" ftp_names_vip
    check "FTP counts control connections $with" ftp_counts_sessions
    check "FTP, every packet accounted for $with" wait_for 5 balanced
}
