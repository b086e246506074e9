#!/bin/sh
# A VM that is a directory: `running`, `fenced` and `gone` say what it is, `track.TOKEN` what its
# guest wrote since, disk.* is its disk, test-disk that of a test. $REMOTE stands before the
# addresses of its disks, and `address` in their place.
set -e
cd "$1"
verb=$2
request=$(cat)
text() { printf '%s' "$request" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
flag() { printf '%s' "$request" | grep -q "\"$1\":true"; }

echo "$verb $DISKDELTA_TOKEN" >> calls
[ ! -e record ] || printf '%s\n' "$request" >> requests
if [ -e broken ]; then
    echo "the hypervisor does not answer" >&2
    exit 1
fi
if [ -e slow ]; then
    sleep "$(cat slow)"
fi

newest=$(cat token 2>/dev/null || echo 0.0)
epoch=${DISKDELTA_TOKEN%.*} sequence=${DISKDELTA_TOKEN#*.}
if [ "$DISKDELTA_TOKEN" != 0.0 ]; then
    if [ "$epoch" -lt "${newest%.*}" ] ||
        { [ "$epoch" -eq "${newest%.*}" ] && [ "$sequence" -lt "${newest#*.}" ]; }; then
        echo "too late: $newest was seen already" >&2
        exit 1
    fi
    echo "$DISKDELTA_TOKEN" > token
fi

disk=$(cat disk-name)
seen() {
    [ -e gone ] && exists=false || exists=true
    [ -e running ] && running=true || running=false
    [ -e fenced ] && fenced=true || fenced=false
    echo "{\"exists\": $exists, \"running\": $running, \"fenced\": $fenced}"
}

case $verb in
inspect) ;;
create) rm -f gone ;;
fence) : > fenced ;;
unfence) rm -f fenced ;;
start)
    if [ ! -e fenced ] && [ ! -e gone ] && [ -e "$disk" ]; then
        : > running
        sha256sum < "$disk" >> boots
    fi
    ;;
shut-down) rm -f running ;;
retire)
    rm -f running
    : > gone
    flag discard_disks && rm -f "$disk"
    ;;
arm-tracking)
    keep=$(text keep)
    for file in track.*; do
        [ "$file" = "track.$keep" ] || rm -f "$file"
    done
    : > "track.$DISKDELTA_TOKEN"
    : > recording
    ;;
start-test)
    copy=$(printf '%s' "$request" | sed -n 's/.*"blocked_disks":\[\["[^"]*","\([^"]*\)".*/\1/p')
    cp "$copy" test-disk
    sha256sum < test-disk > tested
    [ ! -e mistaken ] || : > running
    ;;
stop-test) rm -f test-disk ;;
snapshot) cp "$disk" "snapshot-$disk" ;;
release) rm -f "snapshot-$disk" ;;
changes-since)
    since=$(text since)
    if [ -n "$since" ] && { [ ! -e "track.$since" ] || [ -e notrack ]; }; then
        echo '{"tracking_lost": true}'
        exit
    fi
    place=$disk
    if flag from_snapshot; then
        place=snapshot-$disk
        if [ ! -e "$place" ]; then
            echo '{"snapshot_lost": true}'
            exit
        fi
    else
        rm -f recording
    fi
    changed=
    if [ -n "$since" ]; then
        changed=", \"changed\": [$(paste -sd, "track.$since")]"
    fi
    address=$REMOTE$PWD/$place
    if [ -e address ]; then
        address=$(cat address)
    fi
    echo "{\"disks\": [{\"identity\": \"$DISKDELTA_VM-system\"," \
        "\"address\": \"$address\"$changed}]}"
    exit
    ;;
*) exit 2 ;;
esac
seen
