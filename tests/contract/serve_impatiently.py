"""`nomadserve serve` that waits a second for a head, two for a body, and looks for slow clients all the time."""

import sys

from nomadserve.cli import main
from nomadserve_runtime import connection, server

connection.HEAD_S_MAX, connection.BODY_S_MAX, server.PACE_EVERY_S = 1.0, 2.0, 0.1

if __name__ == "__main__":
    sys.exit(main())
