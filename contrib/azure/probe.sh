#!/usr/bin/env bash
# Asks the real blob service what diskdelta assumes of it. Reads only; costs a few requests.
#
#   az snapshot grant-access ... --query accessSas -o tsv > new.url      (a later snapshot)
#   az snapshot grant-access ... --query accessSas -o tsv > old.url      (an earlier one, same disk)
#   contrib/azure/probe.sh new.url old.url
#
# Prints statuses, headers and the beginning of lists, and no address. Nothing of it could be tried
# without a subscription; what it prints belongs in a report.
set -euo pipefail

if [ $# -ne 2 ]; then
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
command -v curl >/dev/null || { echo "curl is missing" >&2; exit 2; }
new=$(tr -d '"\r\n ' <"$1")
old=$(tr -d '"\r\n ' <"$2")

# ask NAME PARAMETERS [HEADER...]: one request; the address goes to curl by standard input, so that
# it is in no list of processes.
ask() {
  local name=$1 parameters=$2 header
  shift 2
  printf '\n== %s\n' "$name"
  {
    printf 'url = "%s%s"\n' "$new" "$parameters"
    for header in "$@"; do
      printf 'header = "%s"\n' "$header"
    done
  } | curl -sS -K - -i --max-time 60 --max-filesize 1048576 2>&1 |
    tr -d '\r' | LC_ALL=C tr -c '\n\40-\176' '.' |
    grep -aiE '^(curl:|HTTP/|x-ms-(error|blob|request|version|content)|content-|etag|last-mod|accept|<|\.*<)' |
    cut -c1-600 | head -n 24 || true
}

v() { printf 'x-ms-version: %s' "$1"; }
first='x-ms-range: bytes=0-511'

ask "the first sector, without a version" "" "$first"
for version in 2020-10-02 2019-07-07 2017-11-09; do
  ask "version $version" "" "$(v $version)" "$first"
done
ask "CRC-64 of a range" "" "$(v 2020-10-02)" "$first" "x-ms-range-get-content-crc64: true"
ask "MD5 of a range" "" "$(v 2017-11-09)" "$first" "x-ms-range-get-content-md5: true"
ask "a condition (refused, or ignored?)" "" "$(v 2020-10-02)" "$first" 'If-Match: \"0x0\"'
ask "page ranges, three a page" "&comp=pagelist&maxresults=3" "$(v 2020-10-02)"
ask "page ranges of 4 MiB" "&comp=pagelist" "$(v 2019-07-07)" "x-ms-range: bytes=0-4194303"
ask "changes, by the address of the older snapshot" "&comp=pagelist&maxresults=9" \
  "$(v 2020-10-02)" "x-ms-previous-snapshot-url: $old"
ask "changes since a snapshot that never was (must be refused)" \
  "&comp=pagelist&prevsnapshot=1990-01-01T00:00:00.0000000Z" "$(v 2020-10-02)"
ask "a range behind the end (416?)" "" "$(v 2020-10-02)" \
  "x-ms-range: bytes=70368744177664-70368744178175"
