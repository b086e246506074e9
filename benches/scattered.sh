#!/bin/bash
# Syncs a disk of which every other page changes, 4.5 million of them, and prints time and peak memory of each
# way. Root; takes a loop device with XFS, and about 6 GiB of space.
#
#   benches/scattered.sh target/release/diskdelta [PIECES [DIRECTORY]]
#
# The target is one piece of 64 MiB, reflinked again and again, with every other page full; the source is a hole.
set -eu
command=$(realpath "$1"); pieces=${2:-550}; home=$(mktemp -d -p "${3:-/var/tmp}")
mkdir "$home/m"; truncate -s 16G "$home/fs"; mkfs.xfs -q -m reflink=1 "$home/fs"; mount -o loop "$home/fs" "$home/m"
trap 'cd /; umount "$home/m"; rm -rf "$home"' EXIT
cd "$home/m"
head -c 4096 /dev/zero | tr '\0' A > pair; truncate -s 8192 pair
for _ in $(seq 13); do cat pair pair > more; mv more pair; done
truncate -s $((pieces << 26)) source.raw
echo "$((pieces * 8192)) scattered pages, $((pieces / 16)) GiB"
fresh() {
    rm -f target.raw; truncate -s 0 target.raw
    for at in $(seq 0 $((pieces - 1))); do echo "reflink pair 0 $((at << 26)) $((64 << 20))"; done | xfs_io target.raw >/dev/null
}
run() {
    local name=$1; shift
    /usr/bin/time -q -f "$name: %e s, %M KiB" "$command" sync --quiet --mode delta "$@" source.raw target.raw || echo "$name: status $?"
}
fresh; run atomic
fresh; run in-place --safety in-place
# The log of a run that was stopped is taken over by the next one.
fresh; timeout -s INT 20 "$command" sync --quiet --mode delta source.raw target.raw || true
run resumed
# A target manifest that is new, then one that stands for reading the target.
fresh; run manifest --target-manifest kept.manifest
