"""Measures syncs across hosts, with both ends on this machine; called by remote.sh.

Races are run as measure.py runs its own: in turn, once unmeasured, each ending with its target
synced; each figure is a ratio within one run of this program. Bytes are counted by the pipe that
both ends speak through (line.py), and the command's own figures are held against it.
"""

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median

from measure import (MIB, PAGE, Bench, Images, Target, Turn, drop_caches, installed, machine,
                     size_of, spread, take)

HERE = Path(__file__).resolve().parent
COLUMNS = ["part", "case", "contender", "what", "run", "value"]
RSYNC_BLOCKS = [PAGE, 8192, 16384]
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
        self.file = arguments.docs / "benchmarks-remote.tsv"
        self.facts = dict(machine(self.dir)) | {
            "runs": str(self.runs)}
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

    def shell(self):
        """Runs the agent as ssh would, with as many threads as this end."""
        return self._script("rsh", f'echo $$ > {self.pid}\nexec {self.program} --threads 2 '
                                   'serve --stdio')

    def plain_shell(self):
        return self._script("plain", 'shift\nexec "$@"')

    def _script(self, name, text):
        path = self.beside / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o700)
        return str(path)

    def line(self, delay=0):
        return f"{sys.executable} {HERE / 'line.py'} --note {self.note} --delay {delay}"

    def push(self, target, rsh, *more):
        """Makes the far target hold what the one of its two sources that it lacks does."""
        return self.ours("sync", target.other(), f"ssh://there{target.path}", "--mode", "delta",
                         "--safety", "in-place", "--verify", "none", "--rsh", rsh,
                         "--remote-program", self.program, *more)

    def rsync(self, target, rsh, block):
        return ["rsync", "-I", "--inplace", "--no-whole-file", "-B", str(block), "-e", rsh,
                str(target.other()), f"there:{target.path}"]

    def noted(self):
        return json.loads(self.note.read_text())


def line(bench):
    """Bytes on the line."""
    for case, (percent, clustered) in CASES.items():
        target = bench.images.pair(bench.size, percent, clustered)
        report = json.loads(checked(bench.push(target, bench.line())).stdout)
        noted = bench.noted()
        both = noted["there"] + noted["back"]
        own = report["sent_bytes"] + report["received_bytes"]
        if own != both:
            sys.exit(f"the line carried {both} bytes, the report says {own}")
        bench.put("line", case, "diskdelta", "bytes", both)
        bench.put("line", case, "diskdelta", "changed_bytes", report["changed_bytes"])
        target.flip()
        target.check()
        if not installed("rsync"):
            continue
        for block in RSYNC_BLOCKS:
            checked(bench.rsync(target, bench.line(), block))
            target.flip()
            noted = bench.noted()
            bench.put("line", case, f"rsync -B {block}", "bytes", noted["there"] + noted["back"])
            target.check()


def hot(bench):
    """Wall time from the page cache."""
    timed(bench, "hot", {"scattered": CASES["scattered"], "unchanged": CASES["unchanged"]})


def cold(bench):
    """Wall time from the medium."""
    timed(bench, "cold", {"scattered": CASES["scattered"]}, lambda target: drop_caches(
        [target.path, target.now(), target.other()]))


def timed(bench, part, cases, before=lambda target: None):
    for case, (percent, clustered) in cases.items():
        target = bench.images.pair(bench.size, percent, clustered)
        rsh, plain = bench.shell(), bench.plain_shell()
        block = best_block(bench, case)

        def turn(*commands):
            return target.turn(*commands, prepare=lambda: before(target))

        contenders = [
            ("hash both disks", lambda: Turn(
                bench.bare("hash", target.path), bench.bare("hash", target.other()),
                prepare=lambda: before(target))),
            ("diskdelta", lambda: turn(bench.push(target, rsh))),
        ]
        if installed("rsync"):
            contenders.append((f"rsync -B {block}", lambda: turn(
                bench.rsync(target, plain, block), ["sync", target.path])))
        for run in range(bench.runs + 1):
            first = run % len(contenders)
            for name, make in contenders[first:] + contenders[:first]:
                facts = take(make(), watching=False)
                if run > 0:
                    bench.put(part, case, name.split(" -B")[0], "seconds", facts["seconds"], run)
        target.check()


