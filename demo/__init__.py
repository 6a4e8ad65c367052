"""The embedded demo world: fictitious people, the small LLaVA that knows them, and the questions asked about them."""
