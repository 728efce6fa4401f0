"""Parts of `make bench BENCH=models`."""
