"""Learned tiers: every learner obeys the laws, is chosen on later dates, says what it does, and survives its bundle."""

from __future__ import annotations

import json
import re
import shutil
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from commands import Run
from schemes_made import FEATURES, LEARNED, LEVELS, SHARES, SPEND, WINDOWS, people, said
from tiermodel.backtesting.tiers import tier_results
from tiermodel.bundle.bundle import load_bundle, save_bundle
from tiermodel.config.project import Project
from tiermodel.errors import DataError, ProjectError
from tiermodel.evaluation.baselines import CHURN_BASELINES, VALUE_BASELINES, BaselineTask
from tiermodel.evaluation.metrics import quadratic_weighted_kappa
from tiermodel.features.frame import has_bought
from tiermodel.features.outcome import OUTCOME_COLUMNS, Labels
from tiermodel.features.panel import build_panel
from tiermodel.models import churn, value
from tiermodel.models.learners import neural, ordinal
from tiermodel.predict import predict, score
from tiermodel.reporting.report import report
from tiermodel.tiers.explain.rule_comparison import agreement, matching_composite
from tiermodel.tiers.explain.sql import scheme_sql
from tiermodel.tiers.fitted_scheme import FittedScheme, fit_scheme
from tiermodel.tiers.learned.score import LEARNERS, _score
from tiermodel.tiers.learned.training_set import matrix
from tiermodel.tiers.schemes.load import Scheme, load_preset, load_scheme, parse_scheme
from tiermodel.tiers.schemes.schema import input_names
from tiermodel.training.dates import panel_dates, training_dates
from tiermodel.training.train import train
from tiermodel.training.tune import tune
from tiermodel.words import words
from worlds import small_project, small_world

DATES = [np.datetime64(day, "s") for day in ("2022-08-01", "2022-10-01", "2022-12-01", "2023-03-01")]
SPAN = 60
STRONG = sorted(LEARNERS)


