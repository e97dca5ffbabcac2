"""Tests of ms-swift."""
