#!/usr/bin/env python3
"""Times syncs from a web server behind a line with a long round trip; see reach.sh."""

import argparse
import asyncio
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

PAGE = 4096
MIB = 1 << 20


def parse_size(text):
    units = {"K": 1 << 10, "M": MIB, "G": 1 << 30}
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)


class Line:
    """A proxy to a port of this host: every byte arrives half a round trip later."""

    def __init__(self, port, round_trip):
        self.received = multiprocessing.Value("q", 0)
        self.ports = multiprocessing.Queue()
        run = multiprocessing.Process(target=self.run, args=(port, round_trip / 2), daemon=True)
        run.start()
        self.process, self.port = run, self.ports.get()

    def run(self, port, delay):
        asyncio.run(self.serve(port, delay))

    async def serve(self, port, delay):
        async def connected(reader, writer):
            try:
                there = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                writer.close()
                return
            await asyncio.gather(
                self.carry(reader, there[1], delay, False),
                self.carry(there[0], writer, delay, True),
            )

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.ports.put(server.sockets[0].getsockname()[1])
        async with server:
            await server.serve_forever()

    async def carry(self, reader, writer, delay, is_counted):
        # As much is under way as a line with a large window holds.
        queue = asyncio.Queue(maxsize=64)

        async def deliver():
            while True:
                due, data = await queue.get()
                left = due - time.monotonic()
                if left > 0:
                    await asyncio.sleep(left)
                if not data:
                    break
                try:
                    writer.write(data)
                    await writer.drain()
                except OSError:
                    break
            writer.close()

        delivery = asyncio.create_task(deliver())
        while True:
            try:
                data = await reader.read(256 << 10)
            except OSError:
                data = b""
            if is_counted:
                with self.received.get_lock():
                    self.received.value += len(data)
            if delivery.done():
                break
            await queue.put((time.monotonic() + delay, data))
            if not data:
                break
        await delivery

    def stop(self):
        self.process.terminate()


def make_disks(directory, size, layout):
    """A base, and what it became: 1/64 of it changed, by pages or in runs of 4 MiB."""
    base, new = directory / "base.raw", directory / f"{layout}.raw"
    rng = random.Random(7)
    if not base.exists():
        with open(base, "wb") as file:
            for _ in range(size // MIB):
                file.write(rng.randbytes(MIB))
    shutil.copyfile(base, new)
    step = PAGE if layout == "scattered" else min(4 * MIB, size // 64)
    with open(new, "r+b") as file:
        for place in rng.sample(range(size // step), max(1, size // 64 // step)):
            file.seek(place * step)
            file.write(rng.randbytes(step))
    return base, new


def start_nginx(directory):
    config = directory / "nginx.conf"
    for port in range(18080, 18180):
        config.write_text(
            f"daemon off; pid {directory}/nginx.pid; error_log {directory}/nginx.log;\n"
            + ("user root;\n" if os.geteuid() == 0 else "")
            + f"events {{}} http {{ access_log off; sendfile on;\n"
            f"client_body_temp_path {directory}/nginx-body;\n"
            f"server {{ listen 127.0.0.1:{port}; root {directory}; }} }}\n"
        )
        run = subprocess.Popen(["nginx", "-p", directory, "-c", config], stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        if run.poll() is None:
            return run, port
    sys.exit("nginx does not start: see nginx.log")


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument("--size", type=parse_size, required=True)
    parse.add_argument("--runs", type=int, required=True)
    parse.add_argument("--dir", type=Path, required=True)
    parse.add_argument("--docs", type=Path, required=True)
    parse.add_argument("--diskdelta", required=True)
    parse.add_argument("round_trips", nargs="*", type=int)
    args = parse.parse_args()
    args.dir.mkdir(parents=True, exist_ok=True)
    nginx, port = start_nginx(args.dir)
    try:
        rows = list(measure(args, port))
    finally:
        nginx.terminate()
    head = ["round_trip_ms", "layout", "what", "seconds", "MiB_fetched", "MiB_changed"]
    lines = ["\t".join(map(str, row)) for row in [head, *rows]]
    (args.docs / "benchmarks-reach.tsv").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def measure(args, port):
    directory, size = args.dir, args.size
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def run(*words, **more):
        subprocess.run([str(word) for word in words], check=True, **quiet, **more)

    missing = [it for it in ("nbdkit", "nbdcopy", "qemu-img") if not shutil.which(it)]
    if missing:
        print("left out, not installed:", ", ".join(missing), file=sys.stderr)
    for layout in ("clustered", "scattered"):
        base, new = make_disks(directory, size, layout)
        target, kept, map_ = (directory / it for it in ("target.raw", "kept", "map.json"))
        kept.unlink(missing_ok=True)
        with open(map_, "wb") as out:
            told = subprocess.run([args.diskdelta, "diff", new, base, "--json"], stdout=out)
        if told.returncode not in (0, 1):
            sys.exit("diff failed")
        changed = size // 64 / MIB
        for round_trip in args.round_trips or [0, 30, 100]:
            line = Line(port, round_trip / 1000)
            url = f"http://127.0.0.1:{line.port}/{new.name}"
            out = directory / "out.raw"

            def fresh():
                out.unlink(missing_ok=True)

            def old():
                for file in (target, kept):
                    file.unlink(missing_ok=True)
                run(args.diskdelta, "sync", base, target, "--target-manifest", kept)

            nbd = f"nbdkit -U - curl {url} --run"
            ways = [
                (
                    "diskdelta, map",
                    old,
                    [args.diskdelta, "sync", url, target, "--target-manifest", kept]
                    + ["--changes", f"diskdelta:{map_}"],
                ),
                (
                    "diskdelta, map, no manifest",
                    old,
                    [args.diskdelta, "sync", url, target, "--trust-target"]
                    + ["--changes", f"diskdelta:{map_}"],
                ),
                ("diskdelta, all compared", old, [args.diskdelta, "sync", url, target]),
                ("diskdelta, new file", fresh, [args.diskdelta, "sync", url, out]),
                ("curl", fresh, ["curl", "-sS", "-o", out, url]),
                ("nbdkit curl, nbdcopy", fresh, [*nbd.split(), f'nbdcopy "$uri" {out}']),
                (
                    "nbdkit curl, qemu-img convert",
                    fresh,
                    [*nbd.split(), f'qemu-img convert -f raw -O raw -m 16 -W "$uri" {out}'],
                ),
            ]
            for name, prepare, command in ways:
                if any(it in f"{command}" for it in missing):
                    continue
                if layout == "scattered" and "map" not in name and "compared" not in name:
                    # Where changes are makes no difference to a whole copy.
                    continue
                seconds, fetched = [], 0
                for _ in range(args.runs):
                    prepare()
                    before, began = line.received.value, time.monotonic()
                    run(*command)
                    seconds.append(time.monotonic() - began)
                    fetched = line.received.value - before
                made = target if prepare is old else out
                run("cmp", made, new)
                median = statistics.median(seconds)
                yield [round_trip, layout, name, f"{median:.2f}", f"{fetched / MIB:.1f}", f"{changed:.1f}"]
            line.stop()


if __name__ == "__main__":
    main()
