"""The service behind the pages: the model in use, and the way from the bytes of a request to those of its answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Project
from tiermodel.predict.capacity import has_capacity
from tiermodel.serving.body import Wanted, kind_of, read_date, read_features, read_json, read_tables
from tiermodel.serving.metrics import Metrics
from tiermodel.serving.openapi import openapi
from tiermodel.serving.raw_rows import RawRows, Read
from tiermodel.serving.scorer import Answer, FeatureRows, Scorer

__all__ = ["Service"]


class Service:
    """A project and the model in use, which another can take the place of between two requests.

    `answer` is for one thread at a time; all else may be called from any.
    """

    def __init__(self, project: Project, bundle: Bundle, reference: str) -> None:
        """Take a model into use; `reference` is how the user named it."""
        self.metrics = Metrics()
        self._project, self._reference = project, reference
        self._raw = RawRows(project)
        self._scorer = self.prepared(bundle)
        self.metrics.uses(bundle.version)

    @property
    def version(self) -> str:
        """The version of the model in use."""
        return self._scorer.bundle.version

    def prepared(self, bundle: Bundle) -> Scorer:
        """Return a model ready for `use`, tried on a row, so that the first request does not wait for it.

        Raises `ModelError` where it does not fit the project.
        """
        scorer = Scorer(self._project, bundle)
        if scorer.takes_features:
            columns: dict[str, Any] = {name: np.ones(1) for name in bundle.inputs.names}
            columns |= {name: ["text"] for name in bundle.scheme.scheme.text_features}
            scorer.of_features(date.fromisoformat(bundle.facts["as_of"]), [FeatureRows(["0"], columns)])
        return scorer

    def use(self, scorer: Scorer) -> None:
        """Answer all requests from now on with another model."""
        self._scorer = scorer
        self.metrics.swaps.inc()
        self.metrics.uses(scorer.bundle.version)

    def answer(self, body: bytes) -> bytes:
        """Return the answer to a body of /score; `RequestError` where it is at fault."""
        (found,) = self.answers([body])
        if isinstance(found, Exception):
            raise found
        return found

    def answers(self, bodies: Sequence[bytes]) -> list[bytes | Exception]:
        """Return the answer to each body, or its fault; those that ask for one date are scored together."""
        scorer = self._scorer  # one model for all of them
        found = dict[int, bytes | Exception]()
        together = dict[tuple[type, date], dict[int, FeatureRows | Read]]()
        for number, body in enumerate(bodies):
            try:
                day, asked = self._asked(scorer, body)
                together.setdefault((type(asked), day), {})[number] = asked
            except Exception as error:  # noqa: BLE001  one request is at fault, and the others are not
                found[number] = error
        for (_, day), group in together.items():
            found |= self._scored(scorer, day, group)
        return [found[number] for number in range(len(bodies))]

    def _asked(self, scorer: Scorer, body: bytes) -> tuple[date, FeatureRows | Read]:
        asked, wanted = read_json(body), self._wanted(scorer)
        kind, day = kind_of(asked, wanted), read_date(asked)
        if kind == "rows":
            return day, FeatureRows(*read_features(asked, wanted))
        return day, self._raw.read(read_tables(asked, wanted))

    def _scored(
        self, scorer: Scorer, day: date, group: Mapping[int, FeatureRows | Read]
    ) -> dict[int, bytes | Exception]:
        """Return the answers to requests of one kind; where they cannot be scored together, each by itself."""
        asked = list(group.values())
        try:
            of_features = [one for one in asked if isinstance(one, FeatureRows)]
            of_tables = [one for one in asked if isinstance(one, Read)]
            answers = scorer.of_features(day, of_features) if of_features else scorer.of_raw_rows(day, of_tables)
        except Exception as error:  # noqa: BLE001
            if len(group) == 1:
                return dict.fromkeys(group, error)
            return {
                n: one for number, rows in group.items() for n, one in self._scored(scorer, day, {number: rows}).items()
            }
        return {number: self._told(scorer, day, one) for number, one in zip(group, answers, strict=True)}

    def _told(self, scorer: Scorer, day: date, found: Answer) -> bytes:
        self._count(found)
        answer: dict[str, Any] = {"model_version": scorer.bundle.version, "as_of": str(day)}
        answer["scores"] = _records(found.scores)
        if found.rows:
            answer |= {"rows": found.rows, "quarantined": found.quarantined}
        answer["warnings"] = found.warnings
        return json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    def _wanted(self, scorer: Scorer) -> Wanted:
        bundle = scorer.bundle
        return Wanted(tuple(bundle.inputs.names), tuple(bundle.scheme.scheme.text_features), self._raw.columns)

    def _count(self, found: Answer) -> None:
        for row in pc.value_counts(found.scores["tier_code"]).to_pylist():
            self.metrics.customers.labels(row["values"]).inc(row["counts"])
        for bad in found.quarantined:
            self.metrics.quarantined.labels(bad["table"], bad["rule"]).inc()

    def model(self) -> dict[str, Any]:
        """Return what is known of the model in use."""
        bundle = self._scorer.bundle
        scheme, language = bundle.scheme.scheme, bundle.language
        named = zip(scheme.codes, scheme.names(language), scheme.policies(language), strict=True)
        facts = {name: bundle.facts.get(name) for name in ("as_of", "customers", "churn_means", "later", "intervals")}
        return {
            "name": bundle.name,
            "version": bundle.version,
            "reference": self._reference,
            "scheme_version": bundle.scheme_version,
            "language": language,
            "levels": [{"code": code, "name": name, "policy": policy} for code, name, policy in named],
            "facts": facts,
            "features": {"numbers": bundle.inputs.names, "texts": scheme.text_features},
            "tables": list(self._raw.tables),
            "capacity_applied": False if has_capacity(bundle) else None,
        }

    def openapi(self) -> dict[str, Any]:
        """Return the description of the interface."""
        scorer = self._scorer
        return openapi(self._wanted(scorer), scorer.schema)


def _records(table: pa.Table) -> list[dict[str, Any]]:
    """Return rows as JSON has them: dates as text; null for what is missing, and for a threshold that nothing reaches.

    >>> _records(pa.table({"tier": [1], "contact_threshold": [float("inf")]}))
    [{'tier': 1, 'contact_threshold': None}]
    """
    plain: dict[pa.DataType, Callable[[Any], Any]] = {
        pa.float64(): lambda column: pc.if_else(pc.is_finite(column), column, None),
        pa.date32(): lambda column: pc.cast(column, pa.string()),
    }
    columns = [plain.get(column.type, lambda same: same)(column).to_pylist() for column in table.columns]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]
