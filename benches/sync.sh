#!/bin/sh
# Measures everything that docs/internals/benchmarks.md shows, and writes it there.
#
#   benches/sync.sh                     all of it, with images of 4 GiB; an hour or two
#   SIZE=256M RUNS=1 benches/sync.sh    a quick look at whether it works
#   benches/sync.sh sweep full          only these parts (those of measure.py)
#
# SIZE   length of the dense images (4G); the sweep and the data of the sparse images take a quarter
# RUNS   how often everything is run; medians are shown (5)
# DIR    where the images lie while it runs (${TMPDIR:-/var/tmp}/diskdelta-bench); removed at the
#        end. It needs room for six times SIZE, and memory for four times SIZE in the page cache.
# OUT    where the table and the plot go (docs); what was measured goes to OUT/benchmarks.tsv
set -eu

. "$(dirname "$0")/prepare.sh"
runs=${RUNS:-5}

python3 benches/measure.py --size "$size" --runs "$runs" --dir "$dir" \
    --diskdelta "$target/release/diskdelta" --bare "$target/release/examples/bare" \
    --tsv "$out/benchmarks.tsv" "$@"
python3 benches/plot.py --docs "$out" "$out/benchmarks.tsv"
