"""Real files to index: Python's library and the packages installed beside it, each with a word of its own at the end.

Taken are source and text files of 1 byte to 200 kB that are valid UTF-8, spread evenly over all that there are, in the
order of their paths. The extra line makes every file findable by one search word, so that a search can tell which file
came, moved or went. Where the interpreter's own folders do not hold enough, the documentation and headers of the system
are taken too.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.progress import step
from sourcebus.connectors.documents import decode
from sourcebus.errors import ObjectUnreadable

_SUFFIXES = {".py", ".pyi", ".md", ".rst", ".txt", ".h", ".c", ".toml", ".cfg", ".js", ".css"}
_LARGEST = 200_000
_SKIPPED = {"__pycache__", "node_modules", ".git"}


@dataclass(frozen=True)
class Corpus:
    """The files of a folder, as paths below it, in order; `words` are their own words."""

    root: Path
    refs: list[str]
    words: dict[str, str]
    facts: dict[str, Any]


def own_word(number: int) -> str:
    """A word that no text holds by chance; of one length, so that none is the beginning of another."""
    return f"zqxj{number:06d}"


def copy_to(root: Path, count: int) -> Corpus:
    """Copies `count` files into the new folder `root`; fewer only if the machine has no more (`facts["files"]` says)."""
    found = _spread(_readable(), count)
    refs: list[str] = []
    words: dict[str, str] = {}
    sizes: list[int] = []
    suffixes: Counter[str] = Counter()
    digest = hashlib.sha256()
    with step("copying the corpus", len(found)) as shown:
        for number, (name, data) in enumerate(found):
            word = own_word(number)
            text = data + f"\n# {word}\n".encode()
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
            refs.append(name)
            words[name] = word
            sizes.append(len(text))
            suffixes[path.suffix] += 1
            digest.update(text)
            shown.advance()
    sizes.sort()
    facts = {
        "files": len(refs),
        "folders": len({ref.rpartition("/")[0] for ref in refs}),
        "megabytes": round(sum(sizes) / 1e6, 1),
        "median_bytes": sizes[len(sizes) // 2],
        "p95_bytes": sizes[int(len(sizes) * 0.95)],
        "suffixes": dict(suffixes.most_common(4)),
        "sha256": digest.hexdigest()[:12],
    }
    return Corpus(root, refs, words, facts)


def _places() -> list[tuple[str, Path]]:
    paths = sysconfig.get_paths()
    own = [("stdlib", Path(paths["stdlib"])), ("site-packages", Path(paths["purelib"]))]
    return [*own, ("include", Path("/usr/include")), ("doc", Path("/usr/share/doc"))]


def _readable() -> list[tuple[str, Path]]:
    """The interpreter's own files; those of the system follow, to be taken only if these are not enough."""
    found: list[tuple[str, Path]] = []
    for place, root in _places():
        if root.is_dir():
            found += [(f"{place}/{path.relative_to(root).as_posix()}", path) for path in _files(root, place == "stdlib")]
    return found


def _files(root: Path, is_stdlib: bool) -> Iterator[Path]:
    for path in sorted(root.iterdir()):
        if path.is_symlink() or path.name in _SKIPPED or (is_stdlib and path.name in ("site-packages", "dist-packages")):
            continue
        if path.is_dir():
            yield from _files(path, is_stdlib)
        elif path.suffix in _SUFFIXES and 0 < path.stat().st_size <= _LARGEST:
            yield path


def _spread(paths: list[tuple[str, Path]], count: int) -> list[tuple[str, bytes]]:
    own = sum(not name.startswith(("include/", "doc/")) for name, _path in paths)
    enough = max(own, min(count * 11 // 10, len(paths)))  # some turn out not to be UTF-8
    stride = max(1.0, enough / count)
    order = [int(at * stride) for at in range(int(enough / stride))]
    taken = set(order)
    order += [at for at in range(len(paths)) if at not in taken]  # stand-ins for those that cannot be taken
    found: list[tuple[str, bytes]] = []
    for at in order:
        if len(found) == count:
            break
        name, path = paths[at]
        try:
            data = path.read_bytes()
            text, encoding = decode(data)
        except (OSError, ObjectUnreadable):
            continue  # the parsers' own test data holds files that are no text
        if encoding == "utf-8" and "zqxj" not in text:
            found.append((name, data))
    return sorted(found)
