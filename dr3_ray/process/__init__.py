"""The process that a command runs in: how it ends, the terminal it speaks to, the folders it writes to."""
