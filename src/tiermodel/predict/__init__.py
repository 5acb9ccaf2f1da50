"""The predict module: snapshots of customers in, the score table out."""

from tiermodel.predict.batch import score, upgrades
from tiermodel.predict.table import predict, score_schema

__all__ = ["predict", "score", "score_schema", "upgrades"]
