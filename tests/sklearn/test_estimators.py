"""The estimators under scikit-learn's contract, and against the project's own models and features."""

from __future__ import annotations

import pickle
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator

from tiermodel import build_panel, open_history
from tiermodel.config.learners import ChurnLearners, ValueLearners
from tiermodel.config.targets import Churn, Outcome, Value
from tiermodel.features.export import write_features
from tiermodel.features.frame import feature_names, has_bought
from tiermodel.features.outcome import ChurnLabel, ValueLabel
from tiermodel.models.btyd.forecast import Horizons
from tiermodel.models.calibration.recent import ForecastContext
from tiermodel.models.churn import fit_churn
from tiermodel.models.design_matrix import design_matrix_of_panel, fit_design_matrix
from tiermodel.models.value import fit_value
from tiermodel.sklearn import ChurnClassifier, SnapshotTransformer, TierClassifier, TimeFolds, ValueRegressor
from worlds import quick_fits, small_project, small_world

DATES = [date(2023, 3, 1), date(2023, 5, 1), date(2023, 7, 1), date(2023, 9, 1)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, compiled: None) -> tuple[Path, pd.DataFrame]:  # noqa: ARG001
    """Give the transactions of a small world, and its buyers at four dates with their outcome."""
    file = small_world(tmp_path_factory.mktemp("sklearn") / "t.parquet", customers=300)
    panel = build_panel(small_project(file), DATES, with_outcome=True)
    return file, panel[has_bought(panel) & panel["outcome_churned"].notna()].reset_index(drop=True)


@pytest.mark.parametrize("estimator", [ChurnClassifier(), ValueRegressor(), TierClassifier()], ids=repr)
def test_the_contract_holds_with_no_check_failed_and_none_skipped_as_a_whole(estimator: Any) -> None:
    found = check_estimator(estimator, on_fail=None, on_skip=None)
    counts = Counter(one["status"] for one in found)
    assert [one["check_name"] for one in found if one["status"] == "failed"] == []
    # the one check that needs SciPy's array API, which an environment variable switches on, says so itself
    assert {one["check_name"] for one in found if one["status"] == "skipped"} <= {"check_array_api_input"}
    assert counts["passed"] >= 30


def test_dated_rows_give_the_models_of_the_project_to_the_bit(world: tuple[Path, pd.DataFrame]) -> None:
    _, panel = world
    x, dates, names = panel[feature_names(panel)], panel["as_of"], feature_names(panel)
    rows = panel.assign(customer_id=np.arange(len(panel)))
    latest = rows[rows["as_of"] == rows["as_of"].max()].reset_index(drop=True)
    horizons = Horizons(60, 60)
    design = fit_design_matrix(latest, tuple(names), horizons)
    inputs = design_matrix_of_panel(rows, tuple(names), horizons)
    coming = ForecastContext(rows["as_of"].max() + pd.Timedelta(days=60), design.matrix(latest))
    outcome = Outcome(horizon_days=60)
    with quick_fits():
        churn = ChurnClassifier(horizon_days=60).fit(x, panel["outcome_churned"], dates=dates)
        value = ValueRegressor(horizon_days=60).fit(x, panel["outcome_value"], dates=dates)
        label = ChurnLabel.of(Churn(), outcome)
        ours, _ = fit_churn(rows, inputs, design.all_names, label, ChurnLearners(), coming, 7)
        worth = ValueLabel.of(Value(), Churn(), outcome)
        spend, _ = fit_value(rows, inputs, design.all_names, worth, ValueLearners(), coming, 7)
    matrix = design.matrix(latest)
    assert (churn.predict_proba(latest[names])[:, 1] == ours.predict(matrix)).all()
    assert (value.predict(latest[names]) == spend.predict(matrix)).all()
    assert churn.score(x, panel["outcome_churned"]) > 0.6
    copied = pickle.loads(pickle.dumps(churn))  # noqa: S301  our own bytes
    assert (copied.predict_proba(x) == churn.predict_proba(x)).all()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda x, d: (x.drop(columns="days_since_first"), d), "need the features days_since_first"),
        (lambda x, d: (x, d[:-1]), "expected a date for each of"),
        (lambda x, d: (x.to_numpy(), d), "pass the columns of `build_panel` as a DataFrame"),
    ],
)
def test_dated_rows_that_do_not_fit_are_refused(world: tuple[Path, pd.DataFrame], wrong: Any, words: str) -> None:
    _, panel = world
    x, dates = wrong(panel[feature_names(panel)], panel["as_of"])
    with pytest.raises(ValueError, match=words):
        ChurnClassifier(horizon_days=60).fit(x, panel["outcome_churned"], dates=dates)


