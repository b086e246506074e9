"""Measures the command beside other programs, turn by turn; called by sync.sh.

Every race runs all its contenders once unmeasured, which fills the page cache and where the peak
of anonymous memory is taken, and then RUNS times in turn, each time beginning with another one.
What a contender left unwritten in the page cache is written out before the next one starts, and
all of them end with their target synced. Each run is one row of the TSV; nothing is averaged here.
"""

import argparse
import csv
import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

PAGE = 4096
MIB = 1 << 20
CLUSTER_PAGES = 1024
FRACTIONS = [0, 0.1, 1, 5, 25, 50, 100]
COLUMNS = ["part", "case", "x", "contender", "run", "seconds", "rss_anon_kib",
           "changed_bytes", "written_bytes", "logged_bytes"]


def main():
    arguments = parse_arguments()
    bench = Bench(arguments)
    names = arguments.parts or list(PARTS)
    for name in names:
        PARTS[name](bench)
    bench.file.close()


class Bench:
    """What every part needs: programs, images, and where the rows go."""

    def __init__(self, arguments):
        self.size = arguments.size
        self.runs = arguments.runs
        self.dir = arguments.dir.resolve()
        self.program = str(arguments.diskdelta.resolve())
        self.bare_program = str(arguments.bare.resolve())
        self.images = Images(self.dir)
        self.file = open(arguments.tsv, "w", newline="")
        for key, value in machine(self.dir):
            self.file.write(f"# {key}\t{value}\n")
        self.file.write(f"# images\t{self.size >> 20} MiB, {self.runs} runs\n")
        self.rows = csv.DictWriter(self.file, COLUMNS, dialect="excel-tab", lineterminator="\n")
        self.rows.writeheader()

    def ours(self, *words, threads=2):
        return [self.program, "--threads", str(threads), "--json", *map(str, words)]

    def bare(self, *words):
        return [self.bare_program, *map(str, words)]

    def sync(self, source, target, mode, safety, *more, verify="none", threads=2):
        return self.ours("sync", source, target, "--mode", mode, "--safety", safety,
                         "--verify", verify, *more, threads=threads)

    def keeps_manifests(self):
        text = subprocess.run([self.program, "sync", "--help"], capture_output=True, text=True)
        return found("--target-manifest", "--target-manifest" in text.stdout)

    def race(self, part, case, contenders, x=""):
        """Runs the contenders in turn; each is a name and a function that returns a Turn."""
        print(f"{part}: {case}", file=sys.stderr, flush=True)
        for run in range(self.runs + 1):
            first = run % len(contenders)
            for name, turn in contenders[first:] + contenders[:first]:
                facts = {"part": part, "case": case, "x": x, "contender": name, "run": run}
                self.rows.writerow(facts | take(turn(), watching=run == 0))
        self.file.flush()


class Turn:
    """One run of one contender: commands, one after the other or all at once."""

    def __init__(self, *commands, prepare=None, after=None, at_once=False, good=(0,)):
        self.commands = commands
        self.prepare = prepare
        self.after = after
        self.at_once = at_once
        self.good = good


class Target:
    """A file that is brought from one image's contents to the other's and back."""

    def __init__(self, path, old, new):
        self.path = path
        self.sources = [old, new]

    def now(self):
        return self.sources[0]

    def other(self):
        return self.sources[1]

    def turn(self, *commands, prepare=None):
        return Turn(*commands, prepare=prepare, after=self.flip)

    def flip(self):
        self.sources.reverse()

    def check(self):
        """Whoever wrote last must have made the target what its source is."""
        subprocess.run(["cmp", self.path, self.now()], check=True)


class Images:
    """Makes images that are the same on every machine, and keeps one pair of them."""

    def __init__(self, directory):
        self.directory = directory
        self.key = None

    def pair(self, size, percent, clustered=False):
        """Old, new, and a target that holds the old one; dense, of random bytes."""
        paths = [self.directory / name for name in ("old.raw", "new.raw", "target.raw")]
        old, new, target = paths
        key = (size, percent, clustered)
        if key != self.key:
            self.forget()
            dense(old, size)
            copy(old, new)
            change(new, [(0, size)], percent, clustered)
            self.key = key
        copy(old, target)
        return Target(target, old, new)

    def forget(self):
        """Removes all images."""
        self.key = None
        for path in self.directory.iterdir():
            path.unlink()


