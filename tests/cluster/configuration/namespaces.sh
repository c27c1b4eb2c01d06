# First process of the node's own mount, process and network namespaces: whatever runs or is mounted in them goes when
# it goes. Usage: namespaces.sh FOLDER
set -e
# containerd, kubelet and CNI keep their usual paths, which are not the machine's.
mkdir -p "$1/lib" "$1/sysctl"
mount --bind "$1/lib" /var/lib
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
# The kubelet writes these settings of the machine unless it finds them as it wants them: show them so, change nothing.
set_shown() {
    file="$1/sysctl/$(basename "$2")"
    echo "$3" > "$file"
    mount --bind "$file" "/proc/sys/$2"
}
set_shown "$1" vm/overcommit_memory 1
set_shown "$1" vm/panic_on_oom 0
set_shown "$1" kernel/panic 10
set_shown "$1" kernel/panic_on_oops 1
set_shown "$1" kernel/keys/root_maxkeys 1000000
set_shown "$1" kernel/keys/root_maxbytes 25000000
mount --make-rshared /
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
touch "$1/entered"
# A shell that waits also takes leave of the orphans that fall to the first process.
sleep infinity &
wait
