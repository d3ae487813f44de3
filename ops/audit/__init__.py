"""The auditor: read-only looks into every store, and what must hold between them."""
