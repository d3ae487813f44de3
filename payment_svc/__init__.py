"""Payments: authorised, captured and voided at a provider, each exactly once."""
