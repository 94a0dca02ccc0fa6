"""One way to show a number, a table or a picture."""
