"""A language model writes what items are wanted for, on Ray Data; offline, a template does."""
