"""A user's pictures as inputs of a net, class activation maps, and the writers of predictions."""
