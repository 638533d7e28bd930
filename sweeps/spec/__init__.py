"""What a sweep is: its settings, its search space, what it is after; read from YAML, ``--set`` and options."""
