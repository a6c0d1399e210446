#!/usr/bin/env bash
# A laptop and the hosts of a cluster on one machine. Each has its own network, processes, mounts, /root, /tmp, /run and
# /dev/shm; the hosts have an sshd, the laptop has their key, and /mnt/shared is one folder that all hosts see.
#   hosts.sh laptop STATE HOSTS [PATH...]
# To be run by `unshare --mount --pid --ipc --uts --net --fork --kill-child`: it ends with that process, and nothing is
# left. HOSTS hosts get the addresses 10.77.0.11 and up. STATE/NAME is a machine's disk; STATE/ready is no longer empty
# once all hosts answer. The PATHs (an interpreter, packages) can be read everywhere, also if below /root or /tmp.
set -euo pipefail
what=$1 state=$2 which=$3
visible=("${@:4}")

become() { # NAME: what this process sees is the machine of this name
    local disk=$state/$1 path
    hostname "$1"
    mount --make-rprivate /
    mkdir -p "$disk"/{root/.ssh,tmp,run/sshd,mnt/shared}
    : >"$disk/nameservers" # there are none: names that are not known are so at once, and not after ten seconds
    mount --bind "$disk/nameservers" "$(readlink -f /etc/resolv.conf)"
    for path in "${visible[@]}"; do
        local at=$path
        if [[ $path == /root/* || $path == /tmp/* ]]; then
            at=$disk$path
            mkdir -p "$at"
        fi
        mount --bind "$path" "$at"
        mount -o remount,bind,ro "$at"
    done
    [[ $1 == laptop ]] || mount --bind "$state/shared" "$disk/mnt/shared"
    for path in /mnt /run /root /tmp; do mount --rbind "$disk$path" $path; done # /tmp last: STATE may lie there
    mount -t tmpfs tmpfs /dev/shm
    mount -t proc proc /proc
    ip link set lo up
    cd /root
}

host() {
    become "host$which"
    until ip link show eth0 &>/dev/null; do sleep 0.05; done
    ip addr add "10.77.0.1$which/24" dev eth0
    ip link set eth0 up
    ip route add default via 10.77.0.1 # Ray takes the address of this route as its own
    exec /usr/sbin/sshd -D -e -f /root/.ssh/sshd_config
}

laptop() {
    local number home
    mount -t proc proc /proc
    mkdir -p "$state"/{shared,laptop/root/.ssh}
    ssh-keygen -q -t ed25519 -N '' -f "$state/laptop/root/.ssh/id_ed25519"
    exec 3>"$state/ready"
    ip link add switch type bridge
    ip addr add 10.77.0.1/24 dev switch
    ip link set switch up
    for number in $(seq "$which"); do
        home=$state/host$number/root
        mkdir -p "$home/.ssh"
        cp "$state/laptop/root/.ssh/id_ed25519.pub" "$home/.ssh/authorized_keys"
        ssh-keygen -q -t ed25519 -N '' -f "$home/.ssh/hostkey"
        printf '%s\n' 'HostKey /root/.ssh/hostkey' 'PasswordAuthentication no' 'UsePAM no' 'StrictModes no' \
            'PidFile none' >"$home/.ssh/sshd_config"
        unshare --mount --pid --ipc --uts --net --fork --kill-child \
            "$0" host "$state" "$number" "${visible[@]}" &>"$state/host$number.log" 3>&- &
        echo $! >"$state/host$number.pid"
        while [[ $(readlink /proc/$!/ns/net) == "$(readlink /proc/self/ns/net)" ]]; do sleep 0.05; done
        ip link add "port$number" type veth peer name eth0 netns $!
        ip link set "port$number" master switch up
    done
    become laptop
    for number in $(seq "$which"); do
        until ssh -o StrictHostKeyChecking=no -o LogLevel=ERROR -o ConnectTimeout=1 "10.77.0.1$number" true; do
            sleep 0.1
        done 2>/dev/null
    done
    echo ready >&3
    exec sleep infinity
}

"$what"
