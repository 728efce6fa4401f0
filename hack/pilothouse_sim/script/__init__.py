"""Stand-ins that cost little: scripted answers from prepared bytes, for measuring what stands before them."""