def dated(n: int = 1600, seed: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw a snapshot, whose outcome nobody knows, and history at three dates before it."""
    frame = people(n, seed).assign(as_of=np.array(DATES)[np.arange(n) % 4])
    now = frame["as_of"] == DATES[-1]
    return frame[now].assign(outcome_value=np.nan).reset_index(drop=True), frame[~now].reset_index(drop=True)


def scheme_by(learner: str, **more: Any) -> Scheme:
    return parse_scheme({**LEARNED, "learner": learner, **more}, "test", WINDOWS)


def learned(learner: str, **more: Any) -> FittedScheme:
    snapshot, history = dated()
    return fit_scheme(scheme_by(learner, **more), snapshot, history, 7, SPAN)


@cache
def fitted_by(learner: str) -> FittedScheme:
    """Fit in full, once for the tests that share it: none of them may ask for `quick`."""
    return learned(learner)


# laws


@pytest.mark.parametrize("learner", STRONG)
def test_one_customer_scores_as_the_batch_whatever_the_order_of_columns(learner: str) -> None:
    fitted, frame = fitted_by(learner), people(300, 5)
    level, rule = fitted.assign(frame)
    codes, words = fitted.explain(frame, rule, FEATURES, "en")
    turned = frame[frame.columns[::-1]]
    np.testing.assert_array_equal(fitted.assign(turned)[0], level)
    scores = _score(fitted.state, frame)
    for i in range(0, 300, 7):
        one = turned.iloc[[i]]
        assert _score(fitted.state, one)[0] == scores[i]
        assert fitted.assign(one)[0][0] == level[i]
        np.testing.assert_array_equal(fitted.explain(one, rule[[i]], FEATURES, "en")[0][0], codes[i])
    assert max(map(len, words)) > 10


@pytest.mark.parametrize("learner", STRONG)
def test_levels_are_as_large_as_declared_and_equal_customers_share_one(learner: str) -> None:
    fitted, (snapshot, _) = fitted_by(learner), dated()
    level, _ = fitted.assign(snapshot)
    np.testing.assert_allclose(np.bincount(level) / len(level), list(SHARES.values()), atol=0.04)
    twice = pd.concat([snapshot, snapshot], ignore_index=True)
    again, _ = fitted.assign(twice)
    np.testing.assert_array_equal(again, np.tile(level, 2))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("learner", STRONG)
def test_a_capacity_is_kept_and_a_tree_needs_a_priority(learner: str) -> None:
    capped = [LEVELS[0], LEVELS[1], {**LEVELS[2], "capacity": 30}]
    frame, fitted = dated()[0], learned(learner, levels=capped)
    level, _ = fitted.assign(frame)
    assert 20 <= np.count_nonzero(level == 2) <= 30
    score = fitted.priority(frame)
    assert score[level == 2].min() > score[level < 2].max()
    with pytest.raises(ProjectError, match="'top' has a capacity, and nothing says who comes first"):
        learned("tree", levels=capped)
    np.testing.assert_array_equal(learned("tree", levels=capped, priority=SPEND).priority(frame), frame[SPEND])


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("learner", STRONG)
def test_the_band_lies_on_the_score(learner: str) -> None:
    fitted = learned(learner, stability={"up": {"band": 0.05}, "down": {"band": 0.10}})
    frame = people(500, 3)
    level, _ = fitted.assign(frame)
    lowest, highest = fitted.sure_levels(frame)
    assert (lowest <= level).all()
    assert (level <= highest).all()
    assert 0 < np.mean(highest > level) < 0.4
    assert np.mean(highest > level) > np.mean(lowest < level) > 0


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("learner", STRONG)
@pytest.mark.parametrize("what", ["outcome_value", "level"])
def test_nothing_is_learned_from_what_followed_the_snapshot(learner: str, what: str) -> None:
    snapshot, history = dated()
    scheme = scheme_by(learner)
    plain = fit_scheme(scheme, snapshot, history, 7, SPAN)
    other = fit_scheme(scheme, snapshot.assign(outcome_value=1e9), history, 7, SPAN)
    assert other.to_dict() == plain.to_dict()
    if what == "level":  # and the learners do learn from what followed earlier snapshots
        shuffled = history.assign(outcome_value=history["outcome_value"].to_numpy()[::-1])
        assert fit_scheme(scheme, snapshot, shuffled, 7, SPAN).state["model"] != other.state["model"]


@pytest.mark.parametrize("learner", STRONG)
def test_who_is_worth_more_stands_higher(learner: str) -> None:
    frame = people(2000, 8)
    level, _ = fitted_by(learner).assign(frame)
    means = [frame["outcome_value"][level == k].mean() for k in range(3)]
    assert means == sorted(means)
    assert means[2] > 3 * means[0]


# choosing


def test_auto_takes_what_did_best_on_later_dates() -> None:
    fitted = learned("auto")
    trials = fitted.state["trials"]
    assert {(t["learner"], t["as_of"]) for t in trials} == {
        (learner, day) for learner in ("tree", *LEARNERS) for day in ("2022-10-01", "2022-12-01")
    }
    worth = pd.DataFrame(trials).groupby("learner")[["qwk", "of_best"]].sum().sum(axis=1)
    assert fitted.state.get("learner", "tree") == worth.idxmax()
    assert learned("auto").to_dict() == fitted.to_dict()


@pytest.mark.usefixtures("quick")
def test_a_trial_sees_no_outcome_that_ends_after_its_date() -> None:
    snapshot, history = dated()
    last = history["as_of"] == DATES[2]
    later = history.assign(outcome_value=np.where(last, history["outcome_value"] * 3 + 1, history["outcome_value"]))
    scheme = scheme_by("neural_network")
    trials = [fit_scheme(scheme, snapshot, h, 7, SPAN).state["trials"] for h in (history, later)]
    assert trials[0][0] == trials[1][0]
    assert trials[0][1] != trials[1][1]
    early = fit_scheme(scheme, snapshot, history[history["as_of"] == DATES[0]], 7, SPAN).state
    assert early["trials"] == []
    assert early["fidelity"]["value_kept"] is None
    assert "tree" in fit_scheme(scheme_by("auto"), snapshot, history[history["as_of"] == DATES[0]], 7, SPAN).state


@pytest.mark.usefixtures("quick")
def test_figures_of_a_trial_are_those_counted_by_hand() -> None:
    snapshot, history = dated()
    scheme = scheme_by("ordinal_boosting")
    trial = fit_scheme(scheme, snapshot, history, 7, SPAN).state["trials"][0]
    past, later = (history[history["as_of"] == day].reset_index(drop=True) for day in DATES[:2])
    level, _ = fit_scheme(scheme, later, past, 7, SPAN).assign(later)
    value = later["outcome_value"].to_numpy()
    assert trial["n"] == len(later)
    assert trial["value_capture"] == pytest.approx(value[level == 2].sum() / value.sum())
    most = np.sort(value)[-np.count_nonzero(level == 2) :].sum()
    assert trial["of_best"] == pytest.approx(value[level == 2].sum() / most)
    wanted = np.searchsorted([0.5, 0.8], pd.Series(value).rank(pct=True) - 1e-12)
    assert trial["qwk"] == pytest.approx(quadratic_weighted_kappa(wanted, level, 3))


# what it says


@pytest.mark.parametrize("learner", STRONG)
def test_reasons_are_true_and_name_what_moved_the_score_most(learner: str) -> None:
    fitted, frame = fitted_by(learner), people(120, 4)
    _, rule = fitted.assign(frame)
    codes, words = fitted.explain(frame, rule, FEATURES, "en")
    names = fitted.state["names"]
    attributions = LEARNERS[learner].attributions(fitted.state["model"], names, matrix(frame, names))
    for i, (_, row) in enumerate(frame.iterrows()):
        top = names[int(np.argmax(np.abs(attributions[i])))]
        for k, code in enumerate(codes[i]):
            text, way = re.fullmatch(r"(.*) \((raises|lowers) it\)", words[code]).groups()  # type: ignore[union-attr]
            name = max((n for n in names if text.startswith(FEATURES[n].en)), key=lambda n: len(FEATURES[n].en))
            assert said(text.removeprefix(FEATURES[name].en), row[name])
            assert (attributions[i][names.index(name)] > 0) == (way == "raises")
            assert k or name == top
    assert all(
        "提升" in word or "拉低" in word for word in fitted.explain(frame, rule, FEATURES, "zh")[1] if "＞" in word
    )


def test_pulls_of_the_network_add_up_to_the_score() -> None:
    state = fitted_by("neural_network").state
    x = matrix(people(200, 6), state["names"])
    middle = np.array([state["model"]["middle"]])
    typical = np.sign(middle) * np.expm1(np.abs(middle))
    start = neural.score(state["model"], [], typical)
    np.testing.assert_allclose(
        neural.attributions(state["model"], [], x).sum(axis=1), neural.score(state["model"], [], x) - start, atol=1e-9
    )


def test_pulls_of_the_trees_add_up_to_the_log_odds() -> None:
    state = fitted_by("ordinal_boosting").state
    x = matrix(people(50, 6), state["names"])
    odds = sum(
        ordinal._parsed(tuple(state["names"]), text).booster.predict(x, raw_score=True)
        for text in state["model"]["trees"]
    )
    added = ordinal.attributions(state["model"], state["names"], x).sum(axis=1)
    np.testing.assert_allclose(added - added[0], odds - odds[0], atol=1e-8)


def test_probabilities_of_cuts_never_cross() -> None:
    always = {"trees": [None, None], "above": [0.2, 0.6]}
    assert ordinal.score(always, [], np.zeros((1, 0)))[0] == pytest.approx(0.4)


@pytest.mark.parametrize("learner", STRONG)
def test_the_rules_say_that_they_imitate_and_how_well(learner: str) -> None:
    fitted, (snapshot, _) = fitted_by(learner), dated()
    lines = fitted.rules(FEATURES, "en")
    told, level = fitted.readable.assign(snapshot)[0], fitted.assign(snapshot)[0]
    assert "these rules only imitate it" in lines[0]
    assert f"same tier {np.mean(told == level):.1%}" in lines[0]
    assert f"captured value kept {fitted.state['fidelity']['value_kept']:.1%}" in lines[0]
    assert 0.7 < np.mean(told == level) <= 1
    assert set(told) == set(level), "every level in use has a rule"
    assert 2 < len(lines) <= 1 + LEARNED["max_leaves"]
    assert "只是其近似" in fitted.rules(FEATURES, "zh")[0]


def test_agreement_counts_every_customer_once() -> None:
    fitted, (snapshot, _) = fitted_by("neural_network"), dated()
    composite = matching_composite(fitted, snapshot, WINDOWS)
    assert composite is not None
    rules = fit_scheme(composite, snapshot, snapshot, 7)
    level, other = fitted.assign(snapshot)[0], rules.assign(snapshot)[0]
    found = agreement(level, fitted, other, rules)
    counts = np.array([list(row.values()) for row in found["counts"].values()])
    assert counts.sum() == len(snapshot)
    assert np.trace(counts) / counts.sum() == pytest.approx(found["figures"]["equal"])
    np.testing.assert_allclose(counts.sum(axis=0), counts.sum(axis=1), atol=8)
    unlike = fit_scheme(load_preset("pyramid", WINDOWS), snapshot, snapshot, 7)
    assert agreement(level, fitted, unlike.assign(snapshot)[0], unlike)["figures"]["equal"] is None


# the whole line


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_world(tmp_path_factory.mktemp("learned") / "sales.parquet", customers=260)


def scheme_of(learner: str, **more: Any) -> dict[str, Any]:
    return {**LEARNED, "learner": learner, **more}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("learner", STRONG)
def test_a_bundle_keeps_the_learner_and_the_same_data_give_the_same(learner: str, world: Path, tmp_path: Path) -> None:
    project = small_project(world, tiers={"scheme": scheme_of(learner)})
    bundle = train(project, out=tmp_path / "a").bundle
    assert train(project).bundle.version == bundle.version
    again = load_bundle(tmp_path / "a")
    assert again.version == bundle.version
    assert again.scheme.to_dict() == bundle.scheme.to_dict()
    listed = json.loads((tmp_path / "a" / "manifest.json").read_bytes())["files"]
    assert {Path(name).suffix for name in listed} == {".txt", ".json", ".md"}
    assert ("scheme_0.txt" in listed) == (learner == "ordinal_boosting")
    frame = build_panel(project, [pd.Timestamp("2023-12-01").date()])
    pd.testing.assert_frame_equal(predict(again, frame), predict(bundle, frame))
    assert {"composite", "rfm", "pyramid"} >= set(bundle.facts["agreement"])
    save_bundle(again, tmp_path / "b")
    assert load_bundle(tmp_path / "b").version == bundle.version
    page = report([tmp_path / "a"], tmp_path / "report.html", language="zh").read_text(encoding="utf-8")
    assert bundle.scheme.surrogate_line("zh") in page
    assert words("zh")["rules_note"] not in page  # which says that the rules assign the tiers
    assert scheme_sql(bundle.scheme, language="zh").startswith(f"-- {bundle.scheme.surrogate_line('zh')}")


@pytest.mark.usefixtures("quick")
def test_the_commands_train_score_and_tell_a_learner_chosen(
    world: Path, empty_store: Path, tmp_path: Path, cli: Run
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    project = small_project(
        world, tiers={"scheme": scheme_of("auto")}, tracking={"uri": f"sqlite:///{tmp_path}/mlflow.db"}
    )
    file, model, out = tmp_path / "p.yaml", tmp_path / "model", tmp_path / "s.csv"
    settings = project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    trained = cli("train", file, "--as-of", "2023-12-31", "--out", model, "--details")
    assert "Learners of the tiers, tried on later snapshots" in trained.out
    assert "Learned tiers beside tiers by rules" in trained.out
    assert cli("score", file, "--model", model, "--as-of", "2023-12-31", "--out", out).code == 0
    assert set(pd.read_csv(out)["tier_code"]) <= {"low", "mid", "top"}
    assert cli("rules", model).out
    assert "CASE" in cli("rules", model, "--format", "sql").out


# labels


def labelled(world: Path, folder: Path, labels: pd.DataFrame, **more: Any) -> Project:
    """Make a project whose customers have a tier given by the business, from a day on."""
    labels.to_parquet(folder / "customers.parquet", index=False)
    scheme = scheme_of("tree", target="labels", label="given", shares=None) | more.pop("scheme", {})
    columns = {"customer_id": "customer", "valid_from": "since"} | more
    table = {"path": str(folder / "customers.parquet"), "columns": columns, "attributes": {"given": "tier"}}
    data = {**small_project(world).data.model_dump(exclude_none=True), "customers": table}
    features = {"windows_days": [60, 365], "attributes": ["given"]}
    return small_project(world, data=data, tiers={"scheme": scheme}, features=features)


@pytest.fixture(scope="module")
def labels(world: Path) -> pd.DataFrame:
    """Label four customers of five by what they spent in 2022, from 2023 on."""
    sales = pd.read_parquet(world)
    spent = sales[sales["day"] < "2023-01-01"].groupby("customer")["amount"].sum()
    tier = np.searchsorted(spent.quantile([0.5, 0.8]), spent, side="right")
    frame = pd.DataFrame({"customer": spent.index, "tier": tier, "since": pd.Timestamp("2023-01-01")})
    return frame[np.arange(len(frame)) % 5 > 0]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("learner", ["tree", "ordinal_boosting"])
def test_labels_of_the_business_are_learned_and_read_by_no_model(
    learner: str, world: Path, labels: pd.DataFrame, tmp_path: Path
) -> None:
    project = labelled(world, tmp_path, labels, scheme={"learner": learner})
    bundle = train(project, "2023-12-31", out=tmp_path / "model").bundle
    assert "attribute_given" not in bundle.inputs.all_names
    assert bundle.settings["features"]["attributes"] == []
    assert not {"attribute_given", "given"} & set(bundle.columns)
    assert "attribute_given" not in json.dumps(bundle.scheme.state)
    frame = build_panel(project, [pd.Timestamp("2023-03-01").date()])
    known = frame["attribute_given"].notna() & has_bought(frame)
    level = bundle.scheme.assign(frame)[0]
    kappa = quadratic_weighted_kappa(frame["attribute_given"][known].to_numpy().astype(int), level[known.to_numpy()], 3)
    assert kappa > 0.6
    # who is scored needs no label, nor a table of customers
    plain = small_project(world)
    assert score(plain, tmp_path / "model", "2023-12-31", tmp_path / "s.parquet").customers > 200


@pytest.mark.usefixtures("quick")
def test_models_baselines_other_schemes_and_tuning_read_the_same_inputs(
    world: Path, labels: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = date(2023, 10, 1)
    project, notes = labelled(world, tmp_path, labels), list[str]()
    bundle = train(project, day).bundle
    learned = training_dates(project, day, date(2022, 1, 1))
    dates = sorted({*panel_dates(project, day, learned), *(day - timedelta(60 * k) for k in range(3))})
    panel = build_panel(project, dates, with_outcome=True)
    assert "attribute_given" in panel
    assert input_names(load_scheme(project), panel) == bundle.inputs.names

    # what is kept out may as well be the outcome: nobody reads it
    telling = panel.assign(attribute_given=panel["outcome_value"])
    found = []
    monkeypatch.setattr("tiermodel.backtesting.tiers.preset_names", lambda: ["learned"])
    for frame in (panel, telling):
        bought, now = frame[has_bought(frame)], pd.Timestamp(day)
        shown = bought[bought["as_of"] == now].assign(**dict.fromkeys(OUTCOME_COLUMNS, np.nan))
        past = bought[bought["as_of"] + pd.Timedelta(days=60) <= now]
        names = input_names(load_scheme(project), past)
        windows, clv = project.features.windows_days, project.value.clv
        grade = lambda rows: bundle.scheme.assign(rows)[0]  # noqa: E731
        test = BaselineTask(Labels.of(project), past, shown, grade, names, windows, clv)
        assert names == bundle.inputs.names
        told = [baseline(test).tolist() for known in (CHURN_BASELINES, VALUE_BASELINES) for baseline in known.values()]
        found.append((told, tier_results(project, frame, day, bundle, notes)[0]))
    assert {row["scheme"] for row in found[0][1]} == {"l", "learned"}
    assert found[0] == found[1]
    assert notes == []

    # neither does tuning, whatever was given
    for module in (churn, value):
        monkeypatch.setattr(module, "ROUNDS", (5, 10))
    tuned = []
    for n, given in enumerate((labels, labels.assign(tier=2 - labels["tier"]))):
        other = labelled(world, tmp_path, given)
        longer = other.model_copy(update={"panel": other.panel.model_copy(update={"every_days": 30, "snapshots": 6})})
        tuned.append(tune(longer, day, trials=1, study=tmp_path / f"{n}.db"))
    assert tuned[0].found == tuned[1].found


@pytest.mark.usefixtures("quick")
def test_a_label_given_later_is_not_learned_from_at_an_earlier_date(
    world: Path, labels: pd.DataFrame, tmp_path: Path
) -> None:
    late = labels.assign(since=pd.Timestamp("2023-11-20"))
    bundle = train(labelled(world, tmp_path, late), "2023-12-31").bundle
    assert all(leaf["value_mean"] is None for leaf in bundle.scheme.state["leaves"])
    too_late = labels.assign(since=pd.Timestamp("2024-03-01"))
    with pytest.raises(DataError, match="no customer has a 'attribute_given'"):
        train(labelled(world, tmp_path, too_late), "2023-12-31")


@pytest.mark.usefixtures("quick")
def test_labels_that_are_no_tier_and_labels_without_a_day_are_refused(
    world: Path, labels: pd.DataFrame, tmp_path: Path
) -> None:
    odd = labels.assign(tier=np.where(np.arange(len(labels)) % 9 == 0, 8, labels["tier"]))
    with pytest.raises(DataError, match=r"'given' gives \d+ of \d+ buyers a tier that is none: 8; tiers are 0 \(low\)"):
        train(labelled(world, tmp_path, odd), "2023-12-31")
    with pytest.raises(DataError, match="no labelled customer is 'top'"):
        train(labelled(world, tmp_path, labels[labels["tier"] < 2]), "2023-12-31")
    project = labelled(world, tmp_path, labels, valid_from=None)
    with pytest.raises(ProjectError, match=r"label 'given' needs data\.customers\.columns\.valid_from"):
        load_scheme(project)
    bare = small_project(world, tiers={"scheme": scheme_of("tree", target="labels", label="given", shares=None)})
    with pytest.raises(ProjectError, match=r"label 'given' is not one of features\.attributes \[\]"):
        load_scheme(bare)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "labels"}, "label: target labels needs one"),
        ({"label": "given"}, "label: target labels needs one"),
        ({"shares": None}, "shares: target future_value needs a share"),
        ({"target": "clusters"}, "shares: clusters find their own sizes"),
        ({"max_leaves": 2}, "max_leaves: 2 leaves cannot make 3 levels"),
        ({"learner": "forest"}, "learner: Input should be"),
    ],
)
def test_a_scheme_that_does_not_fit_together_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ProjectError, match=message):
        parse_scheme({**LEARNED, **change}, "test", WINDOWS)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("learner", STRONG)
def test_clusters_can_be_told_apart_by_a_strong_learner(learner: str) -> None:
    fitted = learned(learner, target="clusters", shares=None)
    level, _ = fitted.assign(people(400, 2))
    assert set(level) == {0, 1, 2}
    assert people(400, 2)[SPEND][level == 2].mean() > people(400, 2)[SPEND][level == 0].mean()
