"""The demo world that ships with the tool: fictitious people, a small LLaVA that knows them, and questions."""
