"""Every encoder on every runtime that this machine has, and why it has not the others."""
