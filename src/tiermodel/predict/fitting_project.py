"""Whether a bundle fits a project: its columns, and the meaning of its numbers."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Features, Project
from tiermodel.errors import ModelError
from tiermodel.tables.history import History, project_key

__all__ = ["fitting", "with_bundle_features"]


def with_bundle_features(project: Project, bundle: Bundle, history: History) -> Project:
    """Return the project with the bundle's features; `ModelError` where the project does not fit the bundle."""
    return fitting(project, bundle, history.columns)


def fitting(project: Project, bundle: Bundle, columns: AbstractSet[str]) -> Project:
    """Return the project with the bundle's features, as `with_bundle_features`, where these columns are mapped."""
    missing = sorted(set(bundle.columns) - columns)
    if missing:
        raise ModelError(
            f"the bundle {bundle.version} needs {', '.join(map(project_key, missing))}, which the project does not map"
        )
    _refuse_other_meaning(project, bundle)
    return Project.model_validate({**project.model_dump(exclude_none=True), "features": bundle.settings["features"]})


def _refuse_other_meaning(project: Project, bundle: Bundle) -> None:
    """Raise `ModelError` where time zone, currency or value differ from those of the training."""
    now = project.model_dump(mode="json")
    then = {**bundle.settings, "value": bundle.value_settings.model_dump(mode="json")}
    for key in ("timezone", "currency", "value"):
        if now[key] != then[key]:
            words = f"the bundle {bundle.version} was trained with {key}: {then[key]}, the project says {now[key]}"
            raise ModelError(f"{words}; train again, or correct the project")
    trained = {own.name: own for own in Features.model_validate(bundle.settings["features"]).custom}
    for own in project.features.custom:  # the project's tables have been read under its own expressions
        learned = trained.get(own.name)
        if learned is not None and (own.measure, own.table) != (learned.measure, learned.table):
            words = f"features.custom.{own.name}: the bundle {bundle.version} was trained with"
            was, now_is = (f"{each.measure or each.formula} (of {each.table})" for each in (learned, own))
            raise ModelError(f"{words} {was}, the project says {now_is}; train again, or correct the project")
