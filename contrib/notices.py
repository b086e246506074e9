#!/usr/bin/env python3
"""Third parties whose code is in the binary.

    contrib/notices.py            the table of NOTICES.md
    contrib/notices.py --texts    their licence texts too, to be shipped with a binary
"""

import json
import os
import subprocess
import sys

TARGET = "x86_64-unknown-linux-gnu"


def main():
    words = ["cargo", "metadata", "--format-version", "1", "--features", "full"]
    said = subprocess.run(words + ["--filter-platform", TARGET], check=True, capture_output=True)
    metadata = json.loads(said.stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    linked = reached(metadata["resolve"]) - {metadata["resolve"]["root"]}
    crates = sorted((packages[id] for id in linked), key=lambda it: (it["name"], it["version"]))
    if "--texts" in sys.argv:
        texts(crates)
    else:
        print("| crate | licence |\n| --- | --- |")
        for name, licence in sorted({(it["name"], it["license"]) for it in crates}):
            print(f"| {name} | {licence} |")


def reached(resolve):
    """The packages that are linked: without what only builds and tests use."""
    nodes = {node["id"]: node for node in resolve["nodes"]}
    seen, waiting = set(), [resolve["root"]]
    while waiting:
        id = waiting.pop()
        if id in seen:
            continue
        seen.add(id)
        for dep in nodes[id]["deps"]:
            if any(kind["kind"] is None for kind in dep["dep_kinds"]):
                waiting.append(dep["pkg"])
    return seen


def texts(crates):
    for crate in crates:
        directory = os.path.dirname(crate["manifest_path"])
        print(f"==== {crate['name']} {crate['version']}: {crate['license']}\n")
        for name in sorted(os.listdir(directory)):
            if name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT")):
                path = os.path.join(directory, name)
                if os.path.isfile(path):
                    with open(path, encoding="utf-8", errors="replace") as file:
                        print(file.read())


if __name__ == "__main__":
    main()
