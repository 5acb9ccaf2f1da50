"""Damaged bundles, drawn from a seed: keys, types and numbers of the JSON files, and the text of trees.

A `Variant` is the files of a bundle with one of them changed. With a right manifest it is what someone wrote who can
compute hashes; without one, what happens to a file by itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Variant", "trees_with", "variants", "with_json", "with_manifest", "write_variant"]

Files = dict[str, bytes]
Draw = np.random.Generator
_MANIFEST, _HUGE = "manifest.json", 10**400
_RAW = "@raw@"  # begins a text that is written without its quotes
NUMBERS: list[Any] = [
    0, -1, 1, 0.5, 1e308, -1e308, 1e-308, 2**31, -(2**31), 2**63, _HUGE, float("nan"), float("inf"), -float("inf"),
    f"{_RAW}1e999", f"{_RAW}-0.0",
]  # fmt: skip
OTHER_TYPES: list[Any] = [None, True, "", "x", "1.5", [], {}, [[]], [None], {"a": 1}, "\u0000", "x" * 1_000_000]


class Variant(NamedTuple):
    """What was changed, in words, and the files."""

    told: str
    files: Files


def variants(bases: Mapping[str, Files], count: int, seed: int) -> Iterator[Variant]:
    """Yield so many variants of some bundles; four of five have a right manifest."""
    for n in range(count):
        draw = np.random.default_rng((seed, n))
        base = list(bases)[n % len(bases)]
        files = dict(bases[base])
        kind = draw.choice(list(_KINDS), p=[0.42, 0.08, 0.43, 0.04, 0.03])
        told = _KINDS[kind](files, draw)
        hashed = draw.random() < 0.8
        if hashed:
            files = with_manifest(files)
        yield Variant(f"{base} {told}{'' if hashed else ' (manifest as it was)'}", files)


def with_manifest(files: Mapping[str, bytes]) -> Files:
    """Return the files with a manifest that has their hashes."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != _MANIFEST}
    return {**files, _MANIFEST: json.dumps({"format": 5, "files": hashes}).encode()}


