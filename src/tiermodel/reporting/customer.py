"""One customer on one page: tier history, place among peers, risk and value with reasons, ways up, and a letter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tiermodel.arrays import Floats
from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Project
from tiermodel.errors import DataError, ModelError, ProjectError
from tiermodel.evaluation.attribution import churn_contributions, value_contributions
from tiermodel.features.condition import feature_name, number
from tiermodel.features.frame import has_bought
from tiermodel.features.panel import build_panel
from tiermodel.ledger.ledger import Ledger
from tiermodel.ledger.listing import listed_rows
from tiermodel.policy.service_policy import Policy
from tiermodel.reporting.letter import plain_reasons
from tiermodel.tables.privacy import hash_key, public_ids
from tiermodel.tiers.explain.next_tier import next_tier_actions
from tiermodel.tiers.rule_text import named
from tiermodel.tiers.stability.grading import grade
from tiermodel.words import words

__all__ = ["CustomerPage", "customer_page", "read_features", "resolve_customer"]

_REASONS, _WAYS, _OTHERS = 4, 3, 999
_FEWEST_PEERS = 30
_LEAST_EFFECT = 0.01  # of all effects together: smaller ones are not told
_SHOWN = (
    *("tier_name", "policy", "policy_name", "churn_risk", "risk_band", "expected_value", "expected_value_low"),
    *("expected_value_high", "clv", "manual_decision", "model_version", "scheme_version"),
)
_CHANCES = ("expected_p_zero", "pareto_p_zero")
_SCORES = ("expected_value", "clv", "churn_risk", "potential")
_FEATURES = ("net_amount_{w}", "order_count_{w}", "days_since_last", "gap_days_mean", "days_since_first")
_CONTACTS = re.compile(r"(visit|click|campaign|response|meeting|referral|complaint|ticket|survey)_count_total")


@dataclass(frozen=True)
class CustomerPage:
    """What the page of one customer shows; a part that nothing was given for is None."""

    row: Mapping[str, Any]
    tier: str
    facts: dict[str, Any]
    reasons: list[str]
    letter: list[str]
    peers: list[dict[str, Any]]
    history: list[dict[str, Any]] | None = None
    risk: list[dict[str, Any]] | None = None
    value: list[dict[str, Any]] | None = None
    ways: list[str] | None = None
    contacts: list[tuple[str, str, str]] | None = None
    missing: tuple[str, ...] = ()


def customer_page(
    scores: Path,
    customer: str,
    language: str,
    bundle: Bundle | None,
    features: pd.DataFrame | None,
    ledger: Path | None,
    policy: Policy | None = None,
) -> CustomerPage:
    """Return what is known of a customer of a score table: `features` has the snapshot of the scores' date.

    `policy` is the service policy of the scores, which has the service's text in both languages.

    `customer` is an id of the table. Raises `DataError` for a customer without features, `ModelError` for features that
    are not the bundle's.
    """
    everybody = _read(scores)
    here = everybody[everybody["customer_id"] == customer]
    cells = here.iloc[0].to_dict()
    row: dict[str, Any] = {**dict.fromkeys(_SHOWN), **{str(k): None if pd.isna(v) else v for k, v in cells.items()}}
    names = {} if bundle is None else dict(
        zip(bundle.scheme.scheme.codes, bundle.scheme.scheme.names(language), strict=True)
    )  # fmt: skip
    parts: dict[str, Any] = {}
    frame = None if features is None else _of_customers(features, everybody["customer_id"], customer, row)
    told = _translations(bundle, frame, row, language) | _services(policy, row, language)
    if ledger is not None:
        book = Ledger(ledger).must_exist()
        levels = book.level_names
        known = names or ({} if levels is None else levels.in_language(language))
        listed = listed_rows(book.history(customer), language, known)[::-1]
        parts["history"] = [  # the customer is named above
            {head: told.get(cell, cell) for head, cell in list(entry.items())[1:]} for entry in listed
        ]
    if bundle is not None and frame is not None:
        parts |= _explained(bundle, frame, language)
    if frame is not None:
        parts["contacts"] = _contacts(frame, bundle, language)
    reasons = [str(told.get(row[name], row[name])) for name in ("reason_1", "reason_2", "reason_3") if row.get(name)]
    given = {"ledger": ledger, "model": bundle, "features": frame}
    parts["missing"] = tuple(f"customer_no_{name}" for name, part in given.items() if part is None)
    return CustomerPage(
        row={name: told.get(cell, cell) for name, cell in row.items()},
        tier=names.get(str(row["tier_code"]), str(row["tier_name"])),
        facts=_facts(row, bundle, language),
        reasons=reasons,
        letter=_letter(reasons, bundle, frame, row, language),
        peers=_peers(everybody, row, frame, bundle, language),
        **parts,
    )


def _read(path: Path) -> pd.DataFrame:
    """Return a score table; ids and codes are text."""
    if path.suffix.lower() not in {".parquet", ".csv"} or not path.is_file():
        raise ProjectError(f"{path}: give the score table of the customer, a .parquet or .csv file that is there")
    try:
        if path.suffix.lower() == ".parquet":
            table = pq.read_table(path)
        else:
            texts = {"customer_id": pa.string(), "tier_code": pa.string()}
            table = pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types=texts))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    return table.to_pandas()


def resolve_customer(scores: Path, customer: str, project: Project | None) -> tuple[str, str]:
    """Return the customer's id as the score table has it, and the date of the scores.

    Raises `DataError` where the table lacks the customer.
    """
    table = _read(scores)
    lacking = [name for name in ("customer_id", "as_of", "tier_code", "reason_1") if name not in table]
    if lacking:
        raise DataError(f"{scores}: the scores lack the columns {lacking}; give a table of `tiermodel score`")
    tried = [customer]
    if project is not None and project.data.hash_ids is not None:
        tried += public_ids(pa.array([customer]), hash_key(project)).to_pylist()
    for one in tried:
        if len(found := table.loc[table["customer_id"].astype(str) == one, "as_of"]):
            return one, str(found.iloc[0])[:10]
    raise DataError(f"customer {customer!r} is not in {scores}: give the id as it stands there")


def read_features(path: Path | None, project: Project | None, bundle: Bundle | None, day: str) -> pd.DataFrame | None:
    """Return the feature table, or the project's snapshot of a day with the bundle's features; None without either."""
    if path is not None:
        table = _read(path)
        return table[table["as_of"].astype(str).str[:10] == day].reset_index(drop=True)
    if project is None or bundle is None:
        return None
    settings = {**project.model_dump(exclude_none=True), "features": bundle.settings["features"]}
    return build_panel(Project.model_validate(settings), [date.fromisoformat(day)])


def _of_customers(features: pd.DataFrame, known: pd.Series, customer: str, row: Mapping[str, Any]) -> pd.DataFrame:
    """Return the snapshot of the scored customers, the customer first; `DataError` where the customer is not in it."""
    features = features.assign(customer_id=features["customer_id"].astype(str))
    features = features[features["customer_id"].isin(set(known.astype(str)))]
    mine = features["customer_id"] == customer
    if not mine.any():
        day = str(row["as_of"])[:10]
        raise DataError(
            f"customer {customer!r} has no features as of {day}: give --project, or build them by `tiermodel features "
            f"PROJECT --as-of {day} --out features-{day}.parquet` and give that file with --features"
        )
    return pd.concat([features[mine], features[~mine]], ignore_index=True)


def _letter(
    reasons: list[str], bundle: Bundle | None, frame: pd.DataFrame | None, row: Mapping[str, Any], language: str
) -> list[str]:
    """Return the reasons as the letter tells them, with the customer's own figures where they are those graded by."""
    if bundle is None:
        return plain_reasons(reasons, {}, {}, "", language)
    own: dict[str, float] = {}
    if frame is not None and bundle.version == row.get("model_version"):
        mine = bundle.scheme.with_fitted_features(frame.iloc[:1].reset_index(drop=True))
        own = {str(name): float(value) for name, value in mine.select_dtypes("number").iloc[0].items()}
    known = named(bundle.scheme, bundle.features)
    return plain_reasons(reasons, own, known, str(bundle.settings.get("currency") or ""), language)


