#!/bin/sh
# Measures the downtime of a failback and the one that its plan foretells, for the page
# docs/internals/benchmarks.md. The VMs are the scripts of the tests; a program writes to their
# disk.
#
#   benches/failback.sh                     all modes, with a disk of 2 GiB; ten minutes
#   SIZE=256M RUNS=1 benches/failback.sh    a quick look at whether it works
#
# SIZE   length of the disk (2G)
# RUNS   how often each mode is run; medians are shown (5)
# DIR    where the disks lie while it runs (${TMPDIR:-/var/tmp}/diskdelta-bench); removed at the
#        end. It needs room for four times SIZE, and memory for three times SIZE in the page cache.
# OUT    where the table goes (docs); what was measured goes to OUT/benchmarks-failback.tsv
set -eu

SIZE=${SIZE:-2G}
. "$(dirname "$0")/prepare.sh"
runs=${RUNS:-5}

python3 benches/failback.py --size "$size" --runs "$runs" --dir "$dir" \
    --diskdelta "$target/release/diskdelta" --docs "$out"
