"""What the core's effects become: rows in SQL, epochs on the chain, credit bundles."""
