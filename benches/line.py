"""Stands in for ssh: runs the command here, counts what passes each way, and may delay it.

`line.py --note FILE [--delay MS] HOST COMMAND...` appends a line of JSON to FILE at the end: bytes
each way, and seconds from the first byte to the last. MS passes before a byte arrives, each way;
however many are under way.
"""

import argparse
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--note", required=True)
    parser.add_argument("--delay", type=float, default=0)
    parser.add_argument("host")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    process = subprocess.Popen(arguments.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               bufsize=0)
    seconds = arguments.delay / 1000
    there = Way(sys.stdin.fileno(), os.dup(process.stdin.fileno()), seconds)
    back = Way(process.stdout.fileno(), sys.stdout.fileno(), seconds)
    process.stdin.close()
    # What the other side still has to say ends with its process, and not with ours.
    back.writer.join()
    status = process.wait()
    begun = min((way.first for way in (there, back) if way.first is not None), default=0)
    ended = max(way.last for way in (there, back))
    with open(arguments.note, "a") as file:
        note = {"there": there.bytes, "back": back.bytes, "seconds": ended - begun}
        file.write(json.dumps(note) + "\n")
    os._exit(status)


class Way:
    """One direction: a thread that reads, and one that writes when the time has come."""

    def __init__(self, source, sink, seconds):
        self.source, self.sink, self.seconds = source, sink, seconds
        self.bytes, self.first, self.last = 0, None, 0
        self.under_way = queue.SimpleQueue()
        self.writer = threading.Thread(target=self._write, daemon=True)
        self.writer.start()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        while True:
            piece = patiently(select.POLLIN, self.source, os.read, 256 << 10)
            now = time.perf_counter()
            self.first = self.first or now
            self.under_way.put((now + self.seconds, piece))
            if not piece:
                return

    def _write(self):
        while True:
            due, piece = self.under_way.get()
            left = due - time.perf_counter()
            if left > 0:
                time.sleep(left)
            if not piece:
                os.close(self.sink)
                return
            self.bytes += len(piece)
            while piece:
                piece = piece[patiently(select.POLLOUT, self.sink, os.write, piece):]
            self.last = time.perf_counter()


def patiently(event, descriptor, call, *arguments):
    """Calls, and where the other side has made the pipe one that does not wait, waits for it."""
    while True:
        try:
            return call(descriptor, *arguments)
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, event)
            poll.poll()


if __name__ == "__main__":
    main()
