"""`python tests/cluster up|down|build|install`: the tests' own Kubernetes by hand."""

import sys
from pathlib import Path

# Run as a folder, Python looks for modules in here, where the package is not to be found.
sys.path[0] = str(Path(__file__).parents[1])

from cluster.by_hand import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
