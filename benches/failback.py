"""Measures what a failback's plan foretells beside what comes of it; called by failback.sh.

Each run begins anew: a disk, an older copy of it at the target, a program that writes to the disk
in place of a guest. It writes for a while, `failback plan` says what each mode would cost, then a
job in one of them is run to the end while the program goes on writing. The modes take turns. The
downtime is read from the job's journal: from the answer that the source is off to the command that
starts the target, which is what a forecast means; what a VM needs to stop and start is not in it.
"""

import argparse
import csv
import fcntl
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median

from measure import MIB, machine, size_of

HERE = Path(__file__).resolve().parent
VM = HERE.parent / "tests/failback_cli/vm.sh"
MODES = ["delta", "full-first", "full"]
BLOCK = 64 << 10
COLUMNS = ["mode", "run", "foretold_seconds", "seconds", "foretold_bytes", "bytes", "passes"]


def main():
    arguments = parse_arguments()
    rows = []
    for run in range(arguments.runs):
        for mode in MODES:
            print(f"{mode}, run {run + 1}", file=sys.stderr, flush=True)
            rows.append({"mode": mode, "run": run} | measured(arguments, mode))
    write_rows(arguments, rows)
    write_table(arguments.docs / "benchmarks.md", rows)


def measured(arguments, mode):
    directory = arguments.dir / "failback"
    fixture = Fixture(directory, arguments, mode)
    try:
        time.sleep(arguments.before)
        told = fixture.failback("plan", fixture.plan)["vms"][0]
        told = next(it for it in told["modes"] if it["mode"] == mode)
        first, passes = fixture.run()
        return {
            "foretold_seconds": told["downtime_seconds"],
            "seconds": fixture.downtime(),
            "foretold_bytes": told["moved_bytes"],
            "bytes": first,
            "passes": passes,
        }
    finally:
        fixture.end()
        shutil.rmtree(directory)