def test_too_few_of_a_class_are_refused_with_dates(world: tuple[Path, pd.DataFrame]) -> None:
    _, panel = world
    few = np.arange(len(panel)) < 5
    with pytest.raises(ValueError, match="only 5 of"):
        ChurnClassifier(horizon_days=60).fit(panel[feature_names(panel)], few, dates=panel["as_of"])


def test_grid_search_over_folds_by_time_in_a_pipeline(world: tuple[Path, pd.DataFrame]) -> None:
    _, panel = world
    x, y, dates = panel[feature_names(panel)], panel["outcome_churned"].astype(int), panel["as_of"]
    folds = TimeFolds(60, n_splits=2)
    for train, test in folds.split(x, y, dates):
        assert (dates[train] + pd.Timedelta(days=60) <= dates[test].min()).all()
        assert dates[test].min() == dates[test].max()
    assert folds.get_n_splits(groups=dates) == 2
    passing = FunctionTransformer(feature_names_out="one-to-one").set_output(transform="pandas")
    line = make_pipeline(passing, ChurnClassifier(horizon_days=60))
    search = GridSearchCV(line, {"churnclassifier__random_state": [1, 2]}, cv=folds, scoring="neg_log_loss")
    search.fit(x, y, groups=dates)
    assert search.best_score_ > -0.69
    assert len(search.cv_results_["split1_test_score"]) == 2
    with quick_fits():
        dated = clone(line).fit(x, y, churnclassifier__dates=dates)
    assert dated[-1].dated_ is not None
    tiers = np.digitize(panel["outcome_value"], [0.01, 60])
    graded = GridSearchCV(make_pipeline(StandardScaler(), TierClassifier()), {}, cv=folds).fit(x, tiers, groups=dates)
    assert graded.best_score_ > np.bincount(tiers).max() / len(tiers) - 0.05


@pytest.mark.parametrize(
    ("given", "words"),
    [({}, "pass groups=panel"), ({"groups": ["2020-01-01", "2020-01-05"]}, "no date is 60 days")],
)
def test_folds_say_what_they_lack(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        next(TimeFolds(60).split(None, **given))


def test_the_transformer_gives_the_features_of_the_verb_to_the_bit(
    world: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    file, _ = world
    sales, project = pd.read_parquet(file), small_project(file)
    made = SnapshotTransformer(project, "2023-06-01").fit(sales)
    found = made.transform(sales)
    write_features(project, "2023-06-01", tmp_path / "f.parquet")
    wanted = pd.read_parquet(tmp_path / "f.parquet").set_index("customer_id").drop(columns="as_of")
    pd.testing.assert_frame_equal(found, wanted, check_exact=True)
    assert made.get_feature_names_out().tolist() == list(found.columns)
    shuffled = sales.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(made.transform(shuffled), found, check_exact=True)  # neither order nor a second run
    later = sales.assign(day=pd.Timestamp("2023-06-01"))
    pd.testing.assert_frame_equal(made.transform(pd.concat([sales, later])), found, check_exact=True)
    for other in (pickle.loads(pickle.dumps(made)), clone(made).fit(sales)):  # noqa: S301
        pd.testing.assert_frame_equal(other.transform(sales), found, check_exact=True)


def test_the_transformer_keeps_the_contract_as_far_as_it_is_one(world: tuple[Path, pd.DataFrame]) -> None:
    file, _ = world
    sales, project = pd.read_parquet(file), small_project(file)
    made = SnapshotTransformer(project)
    assert made.get_params() == {"project": project, "as_of": "latest"}
    tags = get_tags(made)
    assert (tags.input_tags.two_d_array, tags.no_validation) == (False, True)
    with pytest.raises(NotFittedError):
        made.transform(sales)
    early = sales[sales["day"] < "2023-02-01"]
    made.fit(early)
    assert made.as_of_ == early["day"].max().date() + pd.Timedelta(days=1)
    assert len(made.transform(sales)) == early["customer"].nunique()  # `latest` is that of the rows of fit
    with pytest.raises(TypeError, match="load_project"):
        SnapshotTransformer("shop.yaml").fit(sales)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a DataFrame of transactions, got list"):
        SnapshotTransformer(project).fit([1, 2])  # type: ignore[arg-type]


def test_the_transformer_feeds_a_learner(world: tuple[Path, pd.DataFrame]) -> None:
    file, panel = world
    features = SnapshotTransformer(small_project(file), DATES[-1]).fit_transform(pd.read_parquet(file))
    now = panel[panel["as_of"] == pd.Timestamp(DATES[-1])].set_index("customer_id")
    x = features.loc[now.index]
    history = open_history(small_project(file))
    assert history.account.read == len(pd.read_parquet(file))
    model = ChurnClassifier().fit(x, now["outcome_churned"])
    plain = LogisticRegression().fit(x[["days_since_last"]], now["outcome_churned"])
    gained = model.score(x, now["outcome_churned"]) - plain.score(x[["days_since_last"]], now["outcome_churned"])
    assert gained > 0
