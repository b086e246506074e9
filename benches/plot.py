"""Turns what measure.py wrote into the tables and the plot of docs/internals/benchmarks.md.

`plot.py [--docs DIR] FILE.tsv` puts everything between the markers in DIR/benchmarks.md, and
DIR/benchmarks.svg. Medians are of the measured runs; run 0 only warms up and gives the memory.
"""

import argparse
import csv
import math
import re
from collections import defaultdict
from pathlib import Path
from statistics import median
from xml.sax.saxutils import escape


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=Path, default=Path("docs/internals"))
    parser.add_argument("tsv", type=Path)
    arguments = parser.parse_args()
    results = Results(arguments.tsv)
    page = arguments.docs / "benchmarks.md"
    text = page.read_text() if page.exists() else EMPTY_PAGE
    for name, make in SECTIONS.items():
        text = between_markers(text, name, make(results))
    page.write_text(text)
    if results.of("sweep"):
        (arguments.docs / "benchmarks.svg").write_text(plot(results))


class Results:
    """Medians, by part, case, x and contender, in the order in which they were measured."""

    def __init__(self, path):
        lines = path.read_text().splitlines()
        self.machine = [line[2:].split("\t", 1) for line in lines if line.startswith("# ")]
        rows = csv.DictReader((line for line in lines if not line.startswith("# ")),
                              dialect="excel-tab")
        seconds, self.warm = defaultdict(list), {}
        for row in rows:
            key = (row["part"], row["case"], row["x"], row["contender"])
            if row["run"] == "0":
                self.warm[key] = row
                seconds[key] = []
            else:
                seconds[key].append(float(row["seconds"]))
        self.seconds = {key: median(times) for key, times in seconds.items() if times}
        self.spread = {key: (min(times), max(times)) for key, times in seconds.items() if times}

    def of(self, part):
        return [key for key in self.seconds if key[0] == part]

    def get(self, part, case, contender, x=""):
        return self.seconds.get((part, case, x, contender))

    def number(self, column, part, case, contender):
        """A number of the warming run."""
        text = self.warm.get((part, case, "", contender), {}).get(column)
        return int(text) if text else None


def machine_table(results):
    lines = ["| | |", "| --- | --- |"]
    return lines + [f"| {key} | {value} |" for key, value in results.machine]


def goals_table(results):
    lines = ["| what | bound | measured | |", "| --- | --- | --- | --- |"]
    for what, bound, value, number in goals(results):
        if value is None:
            lines.append(f"| {what} | {bound} | not measured | |")
            continue
        at_least = bound.startswith("≥")
        limit = float(re.search(r"[\d.]+", bound)[0])
        holds = value >= limit if at_least else value <= limit
        lines.append(f"| {what} | {bound} | {number.format(value)} | "
                     f"{'holds' if holds else '**missed**'} |")
    return lines


