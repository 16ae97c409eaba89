"""The HTTP front end. Imports no torch."""
