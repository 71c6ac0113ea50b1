"""Teachers: where they are, what they write, what they say of each token, and whether they fit the student."""
