"""Screens: what is shown together, and which message leads where."""