def write_variant(files: Mapping[str, bytes], folder: Path) -> Path:
    """Write the files into a new folder."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def with_json(files: Mapping[str, bytes], key: str, value: Any, name: str = "bundle.json") -> Files:
    """Return the files with another value under a key such as `churn.blend.0`, and a right manifest."""
    data = json.loads(files[name])
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    at = data
    for part in path:
        at = at[part]
    at[last] = value
    return with_manifest({**files, name: json.dumps(data, ensure_ascii=False).encode()})


def trees_with(files: Mapping[str, bytes], name: str, pattern: str, new: str) -> Files:
    """Return the files with the first match of a pattern in the text of trees replaced, sizes and manifest right."""
    text, count = re.subn(pattern, new, files[name].decode(), count=1, flags=re.MULTILINE)
    assert count, f"{pattern} is not in {name}"
    return with_manifest({**files, name: _resized(text).encode()})


def _resized(text: str) -> str:
    """Return the text with the sizes that its trees have."""
    head, end = text.partition("\n\n")[0], text.find("end of trees")
    blocks = re.split(r"(?=^Tree=)", text[len(head) + 2 : end], flags=re.MULTILINE)
    sizes = " ".join(str(len(block.encode())) for block in blocks if block)
    return re.sub(r"^tree_sizes=.*$", f"tree_sizes={sizes}", text, count=1, flags=re.MULTILINE)


# JSON


def _places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    parts = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, part in parts:
        yield from _places(part, (*path, key))


def _change_json(files: Files, draw: Draw, name: str = "bundle.json") -> str:
    data = json.loads(files[name])
    section = draw.choice(list(data))
    places = list(_places({section: data[section]}))
    depth = draw.integers(1, max(map(len, places)) + 1)  # else nearly all would be numbers in long lists
    chosen = [place for place in places if len(place) == depth]
    place = chosen[draw.integers(len(chosen))]
    parent = data
    for key in place[:-1]:
        parent = parent[key]
    ways = [way for way, fits in _WAYS if fits(parent, place[-1])]
    way = ways[draw.integers(len(ways))]
    told = way(parent, place[-1], draw)
    text = json.dumps(data, ensure_ascii=False)
    files[name] = re.sub(rf'"{_RAW}([^"]*)"', r"\1", text).encode("utf-8", "surrogatepass")
    return f"{name}: {'.'.join(map(str, place))}: {told}"


def _drop(parent: Any, key: Any, _draw: Draw) -> str:
    del parent[key]
    return "dropped"


def _other_type(parent: Any, key: Any, draw: Draw) -> str:
    parent[key] = OTHER_TYPES[draw.integers(len(OTHER_TYPES))]
    return f"is {str(parent[key])[:20]!r}"


def _other_number(parent: Any, key: Any, draw: Draw) -> str:
    parent[key] = NUMBERS[draw.integers(len(NUMBERS))]
    return f"is {str(parent[key])[:20]}"


def _scaled(parent: Any, key: Any, draw: Draw) -> str:
    factor = draw.choice([-1.0, 1000.0, 1.001, 0.0])
    parent[key] = type(parent[key])(parent[key] * factor)
    return f"times {factor:g}"


def _shuffled(parent: Any, key: Any, draw: Draw) -> str:
    parent[key] = [parent[key][n] for n in draw.permutation(len(parent[key]))]
    return "shuffled"


def _cut(parent: Any, key: Any, _draw: Draw) -> str:
    parent[key] = parent[key][:-1]
    return "is one shorter"


def _longer(parent: Any, key: Any, draw: Draw) -> str:
    times = int(draw.choice([1, 1000]))
    parent[key] = [*parent[key], *parent[key][-1:] * times]
    return f"is {times} longer"


def _nested(parent: Any, key: Any, draw: Draw) -> str:
    depth = int(draw.choice([50, 100_000]))
    parent[key] = f"{_RAW}{'[' * depth}{']' * depth}"
    return f"is {depth} lists"


def _swapped(parent: Any, key: Any, draw: Draw) -> str:
    others = [k for k in parent if k != key]
    other = others[draw.integers(len(others))]
    parent[key], parent[other] = parent[other], parent[key]
    return f"swapped with {other}"


def _renamed(parent: Any, key: Any, _draw: Draw) -> str:
    parent[f"{key}_"] = parent.pop(key)
    return "has another name"


def _is(kind: Any) -> Callable[[Any, Any], bool]:
    return lambda parent, key: isinstance(parent[key], kind) and not isinstance(parent[key], bool)


def _any(_parent: Any, _key: Any) -> bool:
    return True


def _has_others(parent: Any, _key: Any) -> bool:
    return isinstance(parent, dict) and len(parent) > 1


_WAYS: list[tuple[Callable[[Any, Any, Draw], str], Callable[[Any, Any], bool]]] = [
    (_drop, _any), (_other_type, _any), (_other_number, _any), (_nested, _any), (_swapped, _has_others),
    (_scaled, _is(int | float)), (_other_number, _is(int | float)), (_shuffled, _is(list)), (_cut, _is(list)),
    (_longer, _is(list)), (_renamed, _has_others),
]  # fmt: skip


def _change_golden(files: Files, draw: Draw) -> str:
    return _change_json(files, draw, "golden.json") if "golden.json" in files else _change_json(files, draw)


# trees

_KEYS = (
    "num_leaves", "num_cat", "split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child",
    "leaf_value", "leaf_weight", "leaf_count", "internal_value", "internal_weight", "internal_count", "is_linear",
    "shrinkage",
)  # fmt: skip
_HEAD_KEYS = (
    "version", "num_class", "num_tree_per_iteration", "label_index", "max_feature_idx", "objective", "feature_names",
    "feature_infos", "tree_sizes",
)  # fmt: skip
TOKENS = [
    "0", "-1", "1", "-2", "7", "nan", "inf", "-inf", "1e999", "1e308", "-1e308", "2147483647", "-2147483648",
    "99999999999999999999", "x", "", "0x10", "1_0", "3 3 3", "0.1.2", "\u0661",
]  # fmt: skip


def _change_trees(files: Files, draw: Draw) -> str:
    names = sorted(name for name in files if name.endswith(".txt"))
    name = names[draw.integers(len(names))]
    way = list(_TREE_WAYS)[draw.integers(len(_TREE_WAYS))]
    told = _TREE_WAYS[way](files, name, draw)
    return f"{name}: {way}{told}"


def _one_number(files: Files, name: str, draw: Draw) -> str:
    """Put another word in the place of one number of a tree; the sizes are mended, so that parsing goes on."""
    text, key = files[name].decode(), str(draw.choice(_KEYS))
    found = list(re.finditer(rf"^{key}=(.+)$", text, flags=re.MULTILINE))
    line = found[draw.integers(len(found))]
    numbers, token = line[1].split(" "), TOKENS[draw.integers(len(TOKENS))]
    at = int(draw.integers(len(numbers)))
    numbers[at] = token
    files[name] = _resized(f"{text[: line.start(1)]}{' '.join(numbers)}{text[line.end(1) :]}").encode()
    return f" {key}[{at}] is {token!r}"


def _line_of_tree(files: Files, name: str, draw: Draw) -> str:
    """Drop, repeat or shorten a line of a tree."""
    lines, way = files[name].decode().split("\n"), str(draw.choice(["dropped", "twice", "cut", "longer"]))
    at = [n for n, line in enumerate(lines) if line.partition("=")[0] in _KEYS]
    n = at[draw.integers(len(at))]
    told = lines[n].partition("=")[0]
    lines[n : n + 1] = {
        "dropped": [], "twice": [lines[n]] * 2, "cut": [lines[n].rpartition(" ")[0]], "longer": [f"{lines[n]} 1"],
    }[way]  # fmt: skip
    files[name] = _resized("\n".join(lines)).encode()
    return f" {told} {way}"


def _head(files: Files, name: str, draw: Draw) -> str:
    key, token = str(draw.choice(_HEAD_KEYS)), TOKENS[draw.integers(len(TOKENS))]
    text = files[name].decode()
    files[name] = re.sub(rf"^{key}=.*$", lambda _: f"{key}={token}", text, count=1, flags=re.MULTILINE).encode()
    return f" {key} is {token!r}"


def _bytes(files: Files, name: str, draw: Draw) -> str:
    content, count = bytearray(files[name]), int(draw.choice([1, 3, 30]))
    for at in draw.integers(0, len(content), count):
        content[at] ^= 1 << int(draw.integers(8))
    files[name] = bytes(content)
    return f" {count}"


def _truncated(files: Files, name: str, draw: Draw) -> str:
    files[name] = files[name][: int(draw.integers(len(files[name])))]
    return f" at {len(files[name])}"


def _tree_dropped(files: Files, name: str, draw: Draw) -> str:
    """Leave out a whole tree: a model as good as any for LightGBM."""
    text = files[name].decode()
    blocks = re.split(r"(?=^Tree=)", text.partition("end of trees")[0], flags=re.MULTILINE)
    n = int(draw.integers(1, len(blocks)))
    del blocks[n]
    numbered = [re.sub(r"^Tree=\d+", f"Tree={k}", block) for k, block in enumerate(blocks[1:])]
    files[name] = _resized(f"{blocks[0]}{''.join(numbered)}end of trees{text.partition('end of trees')[2]}").encode()
    return f" {n - 1}"


def _tail(files: Files, name: str, draw: Draw) -> str:
    head, end, tail = files[name].decode().partition("end of trees")
    changed = str(
        draw.choice(["", "\n\nparameters:\n[num_threads: -9]\n", tail * 3, "\npandas_categorical:[[[[", "\0" * 99])
    )
    files[name] = f"{head}{end}{changed}".encode()
    return f" of {len(changed)} characters"


def _other_file(files: Files, name: str, draw: Draw) -> str:
    names = sorted(files)
    other = names[draw.integers(len(names))]
    files[name], files[other] = files[other], files[name]
    return f" {other}"


_TREE_WAYS: dict[str, Callable[[Files, str, Draw], str]] = {
    "number": _one_number, "number ": _one_number, "number  ": _one_number, "line": _line_of_tree, "head": _head,
    "bytes flipped": _bytes, "truncated": _truncated, "dropped tree": _tree_dropped, "tail": _tail,
    "swapped with": _other_file,
}  # fmt: skip


def _change_files(files: Files, draw: Draw) -> str:
    """Remove a file, add one, or fill one with something else."""
    names = sorted(set(files) - {_MANIFEST})
    name, way = names[draw.integers(len(names))], int(draw.integers(4))
    if way == 0:
        del files[name]
        return f"{name} removed"
    if way == 1:
        extra = str(draw.choice(["tier_9.txt", "prospects.txt", "scheme_0.txt", "setup.py"]))
        files[extra] = files["churn.txt"]
        return f"{extra} added"
    files[name] = [b"", draw.bytes(10_000)][way - 2]
    return f"{name} filled with {len(files[name])} bytes"


def _change_manifest(files: Files, draw: Draw) -> str:
    return _change_json(files, draw, _MANIFEST)


_KINDS: dict[str, Callable[[Files, Draw], str]] = {
    "json": _change_json, "golden": _change_golden, "trees": _change_trees, "files": _change_files,
    "manifest": _change_manifest,
}  # fmt: skip