def goals(results):
    """Each goal: what is measured, its bound, its value, how the value is written."""
    def ratio(part, case, over, under):
        values = [results.get(part, case, name) for name in (over, under)]
        return values[0] / values[1] if all(values) else None

    def mib(part, case, contender):
        kib = results.number("rss_anon_kib", part, case, contender)
        return kib / 1024 if kib else None

    def written(case, contender, columns, aside=0):
        changed = results.number("changed_bytes", "safety", case, contender)
        bytes_ = [results.number(name, "safety", case, contender) for name in columns]
        return (sum(bytes_) - aside) / changed if changed and None not in bytes_ else None

    times, memory = "{:.2f}", "{:.0f} MiB"
    one = "1 % scattered"
    yield ("manifest, rate against bare reads and hashes", "≥ 0.90",
           ratio("manifest", "dense", "bare pread + BLAKE3", "manifest"), times)
    yield ("manifest, time against `b3sum`", "≤ 1.00",
           ratio("manifest", "dense", "manifest", "b3sum"), times)
    for case in ("manifest", "diff", "sync, in-place", "sync, atomic"):
        for name in ("4 TiB raw", "2040 GiB VHD"):
            yield (f"{case} of a {name}, time against dense", "≤ 1.5",
                   ratio("sparse", case, name, "dense"), times)
            yield (f"{case} of a {name}, memory", "≤ 96 MiB", mib("sparse", case, name), memory)
    yield ("manifest of a dense VHDX, rate against the same disk as raw", "≥ 0.90",
           ratio("vhdx", "manifest, dense", "raw", "VHDX"), times)
    yield ("VHDX to a new raw file, time against `qemu-img convert`", "≤ 1.00",
           ratio("vhdx", "VHDX to a new raw file", "diskdelta", "qemu-img convert"), times)
    for case in ("manifest", "diff", "sync in-place", "sync atomic"):
        for name in ("32 MiB blocks", "1 MiB blocks"):
            yield (f"{case} of a 64 TiB VHDX with {name}, time against dense", "≤ 1.5",
                   ratio("vhdx", f"{case}, 64 TiB", name, "dense"), times)
            yield (f"{case} of a 64 TiB VHDX with {name}, memory", "≤ 128 MiB",
                   mib("vhdx", f"{case}, 64 TiB", name), memory)
    full, table, dense = (results.get("vhdx", "manifest, 64 TiB", name) for name in (
        "1 MiB blocks, full table", "dd of a full table", "dense"))
    yield ("manifest of a 64 TiB VHDX with 1 MiB blocks and a full table, less one `dd` of the "
           "table, time against dense", "≤ 1.5",
           (full - table) / dense if full and table and dense else None, times)
    yield ("sync in place, time against the bare loop that compares and writes", "≤ 1.3",
           ratio("compare", one, "diskdelta", "bare compare and write"), times)
    yield ("sync in place, memory", "≤ 128 MiB", mib("compare", one, "diskdelta"), memory)
    yield ("cold comparison, rate against two `dd`", "≥ 0.95",
           ratio("cold", "equal images", "two dd iflag=direct", "diskdelta"), times)
    yield ("`qemu-img rebase` + `commit`, time against sync in place", "≥ 2",
           ratio("compare", one, "qemu-img rebase + commit", "diskdelta"), times)
    yield ("`rsync`, time against sync in place", "≥ 8",
           ratio("compare", one, "rsync", "diskdelta"), times)
    yield ("sync in place, time against `cmp`", "≤ 0.45",
           ratio("compare", one, "diskdelta", "cmp, equal files"), times)
    for case in (one, "unchanged"):
        yield (f"sync against a target manifest, {case}, time against the source's manifest",
               "≤ 1.15", ratio("kept", case, "sync", "manifest of the source"), times)
    yield ("full copy onto a file, time against `cp` and `sync`", "≤ 1.00",
           ratio("full", "dense", "full, atomic", "cp + sync"), times)
    for case in ("atomic", "in-place"):
        both = [results.get("everything", case, name) for name in ("delta", "full")]
        auto = results.get("everything", case, "auto")
        yield (f"auto with all changed, {case}, time against the better of delta and full",
               "≤ 1.05", auto / min(both) if auto and all(both) else None, times)
    yield ("bytes written in place, as reported, against bytes changed", "≤ 1.00",
           written(one, "in-place", ["written_bytes"]), times)
    yield ("bytes written atomically, redo log and target, as reported, against bytes changed",
           "≤ 2.10",
           written(one, "atomic", ["written_bytes", "logged_bytes"], aside=MARKER_BYTES), times)


def sweep_table(results):
    names = list(dict.fromkeys(key[3] for key in results.of("sweep")))
    lines = []
    for case in ("scattered", "clustered"):
        points = list(dict.fromkeys(key[2] for key in results.of("sweep") if key[1] == case))
        if not points:
            continue
        lines += ["", f"Seconds, {case} changes:", "",
                  "| changed | " + " | ".join(names) + " |",
                  "| ---: |" + " ---: |" * len(names)]
        for x in points:
            values = [results.get("sweep", case, name, x) for name in names]
            cells = [f"{value:.3f}" if value else "" for value in values]
            lines.append(f"| {x} % | " + " | ".join(cells) + " |")
        lines.append("")
        for how in ("atomic", "in-place"):
            x = crossover(results, case, how)
            said = (f"delta and full take the same time at {x:.0f} % changed" if x is not None
                    else "delta is the faster one at every fraction measured")
            lines.append(f"- {how}: {said}.")
    return lines


def races_table(results):
    lines = ["| race | contender | median s | least to most s | against the first | memory |",
             "| --- | --- | ---: | ---: | ---: | ---: |"]
    first = {}
    for key in results.seconds:
        part, case, _, contender = key
        if part == "sweep":
            continue
        race = f"{part}: {case}"
        begins = race not in first
        first.setdefault(race, results.seconds[key])
        kib = results.warm.get(key, {}).get("rss_anon_kib")
        least, most = results.spread[key]
        lines.append(f"| {race if begins else ''} | {contender} | {results.seconds[key]:.3f} | "
                     f"{least:.3f} to {most:.3f} | {results.seconds[key] / first[race]:.2f} | "
                     f"{int(kib) // 1024 if kib else '?'} MiB |")
    return lines


def crossover(results, case, how):
    """The changed percentage from which full is faster than delta for good."""
    points = []
    for _, its_case, x, contender in results.of("sweep"):
        if its_case == case and contender == f"delta, {how}":
            full = results.get("sweep", case, f"full, {how}", x)
            points.append((float(x), results.get("sweep", case, contender, x) - full))
    points.sort()
    if not points or points[-1][1] <= 0:
        return None
    found = points[0][0]
    for (x0, d0), (x1, d1) in zip(points, points[1:]):
        if d0 <= 0 < d1:
            found = x0 + (x1 - x0) * -d0 / (d1 - d0)
    return found


