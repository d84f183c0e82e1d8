"""What is written: files whole or not at all, cells of tables, lines of a terminal."""
