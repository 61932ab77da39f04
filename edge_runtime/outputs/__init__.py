"""Where fixes go besides the log: map files, serial and network peers, recordings."""
