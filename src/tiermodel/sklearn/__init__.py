"""The project's learners as scikit-learn estimators, folds by time, and a transformer from transactions to features.

>>> from tiermodel.sklearn import ChurnClassifier
>>> ChurnClassifier(horizon_days=60).get_params()
{'horizon_days': 60, 'random_state': 7}
"""

from tiermodel.sklearn.churn import ChurnClassifier
from tiermodel.sklearn.folds import TimeFolds
from tiermodel.sklearn.snapshots import SnapshotTransformer
from tiermodel.sklearn.tier import TierClassifier
from tiermodel.sklearn.value import ValueRegressor

__all__ = ["ChurnClassifier", "SnapshotTransformer", "TierClassifier", "TimeFolds", "ValueRegressor"]
