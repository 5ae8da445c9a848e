"""Failpoints: their own tests, faults that strike at one, and the sweep over all of them."""
