#!/usr/bin/env python3
"""Records a real sync in a terminal, and draws it as an animated SVG.

    contrib/record-sync.py target/release/diskdelta docs/sync.svg

Makes a disk and an older copy in a temporary directory, runs the commands of `COMMANDS` in a
pseudo-terminal, and draws what the terminal showed. Needs Python 3.9 and nothing else.
"""

import fcntl
import html
import os
import pty
import random
import struct
import subprocess
import sys
import tempfile
import termios
import time

COLUMNS, ROWS = 84, 14
MIB = 1 << 20
COMMANDS = [
    "diskdelta sync web.raw copy.raw --limit-rate 96M",
    "diskdelta diff web.raw copy.raw",
]
FRAMES_PER_SECOND = 5
STAYS = 4.0  # seconds that the last frame is shown


def main():
    program, out = os.path.abspath(sys.argv[1]), sys.argv[2]
    with tempfile.TemporaryDirectory() as directory:
        make_disks(directory)
        frames = record(program, directory)
    with open(out, "w") as file:
        file.write(draw(frames))
    print(f"{len(frames)} frames, {frames[-1][0]:.1f} s, in {out}")


def make_disks(directory):
    """A disk of 256 MiB, and an older copy: single pages and a stretch of 4 MiB differ."""
    chance = random.Random(1)
    disk = bytearray(chance.randbytes(192 * MIB)) + bytearray(64 * MIB)
    with open(f"{directory}/copy.raw", "wb") as file:
        file.write(disk)
    for _ in range(2000):
        page = chance.randrange(192 * MIB // 4096) * 4096
        disk[page:page + 4096] = chance.randbytes(4096)
    disk[100 * MIB:104 * MIB] = chance.randbytes(4 * MIB)
    with open(f"{directory}/web.raw", "wb") as file:
        file.write(disk)


class Screen:
    """As much of a terminal as the command uses: lines, returns, erased lines, moves up and down."""

    def __init__(self):
        self.lines, self.row, self.column = [""], 0, 0

    def feed(self, text):
        position = 0
        while position < len(text):
            char = text[position]
            position += 1
            if char == "\r":
                self.column = 0
            elif char == "\n":
                self.row += 1
                while len(self.lines) <= self.row:
                    self.lines.append("")
            elif char == "\x1b":
                end = position + 1
                while end < len(text) and not text[end].isalpha():
                    end += 1
                self.obey(text[position + 1:end], text[end:end + 1])
                position = end + 1
            elif char >= " ":
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[:self.column] + char + line[self.column + 1:]
                self.column += 1

    def obey(self, number, letter):
        count = int(number) if number.isdigit() else 1
        if letter == "K":
            self.lines[self.row] = ""
        elif letter == "A":
            self.row = max(0, self.row - count)
        elif letter == "B":
            self.row = min(len(self.lines) - 1, self.row + count)

    def shown(self):
        return [line.rstrip() for line in self.lines[-ROWS:]]


def record(program, directory):
    """Frames: the second at which each was shown, and its lines."""
    screen, frames, began = Screen(), [], time.monotonic()

    def show():
        lines = screen.shown()
        if not frames or frames[-1][1] != lines:
            frames.append((time.monotonic() - began, lines))

    for command in COMMANDS:
        screen.feed("$ ")
        show()
        screen.feed(command + "\r\n")
        time.sleep(0.8)
        show()
        run(program, command, directory, screen, show)
    screen.feed("$ ")
    show()
    return frames


def run(program, command, directory, screen, show):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    words = [program] + command.split()[1:]
    child = subprocess.Popen(words, cwd=directory, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    last = 0.0
    while True:
        try:
            read = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not read:
            break
        screen.feed(read.decode("utf-8", "replace"))
        if time.monotonic() - last > 1 / FRAMES_PER_SECOND:
            last = time.monotonic()
            show()
    os.close(ours)
    if child.wait() > 1:
        raise SystemExit(f"status {child.returncode}: {command}")
    show()


def draw(frames):
    width, height = COLUMNS * 8.4 + 24, ROWS * 19 + 24
    total = frames[-1][0] + STAYS
    styles, groups = [], []
    for number, (begin, lines) in enumerate(frames):
        end = frames[number + 1][0] if number + 1 < len(frames) else total
        first, last = begin / total * 100, end / total * 100
        # Hidden, but from its own second to that of the next frame.
        styles.append(
            f"@keyframes f{number}{{0%{{opacity:{0 if number else 1}}}"
            f"{first:.2f}%{{opacity:1}}{last:.2f}%,100%{{opacity:{int(last > 99.9)}}}}}"
            f"#f{number}{{animation:f{number} {total:.1f}s step-end infinite}}"
        )
        rows = "".join(
            f'<text x="12" y="{12 + 19 * row + 14}">{html.escape(line)}</text>'
            for row, line in enumerate(lines) if line
        )
        # Without animation the last frame is what is seen.
        hidden = "" if number + 1 == len(frames) else ' opacity="0"'
        groups.append(f'<g id="f{number}"{hidden}>{rows}</g>\n')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}"'
        f' width="{width:.0f}" height="{height}" role="img">\n'
        "<title>diskdelta sync and diff in a terminal</title>\n"
        "<style>text{font:14px ui-monospace,Menlo,Consolas,monospace;fill:#d0d7de;"
        "white-space:pre}" + "\n".join(styles) + "</style>\n"
        f'<rect width="{width:.0f}" height="{height}" rx="8" fill="#161b22"/>\n'
        + "".join(groups) + "</svg>\n"
    )


if __name__ == "__main__":
    main()
