"""The coordinator: assigns jobs, audits receipts, keeps the ledger."""
