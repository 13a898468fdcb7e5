"""The command python -m nets.summary."""

import errors
from nets.summary import main

with errors.reported():
    main()
