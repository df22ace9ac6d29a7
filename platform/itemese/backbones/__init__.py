"""Language models by name, adapters, token vectors."""
