"""From a net in a session to files that other programs run, compared with the checkpoint."""
