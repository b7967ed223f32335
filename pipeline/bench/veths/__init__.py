"""Two network namespaces joined by veth pairs, and what forwards between them."""
