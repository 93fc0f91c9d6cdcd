"""What sourcebus is compared with. Each module here is run as a process of its own, most of them in a virtual environment
of their own (`benchmarks.roster`), so they import nothing but the peer and the standard library's part of `benchmarks`."""
