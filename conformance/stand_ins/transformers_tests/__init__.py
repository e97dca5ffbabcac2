"""The common tests of transformers, which `run.py` puts here, and stand-ins for what they import."""
