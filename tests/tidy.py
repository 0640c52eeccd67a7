#!/usr/bin/env python3
"""The rules of the repository that a machine can check. Prints every breach as FILE:LINE: RULE."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINES_MAX = 600
TEXT = {".rs", ".py", ".sh", ".md", ".toml", ".html", ".css", ".js", ".yml", ".yaml", ""}
CODE = {".rs", ".py", ".sh", ".html", ".css", ".js"}

# Pattern, files it is banned in, rule.
BANNED = [
    (r"\b(FIXME|XXX)\b", CODE, "finish it, or write an issue"),
    (r"\bTODO\b", CODE, "finish it, or write an issue"),
    (r"(?<![\w.~$}])/(root|home/\w+|Users/\w+)/", TEXT, "no path of one person's machine"),
    (r"[ \t]+$", TEXT, "no blanks at the end of a line"),
    (r"\t", CODE - {".sh"}, "no tabs"),
    (r"\r", TEXT, "no carriage returns"),
    (r"^(<{7}|>{7}) ", TEXT, "a merge was not finished"),
    (r"#\[ignore\]", {".rs"}, "an ignored test says why: #[ignore = \"...\"]"),
]
# An address in the repository is either an example, this machine, or the name of a standard.
URL_HOSTS = re.compile(r"^(localhost|127\.0\.0\.1|\[::1\]|([\w-]+\.)*example(\.(com|org|net))?|www\.w3\.org|www\.apache\.org|\{|\$|%|\.\.\.)")
# Documents whose tables promise tests, and how many rows they must at least have.
PROMISES = {"docs/complaints.md": 20, "docs/security.md": 30}
TEST_OF_RUST = re.compile(r"#\[(?:tokio::)?test\b[^\n]*\n(?:\s*(?:#\[|//)[^\n]*\n)*\s*(?:pub )?(?:async )?fn (\w+)")
TEST_OF_PYTHON = re.compile(r"^(?:    )?def (\w+)\(", re.M)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def main() -> int:
    files = [ROOT / name for name in git("ls-files", "-co", "--exclude-standard").split("\n") if name]
    files = [path for path in files if path.is_file() and path.suffix in TEXT and path.name != "Cargo.lock"]
    breaches = [breach for path in files for breach in check_file(path)]
    breaches += check_licences()
    breaches += check_planted_bugs()
    breaches += check_promised_tests(files)
    breaches += check_rooms_of_the_agent()
    for breach in breaches:
        print(breach)
    print(f"tidy: {len(files)} files, {len(breaches)} breaches", file=sys.stderr)
    return 1 if breaches else 0


def check_file(path: Path):
    name = path.relative_to(ROOT)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        yield f"{name}:1: text must be UTF-8"
        return
    lines = text.split("\n")
    if path.suffix in CODE and len(lines) > LINES_MAX + 1:
        yield f"{name}:{len(lines)}: at most {LINES_MAX} lines in a file"
    if text and not text.endswith("\n"):
        yield f"{name}:{len(lines)}: a file ends with a line break"
    if path != Path(__file__).resolve() and name.as_posix() != "LICENSE":
        yield from check_lines(path, lines)


def check_lines(path: Path, lines: list[str]):
    name = path.relative_to(ROOT)
    for number, line in enumerate(lines, 1):
        for pattern, suffixes, rule in BANNED:
            if path.suffix in suffixes and re.search(pattern, line):
                yield f"{name}:{number}: {rule}"
        for address in re.findall(r"https?://([^\s\"'`<>)]*)", line):
            if address and not URL_HOSTS.match(address):
                yield f"{name}:{number}: no outside address: {address}"
        if path.suffix == ".md":
            for target in LINK.findall(line):
                if not target.startswith(("http:", "https:", "#")) and not (path.parent / target.split("#")[0]).exists():
                    yield f"{name}:{number}: broken link: {target}"


def check_rooms_of_the_agent():
    """ARCHITECTURE.md lists the agent's rooms from the top down: one uses those below it only."""
    source = ROOT / "edge-agent/src"
    table = re.search(r"^\| agent \|.*?\n\n", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.M | re.S)
    cells = [line.split("|")[2] for line in table.group().strip().split("\n")] if table else []
    rooms = [name.removesuffix(".rs").strip("/") for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    homes = {path.stem for path in source.iterdir()} - {"lib", "main"}
    for missing in sorted(homes ^ set(rooms)):
        yield f"ARCHITECTURE.md:1: the table of rooms and edge-agent/src must have the same, differs: {missing}"
    for path in sorted(source.rglob("*.rs")):
        room = path.relative_to(source).parts[0].removesuffix(".rs")
        if room not in rooms:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if line == "mod tests {":
                break
            for used in re.findall(r"\bcrate::(\w+)", line):
                if used in rooms and rooms.index(used) < rooms.index(room):
                    yield f"{path.relative_to(ROOT)}:{number}: {room} must not use {used}: see ARCHITECTURE.md"


def check_licences():
    """Every dependency's licence is satisfied by the list in deny.toml."""
    allowed = set(tomllib.loads((ROOT / "deny.toml").read_text())["licenses"]["allow"])
    done = subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        yield f"Cargo.lock:1: {done.stderr.strip().splitlines()[-1]}"
        return
    for package in json.loads(done.stdout)["packages"]:
        licence = package["license"]
        if licence is None and package["license_file"] is None:
            yield f"Cargo.lock:1: {package['name']} states no licence"
        elif licence is not None and not satisfied(licence, allowed):
            yield f"Cargo.lock:1: {package['name']}: licence {licence} is not allowed by deny.toml"


def check_planted_bugs():
    """A patch that no longer applies plants nothing."""
    for patch in sorted((ROOT / "tests/sim/mutants").glob("*.patch")):
        done = subprocess.run(
            ["git", "apply", "--check", str(patch)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            yield f"{patch.relative_to(ROOT)}:1: does not apply: {done.stderr.strip().splitlines()[-1]}"


def check_promised_tests(files: list[Path]):
    """Every row of these tables names tests that exist."""
    known = set()
    for path in files:
        name = path.relative_to(ROOT).as_posix()
        if path.suffix == ".rs":
            known.update(TEST_OF_RUST.findall(path.read_text()))
        elif name.startswith("tests/") and path.suffix == ".py":
            known.update(TEST_OF_PYTHON.findall(path.read_text()))
    faults = re.findall(r"^ +Self::(\w+),", (ROOT / "tests/sim/tally.rs").read_text(), re.M)
    for document, rows_min in PROMISES.items():
        rows = 0
        for number, line in enumerate((ROOT / document).read_text().split("\n"), 1):
            if not line.startswith("| ") or line.endswith("| tests |"):
                continue
            rows += 1
            named = re.findall(r"`([^`]+)`", line.rstrip(" |").rsplit("|", 1)[1])
            if not named:
                yield f"{document}:{number}: a row names its tests"
            for test in named:
                if test not in known and test not in faults and not test.startswith("./run "):
                    yield f"{document}:{number}: no such test: {test}"
        if rows < rows_min:
            yield f"{document}:1: at least {rows_min} rows, got {rows}"


def satisfied(expression: str, allowed: set[str]) -> bool:
    """SPDX expressions: AND binds tighter than OR; `A/B` is the old form of `A OR B`."""
    words = re.findall(r"\(|\)|[\w.+-]+(?: WITH [\w.+-]+)?", expression.replace("/", " OR "))
    value, rest = any_of(words, allowed)
    return value and not rest


def any_of(words: list[str], allowed: set[str]) -> tuple[bool, list[str]]:
    value, words = all_of(words, allowed)
    while words and words[0] == "OR":
        right, words = all_of(words[1:], allowed)
        value = value or right
    return value, words


def all_of(words: list[str], allowed: set[str]) -> tuple[bool, list[str]]:
    value, words = one(words, allowed)
    while words and words[0] == "AND":
        right, words = one(words[1:], allowed)
        value = value and right
    return value, words


def one(words: list[str], allowed: set[str]) -> tuple[bool, list[str]]:
    if words[0] == "(":
        value, words = any_of(words[1:], allowed)
        return value, words[1:]
    return words[0] in allowed, words[1:]


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
