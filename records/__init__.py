"""What is asked: records, the prompts they become, and the files they are read from."""
