"""What is optimised, measured and written: tasks, their metrics and what of them is deployed."""
