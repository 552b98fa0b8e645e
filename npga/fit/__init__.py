"""Fitting one person's avatar to a tracked capture, and judging it."""
