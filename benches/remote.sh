#!/bin/sh
# Measures syncs across hosts, both ends on this machine, for the page docs/internals/benchmarks.md.
#
#   benches/remote.sh                     all of it, with disks of 4 GiB; an hour, most of it for slow peers
#   SIZE=256M RUNS=1 benches/remote.sh    a quick look at whether it works
#   benches/remote.sh line hot            only these parts (those of remote.py)
#
# SIZE   length of the disks (4G)
# RUNS   how often everything is timed; medians are shown (3)
# DIR    where the disks lie while it runs (${TMPDIR:-/var/tmp}/diskdelta-bench); removed at the
#        end. It needs room for four times SIZE, and memory for three times SIZE in the page cache.
# OUT    where the table goes (docs); what was measured goes to OUT/benchmarks-remote.tsv
set -eu

. "$(dirname "$0")/prepare.sh"
runs=${RUNS:-3}

python3 benches/remote.py --size "$size" --runs "$runs" --dir "$dir" \
    --diskdelta "$target/release/diskdelta" --bare "$target/release/examples/bare" \
    --docs "$out" "$@"
