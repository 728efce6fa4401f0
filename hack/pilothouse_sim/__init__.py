"""Stand-ins for the systems that Pilothouse talks to: a Jira Cloud site and a model server, for local use and tests.

They are servers of their own, reached over HTTP exactly as the real ones are, so that nothing in the product knows of
them. ``python -m pilothouse_sim jira|models`` starts one.
"""
