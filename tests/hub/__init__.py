"""A small real hub: the Hugging Face Hub's HTTP protocol, pull and push, over git repositories on disk."""
