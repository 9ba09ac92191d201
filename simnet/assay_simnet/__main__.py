"""`python -m assay_simnet` is `simnet`."""

import sys

from assay_simnet.cli import main

sys.exit(main())
