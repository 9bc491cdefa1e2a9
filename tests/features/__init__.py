"""Tests of the features: the oracle, generated histories, and a file per module."""
