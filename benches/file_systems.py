#!/usr/bin/env python3
"""Measures syncs on file systems of their own, as loop mounts: ext4, XFS, btrfs, tmpfs.

    benches/file_systems.py PROGRAM [--size MIB] [--runs N] [--dir DIR] [--other PROGRAM]

Needs root. Every contender runs once unmeasured, then N times in turn, each on a target made anew;
what it left unwritten is synced, and counts. Medians of wall time and of CPU time (user and system)
are printed as a table of Markdown. `--other` is another build of the command, run beside it.
"""

import argparse
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

PAGE = 4096
MIB = 1 << 20


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=Path)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the disks")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp/diskdelta-file-systems"))
    parser.add_argument("--only", nargs="*", default=["ext4", "xfs", "btrfs", "tmpfs"])
    arguments = parser.parse_args()
    print("| file system | work | contender | median s | CPU s | least to most s |")
    print("| --- | --- | --- | ---: | ---: | --- |")
    for kind in arguments.only:
        with Mounted(arguments.dir, kind, arguments.size) as point:
            measure(arguments, kind, point)


class Mounted:
    """A file system of its own, with room for seven disks."""

    def __init__(self, directory, kind, size):
        self.directory, self.kind, self.size = directory, kind, size * 7 + 1024
        self.point = directory / "mount"

    def __enter__(self):
        self.point.mkdir(parents=True, exist_ok=True)
        if self.kind == "tmpfs":
            run(["mount", "-t", "tmpfs", "-o", f"size={self.size}M", "none", self.point])
            return self.point
        under = self.directory / "under"
        with open(under, "wb") as file:
            file.truncate(self.size * MIB)
        options = {"ext4": ["-q", "-F"], "xfs": ["-q", "-f", "-m", "reflink=1"], "btrfs": ["-q", "-f"]}
        run([f"mkfs.{self.kind}", *options[self.kind], under])
        run(["mount", "-o", "loop", under, self.point])
        return self.point

    def __exit__(self, *_):
        run(["umount", self.point])
        shutil.rmtree(self.directory)


def measure(arguments, kind, point):
    source, old, target = point / "source", point / "old", point / "target"
    programs = {"diskdelta": arguments.program.resolve()}
    if arguments.other:
        programs["other build"] = arguments.other.resolve()
    clones = kind in ("xfs", "btrfs")
    rng = random.Random(1)
    block = rng.randbytes(MIB)
    with open(old, "wb") as file:
        for at in range(arguments.size):
            file.write(block[at % 4096:] + block[:at % 4096])
    shutil.copy(old, source)
    with open(source, "r+b") as file:
        pages = arguments.size * MIB // PAGE
        for page in rng.sample(range(pages), pages // 100):
            file.seek(page * PAGE)
            file.write(rng.randbytes(PAGE))
    run(["sync", "-f", point])

    def ours(*words):
        def contender(program):
            return [program, "sync", source, target, "--json", *words]
        return [(name, contender(program)) for name, program in programs.items()]

    def race(work, contenders):
        for name, seconds, cpu in turns(arguments.runs, contenders, old, target, point):
            spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
            middle, busy = statistics.median(seconds), statistics.median(cpu)
            print(f"| {kind} | {work} | {name} | {middle:.3f} | {busy:.2f} | {spread} |", flush=True)

    def named(label, pairs):
        return [(f"{name}, {label}", words) for name, words in pairs]

    delta = ["--mode", "delta"]
    race("1 % changed", named("auto", ours())
         + named("delta, atomic", ours(*delta))
         + (named("delta, --clone never", ours(*delta, "--clone", "never")[:1]) if clones else [])
         + named("delta, in place", ours(*delta, "--safety", "in-place")))
    copy = f"cp --reflink={'always' if clones else 'never'} {source} {target}.n"
    race("full copy, not verified", named("full", ours("--mode", "full", "--verify", "none"))
         + [("cp + sync + mv", ["sh", "-c", f"{copy} && sync {target}.n && mv {target}.n {target}"])])
    vhdx = point / "source.vhdx"
    run([programs["diskdelta"], "sync", source, vhdx, "--json"], quiet=True)
    def expand(*words):
        return [(f"{name}{''.join(words and (', ',) + words[-2:])}",
                 [program, *words, "sync", vhdx, target, "--json", "--mode", "full", "--verify", "none"])
                for name, program in programs.items()]
    convert = f"qemu-img convert -W -m 16 -O raw {vhdx} {target}.n"
    qemu = f"{convert} && sync {target}.n && mv {target}.n {target}"
    contenders = expand() + expand("--threads", "2")
    if shutil.which("qemu-img"):
        contenders += [("qemu-img convert -W -m 16", ["sh", "-c", qemu])]
    race("VHDX to raw", contenders)
    if clones:
        fragments(programs["diskdelta"], kind, source, old, target, rng)


def fragments(program, kind, source, old, target, rng):
    """How many extents a target has after many syncs onto clones, and without them."""
    for label, words in [("clones", []), ("log", ["--clone", "never"])]:
        shutil.copy(old, target)
        for _ in range(100):
            with open(source, "r+b") as file:
                pages = os.path.getsize(source) // PAGE
                for page in rng.sample(range(pages), max(1, pages // 1000)):
                    file.seek(page * PAGE)
                    file.write(rng.randbytes(PAGE))
            run([program, "sync", source, target, "--mode", "delta", "--verify", "none", *words],
                quiet=True)
        said = subprocess.run(["filefrag", target], capture_output=True, text=True).stdout
        print(f"| {kind} | 100 syncs of 0.1 % | {label}: extents | {said.split(':')[-1].split()[0]} | | |")


def turns(runs, contenders, old, target, point):
    """Runs the contenders in turn; name, wall times and CPU times of each."""
    taken = [(name, [], []) for name, _ in contenders]
    for turn in range(runs + 1):
        for (name, words), (_, seconds, cpu) in zip(contenders, taken):
            shutil.copyfile(old, target)
            run(["sync", "-f", point])
            before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            run(words, quiet=True)
            ended, after = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
            if turn > 0:
                seconds.append(ended - started)
                cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return taken


def run(words, quiet=False):
    out = subprocess.DEVNULL if quiet else None
    done = subprocess.run([str(word) for word in words], stdout=out, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))}: status {done.returncode}")


if __name__ == "__main__":
    main()
