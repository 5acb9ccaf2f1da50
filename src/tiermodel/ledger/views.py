"""What is asked of the rows of a ledger, as SQL over `written`, the rows of its files in force."""

from __future__ import annotations

__all__ = ["EXPIRED", "STATE_BENEATH", "last_rows"]

_STATE = ("stable_code", "model_code", "stable_since", "asked", "asked_since")
_STATED = ", ".join(f"'{name}': {name}" for name in _STATE)


def last_rows(condition: str) -> str:
    """Return the SQL of each customer's last row among the rows that meet a condition."""
    return (
        f"select * from rows where {condition} "
        "qualify row_number() over (partition by customer_id order by valid_from desc, sequence desc) = 1 "
        "order by customer_id"
    )


# The state of the stability rule beneath an override is that of the last grading, which may have been corrected since.
STATE_BENEATH = f"""
    with stated as (
        select *, last_value(case when sequence = 0 then {{{_STATED}}} end ignore nulls)
            over (partition by customer_id order by valid_from, sequence rows unbounded preceding) as state
        from written where customer_id in (select customer_id from written where sequence > 0)
    )
    select * from written where customer_id not in (select customer_id from written where sequence > 0)
    union all by name
    select * exclude (state) replace (
        case when state.stable_code is not null then case when event = 'withdrawn' then state.stable_code
            else tier_code end end as tier_code,
        {", ".join(f"state.{name} as {name}" for name in _STATE)}
    ) from stated
"""

# What is in force from the end of an override on, where nothing else begins before or on that day.
EXPIRED = """
    ended as (
        select *, lead(valid_from) over (partition by customer_id order by valid_from, sequence) as next from mine
    ),
    expired as (
        select * exclude (next) replace (
            expires as valid_from, 'expired' as event, stable_code as tier_code, tier_code as previous_code,
            null as operator, null as expires
        ) from ended where operator is not null and expires is not null and (next is null or next > expires)
    )
"""
