"""The configuration: from a TOML file to a Config that is checked for this machine."""
