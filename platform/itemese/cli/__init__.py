"""What the jobs and the command line share."""
