"""Did it work: replies of any checkpoint, scored the same way."""
