"""Tasks run, in processes or on a cluster, and what is finished is kept."""
