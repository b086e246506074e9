#!/bin/sh
# Measures syncs from a web server a long way off: nginx behind a proxy that delays every byte.
#
#   benches/reach.sh                     all of it, with a disk of 4 GiB
#   SIZE=64M RUNS=1 benches/reach.sh     a quick look at whether it works
#   benches/reach.sh 30                  only with this round trip, in ms
#
# SIZE, RUNS, DIR, OUT are those of benches/remote.sh. It needs nginx, curl, python3, and for the
# programs next to it nbdkit with its curl plugin, nbdcopy and qemu-img; those that are missing are
# left out, and named. The table goes to OUT/benchmarks-reach.tsv.
set -eu

. "$(dirname "$0")/prepare.sh"
runs=${RUNS:-3}

python3 benches/reach.py --size "$size" --runs "$runs" --dir "$dir" \
    --diskdelta "$target/release/diskdelta" --docs "$out" "$@"
