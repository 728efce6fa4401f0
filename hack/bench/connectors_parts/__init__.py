"""The parts of ``make bench BENCH=connectors``; connectors.py runs them in turn."""
