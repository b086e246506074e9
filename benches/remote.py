"""Measures syncs across hosts, with both ends on this machine; called by remote.sh.

Races are run as measure.py runs its own: in turn, once unmeasured, each ending with its target
synced; each figure is a ratio within one run of this program. Bytes are counted by the pipe that
both ends speak through (line.py), and the command's own figures are held against it. Peers that take long are timed once.
"""

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import peers
from measure import Bench, Images, Target, Turn, drop_caches, machine, size_of, spread, take
from peers import script
from remote_tables import write_tables

HERE = Path(__file__).resolve().parent
COLUMNS = ["part", "case", "contender", "what", "run", "value"]
CASES = {"scattered": (1, False), "clustered": (1, True), "unchanged": (0, False)}


def main():
    arguments = parse_arguments()
    bench = Remote(arguments)
    for name in arguments.parts or list(PARTS):
        print(name, file=sys.stderr, flush=True)
        bench.drop(name)
        bench.put(name, "all", "disk", "disk_bytes", bench.size)
        PARTS[name](bench)
        bench.write()
    missed = write_tables(arguments.docs / "benchmarks.md", bench)
    sys.exit(1 if missed and arguments.strict else 0)


class Remote(Bench):
    """Programs, disks and results; results of parts that are not run now are kept."""

    def __init__(self, arguments):
        self.size, self.runs = arguments.size, arguments.runs
        self.beside = arguments.dir.resolve()
        self.dir = self.beside / "disks"
        self.dir.mkdir()
        self.program = str(arguments.diskdelta.resolve())
        self.bare_program = str(arguments.bare.resolve())
        self.images = Images(self.dir)
        self.note, self.pid = self.beside / "note", self.beside / "pid"
        self.cases, self.peers = CASES, peers.installed()
        self.file = arguments.docs / "benchmarks-remote.tsv"
        self.facts = dict(machine(self.dir)) | {"runs": str(self.runs)}
        self.facts |= {peer.program: peer.version() for peer in self.peers}
        self.rows = []
        if self.file.exists():
            lines = self.file.read_text().splitlines()
            self.rows = list(csv.DictReader((line for line in lines if line[:2] != "# "),
                                            dialect="excel-tab"))

    def drop(self, part):
        self.rows = [row for row in self.rows if row["part"] != part]

    def put(self, part, case, contender, what, value, run=0):
        row = (part, case, contender, what, run, value)
        self.rows.append(dict(zip(COLUMNS, map(str, row))))

    def get(self, part, case, contender, what):
        values = [float(row["value"]) for row in self.rows
                  if (row["part"], row["case"], row["contender"], row["what"])
                  == (part, case, contender, what)]
        return median(values) if values else None

    def write(self):
        with open(self.file, "w", newline="") as file:
            for key, value in self.facts.items():
                file.write(f"# {key}\t{value}\n")
            writer = csv.DictWriter(file, COLUMNS, dialect="excel-tab", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    def shell(self, threads=2):
        """Runs the agent as ssh would, with as many threads as this end."""
        return script(self.beside / "rsh", f'echo $$ > {self.pid}\nexec {self.program} '
                                           f'--threads {threads} serve --stdio')

    def plain_shell(self):
        return script(self.beside / "plain", 'shift\nexec "$@"')

    def line(self, delay=0):
        return f"{sys.executable} {HERE / 'line.py'} --note {self.note} --delay {delay}"

    def push(self, target, rsh, *more, threads=2):
        """Makes the remote target hold what the one of its two sources that it lacks does."""
        return self.ours("sync", target.other(), f"ssh://there{target.path}", "--mode", "delta",
                         "--safety", "in-place", "--verify", "none", "--rsh", rsh,
                         "--remote-program", self.program, *more, threads=threads)

    def peer(self, peer, target, rsh):
        return peer.commands(target, rsh, self.beside)

    def sent(self, case):
        """What each contender has sent, both ways."""
        rows = [row for row in self.rows
                if (row["part"], row["case"], row["what"]) == ("line", case, "bytes")]
        return [(row["contender"], float(row["value"])) for row in rows]

    def noted(self):
        """Bytes both ways and seconds, of all lines since the last look."""
        notes = [json.loads(note) for note in self.note.read_text().splitlines()]
        self.note.unlink()
        return {"bytes": sum(note["there"] + note["back"] for note in notes),
                "seconds": sum(note["seconds"] for note in notes)}


def line(bench):
    """Bytes on the line."""
    for case, (percent, clustered) in CASES.items():
        target = bench.images.pair(bench.size, percent, clustered)
        report = json.loads(checked(bench.push(target, bench.line())).stdout)
        both = bench.noted()["bytes"]
        own = report["sent_bytes"] + report["received_bytes"]
        if own != both:
            sys.exit(f"the line carried {both} bytes, the report says {own}")
        bench.put("line", case, "diskdelta", "bytes", both)
        bench.put("line", case, "diskdelta", "changed_bytes", report["changed_bytes"])
        target.flip()
        target.check()
        for peer in bench.peers:
            if peer.is_slow and case != "scattered":
                continue
            for command in bench.peer(peer, target, bench.line()):
                checked(command)
            target.flip()
            target.check()
            bench.put("line", case, peer.name, "bytes", bench.noted()["bytes"])


def hot(bench):
    """Wall time from the page cache."""
    timed(bench, "hot", {"scattered": CASES["scattered"], "unchanged": CASES["unchanged"]})


def cold(bench):
    """Wall time from the medium, with the command's own number of threads."""
    timed(bench, "cold", {"scattered": CASES["scattered"]}, threads=0, before=lambda target:
          drop_caches([target.path, target.now(), target.other()]))


def timed(bench, part, cases, threads=2, before=lambda target: None):
    for case, (percent, clustered) in cases.items():
        target = bench.images.pair(bench.size, percent, clustered)
        rsh, plain = bench.shell(threads), bench.plain_shell()

        def turn(*commands):
            return target.turn(*commands, prepare=lambda: before(target))

        def racing(peer):
            return lambda: turn(*bench.peer(peer, target, plain))

        contenders = [
            ("hash both disks", False, lambda: Turn(
                bench.bare("hash", target.path), bench.bare("hash", target.other()),
                prepare=lambda: before(target))),
            ("diskdelta", False, lambda: turn(bench.push(target, rsh, threads=threads))),
        ]
        contenders += [(peer.name.split(" -B")[0], peer.is_slow, racing(peer))
                       for peer in racers(bench, case)]
        for run in range(bench.runs + 1):
            first = run % len(contenders)
            for name, is_slow, make in contenders[first:] + contenders[:first]:
                if is_slow and run != 1:
                    continue
                facts = take(make(), watching=False)
                if run > 0:
                    bench.put(part, case, name, "seconds", facts["seconds"], run)
        target.check()


def racers(bench, case):
    """All peers where something changed; rsync with the block size with which it sends least."""
    sent = dict(bench.sent(case))
    ours = [peer for peer in bench.peers if peer.program == "rsync"]
    ours = [min(ours, key=lambda peer: sent.get(peer.name, 0))] if ours else []
    others = [peer for peer in bench.peers if peer.program != "rsync"]
    return ours + (others if case == "scattered" else [])


def rtt(bench):
    """What a round trip of 100 ms adds, from the first byte on the line to the last."""
    for case in ("scattered", "unchanged"):
        target = bench.images.pair(bench.size, *CASES[case])
        for run in range(bench.runs + 1):
            for delay in (0, 50):
                os.sync()
                checked(bench.push(target, bench.line(delay)))
                target.flip()
                if run > 0:
                    bench.put("rtt", case, f"{2 * delay} ms", "seconds",
                              bench.noted()["seconds"], run)
        target.check()


def memory(bench):
    """The most anonymous memory of each end."""
    target = bench.images.pair(bench.size, *CASES["scattered"])
    peaks(bench, "dense", target)
    bench.images.forget()
    long = Target(*spread(bench, "sparse", 15 << 40, bench.size // 16))
    peaks(bench, "sparse, 15 TiB", long)
    bench.images.forget()


def peaks(bench, case, target):
    for safety in ("in-place", "atomic"):
        bench.pid.unlink(missing_ok=True)
        command = bench.push(target, bench.shell())
        command[command.index("in-place")] = safety
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        here, there = 0, 0
        while process.poll() is None:
            here = max(here, rss_anon(process.pid))
            there = max(there, rss_anon(bench.pid.read_text().strip() if bench.pid.exists() else ""))
            time.sleep(0.002)
        if process.returncode:
            sys.exit(f"status {process.returncode}: {' '.join(command)}")
        target.flip()
        for end, kib in (("source", here), ("target", there)):
            bench.put("memory", f"{case}, {safety}", end, "rss_anon_kib", kib)
        bench.put("memory", f"{case}, {safety}", "both", "seconds",
                  f"{time.perf_counter() - begun:.3f}")


def rss_anon(pid):
    try:
        match = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        return int(match[1]) if match else 0
    except OSError:
        return 0


PARTS = {"line": line, "hot": hot, "cold": cold, "rtt": rtt, "memory": memory}


def checked(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"status {done.returncode}: {' '.join(map(str, command))}\n{done.stderr}")
    return done


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=size_of, required=True)
    parser.add_argument("--runs", type=int, required=True)
    for name in ("dir", "diskdelta", "bare", "docs"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--strict", action="store_true", help="status 1 where a goal is missed")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS])
    return parser.parse_args()


if __name__ == "__main__":
    main()
