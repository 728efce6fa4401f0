"""Stand-ins for the systems that Pilothouse talks to, for local use and tests: see README.md.

They are servers of their own, reached over HTTP exactly as the real ones are, so that nothing in the product knows of
them. ``python -m pilothouse_sim SYSTEM`` starts one.
"""
