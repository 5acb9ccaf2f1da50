"""Spark's daemon of Python workers that has imported, before it forks them, what takes each of them seconds."""

from importlib import import_module

if __name__ == "__main__":
    for module in ("tiermodel.engines.spark", "tiermodel.features.panel", "tiermodel.predict"):
        import_module(module)
    import_module("pyspark.daemon").manager()
