#!/bin/sh
# Lays out what a package installs below DIR: program, man pages, completions, systemd unit, notices.
#
#   cargo build --release --features full
#   contrib/stage.sh DIR [PROGRAM]        PROGRAM is target/release/diskdelta unless it is named
set -eu

dir=${1:?a directory is needed}
cd "$(dirname "$0")/.."
program=${2:-${CARGO_TARGET_DIR:-target}/release/diskdelta}

install -D -m 755 "$program" "$dir/usr/bin/diskdelta"
mkdir -p "$dir/usr/share/man/man1"
"$program" man --dir "$dir/usr/share/man/man1"
for page in "$dir"/usr/share/man/man1/*.1; do
    gzip -9nf "$page"
done
completions() {
    mkdir -p "$(dirname "$dir/$2")"
    "$program" completions "$1" >"$dir/$2"
}
completions bash usr/share/bash-completion/completions/diskdelta
completions zsh usr/share/zsh/vendor-completions/_diskdelta
completions fish usr/share/fish/vendor_completions.d/diskdelta.fish
for unit in diskdelta-recover.service diskdelta-failback.service; do
    install -D -m 644 "contrib/$unit" "$dir/usr/lib/systemd/system/$unit"
done
install -D -m 755 contrib/failback-metrics "$dir/usr/share/doc/diskdelta/failback-metrics"
for file in README.md CHANGELOG.md NOTICES.md LICENSE-MIT LICENSE-APACHE; do
    install -D -m 644 "$file" "$dir/usr/share/doc/diskdelta/$file"
done
