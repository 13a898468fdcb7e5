"""The command python -m nets.weights."""

import errors
from nets.weights import main

with errors.reported():
    main()
