"""The share of small wrong changes of the source that the tests notice.

    python benchmarks/mutations/score.py [--seed 20261130] [--count 150] [--processes 2] [--least 0.9]

A seeded sample of single mutations (`a < b` becomes `a <= b`, a keyword is left out, a default is another number) is
drawn from all rooms. Each is made in a copy of the tree, never in the tree itself, and the tests are run there until
one fails: first those of the changed file's name, then those that import it, in the end those of its domain; code that
only Triton runs is interpreted. What is found goes line by line to `--results`, from which a stopped run continues.
The tests that noticed mutations are run once without any; what fails there has noticed nothing.

Mutations that change nothing anyone could see are listed with their reason in `equivalent.tsv` beside this
file: the source file, the line before and after, and why. Prints what survived, and the score; exits with 1 where
the score is below `--least`.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from queue import Queue

from changes import Mutation, changes, is_a_look, mutations_of
from noticing import ROOT, groups_of, sources

RUNNER = Path(__file__).with_name("runner.py")
EQUIVALENT = Path(__file__).with_name("equivalent.tsv")
INTERPRETED = {"QUINTET_SHAPE_CHECKS": "0", "TRITON_INTERPRET": "1"}
SECONDS = 1800  # that a group of tests may take; an endless loop counts as noticed
FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)


# Running them


class Copy:
    """A copy of the tree in which mutations are made, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "quintet"
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in filter(None, subprocess.check_output(listed, cwd=ROOT, text=True).split("\0")):
            if (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)
        data = Path(os.environ.get("QUINTET_DATA", ROOT.parent / "shared" / "data"))
        self.environment = os.environ | {"PYTHONPATH": str(folder), "QUINTET_DATA": str(data)}
        self.runners: dict[bool, subprocess.Popen] = {}
        self.second = 0

    def runner(self, interpreted: bool) -> subprocess.Popen:
        if interpreted not in self.runners:
            environment = self.environment | (INTERPRETED if interpreted else {})
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            started = subprocess.Popen([sys.executable, str(RUNNER)], cwd=self.root, env=environment, **pipes)
            self.runners[interpreted] = started
        return self.runners[interpreted]

    def close(self) -> None:
        for runner in self.runners.values():
            runner.stdin.close()
            runner.wait()

    def write(self, file: str, content: bytes) -> None:
        (self.root / file).write_bytes(content)
        # Compiled files are told apart by whole seconds and sizes.
        self.second += 10
        os.utime(self.root / file, (self.second, self.second))

    def failing(self, files: list[str], interpreted: bool, stop: bool = True) -> list[str]:
        """The first test that fails, or all; "timeout" where there is no end, "crash" where pytest itself ends."""
        arguments = ["-q", "-p", "no:cacheprovider", "-rfE", *files, *["-x"] * stop]
        arguments += ["-m", "interpreter"] if interpreted else []
        output = self.root.parent / "output.txt"
        runner = self.runner(interpreted)
        runner.stdin.write(json.dumps([arguments, SECONDS, str(output)]) + "\n")
        runner.stdin.flush()
        status = runner.stdout.readline().strip()
        if not status:
            raise RuntimeError("the runner of the tests has ended")
        if status == "timeout":
            return ["timeout"]
        if status in ("0", "5"):  # 5: every test is deselected
            return []
        return FAILED.findall(output.read_text(errors="replace")) or ["crash"]


def tried(mutation: Mutation, copy: Copy) -> dict:
    """What became of it: the test that failed, and whether Triton was interpreted; none where all passed."""
    original = (ROOT / mutation.file).read_bytes()
    copy.write(mutation.file, mutation.applied(original))
    try:
        for files, interpreted in groups_of(mutation):
            if failed := copy.failing(files, interpreted):
                return {"noticed": failed[0], "interpreted": interpreted}
    finally:
        copy.write(mutation.file, original)
    return {"noticed": None, "interpreted": False}


# The run


def key_of(mutation: Mutation) -> str:
    content = (ROOT / mutation.file).read_bytes()
    text = f"{mutation.file} {mutation.start} {mutation.end} {mutation.replacement}"
    return hashlib.sha256(text.encode() + content).hexdigest()[:16]


