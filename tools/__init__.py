"""What developers run in a clone of the repository; no user needs it."""
