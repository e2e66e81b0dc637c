# The init of a sandbox: pid 1 of namespaces of its own. It ends, and takes all with it, when its input does.
# With systemd it has the machine's pids, by which one asks systemd.
set -eu
cgroup=$1 runtime=$2 systemd=${3-}

read -r pid _ </proc/self/stat # as the machine counts: /proc is still the machine's
if [ "$systemd" ]; then
	mount --rbind /run /mnt
else
	mount -t proc proc /proc
fi
for fresh in /run /var/lib /var/tmp; do
	mount -t tmpfs tmpfs $fresh
done
if [ "$systemd" ]; then
	for kept in systemd dbus; do
		mkdir /run/$kept
		mount --bind /mnt/$kept /run/$kept
	done
	umount --lazy --recursive /mnt
fi
mount --make-rshared / # ours alone since unshare, and shared as systemd makes it
mkdir /run/etc /run/etc/upper /run/etc/temporary /run/lock /run/ids
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/temporary /etc
rm -rf /etc/docker /etc/containerd
case $runtime in */crun) ! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified ;; esac # it refuses both
ip link set lo up

# A new cpuset of cgroup v1 is empty: filled now, it is so for whichever container comes first.
if [ -e /sys/fs/cgroup/cpuset/cpuset.cpus ]; then
	cpuset=/sys/fs/cgroup/cpuset
	mkdir -p "$cpuset/$cgroup"
	for file in cpuset.cpus cpuset.mems; do
		cat "$cpuset/$file" >"$cpuset/$cgroup/$file"
	done
	echo 1 >"$cpuset/$cgroup/cgroup.clone_children"
fi

# The image that every test uses, as `docker save` would write it.
mkdir -p /run/image/rootfs
cd /run/image/rootfs
mkdir -m 755 bin etc proc sys dev root
mkdir -m 1777 tmp
cp "$(command -v busybox)" bin/
for applet in $(busybox --list); do
	[ "$applet" = busybox ] || ln -s busybox "bin/$applet"
done
printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'user:x:1000:1000:user:/:/bin/sh' >etc/passwd
printf '%s\n' 'root:x:0:' 'user:x:1000:' 'extra:x:2000:' >etc/group
cd ..
tar -C rootfs -cf layer.tar .
read -r digest _ < <(sha256sum layer.tar)
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
cat >config.json <<JSON
{"architecture": "$arch", "os": "linux", "created": "1970-01-01T00:00:00Z",
 "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$digest"]}}
JSON
echo '[{"Config": "config.json", "RepoTags": ["localhost/busybox:latest"], "Layers": ["layer.tar"]}]' >manifest.json
tar -cf image.tar manifest.json config.json layer.tar
if [[ $cgroup = cri[-_]* ]]; then # what Kubernetes runs in a pod's sandbox
	sed 's|"Cmd": \["sh"\]|"Cmd": ["sleep", "1000000"]|' config.json >pause.json
	echo '[{"Config": "pause.json", "RepoTags": ["localhost/pause:latest"], "Layers": ["layer.tar"]}]' >manifest.json
	tar -cf pause.tar manifest.json pause.json layer.tar
fi
rm -rf rootfs layer.tar

echo "$pid"
exec >/dev/null 2>&1
set +eu
read -r _

if [ "$systemd" ]; then
	systemctl stop "$cgroup*"
	exit
fi
kill -KILL -1
for _ in {1..200}; do
	mapfile -t left < <(find /sys/fs/cgroup -depth -type d \( -path "*/$cgroup" -o -path "*/$cgroup/*" \))
	((${#left[@]})) || break
	rmdir "${left[@]}"
	read -rt 0.02 <> <(:)
done