def sweep(bench):
    """Delta against full over the changed fraction, at a quarter of the size."""
    kept = bench.keeps_manifests()
    for clustered in (False, True):
        for percent in FRACTIONS:
            target = bench.images.pair(bench.size // 4, percent, clustered)
            contenders = [
                (f"{mode}, {safety}", syncing(bench, target, mode, safety))
                for mode in ("delta", "full", "auto") for safety in ("atomic", "in-place")
            ]
            contenders.append(("default flags", syncing(bench, target, "auto", "atomic",
                                                        verify="written")))
            contenders.append(("cp + sync", lambda: target.turn(
                ["cp", "--sparse=always", target.other(), target.path], ["sync", target.path])))
            if kept:
                contenders.append(("target manifest", keeping(bench, target)))
            case = "clustered" if clustered else "scattered"
            bench.race("sweep", case, contenders, x=percent)
            target.check()


def compare(bench):
    """A sync in place of 1 % scattered pages against all that could stand in for it."""
    target = bench.images.pair(bench.size, 1)
    overlay = bench.dir / "overlay.qcow2"

    def rebase():
        def prepare():
            overlay.unlink(missing_ok=True)
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", target.other(),
                            "-F", "raw", overlay], check=True)
        return target.turn(
            ["qemu-img", "rebase", "-q", "-f", "qcow2", "-b", target.path, "-F", "raw", overlay],
            ["qemu-img", "commit", "-q", "-d", "-f", "qcow2", overlay],
            ["sync", target.path], prepare=prepare)

    contenders = [
        ("diskdelta", syncing(bench, target, "delta", "in-place")),
        ("diskdelta, verified", syncing(bench, target, "delta", "in-place", verify="written")),
        ("bare compare", lambda: Turn(bench.bare("compare", target.path, target.other()))),
        ("bare compare and write", lambda: target.turn(
            bench.bare("mend", target.path, target.other()))),
        ("cmp, equal files", lambda: Turn(["cmp", target.path, target.now()])),
    ]
    if installed("rsync"):
        contenders.append(("rsync", lambda: target.turn(
            ["rsync", "-I", "--inplace", "--no-whole-file", "-B", str(PAGE), target.other(),
             target.path], ["sync", target.path])))
    if installed("qemu-img"):
        contenders.append(("qemu-img rebase + commit", rebase))
    bench.race("compare", "1 % scattered", contenders)
    target.check()


def safety(bench):
    """What the redo log costs."""
    target = bench.images.pair(bench.size, 1)
    bench.race("safety", "1 % scattered", [
        (name + also, syncing(bench, target, "delta", name, verify=verify))
        for also, verify in (("", "none"), (", verified", "written"))
        for name in ("in-place", "atomic")
    ])
    target.check()


def kept(bench):
    """A sync against a target manifest against the manifest of its source alone."""
    if not bench.keeps_manifests():
        return
    target = bench.images.pair(bench.size, 1)
    bench.race("kept", "1 % scattered", [
        ("manifest of the source", lambda: building(bench, target.other())),
        ("sync", keeping(bench, target)),
    ])
    same = Target(target.path, target.now(), target.now())
    bench.race("kept", "unchanged", [
        ("manifest of the source", lambda: building(bench, same.other())),
        ("sync", keeping(bench, same)),
    ])


def manifest(bench):
    """A manifest against other programs that read and hash the same file."""
    image = bench.images.pair(bench.size, 1).now()
    contenders = [
        ("manifest", lambda: building(bench, image)),
        ("bare pread + BLAKE3", lambda: Turn(bench.bare("hash", image))),
    ]
    if installed("b3sum"):
        contenders.append(("b3sum", lambda: Turn(["b3sum", "--num-threads=2", image])))
    bench.race("manifest", "dense", contenders)


