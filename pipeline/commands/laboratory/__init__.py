"""Two hosts in network namespaces, joined through ringline: for `ringline lab`."""
