"""Work lists: whom to keep, to win back and to develop, and whose tier to look at again."""