def cold(bench):
    """Two equal images that are not cached against two readers past the cache."""
    target = bench.images.pair(bench.size, 1)
    pair = [target.path, target.now()]

    def dropped(*commands, **more):
        return Turn(*commands, prepare=lambda: drop_caches(pair), **more)

    dd = [["dd", f"if={path}", "of=/dev/null", "iflag=direct", "bs=1M", "status=none"]
          for path in pair]
    same = (target.now(), target.path, "delta", "in-place")
    bench.race("cold", "equal images", [
        ("diskdelta", lambda: dropped(bench.sync(*same, threads=0))),
        ("diskdelta, 2 threads", lambda: dropped(bench.sync(*same))),
        ("diskdelta --direct", lambda: dropped(bench.sync(*same, "--direct", threads=0))),
        ("two dd iflag=direct", lambda: dropped(*dd, at_once=True)),
    ])


def full(bench):
    """A full copy onto a file that is there against cp."""
    target = bench.images.pair(bench.size, 1)
    bench.race("full", "dense", [
        ("full, atomic", syncing(bench, target, "full", "atomic")),
        ("full, in-place", syncing(bench, target, "full", "in-place")),
        ("full, atomic, verified", syncing(bench, target, "full", "atomic", verify="written")),
        ("cp + sync", lambda: target.turn(
            ["cp", "--sparse=always", target.other(), target.path], ["sync", target.path])),
    ])
    target.check()


def everything(bench):
    """All blocks changed: whether auto chooses right."""
    target = bench.images.pair(bench.size, 100)
    for name in ("atomic", "in-place"):
        bench.race("everything", name, [
            (mode, syncing(bench, target, mode, name)) for mode in ("auto", "delta", "full")
        ])
    target.check()


def sparse(bench):
    """Disks of which almost nothing is data against a dense one with as much of it."""
    bench.images.forget()
    data = bench.size // 4
    kinds = {
        "dense": Target(*spread(bench, "dense", data, data)),
        "4 TiB raw": Target(*spread(bench, "sparse", 4 << 40, data)),
        "2040 GiB VHD": Target(*containers(bench, 2040 << 30, data)),
    }
    race_kinds(bench, "sparse", kinds, ("manifest", "diff", "sync, {}"))
    bench.images.forget()


def vhdx(bench):
    """Dynamic VHDX: dense against the same disk as raw, and 64 TiB of which almost nothing is data."""
    if not (installed("qemu-img") and installed("qemu-io")):
        return
    data = bench.size // 4
    bench.images.forget()
    raw, disk, out = (bench.dir / name for name in ("dense.raw", "dense.vhdx", "out.raw"))
    dense(raw, data)
    subprocess.run(bench.ours("sync", raw, disk, "--verify", "none"), check=True,
                   capture_output=True)

    def to_raw(*commands):
        return Turn(*commands, prepare=lambda: out.unlink(missing_ok=True))

    bench.race("vhdx", "manifest, dense", [
        ("raw", lambda: building(bench, raw)),
        ("VHDX", lambda: building(bench, disk)),
    ])
    bench.race("vhdx", "VHDX to a new raw file", [
        ("diskdelta", lambda: to_raw(bench.ours("sync", disk, out, "--verify", "none"))),
        ("qemu-img convert", lambda: to_raw(
            ["qemu-img", "convert", "-f", "vhdx", "-O", "raw", disk, out], ["sync", out])),
    ])
    subprocess.run(["cmp", raw, out], check=True)
    bench.images.forget()
    kinds = {
        "dense": Target(*spread(bench, "dense", data, data)),
        "32 MiB blocks": Target(*sparse_vhdx(bench, "large", "32M", data)),
        "1 MiB blocks": Target(*sparse_vhdx(bench, "small", "1M", data)),
        "1 MiB blocks, full table": Target(*sparse_vhdx(bench, "full", "1M", data, "on")),
    }
    table = ["dd", f"if={kinds['1 MiB blocks, full table'].path}", "of=/dev/null", "bs=1M",
             "count=512", "skip=3", "status=none"]
    race_kinds(bench, "vhdx", kinds, ("manifest, 64 TiB", "diff, 64 TiB", "sync {}, 64 TiB"),
               [("dd of a full table", lambda: Turn(table))])
    bench.images.forget()


PARTS = {"sweep": sweep, "compare": compare, "safety": safety, "kept": kept,
         "manifest": manifest, "cold": cold, "full": full, "everything": everything,
         "sparse": sparse, "vhdx": vhdx}


