"""The predict module: snapshots of customers in, the score table out."""

from tiermodel.predict.batch import score
from tiermodel.predict.table import predict, score_schema
from tiermodel.predict.ways_up import upgrades

__all__ = ["predict", "score", "score_schema", "upgrades"]
