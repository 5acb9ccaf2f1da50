"""The whole line on real data: the Complete Journey, a year of a grocery chain's loyalty-card households."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tiermodel.backtest import backtest
from tiermodel.config import Project, load_project
from tiermodel.errors import GateError
from tiermodel.features.panel import write_features
from tiermodel.predict import score
from tiermodel.registry import log_training, promote
from tiermodel.report import report
from tiermodel.training.train import train

__all__ = ["Demo", "demo", "demo_project"]


@dataclass(frozen=True)
class Demo:
    """Hold the backtest's results, the number of customers by tier, and where each file is."""

    backtest: dict[str, Any]
    tiers: dict[str, int]
    files: dict[str, str]


def demo_project() -> Project:
    """Load the Complete Journey project that comes with the package; its data is `pip install 'tiermodel[demo]'`."""
    packed = Path(str(resources.files("tiermodel"))) / "_data" / "complete_journey.yaml"
    return load_project(
        packed if packed.is_file() else Path(__file__).resolve().parents[2] / "configs" / "complete_journey.yaml"
    )


def demo(out: str | Path, say: Callable[[str], None] = lambda _: None) -> Demo:
    """Backtest, train, register, promote, score and report into a folder."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    project = demo_project()
    project = project.model_copy(
        update={"tracking": project.tracking.model_copy(update={"uri": f"sqlite:///{folder / 'mlflow.db'}"})}
    )
    files = {
        "backtest": folder / "backtest.json",
        "predictions": folder / "predictions.parquet",
        "bundle": folder / "bundle",
        "features": folder / "features.parquet",
        "scores": folder / "scores.parquet",
        "report": folder / "report.html",
        "tracking": folder / "mlflow.db",
    }
    done = backtest(
        project, out=files["backtest"], predictions=files["predictions"], progress=lambda w: say(f"backtest: {w}")
    )
    trained = train(project, out=files["bundle"], progress=lambda w: say(f"train: {w}"))
    say("tracking the run and registering the model")
    log_training(project, trained, files["bundle"], register=True)
    try:
        say(promote(project.name, None, tracking_uri=project.tracking.uri).to_text())
    except GateError as refusal:  # a second demo in the same folder brings an equal challenger: the champion stays
        say(str(refusal))
    say("scoring every household")
    as_of = trained.bundle.facts["as_of"]
    scored = score(project, files["bundle"], as_of, files["scores"])
    write_features(project, as_of, files["features"])
    say("drawing the report")
    pages = ("scores", "features", "bundle", "backtest", "predictions")
    report([files[name] for name in pages], files["report"])
    return Demo(done.results, scored.tiers, {name: str(path) for name, path in files.items()})