def race_kinds(bench, part, kinds, cases, beside_manifest=()):
    """Races targets of several kinds, by name; `cases` names manifest, diff and each sync."""
    def differing(target):
        return Turn(bench.ours("diff", target.now(), target.other()), good=(1,))

    manifest_case, diff_case, sync_case = cases
    bench.race(part, manifest_case, [
        (name, lambda target=target: building(bench, target.now()))
        for name, target in kinds.items()
    ] + list(beside_manifest))
    bench.race(part, diff_case, [
        (name, lambda target=target: differing(target)) for name, target in kinds.items()
    ])
    for how in ("in-place", "atomic"):
        bench.race(part, sync_case.format(how), [
            (name, syncing(bench, target, "delta", how)) for name, target in kinds.items()
        ])


def syncing(bench, target, mode, how, verify="none"):
    return lambda: target.turn(bench.sync(target.other(), target.path, mode, how, verify=verify))


def keeping(bench, target):
    """Syncs a target of its own, because nobody else may write what a target manifest stands for."""
    own = Target(bench.dir / "kept.raw", target.now(), target.other())
    file = bench.dir / "kept.manifest"
    copy(own.now(), own.path)
    file.unlink(missing_ok=True)
    words = ("delta", "atomic", "--target-manifest", file)
    # The first sync reads the target, and leaves the manifest that the others go by.
    subprocess.run(bench.sync(own.now(), own.path, *words), check=True, capture_output=True)
    return lambda: own.turn(bench.sync(own.other(), own.path, *words))


def building(bench, image):
    out = bench.dir / "out.manifest"
    return Turn(bench.ours("manifest", image, "-o", out),
                prepare=lambda: out.unlink(missing_ok=True))


def take(turn, watching):
    """Runs a turn; returns what is known of it."""
    if turn.prepare:
        turn.prepare()
    os.sync()
    peak = Peak() if watching else None
    start = time.perf_counter()
    if turn.at_once:
        started = [run_command(command) for command in turn.commands]
        printed = [end(one, turn.good) for one in started]
    else:
        printed = [end(run_command(command, peak), turn.good) for command in turn.commands]
    seconds = time.perf_counter() - start
    if turn.after:
        turn.after()
    facts = {"seconds": f"{seconds:.4f}"}
    if peak:
        facts["rss_anon_kib"] = peak.end()
    try:
        report = json.loads(printed[0])
        facts |= {key: report[key] for key in COLUMNS[-3:] if key in report}
    except (ValueError, TypeError):
        pass  # Other programs print what they like.
    return facts


def run_command(command, peak=None):
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    if peak:
        peak.watch(process.pid)
    return process


def end(process, good):
    printed, _ = process.communicate()
    if process.returncode not in good:
        sys.exit(f"status {process.returncode}: {' '.join(map(str, process.args))}")
    return printed


class Peak:
    """The most anonymous memory that any of the processes it watches had at once."""

    def __init__(self):
        self.kib = 0
        self.pid = None
        self.ended = False
        self.thread = threading.Thread(target=self._look)
        self.thread.start()

    def watch(self, pid):
        self.pid = pid

    def end(self):
        self.ended = True
        self.thread.join()
        return self.kib

    def _look(self):
        while not self.ended:
            try:
                status = Path(f"/proc/{self.pid}/status").read_text()
                match = re.search(r"RssAnon:\s+(\d+)", status)
                self.kib = max(self.kib, int(match[1]) if match else 0)
            except OSError:
                pass  # It has not begun, or has ended.
            time.sleep(0.005)


def dense(path, size, seed=1):
    make = random.Random(seed)
    with open(path, "wb") as file:
        for at in range(0, size, MIB):
            file.write(make.randbytes(min(MIB, size - at)))


def change(path, ranges, percent, clustered=False):
    """Gives `percent` of the pages in `ranges` new bytes."""
    choose = random.Random(2)
    unit = CLUSTER_PAGES * PAGE if clustered else PAGE
    units = [at for start, end in ranges for at in range(start, end, unit)]
    ends = dict(ranges) if len(ranges) == 1 else {}
    last = next(iter(ends.values()), None)
    left = round(sum(end - start for start, end in ranges) / PAGE * percent / 100) * PAGE
    choose.shuffle(units)
    with open(path, "r+b", buffering=0) as file:
        for at in units:
            if left <= 0:
                break
            length = min(unit, left, last - at if last else unit)
            os.pwrite(file.fileno(), choose.randbytes(length), at)
            left -= length


