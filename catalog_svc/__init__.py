"""The catalog: products, variants and prices."""