class Fixture:
    """Two sites in a directory, and a guest that writes."""

    def __init__(self, directory, arguments, mode):
        self.directory, self.program, self.mode = directory, arguments.diskdelta.resolve(), mode
        self.runner = None
        self.sites = {name: directory / name / "db1" for name in ("primary", "recovery")}
        for site in self.sites.values():
            site.mkdir(parents=True)
            (site / "disk-name").write_text("disk.raw\n")
        self.disk = self.sites["recovery"] / "disk.raw"
        with open(self.disk, "wb") as disk:
            for _ in range(arguments.size // MIB):
                disk.write(os.urandom(MIB))
        shutil.copy(self.disk, self.sites["primary"] / "disk.raw")
        os.sync()
        (self.sites["recovery"] / "running").touch()
        self.plan = directory / "plan.toml"
        self.write_plan()
        self.guest = threading.Thread(target=self.write, args=[arguments.rate, arguments.size])
        self.guest.start()

    def write_plan(self):
        text = (f'[job]\nname = "bench"\nactive = "recovery"\nmode = "{self.mode}"\n'
                'proof = "skip"\n')
        for name, site in self.sites.items():
            wrapper = self.directory / f"{name}.sh"
            # A guest that is off has written its last block.
            wrapper.write_text(
                f'done=$(sh {VM} {site} "$1") || exit\n'
                f'[ "$1" != shut-down ] || flock {self.directory}/writing true\necho "$done"\n')
            text += (f'[{name}]\nhost = "{name}"\n[{name}.controller]\nkind = "commands"\n'
                     f'program = ["sh", "{wrapper}"]\n')
        text += ('[[group]]\nname = "all"\n[[group.vm]]\nname = "db1"\n[[group.vm.disk]]\n'
                 'identity = "db1-system"\n')
        text += "".join(f'{name} = "{site}/disk.raw"\n' for name, site in self.sites.items())
        self.plan.write_text(text)

    def write(self, rate, size):
        """The guest: blocks all over its disk, so many bytes a second."""
        site, begun, count = self.sites["recovery"], time.monotonic(), 0
        rng = random.Random(7)
        with open(self.disk, "r+b", buffering=0) as disk, \
                open(self.directory / "writing", "w") as lock:
            while True:
                wait = begun + count * BLOCK / rate - time.monotonic()
                time.sleep(max(wait, 0))
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not (site / "running").exists():
                    return
                offset = rng.randrange(size // BLOCK) * BLOCK
                disk.seek(offset)
                disk.write(os.urandom(BLOCK))
                if (site / "recording").exists():
                    for track in site.glob("track.*"):
                        with open(track, "a") as file:
                            file.write(f"[{offset}, {BLOCK}]\n")
                fcntl.flock(lock, fcntl.LOCK_UN)
                count += 1

    def command(self, *words):
        return [self.program, "failback", *words, "--state-dir", self.directory / "jobs", "--json"]

    def failback(self, *words):
        done = subprocess.run(self.command(*words), capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    def run(self):
        """Runs a job until its target runs; what the first copy moved, and how many there were."""
        self.runner = subprocess.Popen(self.command("start", self.plan, "--yes"),
                                        stdout=subprocess.DEVNULL)
        if self.mode != "full":
            self.wait("ready-to-cutover")
            self.failback("complete", "bench")
        self.wait("commit-pending")
        copied = [line["state"]["reports"][0] for line in self.log()
                  if "copied" in str(line.get("event"))]
        return copied[0]["changed_bytes"], len(copied)

    def wait(self, phase):
        while True:
            status = subprocess.run(self.command("status", "bench"), capture_output=True, text=True)
            vm = json.loads(status.stdout)["vms"][0] if status.returncode == 0 else {}
            if vm.get("phase") == phase and vm["doing"] is None:
                return
            if vm.get("problem") or self.runner.poll() is not None:
                sys.exit(f"the job stands still: {vm}")
            time.sleep(0.05)

    def log(self):
        return self.failback("log", "bench")["lines"]

    def downtime(self):
        """Seconds from the source being off to the target being started."""
        asked = off = None
        for line in self.log():
            event, pending = line.get("event"), (line.get("state") or {}).get("pending") or {}
            if asked and isinstance(event, dict) and event.get("answered", {}).get("token") == asked:
                off = line["at_ms"]
            asked = pending["token"] if pending.get("action") == "shut_down" else None
            if off and pending.get("action") == "start":
                started = line["at_ms"]
                break
        return (started - off) / 1000

    def end(self):
        if self.runner:
            self.runner.kill()
            self.runner.wait()
        (self.sites["recovery"] / "running").unlink(missing_ok=True)
        self.guest.join()


def write_rows(arguments, rows):
    with open(arguments.docs / "benchmarks-failback.tsv", "w", newline="") as file:
        for key, value in machine(arguments.dir):
            file.write(f"# {key}\t{value}\n")
        file.write(f"# disk\t{arguments.size >> 20} MiB, {arguments.runs} runs, "
                   f"{arguments.rate >> 20} MiB written a second, {arguments.before} s before\n")
        table = csv.DictWriter(file, COLUMNS, dialect="excel-tab", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def write_table(page, rows):
    lines = ["| mode | downtime foretold | measured | foretold / measured | bytes of the first copy, "
             "foretold / moved |", "| --- | --- | --- | --- | --- |"]
    for mode in MODES:
        of_mode = [row for row in rows if row["mode"] == mode]
        told, real = ([row[key] for row in of_mode] for key in ("foretold_seconds", "seconds"))
        ratios = [row["foretold_seconds"] / row["seconds"] for row in of_mode]
        moved = [row["foretold_bytes"] / row["bytes"] for row in of_mode]
        lines.append(f"| {mode} | {median(told):.2f} s | {median(real):.2f} s "
                     f"({min(real):.2f} to {max(real):.2f}) | {median(ratios):.2f} "
                     f"({min(ratios):.2f} to {max(ratios):.2f}) | {median(moved):.2f} |")
    begin, end = "<!-- failback: made by benches/failback.py -->", "<!-- end of failback -->"
    block = "\n".join([begin, *lines, end])
    text = page.read_text() if page.exists() else ""
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    text = pattern.sub(lambda _: block, text) if pattern.search(text) else text + block + "\n"
    page.write_text(text)
    print("\n".join(lines))


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=size_of, required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--diskdelta", type=Path, required=True)
    parser.add_argument("--docs", type=Path, required=True)
    parser.add_argument("--rate", type=size_of, default=8 * MIB, help="bytes that the guest writes a second")
    parser.add_argument("--before", type=float, default=15, help="seconds that it writes before")
    return parser.parse_args()


main()