def spread(bench, name, length, data):
    """Three sparse images of `length` with `data` bytes in runs of a MiB: target, old and new."""
    old, new, target = (bench.dir / f"{name}-{which}.raw" for which in ("old", "new", "target"))
    make = random.Random(3)
    runs = data // MIB
    ranges = []
    with open(old, "wb") as file:
        file.truncate(length)
        for run in range(runs):
            at = length // runs * run // PAGE * PAGE
            os.pwrite(file.fileno(), make.randbytes(MIB), at)
            ranges.append((at, at + MIB))
    copy(old, new)
    change(new, ranges, 1)
    copy(old, target)
    return target, old, new


def containers(bench, length, data):
    """The same in dynamic VHDs."""
    raws = spread(bench, "flat", length, data)
    made = []
    for raw in raws:
        vhd = raw.with_name(raw.name.replace("flat", "disk").replace(".raw", ".vhd"))
        command = bench.ours("sync", raw, vhd, "--create", "vhd-dynamic", "--verify", "none")
        subprocess.run(command, check=True, capture_output=True)
        made.append(vhd)
    for raw in raws:
        raw.unlink()
    return made


def sparse_vhdx(bench, name, block, data, zeros="off"):
    """Three dynamic VHDX of 64 TiB like those of `spread`, made by QEMU; with `zeros`, every entry
    of the block table is written."""
    old, new, target = (bench.dir / f"{name}-{which}.vhdx" for which in ("old", "new", "target"))
    noise = bench.dir / "noise"
    dense(noise, MIB)
    subprocess.run(["qemu-img", "create", "-q", "-f", "vhdx", "-o",
                    f"subformat=dynamic,block_size={block},block_state_zero={zeros}", old, "64T"],
                   check=True)
    places = [(64 << 40) // (data // MIB) * run // MIB * MIB for run in range(data // MIB)]
    qemu_io(old, [f"write -q -s {noise} {at} 1M" for at in places])
    copy(old, new)
    choose = random.Random(2)
    pages = [at + page * PAGE for at in places for page in range(MIB // PAGE)]
    changed = choose.sample(pages, len(pages) // 100)
    qemu_io(new, [f"write -q -P {choose.randrange(1, 255)} {at} {PAGE}" for at in changed])
    copy(old, target)
    return target, old, new


def qemu_io(image, commands):
    subprocess.run(["qemu-io", "-f", "vhdx", "-t", "unsafe", image], text=True, check=True,
                   input="\n".join(commands), stdout=subprocess.DEVNULL)


def copy(source, target):
    subprocess.run(["cp", "--sparse=auto", source, target], check=True)


def drop_caches(paths):
    os.sync()
    for path in paths:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def installed(program):
    return found(program, shutil.which(program) is not None)


def found(what, there):
    if not there:
        print(f"LEFT OUT: there is no {what}", file=sys.stderr)
    return there


def machine(directory):
    """What a reader must know of the machine, without its name."""
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    yield "processor", f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores"
    yield "memory", f"{round(int(memory[1]) / (1 << 20))} GiB"
    yield "kernel", re.match(r"[\d.]+", platform.release())[0]
    yield "file system", printed("df", "--output=fstype", directory).split()[-1]
    for program in ("rustc", "cp", "cmp", "rsync", "b3sum", "qemu-img"):
        if shutil.which(program):
            version = re.search(r"\d+\.\d+(\.\d+)?", printed(program, "--version"))
            yield program, version[0] if version else "?"


def printed(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=size_of, required=True)
    parser.add_argument("--runs", type=int, required=True)
    for name in ("dir", "diskdelta", "bare", "tsv"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS])
    return parser.parse_args()


def size_of(text):
    match = re.fullmatch(r"(\d+)([KMGT]?)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text} is not a size such as 256M or 4G")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2]]


if __name__ == "__main__":
    main()
