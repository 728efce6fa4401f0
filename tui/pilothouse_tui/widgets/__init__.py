"""Widgets: each owns its messages, its bindings with tooltips, and its styles."""
