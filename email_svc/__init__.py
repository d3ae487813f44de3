"""Delivers notifications by e-mail."""
