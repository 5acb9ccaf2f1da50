"""The top of the page: five sentences written from the figures, and a verdict on each question that a meeting asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tiermodel.backtesting.proposals import MEASURES, clearly_better, differences_to_ours
from tiermodel.backtesting.verdict import tier_lines
from tiermodel.evaluation.baselines import OURS
from tiermodel.reporting.inputs import ReportInputs
from tiermodel.reporting.models import scheme_name, verdict_on
from tiermodel.words import in_language, words

__all__ = ["sentences", "verdicts"]

_SPEND = "pyramid"
"""The preset that grades by the spend of the longest window."""


def sentences(
    facts: Mapping[str, Any], sections: Mapping[str, Any], told: Sequence[Mapping[str, Any]], language: str
) -> list[str]:
    """Return what the page says, at most five sentences; one for which the figures are missing is left out."""
    wording, found = words(language), list[str]()
    figures, unit = sections.get("figures"), f" {facts['currency']}" if facts["currency"] else ""
    if figures is not None:
        found.append(wording["says_graded"].format(
            day=facts["as_of"], n=figures["customers"], tiers=figures["tiers"], key=figures["key_customers"],
            share=figures["key_share"], names=wording["comma"].join(figures["key_names"])))  # fmt: skip
        if figures["key_value_share"] is not None:
            found.append(wording["says_value"].format(share=figures["key_value_share"], total=figures["total"],
                                                      unit=unit, window=_window(facts, wording)))  # fmt: skip
        gone = wording["says_gone"].format(n=figures["gone"]) if figures["gone"] else ""
        found.append(wording["says_leaving"].format(
            active=figures["active"], n=figures["leaving"], key=figures["key_leaving"], gone=gone,
            window=_window(facts, wording)))  # fmt: skip
        moved = sections.get("movement")
        if moved and moved["from"] is not None:  # without a ledger nobody was graded before: moves are replayed
            since = wording["says_since"].format(day=moved["from"])
            found.append(wording["says_moved"].format(since=since, **{k: moved[k] for k in ("up", "down", "same")}))
        elif not moved:
            found.append(wording["movement_none"])
    tiers = next((v for v in told if v["id"] == "tiers"), None)
    if tiers is not None:
        found.append(wording["says_tiers"].format(
            question=tiers["question"], answer=tiers["answer"], text=tiers.get("short", tiers["text"])))  # fmt: skip
    return found


def _window(facts: Mapping[str, Any], wording: Mapping[str, str]) -> str:
    days = facts["horizon"]
    return wording["window_unknown"] if days is None else wording["window_days"].format(days=days)


def verdicts(inputs: ReportInputs, language: str) -> list[dict[str, Any]]:
    """Return a verdict on the tiers, another scheme, the churn risk, the gate and the data, as far as they are known.

    A verdict has an id, the question, a state (good, warn, bad or unknown), an answer in a word, a text, and lines.
    """
    found = []
    if inputs.backtest is not None and inputs.backtest["tiers"]:
        tiers = _of_tiers(inputs, language)
        question = tiers["question"].format(spend=_spend(inputs, language))
        found += [tiers | {"question": question}, *_of_scheme(inputs, language)]
    if inputs.backtest is not None and inputs.backtest["churn"]:
        found.append(_of_churn(inputs.backtest, language))
    if inputs.gate is not None:
        found.append(_of_gate(inputs.gate, language))
    found.append(_of_data(inputs, language))
    return found


def _spend(inputs: ReportInputs, language: str) -> str:
    """Return what the preset of spend grades by, in words: with a bundle, the days of its longest window."""
    if inputs.bundle is None:
        return words(language)["spend_past"]
    return words(language)["spend_days"].format(days=max(inputs.bundle.settings["features"]["windows_days"]))


def _verdict(name: str, state: str, answer: str, text: str, lines: Sequence[str], language: str) -> dict[str, Any]:
    wording = words(language)
    return {"id": name, "question": wording[f"asks_{name}"], "state": state, "answer": wording[f"answer_{answer}"],
            "text": text, "lines": list(lines)}  # fmt: skip


def _of_tiers(inputs: ReportInputs, language: str) -> dict[str, Any]:
    """Say whether the tiers are better than grading by the spend of the longest window, beyond chance."""
    wording, rows = words(language), (inputs.backtest or {})["tiers"]
    ours = next((row["scheme"] for row in rows if row.get("ours")), None)
    if ours == _SPEND:
        return _verdict("tiers", "unknown", "same", wording["tiers_are_spend"], (), language)
    against = {m: [_flipped(row) for row in each] for m, each in differences_to_ours(rows, _SPEND).items()}
    dates = len({row["as_of"] for row in rows})
    if not any(against.values()):
        return _verdict("tiers", "unknown", "unknown", wording["tiers_unmeasured"], (), language)
    better = {m: sum(row["low"] > 0 for row in each) for m, each in against.items()}
    worse = {m: sum(row["high"] < 0 for row in each) for m, each in against.items()}
    texts = [
        wording["tiers_measure"].format(name=wording[f"measure_of_{m}"], better=better[m], worse=worse[m], dates=dates,
                                        **_ends(each[-1]))
        for m, each in against.items() if each
    ]  # fmt: skip
    lines = [
        wording["tiers_line"].format(name=wording[f"measure_of_{m}"], day=row["as_of"], **_ends(row))
        for m, each in against.items() for row in each
    ]  # fmt: skip
    state, answer = _answer(max(better.values()), max(worse.values()), dates)
    short = [
        wording["tiers_short"].format(name=wording[f"measure_of_{m}"], **_ends(each[-1]))
        for m, each in against.items()
        if each
    ]
    lines = [*tier_lines(inputs.backtest or {}, language), *lines]  # as the terminal says it, and date by date
    told = _verdict("tiers", state, answer, wording["semicolon"].join(texts), lines, language)
    return told | {"short": wording["semicolon"].join(short)}


def _answer(better: int, worse: int, dates: int) -> tuple[str, str]:
    """Return state and answer, where a measure says better, and one says worse, on so many of the test dates."""
    if worse:
        return ("warn", "partly") if better > worse else ("bad", "no")
    if better == dates:
        return "good", "yes"
    return ("warn", "partly") if 2 * better > dates else ("warn", "unclear")


def _flipped(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "difference": -row["difference"], "low": -row["high"], "high": -row["low"]}


def _ends(row: Mapping[str, Any]) -> dict[str, str]:
    return {key: f"{row[key]:+.3f}" for key in ("difference", "low", "high")}


def _of_scheme(inputs: ReportInputs, language: str) -> list[dict[str, Any]]:
    """Say which scheme to try instead, where one is clearly better in the backtest; else that there is none."""
    wording, rows = words(language), (inputs.backtest or {})["tiers"]
    better = clearly_better(rows)
    if not better:
        return [
            _verdict(
                "scheme",
                "good",
                "keep",
                wording["scheme_keep"].format(n=len({r["scheme"] for r in rows}) - 1),
                (),
                language,
            )
        ]
    found = differences_to_ours(rows, better[0])
    lines = [
        wording["tiers_line"].format(name=wording[f"measure_of_{m}"], day=row["as_of"], **_ends(row))
        for m in MEASURES for row in found[m]
    ]  # fmt: skip
    text = wording["scheme_better"].format(
        name=scheme_name(better[0], language), line=f"tiers: {{scheme: {better[0]}}}"
    )
    return [_verdict("scheme", "warn", "change", text, lines, language)]


def _of_churn(backtest: Mapping[str, Any], language: str) -> dict[str, Any]:
    """Say whether the churn risk keeps its promises, and whether a baseline beats it."""
    wording = words(language)
    rows = [row for row in backtest["churn"] if row["model"] == OURS]
    known = [row for row in rows if None not in (row.get("ece_by_chance"), row["ece"])]
    kept = sum(row["ece"] <= row["ece_by_chance"] for row in known)
    mine = [row for row in backtest["comparisons"] if row["target"] == "churn"]
    counts = Counter(map(verdict_on, mine))
    text = wording["churn_says"].format(kept=kept, dates=len(known), better=counts["better"], worse=counts["worse"],
                                        n=len(mine) - counts["not_measured"])  # fmt: skip
    state, answer = ("good", "yes") if kept == len(known) and not counts["worse"] else ("warn", "partly")
    return _verdict("churn", state, answer, text, (), language)


def _of_gate(gate: Mapping[str, Any], language: str) -> dict[str, Any]:
    """Say what the gate decided, and which checks failed."""
    wording = words(language)
    passed = gate["promoted"] or gate["passed"]
    failed = [check for check in gate["checks"] if not check["passed"]]
    before = gate.get("previous") if gate["promoted"] else gate["champion"]
    key = "verdict_line" if before else "verdict_first"
    text = wording[key].format(name=gate["name"], version=gate["version"], champion=before)
    count = wording["verdict_failed"].format(n=len(failed), all=len(gate["checks"]))
    text += " " + (count if failed else wording["verdict_all"].format(n=len(gate["checks"])))
    lines = [f"{check['name']}: {check['words']}" for check in failed]
    answer = "promoted" if gate["promoted"] else "passed" if gate["passed"] else "refused"
    return _verdict("gate", "good" if passed else "bad", answer, text, lines, language)


def _of_data(inputs: ReportInputs, language: str) -> dict[str, Any]:
    """Say what the data check and the monitor warn of; unknown without either."""
    wording, check = words(language), inputs.check
    if check is None and inputs.monitor is None:
        return _verdict("data", "unknown", "unknown", wording["data_unknown"], (), language)
    findings = [f for f in (check or {}).get("findings", []) if f["level"] != "ok"]
    lines = [in_language(language, f.get("text_zh") or f["text"], f["text"]) for f in findings]
    lines += [alarm["text"] for alarm in (inputs.monitor or {}).get("alarms", [])]
    text = wording["data_warns"].format(n=len(lines)) if lines else wording["data_clean"]
    if check is not None and "read" in check["accounting"]:
        used = {key: check["accounting"][key] for key in ("read", "used", "quarantined")}
        text += " " + wording["data_rows"].format(**used)
    state = "bad" if check is not None and check["refused"] else "warn" if lines else "good"
    return _verdict(
        "data", state, {"bad": "refused_data", "warn": "warnings", "good": "none"}[state], text, lines, language
    )
