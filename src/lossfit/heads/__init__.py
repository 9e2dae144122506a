"""Last layers of a classifier, and margins on the target's score."""
