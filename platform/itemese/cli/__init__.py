"""What the jobs and the command line share."""

import os

# The cluster says of every replica that ends with its service that a task failed. Ray reads the
# setting when it is imported.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "perform_graceful_shutdown failed")
