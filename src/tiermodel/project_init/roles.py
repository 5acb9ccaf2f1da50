"""Which column is what: by its name first, held to its values; by its values alone where no name tells."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from tiermodel.project_init.evidence import Column, epoch_call
from tiermodel.project_init.headers import Named, directory, layout_of, named, plain, words_in
from tiermodel.project_init.notes import Note

__all__ = ["Roles", "by_values", "kinds_of", "roles_of"]

_OPTIONAL = (
    "quantity", "price", "cost", "discount", "product_id", "category", "channel", "currency", "refund", "direction",
    "consent", "opt_out", "marketing", "signup", "due", "issued", "paid", "kind", "value",
)  # fmt: skip
_FULL_NAME = re.compile(r"[^\W\d_]+\.?( [^\W\d_]+\.?){1,3}")
_PERSONAL = {"email", "phone", "name"}
_FEWEST_VALUES = 10
_MOST_DOUBT = 0.1  # of the filled share, by which one of two columns of one group is better than the other
_REPEATED = 1.2  # rows a value, at the least, of ids told by values alone


@dataclass
class Roles:
    """The columns of a table by role, others that are equally plausible, and what was assumed.

    `kind` says of what kind the customers' ids are; `guessed` names the roles that values alone told; `carried` are
    the columns of taxes and shipping.
    """

    columns: dict[str, Column] = field(default_factory=dict)
    others: dict[str, list[str]] = field(default_factory=dict)
    kind: str = "id"
    layout: str = ""
    guessed: set[str] = field(default_factory=set)
    carried: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def __contains__(self, role: str) -> bool:
        """Return whether a column has the role."""
        return role in self.columns

    def get(self, role: str) -> Column | None:
        """Return the column of a role, None where there is none."""
        return self.columns.get(role)

    @property
    def has_money(self) -> bool:
        """Whether a row has an amount, or a quantity and a price."""
        return "amount" in self or {"quantity", "price"} <= self.columns.keys()

    @property
    def has_customer(self) -> bool:
        """Whether a row has a customer and a day."""
        return {"customer_id", "time"} <= self.columns.keys()


def roles_of(columns: Mapping[str, Column], wanted: Mapping[str, str]) -> Roles:
    """Return which column is what; `wanted` has the columns that the user named, by role."""
    roles = Roles()
    roles.layout, preferred = layout_of(columns)
    for role, name in wanted.items():
        if name in columns:
            roles.columns[role] = columns[name]
    taken = _exact_elsewhere(columns)
    for role in ("time", "order_id", "customer_id", "amount", *_OPTIONAL, "status"):
        if role not in roles:
            _choose(role, columns, preferred.get(role, []), taken, roles)
    if "amount" not in wanted and _is_product(roles):
        roles.columns.pop("amount", None)
    used = {column.name for column in roles.columns.values()}
    roles.carried = [name for name, column in columns.items() if name not in used and _is_carried(column)]
    return roles


def _is_carried(column: Column) -> bool:
    """Return whether a column has taxes or shipping, and not only zeros."""
    names = {plain(name) for name in directory()["parts_of_totals"]["carried"]}
    return plain(column.name) in names and column.number is not None and any(column.number.values)


def _exact_elsewhere(columns: Mapping[str, Column]) -> dict[str, set[str]]:
    """Return, by column, the roles whose names it has exactly."""
    found: dict[str, set[str]] = defaultdict(set)
    for role in directory()["roles"]:
        for one in named(role, columns):
            if one.exact:
                found[one.column].add(role)
    return found


def _choose(
    role: str, columns: Mapping[str, Column], preferred: list[str], exact: Mapping[str, set[str]], roles: Roles
) -> None:
    """Put the column of a role among the roles, with others that are as plausible."""
    by_kind = {one.column: one.kind for one in named("customer_id", columns)}
    first = [
        Named(name, -len(preferred) + place, True, by_kind.get(name, "id")) for place, name in enumerate(preferred)
    ]
    rest = [one for one in named(role, columns) if one.column not in preferred]
    used = {column.name for key, column in roles.columns.items() if not _may_share(role, key)}
    found = [
        one
        for one in (*first, *rest)
        if one.column not in used
        and _FITS.get(role, _any)(columns[one.column])
        and (one.exact or _may_be(role, one, exact.get(one.column, set()), columns[one.column]))
    ]
    if not found:
        return
    best = _fullest([one for one in found if (one.exact, one.rank) == (found[0].exact, found[0].rank)], columns)
    roles.columns[role] = columns[best[0].column]
    if role == "customer_id":
        roles.kind = _kind(roles.columns[role], best[0].kind or "id")
    if role in {"customer_id", "time", "amount"} and len(best) > 1:
        roles.others[role] = [one.column for one in best[1:]]


def _kind(column: Column, kind: str) -> str:
    """Return of what kind ids are: accounts may be names of people, or addresses of mail, by their values."""
    if column.personal in {"email", "name"} or (column.personal == "mobile"):
        return "phone" if column.personal == "mobile" else column.personal
    words = sum(bool(_FULL_NAME.fullmatch(value)) for value in column.values)
    return "name" if kind == "account" and words >= 0.8 * len(column.values) else kind


def _fullest(found: list[Named], columns: Mapping[str, Column]) -> list[Named]:
    """Return columns of one rank, those left out that have clearly fewer values than another."""
    most = max(columns[one.column].filled for one in found)
    return [one for one in found if columns[one.column].filled >= most - _MOST_DOUBT]


def _may_share(role: str, other: str) -> bool:
    """Return whether a column may have two roles: the day of an invoice, and a kind that is a direction too."""
    return (
        {role, other} <= {"direction", "kind", "status"}
        or {role, other} <= {"time", "issued", "paid", "signup"}
        or {role, other} == {"amount", "value"}
    )


def _may_be(role: str, one: Named, exact: set[str], column: Column) -> bool:
    """Return whether a column whose name only contains a name may have a role."""
    if exact - {role} or role in _OPTIONAL:
        return False
    if role == "customer_id":
        return one.rank == 0 and column.distinct >= _FEWEST_VALUES
    if role == "order_id":
        return column.distinct >= _FEWEST_VALUES and not column.has_decimals and column.time is None
    if role == "amount":
        return not any(plain(word) in plain(column.name) for word in directory()["not_amounts"])
    return True


def _any(column: Column) -> bool:
    return column.filled > 0


def _is_id(column: Column) -> bool:
    return column.filled > 0 and column.distinct > 1 and not column.has_decimals and column.time is None


def _is_time(column: Column) -> bool:
    return column.filled > 0 and (column.time is not None or _epoch(column))


def _epoch(column: Column) -> bool:
    """Return whether numbers are days as systems write them: seconds, milliseconds, or eight digits."""
    return epoch_call(column) is not None


def _is_amount(column: Column) -> bool:
    return column.number is not None and column.filled > 0 and column.time is None


def _is_status(column: Column) -> bool:
    lists = ("left_out", "refunded")
    return column.distinct <= 60 and any(
        words_in("statuses", key, value) for key in lists for value in set(column.values)
    )


def _is_direction(column: Column) -> bool:
    return column.distinct <= 60 and any(words_in("directions", "returns", value) for value in set(column.values))


def _is_flag(column: Column) -> bool:
    return 0 < column.distinct <= 4


def _is_currency(column: Column) -> bool:
    return column.filled > 0 and column.distinct <= 40 and all(len(value) == 3 for value in set(column.values))


def _is_kind(column: Column) -> bool:
    known = directory()["kinds"]
    return 0 < column.distinct <= 100 and any(words_in("kinds", kind, v) for kind in known for v in set(column.values))


_FITS: dict[str, Callable[[Column], bool]] = {
    **dict.fromkeys(("customer_id", "order_id"), _is_id),
    **dict.fromkeys(("time", "due", "issued", "paid", "signup"), _is_time),
    **dict.fromkeys(("amount", "quantity", "price", "cost", "discount", "refund", "value"), _is_amount),
    **dict.fromkeys(("consent", "opt_out"), _is_flag),
    "status": _is_status,
    "direction": _is_direction,
    "currency": _is_currency,
    "kind": _is_kind,
}  # fmt: skip


def _is_product(roles: Roles) -> bool:
    """Return whether the best amount has a name that merely contains one, beside a quantity and a price."""
    amount = roles.get("amount")
    if amount is None or not {"quantity", "price"} <= roles.columns.keys():
        return False
    return not any(one.exact for one in named("amount", [amount.name]))


def by_values(columns: Mapping[str, Column], roles: Roles) -> None:
    """Find, by the values alone, the day, the amount and the customer that no name told."""
    for role, search in (("time", _times), ("amount", _amounts), ("customer_id", _customers)):
        if role in roles or (role == "amount" and {"quantity", "price"} <= roles.columns.keys()):
            continue
        used = {column.name for column in roles.columns.values()}
        exact = _exact_elsewhere(columns)
        free = [c for c in columns.values() if c.name not in used and not exact.get(c.name, set()) - {role}]
        if found := list(search(free, roles)):
            roles.columns[role], roles.others[role] = found[0], [column.name for column in found[1:3]]
            roles.guessed.add(role)


def _times(free: list[Column], _: Roles) -> Iterator[Column]:
    yield from sorted(
        (column for column in free if column.time is not None and column.filled > 0.5 and column.distinct > 1),
        key=lambda column: -column.distinct,
    )[:1]


def _amounts(free: list[Column], _: Roles) -> Iterator[Column]:
    words = [plain(word) for word in directory()["not_amounts"]]
    money = [c for c in free if c.has_decimals and c.distinct > _FEWEST_VALUES and c.filled > 0.5]
    fit = [c for c in money if not any(word in plain(c.name) for word in words)]
    yield from sorted(fit, key=lambda column: -column.distinct)


def _customers(free: list[Column], roles: Roles) -> Iterator[Column]:
    """Yield columns whose values repeat on several days, as customers do; personal data come last."""
    time = roles.get("time")
    if time is None:
        return
    found = []
    for column in free:
        if not _is_id(column) or column.filled < 0.5 or column.distinct < _FEWEST_VALUES:
            continue
        if column.number is not None and column.type != "VARCHAR" and column.distinct > 0.95 * len(column.values):
            continue
        days: dict[str, set[str]] = defaultdict(set)
        for value, day in zip(column.cells, time.cells, strict=True):
            if value is not None and day is not None:
                days[value].add(day[:10])
        on_days = sum(len(seen) for seen in days.values()) / max(len(days), 1)
        if on_days >= _REPEATED:
            found.append((column.personal in _PERSONAL | {"mobile"}, -column.distinct, column.name, column))
    yield from (column for *_, column in sorted(found, key=lambda one: one[:3]))


def kinds_of(kind: Column) -> dict[str, list[str]]:
    """Return the values of a column of events by the kind that they mean; each value once."""
    found: dict[str, list[str]] = {}
    for value in sorted(set(kind.values)):
        known = next((name for name in directory()["kinds"] if words_in("kinds", name, value)), None)
        if known is not None:
            found.setdefault(known, []).append(value)
    return found
