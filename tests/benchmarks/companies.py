"""Make transaction logs of many kinds of company, each from a mechanism of its own and a seed.

They were written from what the field says about how customers behave, before any look at how the models work, so that a
benchmark on them may find where the models lose. Where a log begins, most customers have bought before (unknown to it).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.arrays import Flags, Floats, Ints

__all__ = ["WORLDS", "World"]

Times = tuple[Ints, Floats]  # who buys, and the day and part of the day, counted from the first day of the log
Rng = np.random.Generator

MONDAY = date(2022, 1, 3)
NEVER = np.inf


@dataclass(frozen=True)
class World:
    """Hold how a log is made, how many days it has, and on which of them, how far ahead, models are tested."""

    make: Callable[[Rng], pd.DataFrame]
    days: int
    horizon: int
    tests: tuple[int, ...]
    first: date

    @property
    def dates(self) -> list[str]:
        """Give the test dates."""
        return [str(self.first + timedelta(day)) for day in self.tests]

    def rows(self) -> pd.DataFrame:
        """Make the log: customer, time, amount, and what else the company keeps; the same rows every time."""
        made = self.make(np.random.default_rng(zlib.crc32(self.make.__name__.encode())))
        made = made[(made["when"] >= 0) & (made["when"] < self.days)].sort_values(["when", "customer"], kind="stable")
        time = pd.Timestamp(self.first) + pd.to_timedelta(np.floor(made["when"] * 86400), unit="s")
        ids = made["customer"].map("C{:05d}".format)
        return made.drop(columns="when").assign(customer=ids, time=time, amount=made["amount"].round(2))


WORLDS: dict[str, World] = {}


def world(
    days: int, horizon: int, *tests: int, first: date = MONDAY
) -> Callable[[Callable[[Rng], pd.DataFrame]], Callable[[Rng], pd.DataFrame]]:
    """Register a world; it is tested on its last fully observed day where no days are given."""

    def register(make: Callable[[Rng], pd.DataFrame]) -> Callable[[Rng], pd.DataFrame]:
        WORLDS[make.__name__] = World(make, days, horizon, tests or (days - horizon,), first)
        return make

    return register


def renewals(start: Floats, stop: Floats, gap: Callable[[Ints], Floats]) -> Times:
    """Buy at the start, then again `gap(who)` days later and so on, until `stop`; gaps are asked for in order."""
    now, who, when = start.copy(), [], []
    while len(live := np.flatnonzero(now < stop)):
        who.append(live)
        when.append(now[live])
        now[live] += gap(live)
    return np.concatenate(who), np.concatenate(when)


def poisson(rng: Rng, start: Floats, stop: Floats, rate: Floats) -> Times:
    """Buy at the start, then at random at a daily rate until `stop`."""
    who = np.repeat(np.arange(len(start)), rng.poisson(rate * np.maximum(stop - start, 0)))
    when = start[who] + rng.random(len(who)) * (stop - start)[who]
    return np.concatenate([np.arange(len(start)), who]), np.concatenate([start, when])


def kept(times: Times, keep: Flags) -> Times:
    """Leave purchases out."""
    return times[0][keep], times[1][keep]


def spend(rng: Rng, who: Ints, median: float, between: float = 0.6, within: float = 0.4) -> Floats:
    """Draw amounts, lognormal between customers and between purchases of one."""
    taste = rng.normal(0, between, who.max() + 1)
    return np.asarray(median * np.exp(taste[who] + rng.normal(0, within, len(who))))


def log(times: Times, amount: Floats, **columns: Any) -> pd.DataFrame:
    """Put purchases in a table."""
    return pd.DataFrame({"customer": times[0], "when": times[1], "amount": amount, **columns})


def lines(rng: Rng, orders: pd.DataFrame, more: float, products: int = 300) -> pd.DataFrame:
    """Split orders into 1 + Poisson(`more`) lines of products, of which few sell most."""
    orders = orders.assign(order=np.arange(len(orders)) + 100_000)
    rows = orders.loc[orders.index.repeat(1 + rng.poisson(more, len(orders)))].reset_index(drop=True)
    part = rng.gamma(2.0, 1.0, len(rows))
    part /= np.bincount(rows["order"] - 100_000, part)[rows["order"] - 100_000]
    product = (products * rng.beta(0.6, 2.0, len(rows))).astype(int)
    return rows.assign(amount=rows["amount"] * part, product=pd.Series(product).map("P{:03d}".format))


def bell(when: Floats, middle: float, width: float) -> Floats:
    """Rise to 1 around a day of the year; day 0 is the Monday of the first week of 2022."""
    off = (when + 2 - middle + 182.6) % 365.25 - 182.6
    return np.asarray(np.exp(-0.5 * (off / width) ** 2))


@world(540, 60)
def replenishment(rng: Rng) -> pd.DataFrame:
    """Refill regularly (gamma gaps around a mean of each one's own), and leave at a purchase now and then."""
    n = 3000
    mean, leave = rng.lognormal(np.log(28), 0.5, n), rng.beta(1, 12, n)
    times = renewals(
        rng.uniform(-300, 540, n),
        np.full(n, 540.0),
        lambda i: np.where(rng.random(len(i)) < leave[i], NEVER, rng.gamma(4, 0.25, len(i)) * mean[i]),
    )
    quantity = rng.integers(1, 4, len(times[0]))
    return log(times, quantity * spend(rng, times[0], 15), quantity=quantity)


@world(600, 30)
def subscription(rng: Rng) -> pd.DataFrame:
    """Pay for a plan every month, sometimes a few days late, and cancel at a rate of each one's own."""
    n = 4000
    leave, price = rng.beta(1.2, 12, n), rng.choice([9.9, 19.9, 49.9], n, p=[0.5, 0.35, 0.15])
    who, due = renewals(
        rng.uniform(-500, 600, n),
        np.full(n, 600.0),
        lambda i: np.where(rng.random(len(i)) < leave[i], NEVER, 30.4375),
    )
    return log((who, due + np.where(rng.random(len(who)) < 0.06, rng.uniform(1, 9, len(who)), 0)), price[who])


@world(900, 90)
def contracts(rng: Rng) -> pd.DataFrame:
    """Order under yearly contracts, three in ten of which are not renewed; a few accounts bring most (Pareto)."""
    n = 1500
    start, gap, size = rng.uniform(-700, 880, n), rng.lognormal(np.log(25), 0.6, n), 400 * (1 + rng.pareto(1.3, n))
    stop = start + 365 * rng.geometric(0.3, n)
    times = renewals(start, np.minimum(stop, 900), lambda i: rng.gamma(2, 0.5, len(i)) * gap[i])
    made = lines(rng, log(times, size[times[0]] * rng.lognormal(0, 0.6, len(times[0]))), 2.0, 80)
    return made.assign(cost=made["amount"] * rng.uniform(0.55, 0.85, n)[made["customer"]])


@world(450, 90)
def marketplace(rng: Rng) -> pd.DataFrame:
    """Buy once, most of them; few come back and stay."""
    n = 8000
    start = rng.uniform(-200, 450, n)
    stays = np.where(rng.random(n) < 0.78, 0, rng.exponential(200, n))
    times = poisson(rng, start, np.minimum(start + stays, 450), rng.gamma(0.8, 1 / 30, n))
    return log(times, spend(rng, times[0], 35, 0.7, 0.7))


def _yearly(rng: Rng, n: int, days: int, offset: float) -> pd.DataFrame:
    start = rng.uniform(-500, days, n)
    stop = np.minimum(start + rng.exponential(700, n), days)
    times = poisson(rng, start, stop, 4 * rng.gamma(1.2, 1 / 90, n))
    christmas = bell(times[1] + offset, 345, 18)
    times = kept(times, rng.random(len(times[0])) < (1 + 3 * christmas) / 4)
    made = log(times, spend(rng, times[0], 40) * (1 + 0.5 * bell(times[1] + offset, 345, 18)))
    return made.assign(order=np.arange(len(made)))


@world(1094, 90, 913, 1003)
def christmas(rng: Rng) -> pd.DataFrame:
    """Buy four times as often before Christmas; two Christmases are known at the first test date and at the second."""
    return _yearly(rng, 3000, 1094, 0)


@world(427, 90, 337, first=date(2023, 11, 1))
def first_christmas(rng: Rng) -> pd.DataFrame:
    """Have the same season, but a log of 14 months: only the second Christmas could be forecast, from the first."""
    return _yearly(rng, 3000, 427, 667)


@world(400, 30)
def startup(rng: Rng) -> pd.DataFrame:
    """Grow e-fold every 67 days: most customers are new."""
    n = 6000
    start = 400 * np.log1p(rng.random(n) * np.expm1(6)) / 6
    times = poisson(rng, start, np.minimum(start + rng.exponential(130, n), 400), rng.gamma(0.9, 1 / 22, n))
    return lines(rng, log(times, spend(rng, times[0], 30)), 0.8)


@world(700, 60)
def decline(rng: Rng) -> pd.DataFrame:
    """Come less and less, all of them, and fewer join."""
    n = 3000
    start = -500 + 1200 * rng.beta(1, 1.8, n)
    times = poisson(rng, start, np.minimum(start + rng.exponential(600, n), 700), 3 * rng.gamma(1.3, 1 / 40, n))
    times = kept(times, rng.random(len(times[0])) < np.exp(-(times[1] + 500) / 450))
    return log(times, spend(rng, times[0], 25))


@world(520, 60)
def bursts(rng: Rng) -> pd.DataFrame:
    """Buy on the same campaign days (15 of them, irregular), each one as prone as to no other; seldom between."""
    n, days = 4000, np.sort(rng.integers(5, 515, 15))
    start, prone = rng.uniform(-300, 500, n), rng.beta(0.8, 2.5, n)
    stop = start + rng.exponential(500, n)
    comes = (rng.random((n, 15)) < prone[:, None]) & (days > start[:, None]) & (days < stop[:, None])
    who, which = np.nonzero(comes)
    base = poisson(rng, start, np.minimum(stop, 520), np.full(n, 1 / 130))
    times = np.concatenate([base[0], who]), np.concatenate([base[1], days[which] + rng.random(len(who))])
    off = np.where(np.arange(len(times[0])) < len(base[0]), 0.0, 0.3)
    full = spend(rng, times[0], 45)
    return log(times, full * (1 - off), discount=(full * off).round(2))


@world(530, 60, 470)
def price_rise(rng: Rng) -> pd.DataFrame:
    """Pay a quarter more from day 400 on; half of the customers then come 60 % less. Tested 70 days later."""
    n = 3000
    start, minds = rng.uniform(-300, 530, n), rng.random(n) < 0.5
    times = poisson(rng, start, np.minimum(start + rng.exponential(500, n), 530), rng.gamma(1.5, 1 / 30, n))
    after = times[1] > 400
    times = kept(times, ~(after & minds[times[0]]) | (rng.random(len(after)) < 0.4))
    return lines(rng, log(times, spend(rng, times[0], 30) * np.where(times[1] > 400, 1.25, 1.0)), 1.0)


@world(500, 60)
def tourists(rng: Rng) -> pd.DataFrame:
    """Mix locals, who come for years, with tourists, who buy for a week, souvenirs mostly, and never again."""
    n = 5000
    start, local = rng.uniform(-200, 500, n), rng.random(n) < 0.3
    stop = start + np.where(local, rng.exponential(600, n), rng.uniform(1, 9, n))
    gap = np.where(local, rng.lognormal(np.log(20), 0.5, n), 4)
    times = renewals(start, np.minimum(stop, 500), lambda i: rng.gamma(1.5, 1 / 1.5, len(i)) * gap[i])
    souvenir = rng.random(len(times[0])) < np.where(local[times[0]], 0.12, 0.75)
    return log(times, spend(rng, times[0], 22), category=np.where(souvenir, "souvenirs", "food"))


@world(2900, 365)
def durables(rng: Rng) -> pd.DataFrame:
    """Replace what lasts for years when it wears out, and buy accessories soon after."""
    n = 5000
    life = rng.lognormal(np.log(1100), 0.4, n)
    main = renewals(
        rng.uniform(-1500, 2900, n), np.full(n, 2900.0),
        lambda i: np.where(rng.random(len(i)) < 0.25, NEVER, rng.weibull(3, len(i)) * life[i]),
    )  # fmt: skip
    extra = kept((main[0], main[1] + rng.uniform(5, 70, len(main[0]))), rng.random(len(main[0])) < 0.4)
    rows = log(main, spend(rng, main[0], 900, 0.4, 0.2), category="machine")
    return pd.concat([rows, log(extra, spend(rng, extra[0], 60), category="accessory")], ignore_index=True)


def _leaving(rng: Rng, n: int, days: int, rate: float, stay: float) -> Times:
    start = rng.uniform(-days / 2, days, n)
    return poisson(rng, start, np.minimum(start + rng.exponential(stay, n), days), rng.gamma(1.0, rate, n))


@world(150, 30)
def short_log(rng: Rng) -> pd.DataFrame:
    """Know five months only."""
    times = _leaving(rng, 2500, 150, 1 / 15, 200)
    return lines(rng, log(times, spend(rng, times[0], 20)), 1.5)


@world(500, 60, 410, 440)
def tiny(rng: Rng) -> pd.DataFrame:
    """Have 250 customers."""
    times = _leaving(rng, 250, 500, 1 / 30, 400)
    return log(times, spend(rng, times[0], 80, 0.9))


@world(600, 90)
def fashion(rng: Rng) -> pd.DataFrame:
    """Send back three lines in ten, some customers nearly all, one to three weeks after the order."""
    n = 4000
    times = _leaving(rng, n, 600, 1 / 50, 450)
    made = lines(rng, log(times, spend(rng, times[0], 90, 0.5)), 1.5)
    made["category"] = rng.choice(["shoes", "dresses", "basics"], len(made))
    back = made[rng.random(len(made)) < rng.beta(0.9, 2, n)[made["customer"]]]
    return pd.concat([made, back.assign(when=back["when"] + rng.uniform(5, 25, len(back)), amount=-back["amount"])])


@world(370, 30)
def grocer(rng: Rng) -> pd.DataFrame:
    """Shop on a weekday of one's own, not every week, with lapses of weeks, and move away at last."""
    n = 1500
    start, day, comes = rng.uniform(-300, 370, n), rng.integers(0, 7, n), rng.beta(5, 2, n)
    who, week = np.nonzero(rng.random((n, 53)) < comes[:, None])
    when = 7.0 * week + day[who] + rng.choice([0, 0, 0, 1, -1], len(who)) + rng.uniform(0.35, 0.9, len(who))
    lapse = rng.uniform(0, 370, n)
    here = (when > start[who]) & (when < (start + rng.exponential(700, n))[who])
    here &= (when < lapse[who]) | (when > (lapse + rng.exponential(25, n))[who])
    made = lines(rng, log((who[here], when[here]), spend(rng, who[here], 45, 0.5)), 3.0)
    return made.assign(category=made["product"].str[1].map("aisle {}".format), quantity=rng.integers(1, 4, len(made)))


@world(800, 60)
def winback(rng: Rng) -> pd.DataFrame:
    """Go and come back: phases of buying (120 days on average) alternate with phases of silence (200 days)."""
    n = 3000
    phase = np.cumsum(rng.exponential(np.tile([120.0, 200.0], 8), (n, 16)), axis=1) + rng.uniform(-500, 800, n)[:, None]
    starts, ends = phase[:, 1:-1:2], phase[:, 2::2]
    who = np.repeat(np.arange(n), starts.shape[1])
    visit, when = poisson(rng, starts.ravel(), np.minimum(ends, 800).ravel(), np.full(starts.size, 1 / 18))
    return log((who[visit], when), spend(rng, who[visit], 30))


@world(650, 30, 558, 615)
def holidays(rng: Rng) -> pd.DataFrame:
    """Buy every nine days or so, except in a summer holiday of four to seven weeks, each year at the same time."""
    n = 2000
    start, mean = rng.uniform(-300, 600, n), rng.lognormal(np.log(9), 0.4, n)
    stop = np.minimum(start + rng.exponential(700, n), 650)
    times = renewals(start, stop, lambda i: rng.gamma(3, 1 / 3, len(i)) * mean[i])
    away, weeks = rng.normal(205, 14, n), rng.uniform(4, 7, n)
    times = kept(times, ~((times[1] + 2 - away[times[0]]) % 365.25 < 7 * weeks[times[0]]))
    return lines(rng, log(times, spend(rng, times[0], 28)), 1.0)


@world(500, 60)
def bad_experience(rng: Rng) -> pd.DataFrame:
    """Have one purchase in 25 go wrong: it is refunded three days later, and three in four then stay away."""
    n = 5000
    mean, wrong = rng.lognormal(np.log(25), 0.5, n), []

    def gap(i: Ints) -> Floats:
        wrong.append(rng.random(len(i)) < 0.04)
        leaves = rng.random(len(i)) < np.where(wrong[-1], 0.75, 0.01)
        return np.where(leaves, NEVER, rng.gamma(2, 0.5, len(i)) * mean[i])

    times = renewals(rng.uniform(-250, 500, n), np.full(n, 500.0), gap)
    made = lines(rng, log(times, spend(rng, times[0], 40), wrong=np.concatenate(wrong)), 0.7)
    back = made[made["wrong"]]
    return pd.concat([made, back.assign(when=back["when"] + 3, amount=-back["amount"])]).drop(columns="wrong")


@world(540, 60)
def categories(rng: Rng) -> pd.DataFrame:
    """Return soon after consumables, late after gifts, hardly after furniture; who buys clearance is about to leave."""
    n = 4000
    names, days = np.array(["consumables", "gifts", "furniture", "clearance"]), np.array([18.0, 110.0, 300.0, 30.0])
    taste, leaving, bought = rng.dirichlet([0.9, 0.5, 0.4], n).cumsum(axis=1), np.zeros(n, bool), []

    def gap(i: Ints) -> Floats:
        what = np.where(leaving[i], 3, np.minimum((rng.random(len(i))[:, None] > taste[i]).sum(axis=1), 2))
        bought.append(what)
        gone = leaving[i] & (rng.random(len(i)) < 0.6)
        leaving[i] |= rng.random(len(i)) < 0.08
        return np.where(gone, NEVER, rng.gamma(3, 1 / 3, len(i)) * days[what])

    times = renewals(rng.uniform(-250, 540, n), np.full(n, 540.0), gap)
    what = np.concatenate(bought)
    product = pd.Series(names[what]).str[0].str.upper() + pd.Series(rng.integers(10, 40, len(what))).astype(str)
    price = np.array([15.0, 40.0, 250.0, 20.0])[what]
    return log(times, price * rng.lognormal(0, 0.3, len(what)), category=names[what], product=product.to_numpy())


@world(560, 60)
def discount_hunters(rng: Rng) -> pd.DataFrame:
    """Buy in the promotion week of every fourth only, more than half of the customers; the others at any time."""
    n = 4000
    start, hunter = rng.uniform(-300, 560, n), rng.random(n) < 0.55
    stop = np.minimum(start + rng.exponential(np.where(hunter, 250, 600)), 560)
    times = poisson(rng, start, stop, rng.gamma(1.2, 1 / 20, n) * np.where(hunter, 1.5, 0.6))
    promoted = times[1] % 28 < 7
    times = kept(times, promoted | ~hunter[times[0]])
    off, full = np.where(times[1] % 28 < 7, 0.3, 0.0), spend(rng, times[0], 35)
    discount, cost = (full * off).round(2), (full * 0.5).round(2)
    return lines(rng, log(times, full * (1 - off)), 0.0).assign(discount=discount, cost=cost)


@world(720, 90)
def inflation(rng: Rng) -> pd.DataFrame:
    """Pay 3 % more every month."""
    times = _leaving(rng, 3000, 720, 1 / 30, 500)
    return log(times, spend(rng, times[0], 30, 0.6, 0.3) * 1.03 ** (times[1] / 30.44))


@world(540, 180)
def bg_nbd(rng: Rng) -> pd.DataFrame:
    """Live by BG/NBD to the letter, one cohort of the first three months: the home ground of a baseline."""
    n = 5000
    rate, leave = rng.gamma(0.7, 1 / 25, n), rng.beta(0.9, 3, n)
    times = renewals(
        rng.uniform(0, 90, n), np.full(n, 540.0),
        lambda i: np.where(rng.random(len(i)) < leave[i], NEVER, rng.exponential(1 / rate[i])),
    )  # fmt: skip
    return log(times, rng.gamma(6, 1 / 6, len(times[0])) * (90 / rng.gamma(4, 1, n))[times[0]])


@world(500, 60)
def no_leaving(rng: Rng) -> pd.DataFrame:
    """Buy at random at a rate of one's own for ever: silence says nothing but how low the rate is."""
    n = 4000
    times = poisson(rng, rng.uniform(-400, 500, n), np.full(n, 500.0), rng.gamma(0.8, 1 / 40, n))
    return log(times, spend(rng, times[0], 50))


@world(1100, 60)
def birthdays(rng: Rng) -> pd.DataFrame:
    """Buy gifts on the same one to four days of every year, three times in four."""
    n = 3000
    who = np.repeat(np.arange(n), rng.integers(1, 5, n))
    start, occasion = rng.uniform(-700, 1000, n), rng.uniform(0, 365, len(who))
    stop = start + rng.exponential(1500, n)
    found = []
    for year in range(4):
        when = 365.25 * year + occasion - rng.uniform(2, 18, len(who))
        found.append(kept((who, when), (when > start[who]) & (when < stop[who]) & (rng.random(len(who)) < 0.75)))
    times = np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])
    return log(times, spend(rng, times[0], 35, 0.4, 0.5))


@world(1100, 60)
def baby_shop(rng: Rng) -> pd.DataFrame:
    """Buy for a child, seldomer as it grows, dearer too, and hardly any longer once it is two."""
    n = 3000
    start, left = rng.uniform(-600, 1100, n), rng.normal(650, 60, n)  # days left until the child is too old
    pace = rng.lognormal(np.log(18), 0.4, n)
    now = start.copy()

    def gap(i: Ints) -> Floats:
        days = rng.gamma(2, 0.5, len(i)) * pace[i] * (1 + (now[i] - start[i]) / 500)
        now[i] += days
        return days

    times = renewals(start, np.minimum(start + left * rng.beta(6, 1, n), 1100), gap)
    age = (times[1] - start[times[0]]) / 365
    return lines(rng, log(times, spend(rng, times[0], 30) * (1 + 0.4 * age)), 1.0)
