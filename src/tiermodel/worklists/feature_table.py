"""The feature table of the customers of a score table: the rows of its date, of all customers or of a few."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from tiermodel.arrays import Floats
from tiermodel.bundle.bundle import Bundle
from tiermodel.errors import DataError, ModelError
from tiermodel.features.frame import has_bought
from tiermodel.locks import first_line
from tiermodel.models.btyd.forecast import frequency_recency_age
from tiermodel.policy.scores import Scores, as_written, reading_project
from tiermodel.predict.table import checked
from tiermodel.tables.privacy import masked
from tiermodel.tables.readers.files import open_files
from tiermodel.tables.source import quoted, refuse_outputs
from tiermodel.tiers.lifecycle import LOST, silence_ratio

__all__ = ["FeatureTable", "Returns"]

_READ, _VIEW = "features_read", "features"
_ROWS, _CHANCE = 8_192, 6  # a table has some 250 columns, and several copies of a part are in memory at a time


class Returns(NamedTuple):
    """Lost customers: `customer_id`, the `chance` that they buy in the window of churn, and their `worth` if they do.

    The chance is that of Pareto/NBD; the worth is by MBG/NBD and Gamma-Gamma and counts amounts. `spend` is what these
    models expect of all other customers in the outcome window: over that, and by what the scores expect of them, the
    worth comes down to what the project calls value.
    """

    rows: pd.DataFrame
    spend: float


@dataclass(frozen=True)
class FeatureTable:
    """A view `features` of the rows of one date, beside the scores; `bundle` says which features are read."""

    connection: duckdb.DuckDBPyConnection
    bundle: Bundle
    file: str

    @classmethod
    def open(cls, scores: Scores, path: Path, bundle: Bundle, day: date, outputs: tuple[Path, ...]) -> FeatureTable:
        """Return the table in a file.

        Raises `DataError` where it lacks the date or customers of the scores, or a value is not a number, `ModelError`
        where it lacks features.
        """
        connection = scores.connection
        source = open_files(connection, reading_project(), _READ, "--features", str(path), "utf-8")
        refuse_outputs([source], *outputs)
        if source.rejected:
            bad = source.rejected[0]
            raise DataError(
                f"{bad.file}:{bad.line}: {bad.rule}: {masked(bad.text)!r} is no row of the table; correct it"
            )
        texts = bundle.scheme.scheme.text_features
        wanted = [*bundle.inputs.names, *texts]
        if missing := [name for name in ("customer_id", "as_of") if name not in source.columns]:
            raise DataError(f"{path}: there is no column {', '.join(missing)}; give what `tiermodel features` wrote")
        if missing := [name for name in wanted if name not in source.columns]:
            raise ModelError(
                f"{path}: {len(missing)} of {len(wanted)} features of {bundle.version} are missing: {missing[:5]}; "
                f"build them in the model's project: tiermodel features PROJECT --as-of {day} "
                f"--out features-{day}.parquet"
            )
        columns = [quoted(name) if name in texts else _number(name, source.columns[name]) for name in wanted]
        found = cls(connection, bundle, str(path))
        connection.execute(
            f"CREATE OR REPLACE VIEW {_VIEW} AS SELECT {as_written('customer_id::VARCHAR', source)} AS customer_id, "
            f"{', '.join(columns)} FROM {_READ} WHERE CAST(as_of AS DATE) = DATE '{day}'"
        )
        found._refuse_gaps(scores, day)
        return found

    def _refuse_gaps(self, scores: Scores, day: date) -> None:
        """Raise `DataError` where customers of the scores have no row, or two."""
        remedy = f"build them with: tiermodel features PROJECT --as-of {day} --out {self.file}"
        lacking, first = self._rows(
            f"SELECT count(*), min(customer_id) FROM (SELECT customer_id FROM "
            f"{scores.source.view}) ANTI JOIN {_VIEW} USING (customer_id)"
        )[0]
        if lacking:
            raise DataError(f"{self.file}: {lacking:,} customers of the scores, such as {first!r}, have no features of "
                            f"{day}; {remedy}")  # fmt: skip
        twice = self._rows(f"SELECT customer_id FROM {_VIEW} GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 LIMIT 1")
        if twice:
            raise DataError(f"{self.file}: customer {twice[0][0]!r} is there twice on {day}; {remedy}")

    def of(self, customers: list[str]) -> pd.DataFrame:
        """Return the checked features of some customers, in their order."""
        wanted = pa.table({"customer_id": pa.array(customers, pa.string()), "place": pa.array(range(len(customers)))})
        self.connection.register("wanted", wanted)
        frame = self._frame(f"SELECT {_VIEW}.* FROM {_VIEW} JOIN wanted USING (customer_id) ORDER BY place")
        self.connection.unregister("wanted")
        return checked(self.bundle, frame)

    def buyers(self, names: list[str]) -> pd.DataFrame:
        """Return some features of every customer with a purchase."""
        columns = ", ".join(map(quoted, names))
        return self._frame(f"SELECT {columns} FROM {_VIEW} WHERE days_since_last IS NOT NULL")

    def returns(self) -> Returns:
        """Return the chance of coming back of lost customers, and what they would be worth."""
        parts, spends, horizons = [], list[Floats](), self.bundle.inputs.horizons
        for frame in self._frames():
            lost = np.nan_to_num(silence_ratio(frame, self.bundle.typical_rhythm)) > LOST
            active, gone = frame[has_bought(frame) & ~lost], frame[lost]
            if len(active):
                spends.append(self.bundle.inputs.forecaster.predict(active, horizons)[:, 2])
            if len(gone):
                chance = 1 - self.bundle.inputs.pareto.p_zero(horizons.churn, *frequency_recency_age(gone))
                parts.append(pd.DataFrame({
                    "customer_id": gone["customer_id"], "chance": chance.round(_CHANCE), "worth": self._worth(gone),
                }))  # fmt: skip
        columns = ["customer_id", "chance", "worth"]
        rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({name: [] for name in columns})
        return Returns(rows, math.fsum(chain.from_iterable(spends)))

    def _worth(self, gone: pd.DataFrame) -> Floats:
        """Return what lost customers would be worth had they bought on the date: their lifetime value by BTYD."""
        mean = gone["net_amount_total"] / gone["purchase_days_total"]
        days = gone["purchase_days_total"] + 1
        back = gone.assign(days_since_last=0.0, purchase_days_total=days, net_amount_total=mean * days)
        spend = self.bundle.inputs.forecaster.predict(back, self.bundle.inputs.horizons)[:, 2]
        return self.bundle.lifetime_value(back, spend)

    def sides(self) -> Iterator[pa.RecordBatch]:
        """Yield, for customers within the band of the stability rule, the levels between which they stand."""
        scheme = self.bundle.scheme
        for frame in self._frames() if scheme.scheme.stability is not None else ():
            low, high = scheme.sure_levels(frame)
            near = np.flatnonzero((low != high) & has_bought(frame))
            ids = pa.array(frame["customer_id"].iloc[near].tolist(), pa.string())
            columns = [ids, *(pa.array(side[near], pa.int32()) for side in (low, high))]
            yield pa.record_batch(columns, ["customer_id", "low", "high"])

    def _frames(self) -> Iterator[pd.DataFrame]:
        """Yield the checked features of all customers, a part of the rows after the other."""
        with self._faults():
            for batch in self.connection.sql(f"SELECT * FROM {_VIEW}").to_arrow_reader(_ROWS):
                yield checked(self.bundle, batch.to_pandas())

    def _frame(self, query: str) -> pd.DataFrame:
        with self._faults():
            frame: pd.DataFrame = self.connection.sql(query).to_arrow_table().to_pandas()
        return frame

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        with self._faults():
            return self.connection.execute(query).fetchall()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Raise a value that is not a number as `DataError`."""
        try:
            yield
        except duckdb.ConversionException as error:
            raise DataError(f"{self.file}: {first_line(error)}; build the features again") from None


def _number(name: str, kind: str) -> str:
    """Return the SQL of a feature as a number; an empty cell of a CSV file is missing."""
    column = quoted(name)
    given = f"nullif(trim({column}), '')" if kind == "VARCHAR" else column
    return f"CAST({given} AS DOUBLE) AS {column}"
