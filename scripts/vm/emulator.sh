# shellcheck shell=bash
# The emulator, for `image` and `vm`.

# emulate IMAGE snapshot=on|off FORWARD CONSOLE OPTION...: without KVM, which may hang where it is nested. Its two
# processors take turns in one thread, which costs a quarter of the time: before 8.1 QEMU translates code without a lock, so
# that a processor may keep the breakpoint that the other one's kernel puts where it changes itself (a first quota of CPU
# time, CRIU's perf events), and the kernel dies of it. The network ends at this machine, but for one forwarded port. A kernel
# that panics ends the emulator. Left out is what an emulator pays for at each access to memory or change of context, and no
# test looks at: a fifth level of page tables, protection keys, and the kernel's own guard against user memory. Call it in a
# subshell: it becomes the emulator, so that who ends the one ends the other.
emulate() {
	local image=$1 snapshot=$2 forward=${3:+,$3} console=$4
	shift 4
	exec qemu-system-x86_64 -name lxcrun-vm -machine q35 -accel tcg,thread=single -cpu max,-la57,-smap,-pku -smp 2 -m 3072 \
		-kernel "$image/vmlinuz" -initrd "$image/initrd.img" \
		-append 'root=/dev/vda rw console=ttyS0 panic=-1 oops=panic mitigations=off' \
		-drive "file=$image/disk,if=virtio,format=raw,$snapshot,cache=unsafe" \
		-netdev "user,id=net,restrict=on$forward" -device virtio-net-pci,netdev=net -device virtio-rng-pci \
		-nodefaults -no-reboot -display none -serial "file:$console" "$@"
}

# await_ready PID CONSOLE: until the machine says that all is up. Else, with an error, the emulator's end or a deadline,
# which is that of a machine on which much else is going on.
await_ready() {
	# The pipe's status tells only who was first.
	timeout --foreground 900 tail --pid="$1" -n +1 -F "$2" 2>/dev/null | grep -q -m1 'vm: ready' || true
	grep -q 'vm: ready' "$2" || {
		tail -n 40 "$2" >&2
		return 1
	}
}
