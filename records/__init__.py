"""What is asked: records, the prompts that they become, and the files that hold them."""
