# Read by sync.sh and remote.sh, which say what the variables mean: takes them, builds what is
# measured, and makes the directory that goes at the end.

cd "$(dirname "$0")/.."
size=${SIZE:-4G}
dir=${DIR:-${TMPDIR:-/var/tmp}/diskdelta-bench}
out=${OUT:-docs/internals}
target=${CARGO_TARGET_DIR:-target}

cargo build --release --features full --bin diskdelta
cargo build --release --features testing --example bare
mkdir -p "$out"
mkdir "$dir" || {
    echo "remove $dir first, or name another directory: DIR=..." >&2
    exit 1
}
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM HUP
