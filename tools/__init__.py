"""What developers run in a clone of the repository, and nobody else."""
