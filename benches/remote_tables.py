"""The tables of docs/internals/benchmarks.md that remote.py makes of what it has measured."""

import re
from statistics import median

import peers
from measure import MIB


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


def goals(bench):
    """What is measured, the bound, the value, and how it is written."""
    size = bench.get("line", "all", "disk", "disk_bytes")
    for case in bench.cases:
        sent = bench.get("line", case, "diskdelta", "bytes")
        changed = bench.get("line", case, "diskdelta", "changed_bytes")
        over = (sent - changed) / size * 100 if sent is not None else None
        if case == "unchanged":
            yield "bytes on the line, unchanged, against the disk", 0.001, over, "{:.5f} %"
        else:
            yield (f"bytes on the line, 1 % {case}, beyond the changed pages, against the disk",
                   0.025, over, "{:.4f} %")
        least = [count for name, count in bench.sent(case) if name != "diskdelta"]
        yield (f"bytes on the line, {case}, against the peer that sends least", 1.0,
               sent / min(least) if sent is not None and least else None, "{:.2f}")

    def ratio(part, case, over, under):
        values = [bench.get(part, case, name, "seconds") for name in (over, under)]
        return values[0] / values[1] if all(values) else None

    for part, case in (("hot", "scattered"), ("hot", "unchanged"), ("cold", "scattered")):
        if part == "hot":
            yield (f"{part}, {case}: time against hashing both disks", 1.15,
                   ratio(part, case, "diskdelta", "hash both disks"), "{:.2f}")
        for peer in peers.NAMES:
            if case == "scattered" or peer == "rsync":
                yield (f"{part}, {case}: time against {peer}", 1.0,
                       ratio(part, case, "diskdelta", peer), "{:.2f}")
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


SHOWN = {
    "disk_bytes": lambda value: f"{value / MIB:.0f} MiB",
    "bytes": lambda value: f"{value:,.0f} bytes",
    "changed_bytes": lambda value: f"{value:,.0f} bytes",
    "seconds": lambda value: f"{value:.3f} s",
    "rss_anon_kib": lambda value: f"{value / 1024:.0f} MiB",
}
