"""The three clocks of `make bench-merge`, each run in processes of their own."""
