"""The order of the rooms: every module has a place, and imports only from rooms below it."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
ROOMS = (
    {"errors", "arrays", "words", "disk"},
    {"datasets", "locks", "config"},
    {"output"},
    {"tables"},
    {"engines"},
    {"features"},
    {"models"},
    {"segments"},
    {"evaluation"},
    {"tiers"},
    {"bundle", "ledger", "policy", "quality", "sklearn"},
    {"crm", "training", "predict"},
    {"backtesting", "erasure", "mlflow_flavor", "monitoring", "worklists", "project_init"},
    {"reporting"},
    {"tracking"},
    {"jobs", "serving"},
    {"demo"},
    {"cli"},
    {"__main__"},
)
"""The rooms (folders, and files at the top of the package) from the lowest floor to the highest."""


def imports_of(module: ast.Module) -> set[str]:
    """List the modules of ours that a module imports anywhere, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("tiermodel.")}


def modules() -> dict[str, ast.Module]:
    files = {".".join(f.relative_to(SOURCE).with_suffix("").parts): f for f in sorted(SOURCE.rglob("*.py"))}
    return {name.removesuffix(".__init__"): ast.parse(f.read_text(encoding="utf-8")) for name, f in files.items()}


def test_every_room_has_a_floor() -> None:
    rooms = {name.split(".")[1] for name in modules() if name != "tiermodel"}
    assert rooms == set().union(*ROOMS)


def test_a_module_imports_only_from_rooms_below_it() -> None:
    house = modules()
    graph = {name: imports_of(tree) & set(house) for name, tree in house.items() if name != "tiermodel"}
    list(TopologicalSorter(graph).static_order())  # raises CycleError where there is a cycle
    floor = {room: n for n, rooms in enumerate(ROOMS) for room in rooms}
    wrong = [
        f"{name} imports {other}"
        for name, imported in sorted(graph.items())
        for other in sorted(imported)
        if (room := name.split(".")[1]) != (below := other.split(".")[1]) and floor[below] >= floor[room]
    ]
    assert wrong == []


def test_tests_stand_in_the_room_that_they_test() -> None:
    folders = {path.name for path in Path(__file__).parent.iterdir() if path.is_dir() and any(path.glob("test_*.py"))}
    assert folders <= set().union(*ROOMS)


def test_the_top_of_the_package_stays_small() -> None:
    assert len(list((SOURCE / "tiermodel").glob("*.py"))) <= 10


def test_mlflow_stays_in_its_room() -> None:
    for name, tree in modules().items():
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(n.split(".")[0] == "mlflow" for n in names):
                assert name in {
                    "tiermodel.tracking.connection",
                    "tiermodel.tracking.registry",
                    "tiermodel.mlflow_flavor",
                }
