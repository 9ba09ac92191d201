"""`python -m assay_node` is `node`, without the hand-over to Node.js."""

import sys

from assay_node.cli import main

sys.exit(main())