def best_block(bench, case):
    """The block size with which rsync sends least."""
    sent = {block: bench.get("line", case, f"rsync -B {block}", "bytes") for block in RSYNC_BLOCKS}
    sent = {block: count for block, count in sent.items() if count is not None}
    return min(sent, key=sent.get) if sent else 4 * PAGE


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


def goals(bench):
    """What is measured, the bound, the value, and how it is written."""
    size = bench.get("line", "all", "disk", "disk_bytes")
    for case in CASES:
        sent = bench.get("line", case, "diskdelta", "bytes")
        changed = bench.get("line", case, "diskdelta", "changed_bytes")
        over = (sent - changed) / size * 100 if sent is not None else None
        if case == "unchanged":
            yield "bytes on the line, unchanged, against the disk", 0.001, over, "{:.5f} %"
        else:
            yield (f"bytes on the line, 1 % {case}, beyond the changed pages, against the disk",
                   0.025, over, "{:.4f} %")

    def ratio(part, case, over, under):
        values = [bench.get(part, case, name, "seconds") for name in (over, under)]
        return values[0] / values[1] if all(values) else None

    for part, case in (("hot", "scattered"), ("hot", "unchanged"), ("cold", "scattered")):
        if part == "hot":
            yield (f"{part}, {case}: time against hashing both disks", 1.15,
                   ratio(part, case, "diskdelta", "hash both disks"), "{:.2f}")
        yield (f"{part}, {case}: time against rsync", 1.0,
               ratio(part, case, "diskdelta", "rsync"), "{:.2f}")
    for case in ("scattered", "unchanged"):
        times = [bench.get("rtt", case, f"{ms} ms", "seconds") for ms in (0, 100)]
        more = times[1] - times[0] if None not in times else None
        yield f"100 ms round-trip time, {case}: more than at 0 ms", 1.0, more, "{:.2f} s"
    for case in ("dense", "sparse, 15 TiB"):
        for end in ("source", "target"):
            kib = [bench.get("memory", f"{case}, {safety}", end, "rss_anon_kib")
                   for safety in ("in-place", "atomic")]
            yield (f"memory of the {end}'s end, {case}", 128,
                   max(kib) / 1024 if None not in kib else None, "{:.0f} MiB")


def goals_table(bench):
    lines = ["| what | bound | measured | |", "| --- | --- | --- | --- |"]
    for what, bound, value, written in goals(bench):
        if value is None:
            lines.append(f"| {what} | | not measured | |")
            continue
        unit = re.sub(r"\{.*?\}", "", written)
        lines.append(f"| {what} | ≤ {bound}{unit} | {written.format(value)} | "
                     f"{'holds' if value <= bound else '**missed**'} |")
    return lines


def results_table(bench):
    lines = ["| part | case | contender | median | least to most |",
             "| --- | --- | --- | ---: | ---: |"]
    seen = dict.fromkeys((row["part"], row["case"], row["contender"], row["what"])
                         for row in bench.rows)
    for part, case, contender, what in seen:
        values = [float(row["value"]) for row in bench.rows
                  if (row["part"], row["case"], row["contender"], row["what"])
                  == (part, case, contender, what)]
        show = SHOWN[what]
        spread_ = f"{show(min(values))} to {show(max(values))}" if len(values) > 1 else ""
        name = contender + (", changed" if what == "changed_bytes" else "")
        lines.append(f"| {part} | {case} | {name} | {show(median(values))} | {spread_} |")
    return lines


def write_tables(page, bench):
    """Puts the tables between their markers, and prints the goals."""
    tables = {"remote goals": goals_table(bench), "remote results": results_table(bench)}
    text = page.read_text() if page.exists() else ""
    for name, lines in tables.items():
        begin, end = f"<!-- {name}: made by benches/remote.py -->", f"<!-- end of {name} -->"
        block = "\n".join([begin, *lines, end])
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        text = pattern.sub(lambda _: block, text) if pattern.search(text) else text + block + "\n"
    page.write_text(text)
    print("\n".join(tables["remote goals"]))
    return any("**missed**" in row for row in tables["remote goals"])


SHOWN = {
    "disk_bytes": lambda value: f"{value / MIB:.0f} MiB",
    "bytes": lambda value: f"{value:,.0f} bytes",
    "changed_bytes": lambda value: f"{value:,.0f} bytes",
    "seconds": lambda value: f"{value:.3f} s",
    "rss_anon_kib": lambda value: f"{value / 1024:.0f} MiB",
}


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
