"""The parts of ``make bench BENCH=engine``; engine.py runs them in turn."""