def is_equivalent(mutation: Mutation, listed: set[tuple[str, str, str]]) -> bool:
    before, after = mutation.lines((ROOT / mutation.file).read_bytes())
    return (mutation.file, before, after) in listed


def room_of(path: Path) -> str:
    return "/".join(path.parts[:-1][:2]) or path.name


def drawn(seed: int, count: int) -> list[Mutation]:
    """Mutations that read differently, without those listed as equivalent and of how pictures look.

    Large rooms give more, but not all.
    """
    with EQUIVALENT.open(newline="") as file:
        listed = {(row["file"], row["before"], row["after"]) for row in csv.DictReader(file, delimiter="\t")}
    rooms: dict[str, list[Mutation]] = {}
    for path in sources():
        rooms.setdefault(room_of(path), []).extend(mutations_of(ROOT, path))
    names = [name for name in rooms if rooms[name]]
    weights = [len(rooms[name]) ** 0.5 for name in names]
    draw = random.Random(seed)
    for name in names:
        draw.shuffle(rooms[name])
    kept: list[Mutation] = []
    while len(kept) < count and any(rooms.values()):
        room = rooms[draw.choices(names, weights)[0]]
        mutation = room.pop() if room else None
        source = (ROOT / mutation.file).read_bytes() if mutation else b""
        if not mutation or not changes(mutation, source) or is_a_look(mutation, source):
            continue
        if not is_equivalent(mutation, listed):
            kept.append(mutation)
    return kept


def shown(mutation: Mutation) -> str:
    before, after = mutation.lines((ROOT / mutation.file).read_bytes())
    return f"{mutation.file}:{mutation.line}\n  - {before}\n  + {after}"


def run(sample: list[Mutation], results: Path, processes: int) -> dict[str, dict]:
    """What became of each, by key; what `results` holds is not tried again."""
    lines = results.read_text().splitlines() if results.exists() else []
    known = {entry["key"]: entry for entry in map(json.loads, lines)}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(processes) as pool, results.open("a") as file:
        copies: Queue[Copy] = Queue()
        for number in range(processes):
            copies.put(Copy(Path(folder, str(number))))
        if failed := copies.queue[0].failing(["tests/core/test_errors.py"], False):
            sys.exit(f"{failed[0]} without any mutation; the tests cannot run here")

        def one(mutation: Mutation) -> None:
            copy = copies.get()
            entry = {"key": key_of(mutation), "mutation": shown(mutation)} | tried(mutation, copy)
            copies.put(copy)
            known[entry["key"]] = entry
            print(entry["noticed"] or "NOT NOTICED", "|", entry["mutation"], file=sys.stderr, flush=True)
            file.write(json.dumps(entry) + "\n")
            file.flush()

        list(pool.map(one, [mutation for mutation in sample if key_of(mutation) not in known]))
        found = {key_of(mutation): known[key_of(mutation)] for mutation in sample}
        copy = copies.get()
        for interpreted in (False, True):
            entries = [entry for entry in found.values() if entry["interpreted"] == interpreted]
            names = {entry["noticed"] for entry in entries} - {None, "timeout", "crash"}
            wrong = set(copy.failing(sorted(names), interpreted, stop=False)) if names else set()
            for entry in entries:
                if entry["noticed"] in wrong:
                    print(f"fails without a mutation as well: {entry['noticed']}")
                    entry["noticed"] = None
        for one_copy in (copy, *copies.queue):
            one_copy.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=int(f"{date.today():%Y%m%d}"), help="a new sample every day")
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--least", type=float, default=0.9)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    results = options.results or Path(tempfile.gettempdir(), f"quintet_mutations_{options.seed}.jsonl")
    found = run(drawn(options.seed, options.count), results, options.processes)
    for entry in found.values():
        if entry["noticed"] is None:
            print(f"not noticed: {entry['mutation']}")
    noticed = sum(entry["noticed"] is not None for entry in found.values())
    print(f"seed {options.seed}: {noticed} of {len(found)} mutations noticed, {noticed / len(found):.1%}")
    return int(noticed < options.least * len(found))


if __name__ == "__main__":
    sys.exit(main())
