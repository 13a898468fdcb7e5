"""The command python -m pipeline.convert."""

import errors
from pipeline.convert import main

if __name__ == "__main__":  # spawned processes import this module
    with errors.reported():
        main()
