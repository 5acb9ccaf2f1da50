"""The section `data` of a project: where each table is, what its columns mean, and how strict to be."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_serializer,
    field_validator,
)

from tiermodel.config.yaml_reader import shown

__all__ = ["DATABASES", "Data", "EventKind", "Ids", "Rows", "Section", "Survey", "SurveyKind", "Text"]


EventKind = Literal["visit", "click", "campaign", "response", "meeting", "complaint", "ticket", "referral", "survey"]
SurveyKind = Literal["csat", "nps", "quality", "attitude", "response_time"]
DATABASES = ("postgresql://", "sqlite://")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty; write a value or remove the key")
    return text


def _none_if_empty(table: object) -> object:
    return None if table == {} else table


Text = Annotated[str, AfterValidator(_filled)]


class Section(BaseModel):
    """A section of a project file: frozen, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Rows(Section):
    """Where the rows of a table are.

    `path` is a file, a glob, a folder, `package:NAME/rest` inside an installed Python package, a list of these, `-` for
    standard input, or a database URL (`sqlite:///file`, `postgresql://host/database`) whose rows `query` selects; a
    mapping names the files that `query` joins. Without `path`, the rows must be passed in Python. `where` is an SQL
    condition that keeps a row; `encoding` is that of CSV files; `duplicates` decides whether rows that repeat another
    in every column of the source, mapped or not, are dropped.
    """

    path: str | list[str] | dict[str, str] | None = None
    query: Annotated[Text | None, Field(validate_default=True)] = None
    where: Text | None = None
    encoding: str = "utf-8"
    duplicates: Literal["drop", "keep"] = "drop"

    @field_validator("path", mode="before")
    @classmethod
    def _readable_path(cls, value: object) -> object:
        paths = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else [value]
        if not paths:
            raise ValueError(f"expected a path, or a list of paths, got {shown(value)}")
        for path in paths:
            if not isinstance(path, str) or not path.strip():
                raise ValueError(f"expected a path, or a list of paths, got {shown(path)}")
            if (url := _URL.match(path)) and (url[0].lower() not in DATABASES or value is not path):
                # The rest of the URL may hold a password, so the message leaves it out.
                known = " and ".join(sorted(DATABASES))
                raise ValueError(
                    f"{url[0]}… is a URL that cannot be read; {known} can, one at a time: export to a file"
                )
        return value

    @field_serializer("path", when_used="json")
    def _without_password(self, value: object) -> object:
        """Return the path without its password, as it is printed, logged and hashed."""
        pattern = r"(?<=://)([^:/@]*):.*@|(?<=password=)[^&]*"
        return re.sub(pattern, r"\1:…@", value) if isinstance(value, str) else value

    @field_validator("query")
    @classmethod
    def _query_of_what_has_names(cls, value: str | None, info: ValidationInfo) -> str | None:
        path = info.data.get("path")
        has_names = isinstance(path, dict) or (isinstance(path, str) and _URL.match(path) is not None)
        if "path" in info.data and has_names != (value is not None):
            if not has_names:
                raise ValueError("path is a file, which needs no query")
            what = "a database" if isinstance(path, str) else "files with names"
            raise ValueError(f"path is {what}, which needs a query, such as SELECT * FROM sales")
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            "".encode(value)
        except (LookupError, ValueError):
            raise ValueError(f"{shown(value)} is not a text encoding; use utf-8, gb18030, latin-1 …") from None
        return value


class Columns(Section):
    """The columns of the transactions, each by a source column's name or an SQL expression over source columns.

    Without `order_id`, a customer's rows of one day are one order. Amounts are in the project's currency; where
    `currency` is mapped, rows in another currency break the contract, and an empty cell means the project's.
    `ingested_at` is when a row arrived, where that may be after its own day: until then no date knows the row.
    """

    customer_id: Text
    time: Text
    amount: Text
    order_id: Text | None = None
    product_id: Text | None = None
    category: Text | None = None
    quantity: Text | None = None
    cost: Text | None = None
    discount: Text | None = None
    channel: Text | None = None
    currency: Text | None = None
    ingested_at: Text | None = None


class Transactions(Rows):
    """The transactions: one row for each order line; a negative amount is a return."""

    columns: Columns


class CustomerColumns(Section):
    """The columns of the customers' own table.

    A row is valid from `valid_from` on (always, where that is not mapped), so that a customer may have several rows.
    Left out are customers whose latest row has `opt_out` or no `consent`, and customers without a row where `consent`
    is mapped. Whose latest row has `no_automated_decision` is scored, and has the service of the lowest level until a
    person decides.
    """

    customer_id: Text
    valid_from: Text | None = None
    signup: Text | None = None
    contract_end: Text | None = None
    acquisition_cost: Text | None = None
    consent: Text | None = None
    opt_out: Text | None = None
    no_automated_decision: Text | None = None


class Customers(Rows):
    """The customers; `attributes` (name: column or SQL) are model inputs only if `features.attributes` names them.

    `attributes` are numbers. `categories` are attributes of text, such as industry or region, for conditions (`is`) and
    `strata` of a scheme and, named in `features.audited`, for slices; no model ever reads them.
    """

    columns: CustomerColumns
    attributes: dict[str, Text] = {}
    categories: dict[str, Text] = {}

    @field_validator("attributes", "categories")
    @classmethod
    def _plain_names(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if odd := [name for name in value if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name)]:
            raise ValueError(f"name {info.field_name} in lower case, digits and _, 40 at most, got {shown(odd[0])}")
        if twice := sorted(set(value) & set(info.data.get("attributes", {}))):
            raise ValueError(f"{twice[0]!r} is one of attributes too: a number or text, not both; rename one of them")
        return value


