"""`python -m assay_coordinator` is `coordinator`."""

import sys

from assay_coordinator.cli import main

sys.exit(main())
