"""The asking side: the process of a notebook kernel or of the command line."""
