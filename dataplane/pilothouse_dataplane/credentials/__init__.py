"""As whom a call is made: linked accounts, exchanged and signed tokens, service accounts, and where they are kept."""
