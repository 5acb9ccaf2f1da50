"""Put the page together: sections, charts and scripts in one HTML file that asks nobody for anything.

A Content-Security-Policy with the hash of each script and of the style allows these and nothing else: what a table or
a model says cannot become code, and the page makes no request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tiermodel.reporting.charts import Chart, library, theme
from tiermodel.reporting.customer_table import customer_table
from tiermodel.reporting.customers import customer_sections, rfm_charts
from tiermodel.reporting.history import history_sections
from tiermodel.reporting.inputs import ReportInputs
from tiermodel.reporting.models import model_sections
from tiermodel.reporting.outcomes import outcomes_section
from tiermodel.reporting.palette import DARK, LIGHT, tier_colours
from tiermodel.reporting.summary import sentences, verdicts
from tiermodel.words import words

__all__ = ["TERMS", "environment", "render"]

TERMS = (
    *("tier", "key", "churn_risk", "expected_value", "interval", "value_at_risk", "lifecycle", "segment", "movement"),
    *(
        "backtest",
        "baseline",
        "capture",
        "kappa",
        "gini",
        "auc",
        "log_loss",
        "brier",
        "ece",
        "btyd",
        "support",
        "purity",
    ),
    *("herfindahl", "whale", "gate", "bootstrap"),
)
"""What the page explains where it stands, and again in the glossary at its end."""


def environment() -> Environment:
    """Return the templates' environment: everything is escaped, an unknown name is an error."""
    made = Environment(
        loader=PackageLoader("tiermodel"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"count": _count, "percent": _percent, "figure": _figure}
    return made


def render(inputs: ReportInputs, language: str, *, ids: bool) -> str:
    """Return the page in a language; without `ids` no customer's id is on it."""
    wording, facts = words(language), _facts(inputs)
    sections = _sections(inputs, language, ids=ids)
    told = verdicts(inputs, language)
    charts = {chart.id: chart.spec for chart in _charts(sections)}
    made = environment()
    tiers = {scheme: tier_colours(_level_count(inputs), scheme) for scheme in ("light", "dark")}
    style = made.get_template("report/style.css.j2").render(light=LIGHT, dark=DARK, tiers=tiers)
    scripts = [library(), _script()] if charts else [_script()]
    return made.get_template("report.html.j2").render(
        t=wording, language=language, inputs=inputs, currency=inputs.currency, facts=facts, s=sections, verdicts=told,
        says=sentences(facts, sections, told, language), glossary=TERMS, style=Markup(style),  # noqa: S704  # colours only
        scripts=[Markup(script) for script in scripts],  # noqa: S704  # the library's and our own, no data in them
        data=_json({"charts": charts, "config": theme(), "words": _spoken(wording)}),
        policy=_policy(style, scripts),
    )  # fmt: skip


def _level_count(inputs: ReportInputs) -> int:
    """Return the number of levels that need a colour: of the scores, of the bundle, of outcomes."""
    found = [1]
    if inputs.scores is not None:
        found.append(len(inputs.codes))
    if inputs.bundle is not None:
        found.append(len(inputs.bundle.scheme.scheme.levels))
    if inputs.outcomes is not None:
        found.append(inputs.outcomes.tiers["tier_code"].nunique())
    return max(found)


def _sections(inputs: ReportInputs, language: str, *, ids: bool) -> dict[str, Any]:
    """Return every section that the inputs allow, by its id on the page."""
    wording = words(language)
    sections: dict[str, Any] = {}
    if inputs.scores is not None:
        names = inputs.names(language)
        sections |= customer_sections(inputs, names, language)
        sections |= history_sections(inputs, names, wording)
        sections["table"] = customer_table(inputs, names, language, ids=ids)
    if (rfm := rfm_charts(inputs, language)) is not None:
        sections["rfm"] = rfm
    if (outcomes := outcomes_section(inputs, language)) is not None:
        sections["outcomes"] = outcomes
    sections |= model_sections(inputs, language)
    if inputs.gate is not None:
        checks = sorted(inputs.gate["checks"], key=lambda check: (check["passed"], check["accepted"]))
        sections["gate"] = {**inputs.gate, "checks": checks}
    if inputs.monitor is not None:
        sections["monitor"] = inputs.monitor
    return sections


def _charts(part: Any) -> Iterator[Chart]:
    """Yield the charts in sections, however deep they lie."""
    if isinstance(part, Chart):
        yield part
    elif isinstance(part, Mapping):
        for inner in part.values():
            yield from _charts(inner)
    elif isinstance(part, (list, tuple)):
        for inner in part:
            yield from _charts(inner)


def _script() -> str:
    return (resources.files("tiermodel") / "templates" / "report" / "page.js").read_text(encoding="utf-8")


def _spoken(wording: Mapping[str, str]) -> dict[str, str]:
    return {key: wording[f"table_{key}"] for key in ("shown", "none")}


def _json(content: Any) -> Markup:
    """Return data for a script element of a data type; no text in it can end the element or begin a comment."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))  # noqa: S704


def _policy(style: str, scripts: list[str]) -> str:
    """Return the Content-Security-Policy: nothing but these scripts and this style, and images within the page."""
    hashes = " ".join(_hash(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src {_hash(style)}; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _facts(inputs: ReportInputs) -> dict[str, Any]:
    """Return the facts that head and close the page: project, date, horizon, measure, versions; None if not known."""
    bundle, backtest = inputs.bundle, inputs.backtest or {}
    facts: dict[str, Any] = {
        **dict.fromkeys(("as_of", "model_version", "scheme_version", "other_version", "training")),
        "project": backtest.get("project") or (inputs.gate or {}).get("name"),
        "horizon": backtest.get("horizon_days"),
        "measure": backtest.get("value_measure"),
        "currency": inputs.currency,
    }
    if bundle is not None:
        facts |= {
            "project": bundle.name,
            "as_of": bundle.facts["as_of"],
            "horizon": bundle.settings["outcome"]["horizon_days"],
            "measure": bundle.settings["value"]["measure"],
            "model_version": bundle.version,
            "scheme_version": bundle.scheme_version,
            "training": bundle.facts,
        }
    if inputs.scores is not None:  # the score table says by itself what made it
        row = inputs.scores.iloc[0]
        facts |= {key: row[key] for key in ("as_of", "model_version", "scheme_version") if row.get(key)}
        if bundle is not None and bundle.version != facts["model_version"]:
            facts["other_version"] = bundle.version
    return facts


def _count(value: float | None, decimals: int = 0) -> str:
    """Return a number with thousands separators as text; a dash for None and NaN."""
    return "–" if value is None or value != value else f"{value:,.{decimals}f}"  # noqa: PLR0124  # NaN


def _percent(value: float | None, decimals: int = 1) -> str:
    return "–" if value is None or value != value else f"{value:.{decimals}%}"  # noqa: PLR0124  # NaN


def _figure(value: float | None) -> str:
    """Return a metric as text with three or four digits (0.0213, 66.2, 1,204); a dash for None."""
    if value is None:
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}" if abs(value) < 1000 else f"{value:,.0f}"
