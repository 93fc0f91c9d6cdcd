"""What sourcebus is compared with. Each module here is run as a process of its own."""
