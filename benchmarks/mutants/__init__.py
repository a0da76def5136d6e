"""Careless changes, one at a time, and whether the tests of their area notice."""
