"""CT and label maps, in; files, written whole.  May import the base alone."""
