#!/bin/sh
# isolated.sh COMMAND…: runs it with cgroups, mounts, a network and processes of its own, so that a suite that
# looks at the whole host isn't disturbed by what else runs there. For hosts with cgroup v1 hierarchies; as root.
set -e
name=isolated-$$

clean_up() {
    for dir in /sys/fs/cgroup/*/; do
        echo $$ >"${dir}cgroup.procs"
        find "$dir$name" -depth -type d -exec rmdir {} \;
    done
}

for dir in /sys/fs/cgroup/*/; do
    mkdir "$dir$name"
    if [ -e "$dir$name/cpuset.cpus" ]; then
        cat "${dir}cpuset.cpus" >"$dir$name/cpuset.cpus"
        cat "${dir}cpuset.mems" >"$dir$name/cpuset.mems"
    fi
    echo $$ >"$dir$name/cgroup.procs"
done

# All processes end with unshare, and unshare with this script.
unshare --mount --propagation private --cgroup --net --pid --fork --kill-child --mount-proc sh -c '
    for dir in /sys/fs/cgroup/*/; do
        controller=$(basename "$dir")
        case $controller in
        unified) options="-t cgroup2" ;;
        systemd) options="-t cgroup -o none,name=systemd" ;;
        *) options="-t cgroup -o $controller" ;;
        esac
        umount "$dir"
        mount $options cgroup "$dir" || exit 1
    done
    if [ -d /run/lxc ]; then mount -t tmpfs tmpfs /run/lxc; fi
    ip link set lo up
    "$@"' sh "$@" &
trap 'kill $!' TERM INT HUP
status=0
wait $! || status=$?
trap - TERM INT HUP
wait $! || true
clean_up
exit $status
