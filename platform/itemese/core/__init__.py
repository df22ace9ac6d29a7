"""Types, hashing, file layout and errors that every package may import."""
