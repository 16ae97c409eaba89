"""The exact SVD of s·BA in factor space, and every measure drawn from it."""
