"""The service around the two pure packages: wire contract, model, explanation, store, HTTP."""
