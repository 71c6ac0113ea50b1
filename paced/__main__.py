"""`python -m paced` is the same as `paced`."""

from paced.cli import main

main()
