"""The pages and the docstrings: what they show runs, what is public is described."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

import tiermodel
from tiermodel.cli.main import main, run
from tiermodel.config.keys import every_key, meanings, to_markdown
from tiermodel.config.project import Project, load_project
from worlds import TrainedWorld

ROOT = Path(__file__).resolve().parents[1]
README, CHINESE = ROOT / "README.md", ROOT / ".github" / "README.zh-CN.md"
CONFIGS = ROOT / "configs" / "README.md"
DOCS = {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in (
    README, CHINESE, CONFIGS, ROOT / "models" / "README.md", ROOT / "notebooks" / "README.md",
    ROOT / "tests" / "benchmarks" / "README.md", ROOT / ".github" / "CONTRIBUTING.md",
)}  # fmt: skip
SLOW = {
    "demo",
    "init",
    "train",
    "backtest",
    "promote",
    "rollback",
    "refresh",
    "serve",
    "tune",
}  # run by their own tests
STANDS_FOR = {"tiermodel-demo/bundle": "models/shop", "shop@champion": "models/shop", "backtest.json": ""}


def fences(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[str]:
    """List what a page tells to type: lines after `$ ` in console blocks, and `tiermodel …` in the text."""
    for block in fences("console", text):
        yield from re.findall(r"^\$ (tiermodel .*)$", block, flags=re.MULTILINE)
    without = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`(tiermodel [a-z][^`]*)`", without)


COMMANDS = list(dict.fromkeys(line for text in DOCS.values() for line in commands(text)))


def test_the_readme_is_short_and_the_chinese_one_shows_the_same_commands() -> None:
    text, chinese = (file.read_text(encoding="utf-8") for file in (README, CHINESE))
    assert len(text.splitlines()) <= 200
    ours = [line.replace(" --language zh", "") for line in commands(chinese)]
    assert {line for line in ours if "show keys" not in line} == set(commands(text))
    assert fences("bash", text) == fences("bash", chinese)
    assert {shlex.split(line)[1] for line in COMMANDS} <= set(run.commands)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_pages_parses(line: str) -> None:
    command: click.Command = run
    words = shlex.split(line)[1:]
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    command.make_context("tiermodel", words)


@pytest.fixture(scope="module")
def shop(trained: TrainedWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the folder in which the README's user works: a project file, a trained model."""
    folder = tmp_path_factory.mktemp("shop")
    shutil.copytree(trained.bundle, folder / "models" / "shop")
    settings = trained.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True) | {"policy": "retail"}
    (folder / "shop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


@pytest.mark.parametrize("line", [c for c in COMMANDS if shlex.split(c)[1] not in SLOW])
def test_the_quick_commands_of_the_pages_run(
    line: str, shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop)
    words = [STANDS_FOR.get(word, word) for word in shlex.split(line)]
    if words[1] == "report" and not (shop / "scores.parquet").exists():
        pytest.skip("the command before it was not run")
    monkeypatch.setattr(sys, "argv", [word for word in words if word])
    try:
        main()
    except SystemExit as stop:
        assert stop.code in {None, 0}, capsys.readouterr().err  # noqa: PT017
    assert capsys.readouterr().out


def test_the_settings_of_the_pages_are_settings(tmp_path: Path) -> None:
    blocks = fences("yaml", "\n".join(DOCS.values()))
    projects = [block for block in blocks if block.startswith("version:")]
    assert projects
    for block in projects:
        (tmp_path / "project.yaml").write_text(block, encoding="utf-8")
        assert load_project(tmp_path / "project.yaml").version == 1
    project = yaml.safe_load(projects[0])
    project["data"]["transactions"]["columns"]["cost"] = "cost"
    project["data"]["customers"] = {"path": "p.csv", "columns": {"customer_id": "m"}, "attributes": {"age": "age"}}
    parts = [block for block in blocks if not block.startswith("version:")]
    assert len(parts) >= 2
    for block in parts:
        Project.model_validate({**project, **yaml.safe_load(block)})


def test_every_key_of_the_project_file_is_told() -> None:
    assert set(meanings()) == {key.path for key in every_key("en")} | {"data.TABLE"}
    told = re.search(r"<!-- keys.*?-->\n(.*)\n<!-- end of keys -->", CONFIGS.read_text(encoding="utf-8"), re.DOTALL)
    assert told is not None
    assert told[1] == to_markdown("en"), "put what `tiermodel show keys` prints into configs/README.md"
    assert not re.search(r"[\u4e00-\u9fff]", to_markdown("en"))
    assert not re.search(r"\b(the|text|list of|whole number)\b", to_markdown("zh"))


def test_the_python_of_the_pages_uses_public_names_only() -> None:
    for block in fences("python", DOCS["README.md"] + DOCS[".github/README.zh-CN.md"]):
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "tiermodel":
                assert {alias.name for alias in node.names} <= set(tiermodel.__all__)


@pytest.mark.parametrize("page", DOCS)
def test_links_of_the_pages_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", DOCS[page]):
        assert ((ROOT / page).parent / target).exists(), target


def test_the_architecture_names_every_room_and_only_what_is_there() -> None:
    text = (ROOT / ".github" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    package = ROOT / "src" / "tiermodel"
    named = set(re.findall(r"`([a-z_/]+(?:/|\.py|\.yaml|\.j2))(?:::(\w+))?`", text.replace(".html.j2", ".j2")))
    for place, function in named:
        file = place.replace(".j2", ".html.j2")
        found = ROOT / file if file.startswith(("tests/", "configs/")) else package / file
        assert found.exists(), f"{place} is not there"
        assert not function or f"def {function}(" in found.read_text(encoding="utf-8"), f"{place} has no {function}"
    rooms = {path.name for path in package.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms <= {place.split("/")[0] for place, _ in named}


# docstrings


@pytest.mark.parametrize(
    "file", sorted((ROOT / "src").rglob("*.py")), ids=lambda f: f.relative_to(ROOT / "src").as_posix()
)
def test_what_a_module_offers_is_there_and_described(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{file.name} does not say what it is for"
    offered: list[str] = []
    described: dict[str, str | None] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            described[node.name] = ast.get_docstring(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
            described |= dict.fromkeys(names, "a value")
            if "__all__" in names and node.value:
                offered = ast.literal_eval(node.value)
    if file.name == "__init__.py":
        return  # its names are those of other modules
    for name in offered:
        assert name in described, f"{file.name} offers {name}, which it does not define"
        assert described[name], f"{file.name}: {name} has no docstring"
    assert sorted(offered) == sorted(set(offered))
