"""What else makes a disk on another host hold what one here holds, and moves less than all of it.

Each peer is a program of Debian's, called as its manual says, so that all it sends goes through one
or two pipes that a program in place of ssh makes (`rsh`). None keeps anything from run to run, and
each ends with the target synced.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path


class Peer:
    """A program, and how it is called: a function of target, what stands for ssh, and a directory."""

    def __init__(self, name, program, commands, is_slow=False):
        self.name, self.program, self.commands, self.is_slow = name, program, commands, is_slow

    def is_installed(self):
        return shutil.which(self.program) is not None

    def version(self):
        flag = "-version" if self.program == "unison" else "--version"
        text = subprocess.run([self.program, flag], capture_output=True, text=True).stdout
        match = re.search(r"\d+(\.\d+)*", text)
        return match[0] if match else "?"


def rsync(block):
    def commands(target, rsh, _directory):
        return [["rsync", "-I", "--inplace", "--no-whole-file", "-B", str(block), "-e", rsh,
                 str(target.other()), f"there:{target.path}"], ["sync", str(target.path)]]

    return Peer(f"rsync -B {block}", "rsync", commands)


def rdiff(target, rsh, directory):
    """The signature comes here, the delta goes there, where it makes a new file of the old one."""
    old, new, signature = target.path, f"{target.path}.new", directory / "signature"
    patch = f"rdiff patch {old} - {new} && sync {new} && mv {new} {old}"
    return [bash(f"{rsh} there rdiff -b 4096 signature {old} - > {signature}"),
            bash(f"rdiff -- delta {signature} {target.other()} - | "
                 f"{rsh} there sh -c {shlex.quote(patch)}")]


def unison(target, rsh, directory):
    home = directory / "unison"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    # It asks for a shell with `host -e none`.
    shell = script(directory / "unison-rsh", f'host=$1\nshift 3\nexec {rsh} "$host" "$@"')
    return [["env", f"UNISON={home}", "unison", str(target.other()),
             f"ssh://there/{target.path}", "-sshcmd", shell, "-batch", "-force",
             str(target.other()), "-rsync", "-silent"], ["sync", str(target.path)]]


def casync(target, rsh, directory):
    """Chunks and an index are made here; there what is missing is fetched into a new file."""
    store, index = directory / "store", directory / "index.caibx"
    old, new = target.path, f"{target.path}.new"
    shell = script(directory / "casync-rsh", f'exec {rsh} "$@"')
    return [bash(f"rm -rf {store} {index} {new}; "
                 f"casync make --store={store} {index} {target.other()} > {directory}/digest"),
            ["env", f"CASYNC_SSH_PATH={shell}", "casync", "extract", f"--store=there:{store}",
             f"--seed={old}", f"there:{index}", new],
            ["sync", new], ["mv", new, str(old)]]


def bash(line):
    return ["bash", "-o", "pipefail", "-ec", line]


def script(path, text):
    path = Path(path)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


RSYNC_BLOCKS = [4096, 8192, 16384]
OTHERS = [Peer("rdiff", "rdiff", rdiff), Peer("unison", "unison", unison, is_slow=True),
          Peer("casync", "casync", casync, is_slow=True)]
NAMES = ["rsync"] + [peer.name for peer in OTHERS]


def installed():
    """Those that are there; what is not is said."""
    peers = [rsync(block) for block in RSYNC_BLOCKS] + OTHERS
    for program in dict.fromkeys(peer.program for peer in peers if not peer.is_installed()):
        print(f"LEFT OUT: there is no {program}", file=sys.stderr)
    return [peer for peer in peers if peer.is_installed()]