def plot(results):
    """Two panels, time over the changed fraction."""
    keys = results.of("sweep")
    percents = sorted({float(key[2]) for key in keys})
    seconds = [results.seconds[key] for key in keys if key[3] in LINES]
    low, high = 10 ** math.floor(math.log10(min(seconds))), max(seconds) * 1.3
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           f'font-family="sans-serif" font-size="13" fill="#222">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    for index, case in enumerate(("scattered", "clustered")):
        left = MARGIN + index * (PANEL + GAP)
        out += panel(results, case, Scale(left, percents, low, high))
    x = MARGIN
    for name, (color, dash) in LINES.items():
        if any(key[3] == name for key in keys):
            out.append(f'<line x1="{x}" x2="{x + 26}" y1="{HEIGHT - 16}" y2="{HEIGHT - 16}" '
                       f'stroke="{color}" stroke-width="2.5" stroke-dasharray="{dash}"/>')
            out.append(f'<text x="{x + 32}" y="{HEIGHT - 12}">{escape(name)}</text>')
            x += 52 + 7.2 * len(name)
    return "\n".join(out + ["</svg>", ""])


class Scale:
    """Where a fraction and a time lie on a panel."""

    def __init__(self, left, percents, low, high):
        self.left, self.percents, self.low, self.high = left, percents, low, high

    def x(self, percent):
        """The fractions stand at equal distances, straight lines between them."""
        steps = self.percents
        for index, (a, b) in enumerate(zip(steps, steps[1:])):
            if percent <= b:
                index += (percent - a) / (b - a)
                return self.left + PANEL * index / (len(steps) - 1)
        return self.left + (PANEL if len(steps) > 1 else 0)

    def y(self, seconds):
        share = math.log(seconds / self.low) / math.log(self.high / self.low)
        return TOP + TALL * (1 - share)

    def ticks(self):
        decade = self.low
        while decade <= self.high:
            yield from (decade * step for step in (1, 2, 5) if decade * step <= self.high)
            decade *= 10


def panel(results, case, scale):
    right = scale.left + PANEL
    yield (f'<text x="{scale.left + PANEL / 2}" y="{TOP - 14}" text-anchor="middle" '
           f'font-weight="bold">{case} changes</text>')
    for seconds in scale.ticks():
        y = scale.y(seconds)
        yield f'<line x1="{scale.left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e3e3"/>'
        yield (f'<text x="{scale.left - 6}" y="{y + 4:.1f}" text-anchor="end">'
               f'{seconds:g} s</text>')
    for percent in scale.percents:
        x = scale.x(percent)
        yield (f'<text x="{x:.1f}" y="{TOP + TALL + 18}" text-anchor="middle">'
               f'{percent:g} %</text>')
    yield (f'<text x="{scale.left + PANEL / 2}" y="{TOP + TALL + 38}" text-anchor="middle">'
           'changed 4 KiB pages</text>')
    for name, (color, dash) in LINES.items():
        points = [(scale.x(percent), scale.y(results.seconds[key]))
                  for percent in scale.percents for key in results.of("sweep")
                  if key[1] == case and key[3] == name and float(key[2]) == percent]
        if points:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            yield (f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2.5" '
                   f'stroke-dasharray="{dash}"/>')
            yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>'
                        for x, y in points)
    for lane, how in enumerate(("atomic", "in-place")):
        percent = crossover(results, case, how)
        if percent is not None:
            x, y = scale.x(percent), TOP + 16 + 18 * lane
            yield (f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{TOP + TALL}" '
                   'stroke="#555" stroke-dasharray="2 4"/>')
            yield (f'<text x="{x - 6:.1f}" y="{y + 4}" text-anchor="end" fill="#555">'
                   f'{how}: equal at {percent:.0f} %</text>')


def between_markers(text, name, lines):
    begin, end = f"<!-- {name}: made by benches/plot.py -->", f"<!-- end of {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    block = "\n".join([begin, *lines, end])
    if not pattern.search(text):
        raise SystemExit(f"benchmarks.md has no markers for `{name}`")
    return pattern.sub(lambda _: block, text)


SECTIONS = {"machine": machine_table, "goals": goals_table, "sweep": sweep_table,
            "races": races_table}
EMPTY_PAGE = "\n\n".join(
    f"<!-- {name}: made by benches/plot.py -->\n<!-- end of {name} -->" for name in SECTIONS
) + "\n"
LINES = {
    "delta, atomic": ("#0072b2", ""),
    "delta, in-place": ("#56b4e9", ""),
    "full, atomic": ("#d55e00", "7 4"),
    "full, in-place": ("#e69f00", "7 4"),
    "target manifest": ("#009e73", ""),
    "cp + sync": ("#777777", "2 3"),
}
# The ranges under the marker are logged whatever changed.
MARKER_BYTES = 2 << 20
WIDTH, HEIGHT, MARGIN, TOP, TALL, PANEL, GAP = 1100, 460, 70, 50, 310, 450, 90


if __name__ == "__main__":
    main()