class EventColumns(Section):
    """The columns of dated contacts; `value` is a number, such as the score of a survey, `ingested_at` as in sales.

    `subject` is what a survey asked about, where one column tells several questions apart (`surveys`).
    """

    customer_id: Text
    time: Text
    kind: Text
    value: Text | None = None
    ingested_at: Text | None = None
    subject: Text | None = None


class Survey(Section):
    """A question of surveys: the values of `subject` that mean it (by default its own name), and its scale.

    The scale has the lowest and the highest answer; other answers do not count.
    """

    subject: Text | list[Text] | None = None
    scale: tuple[float, float] | None = None

    @field_validator("scale")
    @classmethod
    def _upwards(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise ValueError(f"expected the lowest and the highest answer, such as [1, 5], got {list(value)}")
        return value


class Events(Rows):
    """The events; `kinds` maps each kind to the value, or values, of the column that mean it.

    Rows with other values are filtered. Without `kinds`, the column must have the names of the kinds. `surveys` tells
    apart what surveys asked: satisfaction (`csat`), recommendation (`nps`, from 0 to 10), `quality`, `attitude` and
    `response_time`; without a scale of its own a question has 1 to 5. `outcomes` reads it, and no model.
    """

    columns: EventColumns
    kinds: dict[EventKind, str | list[str]] | None = None
    surveys: dict[SurveyKind, Survey] | None = None

    @field_validator("surveys")
    @classmethod
    def _told_apart(
        cls, value: dict[SurveyKind, Survey] | None, info: ValidationInfo
    ) -> dict[SurveyKind, Survey] | None:
        columns = info.data.get("columns")
        if not value or columns is None:
            return value
        if columns.value is None:
            raise ValueError("needs columns.value, the answers; map that too")
        if columns.subject is None and len(value) > 1:
            raise ValueError("has several questions and needs columns.subject, which tells them apart; map that too")
        nps = value.get("nps")
        if nps is not None and nps.scale not in {None, (0, 10)}:
            raise ValueError(f"nps: answers go from 0 to 10, got the scale {list(nps.scale or ())}; leave scale out")
        return value


class InvoiceColumns(Section):
    """The columns of invoices: days of issue (by default the due day), payment and dispute (empty: not yet).

    `paid_amount` is what was paid on the day `paid`, all of the amount where it is empty or more; the rest stays open.
    """

    customer_id: Text
    amount: Text
    due: Text
    issued: Text | None = None
    paid: Text | None = None
    disputed: Text | None = None
    paid_amount: Text | None = None

    @field_validator("paid_amount")
    @classmethod
    def _paid_on_a_day(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("paid") is None:
            raise ValueError("needs `paid` beside it, the day of the payment: map that too")
        return value


class Invoices(Rows):
    """The invoices: one row for each, with one payment at most.

    Of an invoice paid in instalments each instalment is a row, with its own part of the amount.
    """

    columns: InvoiceColumns


class CostColumns(Section):
    """The columns of the dated costs of serving a customer: visits, support, delivery."""

    customer_id: Text
    time: Text
    amount: Text
    ingested_at: Text | None = None


class Costs(Rows):
    """The costs of serving customers; the cost of goods is a column of the transactions."""

    columns: CostColumns


class Ids(Section):
    """How customer ids of text are read, in all tables: their case, and characters that nobody sees, may go.

    Not set, ids that differ by one of them only, and look like one customer, are refused.
    """

    case: Literal["keep", "fold"] | None = None
    invisible: Literal["keep", "strip"] | None = None


class Data(Section):
    """The tables, the engine that sorts them, and how strict to be.

    Only the transactions are required; `{}` is no table. `max_bad_share` (0–1) is the share of a table's rows that may
    break the contract before the input is refused. `max_stale_days` is the number of days before a date at which the
    transactions may end (no limit where not set). `memory` is DuckDB's limit, beyond which it spills to disk.
    `hash_ids` names the environment variable with the key under which customer ids are hashed in all that is written;
    `ids` decides which spellings of an id are one customer.
    """

    engine: Literal["duckdb", "spark"] = "duckdb"
    transactions: Transactions
    customers: Annotated[Customers | None, BeforeValidator(_none_if_empty)] = None
    events: Annotated[Events | None, BeforeValidator(_none_if_empty)] = None
    invoices: Annotated[Invoices | None, BeforeValidator(_none_if_empty)] = None
    costs: Annotated[Costs | None, BeforeValidator(_none_if_empty)] = None
    max_bad_share: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.05
    max_stale_days: Annotated[int, Field(strict=True, ge=0)] | None = None
    memory: str = "1500MB"
    hash_ids: str | None = None
    ids: Ids | None = None

    @property
    def memory_bytes(self) -> int:
        """The limit `memory` in bytes."""
        number, unit, binary = re.fullmatch(r"([\d.]+) ?([MGT])(i?)B", self.memory, re.IGNORECASE).groups()  # type: ignore[union-attr]  # checked
        return int(float(number) * (1024 if binary else 1000) ** (2 + "MGT".index(unit.upper())))

    @field_validator("memory")
    @classmethod
    def _memory_with_unit(cls, value: str) -> str:
        if not re.fullmatch(r"(?=.*[1-9])\d+(\.\d+)? ?[MGT]i?B", value, re.IGNORECASE):
            raise ValueError(f"expected a size such as 1500MB or 2GB, got {shown(value)}")
        return value

    @field_validator("hash_ids")
    @classmethod
    def _name_of_a_variable(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,30}", value):
            # The value may be the key itself, so the message leaves it out; a key is longer than a name may be.
            raise ValueError("expected the NAME of an environment variable, such as TIERMODEL_ID_KEY, not the key")
        return value