def _facts(row: Mapping[str, Any], bundle: Bundle | None, language: str) -> dict[str, Any]:
    settings, wording = {} if bundle is None else bundle.settings, words(language)
    attributes = settings.get("features", {}).get("attributes", ())
    return {
        "as_of": str(row["as_of"])[:10],
        "currency": str(settings.get("currency") or ""),
        "horizon": settings.get("outcome", {}).get("horizon_days"),
        "project": None if bundle is None else bundle.name,
        "contact": settings.get("contact"),
        "attributes": [wording.get(f"letter_attribute_{name}", name) for name in attributes],
        "levels": None if bundle is None else len(bundle.scheme.scheme.codes),
        "same_model": bundle is None or bundle.version == row.get("model_version"),
    }


def _explained(bundle: Bundle, frame: pd.DataFrame, language: str) -> dict[str, Any]:
    """Return the reasons of risk and value, and the ways up, of the first customer of a snapshot."""
    missing = [name for name in bundle.inputs.names if name not in frame]
    if missing:
        raise ModelError(f"the features lack {missing[:5]} of {bundle.version}: build them with `tiermodel features`")
    sample = frame.iloc[[0, *range(1, len(frame), max(1, -(-(len(frame) - 1) // _OTHERS)))]].reset_index(drop=True)
    sample = sample[has_bought(sample)].reset_index(drop=True)
    found: dict[str, Any] = {}
    if not has_bought(frame.iloc[:1])[0]:
        return found
    x = bundle.inputs.matrix(sample)
    if bundle.at_risk(frame.iloc[:1])[0]:
        exposed = bundle.at_risk(sample)
        effects = churn_contributions(bundle.churn, x[exposed])[1]
        found["risk"] = _effects(bundle, x[exposed], effects, language)
    found["value"] = _effects(bundle, x, value_contributions(bundle.value, x)[1], language)
    try:
        ways = next_tier_actions(bundle.scheme, sample, bundle.features, language)
    except ProjectError:  # a scheme whose rules state no cut points
        return found
    mine = ways[ways["customer_id"] == frame["customer_id"].iloc[0]]
    names = dict(zip(bundle.scheme.scheme.codes, bundle.scheme.scheme.names(language), strict=True))
    found["ways"] = [f"{way.words} → {names[way.reached_code]}" for way in mine.head(_WAYS).itertuples()]
    return found


def _translations(
    bundle: Bundle | None, frame: pd.DataFrame | None, row: Mapping[str, Any], language: str
) -> dict[Any, str]:
    """Return the texts of the scores that the page has in another language, by the text as it was written."""
    if bundle is None or bundle.language == language:
        return {}
    levels, before, after = bundle.scheme.scheme, words(bundle.language), words(language)
    texts = {before[key]: after[key] for key in before if key.startswith(("risk_band_", "manual_"))}
    texts |= dict(zip(levels.policies(bundle.language), levels.policies(language), strict=True))
    if frame is not None and bundle.version == row.get("model_version"):
        mine = frame.iloc[:1].reset_index(drop=True)
        graded = grade(bundle.scheme, mine)
        old, new = (graded.reasons(bundle.scheme, mine, bundle.features, one)[1] for one in (bundle.language, language))
        texts |= dict(zip(old, new, strict=True))
    return texts


def _services(policy: Policy | None, row: Mapping[str, Any], language: str) -> dict[Any, str]:
    """Return the texts of the customer's service in a language, by the text as it was written."""
    code = str(row["tier_code"])
    if policy is None or code not in policy.levels or policy.level_id(code) != row.get("policy_id"):
        return {}
    level = policy.levels[code]
    return {row["policy"]: level.text(language, code), row["policy_name"]: level.name(language, code)}


def _effects(bundle: Bundle, x: Floats, effects: Floats, language: str) -> list[dict[str, Any]]:
    """Return the inputs that move a prediction most from the mean of the others, with the customer's values.

    `share` is the part of an effect in all of them, between -1 and 1; positive where it raises the prediction.
    """
    own = effects[0] - effects.mean(axis=0)
    whole = float(np.abs(own).sum()) or 1.0
    wording = words(language)
    rows = []
    for j in np.argsort(-np.abs(own), kind="stable")[:_REASONS]:
        if abs(own[j]) / whole < _LEAST_EFFECT:
            break
        name, known = bundle.inputs.all_names[j], x[:, j][~np.isnan(x[:, j])]
        label = (
            wording[f"input_{name}"] if name not in bundle.features else feature_name(name, bundle.features, language)
        )
        typical = _shown(float(np.median(known)), name, bundle) if len(known) >= _FEWEST_PEERS else None
        value = wording["value_missing"] if np.isnan(x[0, j]) else _shown(float(x[0, j]), name, bundle)
        rows.append({"name": label, "value": value, "typical": typical, "share": float(own[j] / whole)})
    return rows


def _shown(value: float, name: str, bundle: Bundle) -> str:
    """Return the value of an input as people read it: probabilities and shares in percent."""
    share = name in bundle.features and bundle.features[name].unit == "share"
    return f"{value:.1%}" if share or name in _CHANCES else number(_short(value))


def _short(value: float) -> float:
    """Return a value with four digits that matter, as people read it."""
    return float(f"{value:.0f}") if abs(value) >= 1000 else float(f"{value:.3g}")


def _peers(
    everybody: pd.DataFrame, row: Mapping[str, Any], frame: pd.DataFrame | None, bundle: Bundle | None, language: str
) -> list[dict[str, Any]]:
    """Return where the customer stands among all and among the tier: the share of customers with less (0–1)."""
    columns = [
        (words(language)[f"peer_{name}"], everybody[name], row.get(name)) for name in _SCORES if name in everybody
    ]
    tiers = [everybody["tier_code"] == row["tier_code"]] * len(columns)
    if frame is not None:
        known = {} if bundle is None else bundle.features
        codes = frame["customer_id"].map(everybody.set_index("customer_id")["tier_code"])
        for name in _main_features(frame):
            columns.append((feature_name(name, known, language), frame[name], frame[name].iloc[0]))
            tiers.append(codes == row["tier_code"])
    rows = []
    for (name, column, own), same in zip(columns, tiers, strict=True):
        if own is not None and not pd.isna(own):
            values = column.to_numpy(dtype=np.float64)
            places = [_below(values[chosen], float(own)) for chosen in (np.ones(len(values), bool), same.to_numpy())]
            share = name == words(language)["peer_churn_risk"]
            rows.append({"name": name, "value": float(own), "share": share, "all": places[0], "tier": places[1]})
    return rows


def _main_features(frame: pd.DataFrame) -> list[str]:
    windows = [int(m[1]) for name in frame.columns if (m := re.fullmatch(r"net_amount_(\d+)d", name))]
    widest = f"{max(windows)}d" if windows else "total"
    return [name for pattern in _FEATURES if (name := pattern.format(w=widest)) in frame]


def _below(values: Floats, own: float) -> float | None:
    """Return the share of known values below the customer's, halves of equal ones; None for few values."""
    values = values[~np.isnan(values)]
    if len(values) < _FEWEST_PEERS:
        return None
    return float(((values < own).sum() + 0.5 * ((values == own).sum() - 1)) / max(len(values) - 1, 1))


def _contacts(frame: pd.DataFrame, bundle: Bundle | None, language: str) -> list[tuple[str, str, str]] | None:
    """Return the kinds of contacts with their number and the days since the latest; None where there were none."""
    found = [(m[1], name) for name in frame.columns if (m := _CONTACTS.fullmatch(name))]
    known, own = {} if bundle is None else bundle.features, frame.iloc[0]
    rows = []
    for kind, name in found:
        if not own[name] > 0:
            continue
        since = own.get(f"days_since_{kind}", np.nan)
        ago = "–" if pd.isna(since) else words(language)["days_ago"].format(n=number(float(since)))
        rows.append((feature_name(name, known, language), number(float(own[name])), ago))
    return rows or None
