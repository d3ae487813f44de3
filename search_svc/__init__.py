"""Search: a projection of products and their availability, and full-text queries with facets over it."""
